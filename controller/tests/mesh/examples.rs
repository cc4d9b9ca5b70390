//! The examples of traffic management and of access, each beside `examples/mesh`.

use std::path::Path;

use outrigger_controller::compile::client::Client;
use outrigger_controller::compile::settings::Settings;
use outrigger_controller::explain::inbound;
use outrigger_controller::explain::request::Request;
use outrigger_policy::authz::ClientTls;
use outrigger_policy::name::Identity;
use outrigger_policy::outbound::OutboundProtocol;

use crate::policies::reports;
use crate::support::{Mesh, cluster, files};

/// `examples/mesh`, the second version of web, and one example.
fn beside_the_mesh(example: &Path) -> String {
    let second = files("traffic").filter(|path| path.ends_with("web-v2.yaml") && path != example);
    let all = files("mesh").chain(second).chain([example.to_owned()]);
    all.map(|path| std::fs::read_to_string(path).unwrap() + "---\n")
        .collect()
}

fn example(folder: &str, name: &str) -> String {
    beside_the_mesh(&files(folder).find(|path| path.ends_with(name)).unwrap())
}

#[tokio::test]
async fn every_example_is_read_without_a_report_and_answered() {
    for path in files("traffic").chain(files("access")) {
        let mesh = Mesh::of(&beside_the_mesh(&path));
        assert_eq!(reports(&mesh), [] as [&str; 0], "{}", path.display());
        for target in [
            "10.96.0.10:80",
            "10.96.0.11:50051",
            "10.96.0.12:3306",
            "10.96.0.20:80",
            "192.0.2.1:443",
        ] {
            let policy = mesh.outbound(target).await.unwrap();
            let tables = match policy.protocol {
                OutboundProtocol::Detect { http1, http2, .. } => vec![http1, http2],
                OutboundProtocol::Http1(table)
                | OutboundProtocol::Http2(table)
                | OutboundProtocol::Grpc(table) => vec![table],
                OutboundProtocol::Opaque(_) | OutboundProtocol::Tls(_) => vec![],
                OutboundProtocol::Invalid(reason) => panic!("{}: {reason}", path.display()),
            };
            for (_, rule) in tables.iter().flat_map(|table| table.rules()) {
                assert!(rule.backends.is_ok(), "{}: {rule:?}", path.display());
            }
        }
        for port in [8080, 3306] {
            mesh.inbound("demo:server", port).await.unwrap();
        }
    }
}

/// Whether the example lets this client in, and by which rule; told by the last line but those of reasons.
fn verdict(name: &str, port: u16, account: &str, from: &str, path: &str) -> String {
    let identity = format!("{account}.demo.serviceaccount.identity.linkerd.cluster.local");
    let tls = match account {
        "" => ClientTls::None,
        _ => ClientTls::Terminated(Some(Identity::parse(&identity).unwrap())),
    };
    let question = inbound::Question {
        workload: Client::of_workload("demo:server").unwrap(),
        port,
        from: from.parse().unwrap(),
        tls,
        request: Request::new(http::Method::GET, path, &[]),
    };
    let lines = inbound::explain(
        &cluster(&example("access", name)),
        &Settings::default(),
        &question,
    )
    .unwrap();
    let line = lines
        .iter()
        .find(|line| line.contains(" is allowed by ") || line.contains(" is denied"));
    let line = line.unwrap();
    line.split_once(" is allowed by ")
        .map_or("denied", |(_, by)| by)
        .to_owned()
}

#[test]
fn the_examples_of_access_let_in_whom_they_say() {
    let near = "10.77.1.2";
    for (name, port, account, from, path, expected) in [
        ("deny-by-default.yaml", 8080, "client", near, "/", "denied"),
        (
            "deny-by-default.yaml",
            8080,
            "",
            near,
            "/healthz",
            "default probe",
        ),
        (
            "one-account.yaml",
            8080,
            "client",
            near,
            "/",
            "authorizationpolicy client-calls-web",
        ),
        ("one-account.yaml", 8080, "server", near, "/", "denied"),
        (
            "one-account.yaml",
            3306,
            "server",
            near,
            "/",
            "default all-unauthenticated",
        ),
        (
            "per-route.yaml",
            8080,
            "client",
            near,
            "/",
            "authorizationpolicy everybody-reads",
        ),
        ("per-route.yaml", 8080, "client", near, "/admin", "denied"),
        (
            "per-route.yaml",
            8080,
            "operator",
            near,
            "/admin",
            "authorizationpolicy operators-administrate",
        ),
        (
            "by-network.yaml",
            3306,
            "",
            near,
            "/",
            "authorizationpolicy office-reaches-mariadb",
        ),
        ("by-network.yaml", 3306, "", "10.77.1.13", "/", "denied"),
        (
            "audit.yaml",
            8080,
            "client",
            near,
            "/",
            "serverauthorization client",
        ),
        ("audit.yaml", 8080, "other", near, "/", "default audit"),
        (
            "rate-limit.yaml",
            8080,
            "",
            near,
            "/",
            "default all-unauthenticated",
        ),
    ] {
        assert_eq!(
            verdict(name, port, account, from, path),
            expected,
            "{name} {account} {from} {path}"
        );
    }
}
