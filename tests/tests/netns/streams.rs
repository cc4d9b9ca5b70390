//! Routes of connections: TLSRoutes by server name, TCPRoutes, both changed while connections are open; and what a client
//! is told where nobody takes its requests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use outrigger_e2e::http::{self, Echo};
use outrigger_e2e::mesh::{Mesh, Meshed, until_status};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::{app, tls, wait};

/// Two services of one port, each with a pod of its own, and a client.
struct Two {
    mesh: Mesh,
    client: Meshed,
    servers: [Meshed; 2],
    first: SocketAddr,
}

fn two(port: u16) -> Two {
    let mesh = Mesh::start();
    let servers = ["one", "two"].map(|name| mesh.pod(name).ports(&[port]).meshed());
    let client = mesh.pod("client").meshed();
    let first = mesh.service("first", port, &[(&servers[0], port)]);
    mesh.service("second", port, &[(&servers[1], port)]);
    Two {
        mesh,
        client,
        servers,
        first,
    }
}

fn route(kind: &str, port: u16, hostnames: &str, backend: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: {kind}\n\
         metadata: {{name: to-{backend}, namespace: demo}}\n\
         spec:\n  parentRefs: [{{group: core, kind: Service, name: first, port: {port}}}]\n{hostnames}  rules:\n    \
         - backendRefs: [{{name: {backend}, port: {port}}}]\n"
    )
}

#[test]
fn tls_of_applications_goes_by_its_server_name() {
    let two = two(9443);
    for (server, answer) in two.servers.iter().zip([&b"from one"[..], b"from two"]) {
        tls::serve(server.listen(9443), &tls::self_signed("vault"), None, answer);
    }
    let ask = |name: &str| tls::ask(two.client.connect(two.first).unwrap(), name, None, b"knock");
    assert_eq!(ask("b.example").unwrap(), b"from one");
    let by_name =
        |name: &str, backend: &str| route("TLSRoute", 9443, &format!("  hostnames: ['{name}']\n"), backend);
    two.mesh.write("one.yaml", &by_name("a.example", "first"));
    two.mesh.write("two.yaml", &by_name("*.example", "second"));
    wait::until("the route by name", || {
        (ask("b.example").ok()? == b"from two").then_some(())
    });
    assert_eq!(ask("a.example").unwrap(), b"from one");
    // Connections that came between the two manifests were refused as well.
    let refused = || Metrics::of(&two.client).sum("outbound_tcp_errors_total", &[("error", "no_route")]);
    let before = refused();
    assert!(ask("elsewhere.test").is_err());
    wait::until("the refusal to be counted", || (refused() > before).then_some(()));
}

#[test]
fn a_tcp_route_leads_new_connections_elsewhere_and_leaves_open_ones_alone() {
    let two = two(9000);
    app::pipe(&two.servers[0], 9000, "one\n");
    app::pipe(&two.servers[1], 9000, "two\n");
    let connect = || -> (TcpStream, String) {
        let mut stream = two.client.connect(two.first).unwrap();
        let mut greeting = [0; 4];
        stream.read_exact(&mut greeting).unwrap();
        (stream, String::from_utf8_lossy(&greeting).into_owned())
    };
    let (mut open, greeting) = connect();
    assert_eq!(greeting, "one\n");
    two.mesh.write("tcp.yaml", &route("TCPRoute", 9000, "", "second"));
    wait::until("the route", || (connect().1 == "two\n").then_some(()));
    open.write_all(b"still there").unwrap();
    let mut back = [0; 11];
    open.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"still there");
}

#[test]
fn who_waits_for_endpoints_in_vain_is_told_how_many_there_are_and_what_to_look_at() {
    let mesh = Mesh::start();
    let fail_fast = "LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT";
    let client = mesh.pod("client").env(fail_fast, "100ms").meshed();
    let empty = mesh.service("empty", 80, &[]);
    let answer = http::get(&client, empty, "empty", "/", &["connection: close"]);
    let error = answer.header("l5d-proxy-error");
    assert_eq!(answer.status, 504);
    assert!(
        error.contains(
            "service in fail-fast: no endpoints: the control plane has named none so far. Look whether"
        ),
        "{error}"
    );
}

#[test]
fn discovery_is_asked_again_while_no_endpoint_can_be_connected_to() {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080]).unmeshed();
    let client = mesh.pod("client").meshed();
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    until_status(&client, web, "web", 502);
    wait::until("discovery to be asked again", || {
        http::get(&client, web, "web", "/", &["connection: close"]);
        let asked = [("authority", "web.demo.svc.cluster.local:80")];
        let count = Metrics::of(&client).sum("outrigger_balancer_rediscoveries_total", &asked);
        (count >= 2.0).then_some(())
    });
    Echo::serve(&server, 8080);
    until_status(&client, web, "web", 200);
}
