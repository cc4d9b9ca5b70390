//! Strangers: the wrong certificate, none, a forged header, and bytes that mean nothing, on every port.

use outrigger_e2e::app;
use outrigger_e2e::http::{self, Echo, Response};
use outrigger_e2e::mesh::{Mesh, Meshed, TRUST, until_status};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::pod::Pod;
use outrigger_e2e::tls::{self, Authority, Own, Validity};
use outrigger_e2e::wait;
use std::io::{self, Read, Write};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: server\r\nconnection: close\r\n\r\n";

/// A meshed server with an application on 8080, and a pod without a proxy.
fn server_and_stranger() -> (Mesh, Meshed, Pod) {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080, 9000]).meshed();
    let stranger = mesh.pod("stranger").unmeshed();
    Echo::serve(&server, 8080);
    (mesh, server, stranger)
}

/// What the server's proxy answers to a client with this certificate.
fn ask_as(stranger: &Pod, server: &Meshed, own: Option<&Own>) -> io::Result<String> {
    let stream = stranger.connect(server.addr(8080))?;
    let answer = tls::ask(stream, server.identity(), own, GET)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn a_client_is_known_by_a_certificate_of_the_mesh_and_refused_with_any_other() {
    let (mesh, server, stranger) = server_and_stranger();
    let authority = Authority::of(&mesh.state("state"));
    let name = format!("mallory.demo.{TRUST}");
    let good = ask_as(&stranger, &server, Some(&authority.issue(&name, Validity::Now))).unwrap();
    assert!(good.contains(&format!("l5d-client-id: {name}")), "{good}");
    for (why, own) in [
        ("expired", authority.issue(&name, Validity::Over)),
        (
            "of another authority",
            Authority::stranger().issue(&name, Validity::Now),
        ),
        ("self-signed", tls::self_signed(&name)),
    ] {
        let answer = ask_as(&stranger, &server, Some(&own));
        assert!(answer.is_err(), "a certificate that is {why}: {answer:?}");
    }
    let nameless = ask_as(&stranger, &server, None).unwrap();
    assert!(
        nameless.starts_with("HTTP/1.1 200") && !nameless.contains("l5d-client-id"),
        "{nameless}"
    );
    assert_unharmed(&server);
}

#[test]
fn connections_to_the_proxys_own_port_must_be_mutually_authenticated() {
    let (mesh, server, stranger) = server_and_stranger();
    let own = Authority::of(&mesh.state("state")).issue(&format!("mallory.demo.{TRUST}"), Validity::Now);
    let connect = || stranger.connect(server.addr(4143)).unwrap();
    // Plaintext, TLS without a certificate, and TLS that did not negotiate the transport header.
    assert_eq!(answer_to(&mut connect(), GET), b"");
    for own in [None, Some(&own)] {
        let answer = tls::ask(connect(), server.identity(), own, GET);
        assert!(answer.as_ref().map_or(true, Vec::is_empty), "{answer:?}");
    }
    assert_unharmed(&server);
}

#[test]
fn a_server_with_any_other_certificate_never_sees_a_request() {
    let mesh = Mesh::start();
    let client = mesh.pod("client").meshed();
    let authority = Authority::of(&mesh.state("state"));
    let anchors = mesh.trust_anchors();
    for (name, own) in [
        (
            "wrong",
            authority.issue(&format!("mallory.demo.{TRUST}"), Validity::Now),
        ),
        (
            "expired",
            authority.issue(&format!("expired.demo.{TRUST}"), Validity::Over),
        ),
        (
            "untrusted",
            Authority::stranger().issue(&format!("untrusted.demo.{TRUST}"), Validity::Now),
        ),
    ] {
        // The manifest says that this pod has a proxy; what listens there only pretends to be one.
        let impostor = mesh.pod(name).ports(&[8080]).impostor();
        for port in [4143, 8080] {
            tls::serve(
                impostor.listen(port),
                &own,
                Some(&anchors),
                b"HTTP/1.1 200 OK\r\n\r\nfooled",
            );
        }
        let service = mesh.service(name, 80, &[(&impostor, 8080)]);
        let response = refused(&client, service, name);
        assert!(!response.body.contains("fooled"), "{name}: {response:?}");
        assert!(
            !response.header("l5d-proxy-error").is_empty(),
            "{name}: {response:?}"
        );
    }
    assert_unharmed(&client);
}

/// The answer to a request for a service that can not be trusted.
fn refused(client: &Pod, service: std::net::SocketAddr, name: &str) -> Response {
    let response = http::get(client, service, name, "/", &[]);
    assert!([502, 503, 504].contains(&response.status), "{name}: {response:?}");
    response
}

#[test]
fn the_audit_policy_lets_everybody_in_and_says_so() {
    let mesh = Mesh::start();
    let server = mesh
        .pod("server")
        .ports(&[8080, 9000])
        .annotation("config.linkerd.io/default-inbound-policy", "audit")
        .meshed();
    let stranger = mesh.pod("stranger").unmeshed();
    let _echo = Echo::serve(&server, 8080);
    app::pipe(&server, 9000, "");
    let logged = |text: &str| server.proxy().log().contains(text).then_some(());
    wait::until("the policy to be there", || {
        let response = http::get(&stranger, server.addr(8080), "server", "/", &[]);
        assert_eq!(response.status, 200, "{response:?}");
        logged("Request allowed: the policy only audits")
    });
    let mut stream = stranger.connect(server.addr(9000)).unwrap();
    assert_eq!(app::send_all(&mut stream, b"\x01out").unwrap(), b"\x01out");
    wait::until("the connection to be logged", || {
        logged("Connection allowed: the policy only audits")
    });
}

#[test]
fn where_identity_is_asked_for_a_client_without_one_is_turned_away() {
    let mesh = Mesh::start();
    let policy = ("config.linkerd.io/default-inbound-policy", "all-authenticated");
    let server = mesh
        .pod("server")
        .ports(&[8080, 9000])
        .annotation(policy.0, policy.1)
        .meshed();
    let client = mesh.pod("client").meshed();
    let stranger = mesh.pod("stranger").unmeshed();
    let echo = Echo::serve(&server, 8080);
    app::pipe(&server, 9000, "");
    until_status(&client, server.addr(8080), "server", 200);
    let before = echo.requests();
    let response = http::get(&stranger, server.addr(8080), "server", "/", &[]);
    assert_eq!(response.status, 403, "{response:?}");
    assert_eq!(echo.requests(), before);
    let mut stream = client.connect(server.addr(9000)).unwrap();
    assert_eq!(app::send_all(&mut stream, b"\x01in").unwrap(), b"\x01in");
    let mut stream = stranger.connect(server.addr(9000)).unwrap();
    assert_eq!(answer_to(&mut stream, b"\x01out"), b"");
    let metrics = Metrics::of(&server);
    assert_eq!(
        metrics.sum("inbound_http_authz_deny_total", &[("target_port", "8080")]),
        1.0
    );
    assert_eq!(
        metrics.sum("inbound_tcp_authz_deny_total", &[("target_port", "9000")]),
        1.0
    );
}

#[test]
fn a_forged_client_id_never_reaches_the_application() {
    let (mesh, server, stranger) = server_and_stranger();
    let client = mesh.pod("client").meshed();
    let forged = ["l5d-client-id: admin.demo", "L5D-Client-ID: root.demo"];
    let response = http::get(&stranger, server.addr(8080), "server", "/", &forged);
    assert!(
        response.status == 200 && !response.body.contains("l5d-client-id"),
        "{response:?}"
    );
    let response = http::get(&client, server.addr(8080), "server", "/", &forged);
    let named: Vec<_> = response
        .body
        .lines()
        .filter(|line| line.contains("l5d-client-id"))
        .collect();
    assert_eq!(named, [format!("l5d-client-id: {}", client.identity())]);
}

#[test]
fn garbage_on_every_port_harms_nobody() {
    let (_mesh, server, stranger) = server_and_stranger();
    app::pipe(&server, 9000, "");
    // What no proxy needs to understand: halves and impossible forms of TLS, HTTP/1, HTTP/2, transport headers.
    let garbage: [&[u8]; 12] = [
        b"",
        b"\0",
        &[0xff; 20_000],
        b"\x16\x03\x01\xff\xff\x01\0\0\x05hello",
        b"\x16\x03\x01\0\x05\x01\x00\x00\x01\x00",
        b"GET",
        b"GET / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x04\x01\x05\0\0\0\x01\xff\xff\xff\xff",
        b"transport.l5d.io/v1\r\n\r\n\xff\xff\xff\xffheader",
    ];
    for bytes in garbage {
        for port in [4143, 4191, 8080, 9000] {
            answer_to(&mut stranger.connect(server.addr(port)).unwrap(), bytes);
        }
        for port in [4140, 4143, 4191] {
            answer_to(&mut server.connect(([127, 0, 0, 1], port)).unwrap(), bytes);
        }
        // As an application of the pod, to somebody outside.
        answer_to(&mut server.connect((stranger.ip(), 7777)).unwrap(), bytes);
    }
    let own = ask_as(&stranger, &server, None).unwrap();
    assert!(own.starts_with("HTTP/1.1 200"), "{own}");
    assert_unharmed(&server);
}

#[test]
fn a_connection_that_is_redirected_to_the_proxy_itself_makes_no_loop() {
    let (_mesh, server, _) = server_and_stranger();
    for port in [4140, 4143] {
        let mut stream = server.connect(([127, 0, 0, 1], port)).unwrap();
        answer_to(&mut stream, GET);
    }
    let opened = Metrics::of(&server).sum("tcp_open_total", &[("peer", "src")]);
    assert!(
        opened < 10.0,
        "the proxy connected to itself: {opened} connections"
    );
    assert_unharmed(&server);
}

/// Sends this, ends its side, and reads what comes until the other side ends, however it does.
fn answer_to(stream: &mut std::net::TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    // Whatever fails here, fails because the proxy has closed: that is an answer too.
    let _ = stream
        .write_all(bytes)
        .and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_ne!(
            error.kind(),
            io::ErrorKind::WouldBlock,
            "no end of the connection after {bytes:?}"
        );
    }
    answer
}

/// The proxy runs, is ready, and nothing in it has panicked.
fn assert_unharmed(pod: &Meshed) {
    assert!(pod.proxy().runs() && pod.is_ready());
    assert_eq!(Metrics::of(pod).sum("outrigger_panics_total", &[]), 0.0);
}
