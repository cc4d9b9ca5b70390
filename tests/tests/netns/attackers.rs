//! Who wants to be let in and should not be: other people's names, hosts that can be read in two ways, and what else a client
//! can make up. Paths are in `access`, garbage in `hostile`, floods in `h2_abuse`.

use outrigger_e2e::h2raw::{self, END_HEADERS, END_STREAM, kind};
use outrigger_e2e::http::{self, Echo};
use outrigger_e2e::mesh::{Mesh, Meshed, TRUST, until_status};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::pod::Pod;
use outrigger_e2e::tls::{self, Authority, Own, Validity};
use outrigger_e2e::wait;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;

/// `private.example` is for one account; every other host is for everybody.
const BY_HOST: &str = "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: web, namespace: demo}
spec: {podSelector: {matchLabels: {app: server}}, port: 8080, accessPolicy: deny}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: private, namespace: demo}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: web}]
  hostnames: [private.example]
  rules: [{matches: [{path: {type: PathPrefix, value: /}}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: open, namespace: demo}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: web}]
  rules: [{matches: [{path: {type: PathPrefix, value: /}}]}]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: NetworkAuthentication
metadata: {name: everywhere, namespace: demo}
spec: {networks: [{cidr: 0.0.0.0/0}, {cidr: '::/0'}]}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: anybody, namespace: demo}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: HTTPRoute, name: open}
  requiredAuthenticationRefs: [{group: policy.linkerd.io, kind: NetworkAuthentication, name: everywhere}]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: friend, namespace: demo}
spec:
  targetRef: {group: gateway.networking.k8s.io, kind: HTTPRoute, name: private}
  requiredAuthenticationRefs: [{kind: ServiceAccount, name: friend}]
";

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A meshed server with an application on 8080, and a pod without a proxy.
fn server_and_stranger() -> (Mesh, Meshed, Pod, Echo) {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080]).meshed();
    let stranger = mesh.pod("stranger").unmeshed();
    let echo = Echo::serve(&server, 8080);
    (mesh, server, stranger, echo)
}

/// The same under [`BY_HOST`].
fn by_host() -> (Mesh, Meshed, Pod, Echo) {
    let (mesh, server, stranger, echo) = server_and_stranger();
    mesh.write("by-host.yaml", BY_HOST);
    until_status(&stranger, server.addr(8080), "private.example", 403);
    until_status(&stranger, server.addr(8080), "other.example", 200);
    (mesh, server, stranger, echo)
}

/// What comes back for these bytes on a connection of their own, in plaintext.
fn say(pod: &Pod, server: &Meshed, bytes: &str) -> String {
    let mut stream = pod.connect(server.addr(8080)).unwrap();
    let mut answer = Vec::new();
    stream.write_all(bytes.as_bytes()).unwrap();
    // A proxy that has refused may reset what is left: what came before is the answer.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// The same with TLS of the mesh.
fn say_as(pod: &Pod, server: &Meshed, own: Option<&Own>, bytes: &str) -> io::Result<String> {
    let stream = pod.connect(server.addr(8080))?;
    let answer = tls::ask(stream, server.identity(), own, bytes.as_bytes())?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn client_ids(answer: &str) -> Vec<&str> {
    let lines = answer.lines();
    lines
        .filter_map(|line| line.strip_prefix("l5d-client-id: "))
        .collect()
}

fn assert_unharmed(pod: &Meshed) {
    assert!(pod.proxy().runs() && pod.is_ready());
    assert_eq!(Metrics::of(pod).sum("outrigger_panics_total", &[]), 0.0);
}

#[test]
fn a_certificate_proves_its_first_name_while_it_is_valid_and_nothing_else() {
    let (mesh, server, stranger, _echo) = server_and_stranger();
    let authority = Authority::of(&mesh.state("state"));
    let get = "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
    let (mallory, admin) = (format!("mallory.demo.{TRUST}"), format!("admin.demo.{TRUST}"));
    for (names, known) in [
        (&[&*mallory, &*admin][..], &[&*mallory][..]),
        (
            &[&*mallory, "spiffe://root.linkerd.cluster.local/admin"],
            &[&*mallory],
        ),
        (
            &["spiffe://mesh.example/mallory", &*admin],
            &["spiffe://mesh.example/mallory"],
        ),
        // Valid, and of nobody: what its subject says counts for nothing.
        (&[], &[]),
    ] {
        let own = authority.issue_for(names, Validity::Now);
        let answer = say_as(&stranger, &server, Some(&own), get).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{names:?}: {answer}");
        assert_eq!(client_ids(&answer), known, "{names:?}");
    }
    let later = authority.issue_for(&[&mallory], Validity::Later);
    let answer = say_as(&stranger, &server, Some(&later), get);
    assert!(answer.is_err(), "not valid yet: {answer:?}");
    let foreign = Authority::stranger().issue_for(&[&format!("server.demo.{TRUST}")], Validity::Now);
    let answer = say_as(&stranger, &server, Some(&foreign), get);
    assert!(answer.is_err(), "another trust domain: {answer:?}");
    assert_unharmed(&server);
}

#[test]
fn a_server_name_that_is_not_ours_is_no_way_around_the_policy() {
    let mesh = Mesh::start();
    let server = mesh
        .pod("server")
        .ports(&[8080])
        .annotation("config.linkerd.io/default-inbound-policy", "all-authenticated")
        .meshed();
    let stranger = mesh.pod("stranger").unmeshed();
    let echo = Echo::serve(&server, 8080);
    let own = Authority::of(&mesh.state("state")).issue(&format!("mallory.demo.{TRUST}"), Validity::Now);
    let ask = |name: &str| {
        let stream = stranger.connect(server.addr(8080)).unwrap();
        let get = b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
        tls::ask(stream, name, Some(&own), get).map(|answer| String::from_utf8_lossy(&answer).into_owned())
    };
    wait::until("the policy to be there", || {
        let status = http::get(&stranger, server.addr(8080), "web", "/", &["connection: close"]).status;
        (status == 403).then_some(())
    });
    let before = echo.requests();
    for name in [
        "web.example",
        &format!("client.demo.{TRUST}"),
        &format!("x.{}", server.identity()),
    ] {
        let answer = ask(name);
        assert!(answer.is_err(), "{name}: {answer:?}");
    }
    assert_eq!(echo.requests(), before);
    // A name in DNS has no case.
    let answer = ask(&server.identity().to_uppercase()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn what_a_client_says_of_itself_is_not_passed_on() {
    let (mesh, server, stranger, _echo) = server_and_stranger();
    let id = format!("mallory.demo.{TRUST}");
    let own = Authority::of(&mesh.state("state")).issue(&id, Validity::Now);
    for claims in [
        "l5d-client-id: root.demo\r\n",
        "L5D-CLIENT-ID: root.demo\r\nl5d-client-id: admin.demo\r\n",
        // It concerns the connection only, says the client: the header is the proxy's all the same.
        "connection: l5d-client-id\r\nl5d-client-id: root.demo\r\n",
        "l5d-orig-proto: HTTP/1.0\r\n",
    ] {
        let get = format!("GET / HTTP/1.1\r\nhost: web\r\n{claims}\r\n");
        let last = "GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
        let answer = say(&stranger, &server, &format!("{get}{last}"));
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
        assert!(
            !answer.contains("l5d-client-id") && !answer.contains("l5d-orig-proto"),
            "{answer}"
        );
        let answer = say_as(&stranger, &server, Some(&own), &format!("{get}{last}")).unwrap();
        assert_eq!(client_ids(&answer), [&id, &id], "{answer}");
        assert!(!answer.contains("l5d-orig-proto"), "{answer}");
        let answer = say_as(&stranger, &server, None, &format!("{get}{last}")).unwrap();
        assert_eq!(client_ids(&answer), [""; 0], "{answer}");
    }
}

#[test]
fn a_host_is_the_same_however_it_is_spelt_and_two_hosts_are_none() {
    let (_mesh, server, stranger, echo) = by_host();
    let before = echo.requests();
    for (target, hosts, status) in [
        ("/", "host: private.example", 403),
        ("/", "host: PRIVATE.Example", 403),
        ("/", "host: private.example.", 403),
        ("/", "Host: private.example:8080", 403),
        ("/", "HOST: PRIVATE.example.:80", 403),
        ("http://private.example/", "host: private.example", 403),
        ("http://PRIVATE.example:8080/", "host: other.example", 403),
        ("http://private.example./", "host: other.example", 403),
        ("/", "host: other.example\r\nhost: private.example", 400),
        ("/", "host: private.example\r\nHost: other.example", 400),
        ("/", "host: private.example, other.example", 400),
        ("/", "host: other.example private.example", 400),
        ("/", "host : private.example", 400),
        ("/", " host: private.example", 400),
        ("//private.example/", "host: private.example", 403),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\n{hosts}\r\nconnection: close\r\n\r\n");
        let answer = say(&stranger, &server, &request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}{answer}"
        );
    }
    assert_eq!(echo.requests(), before);
    // Whose target says another host than `Host`, is for that one; the application hears of no other.
    let other = "GET http://other.example/ HTTP/1.1\r\nhost: private.example\r\nconnection: close\r\n\r\n";
    let answer = say(&stranger, &server, other);
    assert!(
        answer.starts_with("HTTP/1.1 200") && !answer.contains("private.example"),
        "{answer}"
    );
}

#[test]
fn http2_heads_that_can_be_read_in_two_ways_reach_nobody() {
    let (_mesh, server, stranger, echo) = by_host();
    let (private, other) = ("private.example", "other.example");
    let head = |fields: &[(&str, &str)]| {
        let mut block = Vec::new();
        fields
            .iter()
            .for_each(|(name, value)| h2raw::field(&mut block, name, value.as_bytes()));
        block
    };
    let get = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
    let with = |more: &[(&str, &str)]| head(&[&get[..], more].concat());
    let heads = [
        ("plain", with(&[(":authority", private)])),
        ("spelt", with(&[(":authority", "PRIVATE.example.:80")])),
        ("host only", with(&[("host", private)])),
        ("host differs", with(&[(":authority", other), ("host", private)])),
        (
            "host differs the other way",
            with(&[(":authority", private), ("host", other)]),
        ),
        ("two hosts", with(&[("host", other), ("host", private)])),
        (
            "two authorities",
            with(&[(":authority", other), (":authority", private)]),
        ),
        ("two paths", with(&[(":authority", private), (":path", "/x")])),
        (
            "two methods",
            with(&[(":authority", private), (":method", "POST")]),
        ),
        ("late", with(&[("x-first", "1"), (":authority", private)])),
        ("unknown", with(&[(":authority", private), (":host", other)])),
        (
            "of an answer",
            with(&[(":authority", private), (":status", "200")]),
        ),
        ("upper case", with(&[(":authority", other), ("Host", private)])),
        ("upper case pseudo", with(&[(":Authority", private)])),
        (
            "of a connection",
            with(&[(":authority", private), ("connection", "close")]),
        ),
        (
            "chunked",
            with(&[(":authority", private), ("transfer-encoding", "chunked")]),
        ),
        (
            "line break",
            with(&[(":authority", private), ("x", "1\r\nhost: other.example")]),
        ),
        (
            "no path",
            head(&[(":method", "GET"), (":scheme", "http"), (":authority", private)]),
        ),
        (
            "empty path",
            head(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", private),
                (":path", ""),
            ]),
        ),
        (
            "no scheme",
            head(&[(":method", "GET"), (":authority", private), (":path", "/")]),
        ),
        (
            "a target within the path",
            head(&[
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", private),
                (":path", "http://other.example/"),
            ]),
        ),
        (
            "carried",
            with(&[
                (":authority", private),
                ("l5d-orig-proto", "HTTP/1.1; absolute-form"),
            ]),
        ),
    ];
    let before = echo.requests();
    let open = [("route_name", "open")];
    let let_in = Metrics::of(&server).sum("inbound_http_authz_allow_total", &open);
    for (what, block) in heads {
        let frame = h2raw::frame(kind::HEADERS, END_STREAM | END_HEADERS, 1, &block);
        let mut stream = stranger.connect(server.addr(8080)).unwrap();
        let opening = [PREFACE, &h2raw::settings(&[]), &frame].concat();
        stream.write_all(&opening).unwrap();
        // An answer, a reset of the stream or the end of the connection: each is its end.
        let is_end = |kind| [kind::HEADERS, kind::RST_STREAM, kind::GOAWAY].contains(&kind);
        while h2raw::read_frame(&mut stream).is_ok_and(|(kind, ..)| !is_end(kind)) {}
        let now = Metrics::of(&server).sum("inbound_http_authz_allow_total", &open);
        assert_eq!(now, let_in, "{what}");
    }
    assert_eq!(echo.requests(), before);
    let denied = [("route_name", "private")];
    assert!(Metrics::of(&server).sum("inbound_http_authz_deny_total", &denied) >= 3.0);
    assert_unharmed(&server);
}

#[test]
fn connections_to_the_application_are_shared_and_identities_are_not() {
    let (mesh, server, stranger, _echo) = by_host();
    let (friend, foe) = (mesh.pod("friend").meshed(), mesh.pod("foe").meshed());
    // A client that is silent for long is dialled for: each says something at once.
    let begin = |pod: &Pod| {
        let mut stream = pod.connect(server.addr(8080)).unwrap();
        http::exchange(&mut stream, "other.example", "/", &[]).unwrap();
        stream
    };
    let mut kept = [&friend, &foe].map(|pod| (pod, begin(pod)));
    let mut plain = begin(&stranger);
    for _ in 0..5 {
        for (pod, stream) in &mut kept {
            let answer = http::exchange(stream, "other.example", "/", &[]).unwrap();
            assert_eq!(client_ids(&answer.body), [pod.identity()]);
        }
        let answer = http::exchange(&mut plain, "other.example", "/", &[]).unwrap();
        assert!(!answer.body.contains("l5d-client-id"), "{}", answer.body);
        let status = kept.each_mut().map(|(_, stream)| {
            http::exchange(stream, "private.example", "/", &[])
                .unwrap()
                .status
        });
        assert_eq!(status, [200, 403]);
        assert_eq!(
            http::exchange(&mut plain, "private.example", "/", &[])
                .unwrap()
                .status,
            403
        );
    }
    let opened = [("direction", "inbound"), ("peer", "dst")];
    let opened = Metrics::of(&server).sum("tcp_open_total", &opened);
    assert!(
        opened < 10.0,
        "{opened} connections for 28 requests: none was shared"
    );
}

#[test]
fn an_address_that_is_not_the_pods_is_served_by_nobody() {
    let (_mesh, server, stranger, echo) = server_and_stranger();
    let (other, before) = (Ipv4Addr::new(10, 77, 250, 2), echo.requests());
    server.sh(&format!("ip addr add {other}/32 dev lo"));
    for port in [8080, 4143] {
        let mut stream = stranger.connect((other, port)).unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(String::from_utf8_lossy(&answer), "", "{port}");
    }
    assert_eq!(echo.requests(), before);
    let why = format!("inbound connections are not allowed on this IP address ({other})");
    assert!(server.proxy().log().contains(&why));
    assert_eq!(
        http::get(&stranger, server.addr(8080), "web", "/", &["connection: close"]).status,
        200
    );
}
