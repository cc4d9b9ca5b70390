//! HTTP/2 connections to servers that end them, or that take few requests at a time.

use outrigger_e2e::app;
use outrigger_e2e::mesh::{Mesh, Meshed};
use outrigger_e2e::metrics::Metrics;

/// A mesh with a meshed server on this port, called `web`, and a meshed client.
fn pair(port: u16) -> (Mesh, Meshed, Meshed) {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[port]).meshed();
    let client = mesh.pod("client").meshed();
    mesh.service("web", 80, &[(&server, port)]);
    (mesh, server, client)
}

/// Sends 2,000 requests without a body on four connections, 10 at a time on each, and insists on all being answered.
fn all_answered(client: &Meshed, method: &str) {
    let report = client.sh(&format!(
        "timeout 60 h2load -n 2000 -c 4 -m 10 -H ':method: {method}' http://web/"
    ));
    assert!(
        report
            .contains("2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout"),
        "{report}"
    );
    assert!(report.contains("status codes: 2000 2xx"), "{report}");
}

#[test]
fn a_server_that_ends_its_connections_fails_no_request() {
    let (_mesh, server, client) = pair(8082);
    let _nginx = app::nginx(&server);
    all_answered(&client, "GET");
    all_answered(&client, "POST");
    let ended = Metrics::of(&server).sum(
        "outrigger_http2_connections_ended_total",
        &[("direction", "inbound"), ("cause", "closed")],
    );
    assert!(
        ended >= 190.0,
        "nginx takes 20 requests on each connection: {ended}"
    );
}

#[test]
fn a_server_that_takes_few_requests_at_a_time_gets_more_connections() {
    let (_mesh, server, client) = pair(8083);
    let _haproxy = app::haproxy(&server);
    all_answered(&client, "GET");
    let metrics = Metrics::of(&server);
    let open = metrics.sum("outrigger_http2_connections", &[("direction", "inbound")]);
    assert!((2.0..=16.0).contains(&open), "{open}");
    assert_eq!(
        metrics.sum(
            "outrigger_http2_requests_resent_total",
            &[("direction", "inbound")]
        ),
        0.0,
        "the limit is known, and kept"
    );
}
