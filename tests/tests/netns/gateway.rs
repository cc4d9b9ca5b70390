//! A multicluster gateway: services are mirrored, and reached through a proxy that knows them.

use outrigger_e2e::app;
use outrigger_e2e::http::{self, Echo, Response};
use outrigger_e2e::mesh::{Mesh, Meshed, until_status};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::wait;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;

/// Lets one account through the gateway.
const ONE_ACCOUNT: &str = "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {name: gateway, namespace: demo}
spec: {podSelector: {matchLabels: {app: gateway}}, port: 4143, accessPolicy: deny}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: through, namespace: demo}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: gateway}
  requiredAuthenticationRefs: [{kind: ServiceAccount, name: client}]
";

/// A server with the service `web`, a gateway to it, and a client to whom it is `web-east`.
fn clusters() -> (Mesh, Meshed, Meshed, Meshed, SocketAddr) {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080]).meshed();
    let gateway = gateway(&mesh, "gateway");
    let client = mesh.pod("client").meshed();
    mesh.service("web", 80, &[(&server, 8080)]);
    let mirrored = mesh.mirror("web-east", 80, &gateway, "web.demo.svc.cluster.local");
    (mesh, server, gateway, client, mirrored)
}

fn gateway(mesh: &Mesh, name: &str) -> Meshed {
    mesh.pod(name)
        .annotation("config.linkerd.io/default-inbound-policy", "all-authenticated")
        .env("LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES", "svc.cluster.local.")
        .meshed()
}

fn get(client: &Meshed, addr: SocketAddr, headers: &[&str]) -> Response {
    let headers = [&["connection: close"], headers].concat();
    http::get(client, addr, "web-east", "/", &headers)
}

/// Whether the client's proxy has logged this as the reason that a peer gave.
fn was_told(client: &Meshed, why: &str) -> bool {
    let log = client.proxy().log();
    log.lines()
        .any(|line| line.contains("Remote proxy error") && line.contains(why))
}

#[test]
fn a_request_goes_on_to_the_service_that_it_is_for_and_says_where_it_has_been() {
    let (_mesh, server, gateway, client, web) = clusters();
    Echo::serve(&server, 8080);
    until_status(&client, web, "web-east", 200);
    let name = "web.demo.svc.cluster.local";
    let expected = [
        format!("host: {name}"),
        format!(
            "forwarded: by={};for={};host={name};proto=https",
            gateway.identity(),
            client.identity()
        ),
        format!("l5d-client-id: {}", gateway.identity()),
    ];
    let forged = ["l5d-client-id: root.demo", "x-own: stays"];
    let answer = get(&client, web, &forged);
    for line in expected.iter().map(String::as_str).chain(["x-own: stays"]) {
        assert!(
            answer.body.lines().any(|l| l == line),
            "{line} in {}",
            answer.body
        );
    }
    let metrics = Metrics::of(&gateway);
    let labels = [("target_name", name), ("target_port", "80")];
    assert!(metrics.sum("inbound_tcp_transport_header_connections_total", &labels) >= 1.0);
    let allowed = [("target_port", "4143"), ("authz_name", "all-authenticated")];
    assert!(metrics.sum("inbound_http_authz_allow_total", &allowed) >= 1.0);
    assert!(metrics.sum("response_total", &[("direction", "outbound")]) >= 1.0);
    assert_eq!(metrics.sum("outrigger_panics_total", &[]), 0.0);
}

#[test]
fn grpc_and_tunnels_pass_a_gateway() {
    let (mesh, server, gateway, client, web) = clusters();
    mesh.service("greeter", 9090, &[(&server, 50051)]);
    mesh.mirror("greeter-east", 9090, &gateway, "greeter.demo.svc.cluster.local");
    let _greeter = app::greeter(&server, 50051);
    let printed = app::call_greeter(&client, "greeter-east.demo.svc.cluster.local:9090");
    assert!(!printed.is_empty());
    let listener = server.listen(8080);
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read_to(&mut stream, b"\r\n\r\n");
        let agreed = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: parrot\r\n\r\n";
        stream.write_all(agreed).unwrap();
        assert_eq!(read_to(&mut stream, b"polly"), b"polly");
        stream.write_all(b"POLLY").unwrap();
    });
    let mut stream = client.connect(web).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: web-east\r\nconnection: upgrade\r\nupgrade: parrot\r\n\r\n")
        .unwrap();
    let answer = read_to(&mut stream, b"\r\n\r\n");
    assert!(
        answer.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    stream.write_all(b"polly").unwrap();
    assert_eq!(read_to(&mut stream, b"POLLY"), b"POLLY");
}

/// Reads up to and with this.
fn read_to(stream: &mut impl Read, end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
    read
}

#[test]
fn the_policy_of_the_gateways_own_port_decides_for_requests_and_bytes() {
    let (mesh, server, gateway, client, web) = clusters();
    let other = mesh.pod("other").meshed();
    let echo = Echo::serve(&server, 8080);
    app::pipe(&server, 9000, "");
    mesh.service("pipe", 9000, &[(&server, 9000)]);
    let pipe = mesh.mirror("pipe-east", 9000, &gateway, "pipe.demo.svc.cluster.local");
    until_status(&other, web, "web-east", 200);
    let mut held = other.connect(pipe).unwrap();
    held.write_all(b"\x01held").unwrap();
    held.read_exact(&mut [0; 5]).unwrap();
    mesh.write("policy.yaml", ONE_ACCOUNT);
    until_status(&other, web, "web-east", 403);
    assert_eq!(held.read(&mut [0; 8]).unwrap_or(0), 0, "it has been cut");
    let before = echo.requests();
    assert_eq!(get(&other, web, &[]).status, 403);
    assert_eq!(echo.requests(), before);
    assert_eq!(get(&client, web, &[]).status, 200);
    let mut stream = client.connect(pipe).unwrap();
    assert_eq!(app::send_all(&mut stream, b"\x01in").unwrap(), b"\x01in");
    let mut stream = other.connect(pipe).unwrap();
    let refused = app::send_all(&mut stream, b"\x01out");
    assert!(refused.as_ref().map_or(true, Vec::is_empty), "{refused:?}");
    let refusals = http::get(
        &gateway,
        ([127, 0, 0, 1], 4191).into(),
        "localhost",
        "/refusals",
        &["connection: close"],
    );
    let why = format!("would admit it, if it named the identity {}", other.identity());
    assert!(refusals.body.contains(&why), "{}", refusals.body);
    let metrics = Metrics::of(&gateway);
    let labels = [
        ("srv_name", "gateway"),
        ("srv_port", "4143"),
        ("client_id", other.identity()),
    ];
    assert!(metrics.sum("inbound_http_authz_deny_total", &labels) >= 1.0);
    assert_eq!(metrics.sum("inbound_tcp_authz_terminate_total", &labels), 1.0);
    assert_eq!(metrics.sum("inbound_tcp_authz_deny_total", &labels), 1.0);
}

#[test]
fn names_that_nobody_has_or_that_lead_elsewhere_are_refused() {
    let (mesh, server, gateway, client, web) = clusters();
    Echo::serve(&server, 8080);
    until_status(&client, web, "web-east", 200);
    let nobody = mesh.mirror("nobody-east", 80, &gateway, "nobody.demo.svc.cluster.local");
    let abroad = mesh.mirror("abroad-east", 80, &gateway, "web.example.com");
    // A proxy that is no gateway, asked to be one.
    let plain = mesh.mirror("plain-east", 80, &server, "web.demo.svc.cluster.local");
    for (to, why) in [
        (
            nobody,
            "the control plane knows nothing of nobody.demo.svc.cluster.local:80",
        ),
        (
            abroad,
            "web.example.com:80 is under none of LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES",
        ),
        (plain, "web.demo.svc.cluster.local:80 is under none of"),
    ] {
        wait::until(why, || {
            (get(&client, to, &[]).status == 404 && was_told(&client, why)).then_some(())
        });
    }
    let labels = [("error", "gateway domain invalid")];
    assert!(Metrics::of(&gateway).sum("inbound_http_errors_total", &labels) >= 2.0);
    assert_eq!(get(&client, web, &[]).status, 200);
}

#[test]
fn a_request_that_has_been_here_before_is_refused() {
    let (mesh, server, gateway_a, client, web) = clusters();
    Echo::serve(&server, 8080);
    until_status(&client, web, "web-east", 200);
    let gateway_b = gateway(&mesh, "gateway-b");
    // Each gateway is told that the other one knows more.
    mesh.mirror("ping", 80, &gateway_b, "pong.demo.svc.cluster.local");
    mesh.mirror("pong", 80, &gateway_a, "ping.demo.svc.cluster.local");
    let circle = mesh.mirror("circle", 80, &gateway_a, "ping.demo.svc.cluster.local");
    until_status(&client, circle, "circle", 508);
    let labels = [("error", "gateway loop")];
    let found = Metrics::of(&gateway_a).sum("inbound_http_errors_total", &labels);
    assert!(found >= 1.0 && was_told(&gateway_b, "gateway loop detected"));
    // It came back once, and went no further.
    let passed = [
        ("direction", "outbound"),
        ("authority", "ping.demo.svc.cluster.local:80"),
    ];
    assert_eq!(Metrics::of(&gateway_a).sum("request_total", &passed), found);
    let by = format!("forwarded: for=x;by=\"{}\"", gateway_a.identity());
    assert_eq!(get(&client, web, &[&by]).status, 508);
    let by = format!("forwarded: by={}, for=x", gateway_b.identity());
    assert_eq!(get(&client, web, &[&by]).status, 200);
}
