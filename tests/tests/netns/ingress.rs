//! Ingress mode: requests go where `l5d-dst-override` says, whatever their connection was opened to.

use std::net::SocketAddr;

use outrigger_e2e::http::{self, Echo, Response};
use outrigger_e2e::mesh::{Mesh, Meshed, until_status};
use outrigger_e2e::{app, wait};

/// An ingress, and two services.
struct Ingress {
    mesh: Mesh,
    pod: Meshed,
    servers: [Meshed; 2],
    apps: [Echo; 2],
    one: SocketAddr,
}

fn ingress() -> Ingress {
    let mesh = Mesh::start();
    let servers = ["one", "two"].map(|name| mesh.pod(name).ports(&[8080, 9000]).meshed());
    let pod = mesh
        .pod("ingress")
        .env("LINKERD2_PROXY_INGRESS_MODE", "true")
        .env("LINKERD2_PROXY_OUTBOUND_DISABLE_INFORMATIONAL_HEADERS", "false")
        .meshed();
    let one = mesh.service("one", 80, &[(&servers[0], 8080)]);
    mesh.service("two", 8080, &[(&servers[1], 8080)]);
    let apps = [0, 1].map(|at| Echo::serve(&servers[at], 8080));
    until_status(&pod, one, "one", 200);
    Ingress {
        mesh,
        pod,
        servers,
        apps,
        one,
    }
}

impl Ingress {
    /// A request to the first service, with these headers.
    fn get(&self, headers: &[&str]) -> Response {
        let headers: Vec<_> = headers.iter().copied().chain(["connection: close"]).collect();
        http::get(&self.pod, self.one, "shop.example", "/", &headers)
    }
}

#[test]
fn a_request_goes_where_it_says_and_others_where_they_were_sent() {
    let ingress = ingress();
    let named = ingress.get(&["l5d-dst-override: two.demo.svc.cluster.local:8080"]);
    assert!(
        named.status == 200 && named.body.starts_with("two\n"),
        "{named:?}"
    );
    assert!(!named.body.contains("l5d-dst-override"), "{}", named.body);
    assert!(named.body.contains(ingress.pod.identity()), "{}", named.body);
    assert!(named.body.contains("host: shop.example"), "{}", named.body);
    assert!(
        ingress
            .get(&["l5d-dst-override: one.demo.svc.cluster.local"])
            .body
            .starts_with("one\n")
    );
    assert!(ingress.get(&[]).body.starts_with("one\n"));
    // One connection, two destinations.
    let mut stream = ingress.pod.connect(ingress.one).unwrap();
    for (name, expected) in [("one", "one\n"), ("two", "two\n"), ("one", "one\n")] {
        let port = if name == "two" { ":8080" } else { "" };
        let field = format!("l5d-dst-override: {name}.demo.svc.cluster.local{port}");
        let answer = http::exchange(&mut stream, "shop.example", "/", &[&field]).unwrap();
        assert!(answer.body.starts_with(expected), "{answer:?}");
    }
}

#[test]
fn a_named_service_has_its_routes() {
    let ingress = ingress();
    ingress.mesh.write(
        "route.yaml",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: edited, namespace: demo}\n\
         spec:\n  parentRefs: [{group: core, kind: Service, name: two, port: 8080}]\n  rules:\n    \
         - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-route, value: edited}]}}]\n      \
         backendRefs: [{name: two, port: 8080}]\n",
    );
    wait::until("the route", || {
        let answer = ingress.get(&["l5d-dst-override: two.demo.svc.cluster.local:8080"]);
        (answer.status == 200 && answer.header("x-route") == "edited").then_some(())
    });
    assert_eq!(ingress.get(&[]).header("x-route"), "");
}

#[test]
fn names_that_lead_nowhere_are_answered_with_the_reason() {
    let ingress = ingress();
    for (field, status, why) in [
        (
            "l5d-dst-override: two:no-port",
            400,
            "l5d-dst-override is not a valid host:port",
        ),
        (
            "l5d-dst-override: nobody.demo.svc.cluster.local:80",
            504,
            "nobody.demo.svc.cluster.local",
        ),
        (
            "l5d-dst-override: outside.example:80",
            503,
            "ingress-mode routing requires discovery",
        ),
    ] {
        let answer = ingress.get(&[field]);
        let error = answer.header("l5d-proxy-error");
        assert!(
            answer.status == status && error.contains(why),
            "{field}: {answer:?}"
        );
    }
    let before = ingress.apps[1].requests();
    let looping = ingress.get(&[
        "l5d-dst-override: two.demo.svc.cluster.local:8080",
        "l5d-ingress-hops: 8",
    ]);
    assert_eq!(looping.status, 508, "{looping:?}");
    assert_eq!(ingress.apps[1].requests(), before);
    let last = ingress.get(&[
        "l5d-dst-override: two.demo.svc.cluster.local:8080",
        "l5d-ingress-hops: 7",
    ]);
    assert!(
        last.status == 200 && last.body.contains("l5d-ingress-hops: 8"),
        "{last:?}"
    );
}

#[test]
fn what_is_not_http_goes_where_it_was_sent() {
    let ingress = ingress();
    let pipe = ingress.mesh.service("pipe", 9000, &[(&ingress.servers[0], 9000)]);
    app::pipe(&ingress.servers[0], 9000, "");
    let mut stream = ingress.pod.connect(pipe).unwrap();
    assert_eq!(
        app::send_all(&mut stream, b"\x01no protocol").unwrap(),
        b"\x01no protocol"
    );
}
