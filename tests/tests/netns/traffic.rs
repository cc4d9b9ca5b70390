//! What passes between two pods: each protocol unchanged, and under which identities.

use outrigger_e2e::app;
use outrigger_e2e::capture::Capture;
use outrigger_e2e::http::{self, Echo};
use outrigger_e2e::mesh::{Mesh, Meshed};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::{tls, wait};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

/// A mesh with a meshed server on these ports and a meshed client.
fn pair(ports: &[u16]) -> (Mesh, Meshed, Meshed) {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(ports).meshed();
    let client = mesh.pod("client").meshed();
    (mesh, server, client)
}

#[test]
fn curl_speaks_http1_and_http2_with_nginx() {
    let (mesh, server, client) = pair(&[8080, 8081]);
    mesh.service("web", 80, &[(&server, 8080)]);
    mesh.service("web2", 80, &[(&server, 8081)]);
    let _nginx = app::nginx(&server);
    let identity = client.identity();
    let answer = client.sh("curl -sS --max-time 20 http://web/");
    assert!(
        answer.contains(&format!("HTTP/1.1 for web from {identity}")),
        "{answer}"
    );
    let answer = client.sh("curl -sS --max-time 20 --http2-prior-knowledge http://web2/");
    assert!(
        answer.contains(&format!("HTTP/2.0 for web2 from {identity}")),
        "{answer}"
    );
    let answer = client.sh("curl -sS --max-time 20 --http1.0 -i http://web/");
    assert!(
        answer.contains(&format!("HTTP/1.0 for web from {identity}")),
        "{answer}"
    );
}

#[test]
fn a_request_in_single_bytes_is_still_http() {
    let (mesh, server, client) = pair(&[8080]);
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    Echo::serve(&server, 8080);
    let mut stream = client.connect(web).unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(client.identity()),
        "{answer}"
    );
}

#[test]
fn grpcio_calls_grpcio_unary_and_streaming() {
    let (mesh, server, client) = pair(&[50051]);
    mesh.service("greeter", 50051, &[(&server, 50051)]);
    let _greeter = app::greeter(&server, 50051);
    let printed = app::call_greeter(&client, "greeter:50051");
    let expected = format!(
        "unary: hello mesh, you are {}
server streaming: 0 1 2 3 4
both streaming: HERE AND BACK
failure: FAILED_PRECONDITION on purpose asked to
",
        client.identity()
    );
    assert_eq!(printed, expected);
}

#[test]
fn mariadb_speaks_first_on_its_port_without_any_annotation() {
    let (mesh, server, client) = pair(&[3306]);
    mesh.service("db", 3306, &[(&server, 3306)]);
    let _mariadb = app::mariadb(&server);
    assert_eq!(app::query_mariadb(&client, "db", "SELECT 6 * 7"), "42\n");
    assert_opened_under_identities(&client, &server, 3306);
}

#[test]
fn postgresql_is_reached_on_any_port_with_its_own_tls() {
    let (mesh, server, client) = pair(&[15432]);
    mesh.service("db", 15432, &[(&server, 15432)]);
    let _postgres = app::postgres(&server);
    assert_eq!(app::query_postgres(&client, "db", "SELECT 6 * 7"), "42\n");
    assert_opened_under_identities(&client, &server, 15432);
}

#[test]
fn openssl_reaches_an_application_that_terminates_its_own_tls() {
    let (mesh, server, client) = pair(&[9443]);
    mesh.service("vault", 9443, &[(&server, 9443)]);
    let own = tls::self_signed("vault");
    tls::serve(server.listen(9443), &own, None, b"deep in the vault\n");
    let trusted = client.file("vault.crt", &own.certificate);
    let answer = client.sh(&format!(
        "echo knock | openssl s_client -connect vault:9443 -servername vault -CAfile {trusted} -verify_return_error \
         -verify_hostname vault -ign_eof -quiet 2>/dev/null"
    ));
    assert_eq!(answer, "deep in the vault\n");
    assert_opened_under_identities(&client, &server, 9443);
}

#[test]
fn a_pipe_carries_bytes_that_are_no_known_protocol_both_ways() {
    let (mesh, server, client) = pair(&[9000]);
    let pipe = mesh.service("pipe", 9000, &[(&server, 9000)]);
    app::pipe(&server, 9000, "");
    let mut stream = client.connect(pipe).unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut writer = stream.try_clone().unwrap();
    let bytes = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&bytes).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(
        received == sent,
        "{} bytes of {} came back, or others",
        received.len(),
        sent.len()
    );
    assert_opened_under_identities(&client, &server, 9000);
}

#[test]
fn a_server_that_speaks_first_needs_nothing_configured() {
    let mesh = Mesh::start();
    let server = mesh
        .pod("server")
        .ports(&[9000, 9001])
        .annotation("config.linkerd.io/opaque-ports", "9000")
        .meshed();
    let client = mesh.pod("client").meshed();
    for port in [9000, 9001] {
        app::pipe(&server, port, "welcome\n");
        let mut stream = client.connect(server.addr(port)).unwrap();
        let mut greeting = [0; 8];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"welcome\n");
        assert_opened_under_identities(&client, &server, port);
    }
    // On the opaque port there was nothing to detect.
    let detected = [("result", "server_first")];
    assert_eq!(
        Metrics::of(&client).sum("outbound_tcp_detect_http_results_total", &detected),
        1.0
    );
}

#[test]
fn an_upgraded_connection_belongs_to_the_two_applications() {
    let (mesh, server, client) = pair(&[8080]);
    let socket = mesh.service("socket", 80, &[(&server, 8080)]);
    let listener = server.listen(8080);
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let head = read_to(&mut stream, b"\r\n\r\n");
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: parrot\r\n\r\nhi",
            )
            .unwrap();
        assert_eq!(read_to(&mut stream, b"polly"), b"polly");
        stream.write_all(b"POLLY").unwrap();
        String::from_utf8(head).unwrap().to_ascii_lowercase()
    });
    let mut stream = client.connect(socket).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: socket\r\nconnection: upgrade\r\nupgrade: parrot\r\n\r\n")
        .unwrap();
    let answer = read_to(&mut stream, b"\r\n\r\n");
    assert!(
        answer.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(read_to(&mut stream, b"hi"), b"hi");
    stream.write_all(b"polly").unwrap();
    assert_eq!(read_to(&mut stream, b"POLLY"), b"POLLY");
    let head = serving.join().unwrap();
    assert!(
        head.contains("upgrade: parrot") && head.contains(client.identity()),
        "{head}"
    );
}

/// Reads up to and with this.
fn read_to(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
    read
}

#[test]
fn a_client_outside_the_mesh_is_served_in_plaintext_without_an_identity() {
    let (mesh, server, _) = pair(&[8080, 9000]);
    let stranger = mesh.pod("stranger").unmeshed();
    Echo::serve(&server, 8080);
    app::pipe(&server, 9000, "");
    let response = http::get(&stranger, server.addr(8080), "server", "/", &[]);
    assert_eq!(response.status, 200);
    assert!(!response.body.contains("l5d-client-id"), "{}", response.body);
    let mut stream = stranger.connect(server.addr(9000)).unwrap();
    assert_eq!(
        app::send_all(&mut stream, b"\x01no protocol").unwrap(),
        b"\x01no protocol"
    );
    let labels = [("direction", "inbound"), ("peer", "src"), ("tls", "no_identity")];
    let metrics = Metrics::of(&server);
    let opened: Vec<_> = metrics
        .having("tcp_open_total", &labels)
        .filter_map(|one| one.label("target_port"))
        .collect();
    assert!(opened.contains(&"8080") && opened.contains(&"9000"), "{opened:?}");
}

#[test]
fn a_server_outside_the_mesh_is_reached_in_plaintext() {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080, 9000]).unmeshed();
    let client = mesh.pod("client").meshed();
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    Echo::serve(&server, 8080);
    app::pipe(&server, 9000, "");
    let response = http::get(&client, web, "web", "/", &[]);
    assert_eq!(response.status, 200);
    assert!(
        !response.body.contains("l5d-"),
        "headers of the mesh left it: {}",
        response.body
    );
    let mut stream = client.connect(server.addr(9000)).unwrap();
    assert_eq!(
        app::send_all(&mut stream, b"\x01no protocol").unwrap(),
        b"\x01no protocol"
    );
    let plain = [
        ("direction", "outbound"),
        ("peer", "dst"),
        ("no_tls_reason", "not_provided_by_service_discovery"),
    ];
    assert_eq!(Metrics::of(&client).sum("tcp_open_total", &plain), 2.0);
}

#[test]
fn between_the_pods_everything_is_tls_1_3() {
    let (mesh, server, client) = pair(&[8080, 9000]);
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    Echo::serve(&server, 8080);
    app::pipe(&server, 9000, "");
    let capture = Capture::start(&server);
    http::get(&client, web, "web", "/a-secret-path", &[]);
    let mut stream = client.connect(server.addr(9000)).unwrap();
    app::send_all(&mut stream, b"\x01a-secret-word").unwrap();
    let stranger = mesh.node().outside();
    app::send_all(&mut stranger.connect(server.addr(9000)).unwrap(), b"\x01the-end").unwrap();
    capture.until_seen(b"the-end");
    let flows = capture.stop();
    let answers = || {
        flows
            .iter()
            .filter(|((from, to), _)| *from.ip() == server.ip() && *to.ip() == client.ip())
    };
    assert_eq!(
        answers()
            .filter(|(_, flow)| flow.selects_tls13() && flow.is_post_quantum())
            .count(),
        answers().count()
    );
    assert_eq!(answers().count(), 2);
    assert!(!flows.values().any(|flow| flow.contains(b"a-secret-")));
}

/// Both proxies counted a TCP connection to this port between the two identities.
fn assert_opened_under_identities(client: &Meshed, server: &Meshed, port: u16) {
    let port = port.to_string();
    let outbound = [
        ("peer", "dst"),
        ("target_port", &*port),
        ("tls", "true"),
        ("server_id", server.identity()),
    ];
    assert_eq!(
        Metrics::of(client).sum("tcp_open_total", &outbound),
        1.0,
        "{}",
        Metrics::of(client).text
    );
    // The server's proxy may learn of the connection's protocol a moment after the client has its answer.
    let inbound = [
        ("peer", "src"),
        ("target_port", &*port),
        ("tls", "true"),
        ("client_id", client.identity()),
    ];
    wait::until("the server's count", || {
        (Metrics::of(server).sum("tcp_open_total", &inbound) == 1.0).then_some(())
    });
}

#[test]
fn ipv6_takes_the_same_way() {
    let (mesh, server, client) = pair(&[8080]);
    Echo::serve(&server, 8080);
    let response = http::get(&client, (server.ip6(), 8080).into(), "server", "/", &[]);
    assert!(response.body.contains(client.identity()), "{response:?}");
    let stranger = mesh.node().outside();
    let response = http::get(stranger, (server.ip6(), 8080).into(), "server", "/", &[]);
    assert!(
        response.status == 200 && !response.body.contains("l5d-client-id"),
        "{response:?}"
    );
}
