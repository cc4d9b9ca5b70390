//! What can be seen from outside: each family of metrics with its labels, as dashboards expect them.

use outrigger_e2e::http::{self, Echo};
use outrigger_e2e::mesh::{Mesh, Meshed};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::{app, wait};

/// Two scrapes after one request and one opaque connection from the client to the server.
fn scrapes() -> (Mesh, Meshed, Meshed, Metrics, Metrics) {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080, 9000]).meshed();
    let client = mesh.pod("client").meshed();
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    let pipe = mesh.service("pipe", 9000, &[(&server, 9000)]);
    Echo::serve(&server, 8080);
    app::pipe(&server, 9000, "");
    assert_eq!(
        http::get(&client, web, "web", "/", &["connection: close"]).status,
        200
    );
    // Only a connection without the mesh's transport header has to be detected.
    assert_eq!(
        http::get(
            mesh.node().outside(),
            server.addr(8080),
            "server",
            "/",
            &["connection: close"]
        )
        .status,
        200
    );
    app::send_all(&mut client.connect(pipe).unwrap(), b"\x01twelve bytes").unwrap();
    wait::until("both proxies have counted the end of the pipe", || {
        let closed =
            |pod| Metrics::of(pod).sum("tcp_close_total", &[("target_port", "9000"), ("peer", "src")]);
        (closed(&server) >= 1.0 && Metrics::of(&client).sum("tcp_close_total", &[("peer", "src")]) >= 2.0)
            .then_some(())
    });
    let (at_client, at_server) = (Metrics::of(&client), Metrics::of(&server));
    (mesh, server, client, at_client, at_server)
}

#[test]
fn requests_are_counted_on_both_sides_with_linkerds_labels() {
    let (_mesh, server, client, at_client, at_server) = scrapes();
    let outbound = [
        ("direction", "outbound"),
        ("tls", "true"),
        ("server_id", server.identity()),
    ];
    let inbound = [
        ("direction", "inbound"),
        ("tls", "true"),
        ("client_id", client.identity()),
        ("target_port", "8080"),
    ];
    let of_endpoint = [
        "direction",
        "authority",
        "target_addr",
        "target_ip",
        "target_port",
        "tls",
        "server_id",
    ];
    let of_server = [
        "direction",
        "target_addr",
        "target_ip",
        "target_port",
        "tls",
        "client_id",
    ];
    let of_policy = ["srv_group", "srv_kind", "srv_name", "srv_port"];
    let of_route = [
        "route_group",
        "route_kind",
        "route_name",
        "authz_group",
        "authz_kind",
        "authz_name",
    ];
    for (metrics, labels, expected) in [
        (&at_client, &outbound[..], of_endpoint.to_vec()),
        (
            &at_server,
            &inbound[..],
            [&of_server[..], &of_policy, &of_route].concat(),
        ),
    ] {
        assert_eq!(metrics.sum("request_total", labels), 1.0, "{}", metrics.text);
        assert_labels(metrics, "request_total", labels, &expected);
        let classes = ["status_code", "classification", "grpc_status", "error"];
        let answered = [labels, &[("status_code", "200"), ("classification", "success")]].concat();
        assert_eq!(metrics.sum("response_total", &answered), 1.0, "{}", metrics.text);
        assert_labels(
            metrics,
            "response_total",
            labels,
            &[&expected[..], &classes].concat(),
        );
        assert_eq!(metrics.sum("response_latency_ms_count", labels), 1.0);
        assert_eq!(
            metrics.sum(
                "response_latency_ms_bucket",
                &[labels, &[("le", "+Inf")]].concat()
            ),
            1.0
        );
        assert_labels(
            metrics,
            "response_latency_ms_bucket",
            labels,
            &[&expected[..], &["status_code", "le"]].concat(),
        );
    }
    for (family, kind) in [
        ("request_total", "counter"),
        ("response_total", "counter"),
        ("response_latency_ms", "histogram"),
    ] {
        assert_eq!(at_client.kind(family), Some(kind));
    }
}

#[test]
fn connections_are_counted_on_both_sides_with_linkerds_labels() {
    let (_mesh, server, client, at_client, at_server) = scrapes();
    let target = ["target_addr", "target_ip", "target_port"];
    let srv = ["srv_group", "srv_kind", "srv_name", "srv_port"];
    for (metrics, labels, expected) in [
        (
            &at_client,
            vec![
                ("direction", "outbound"),
                ("peer", "src"),
                ("target_port", "9000"),
            ],
            [&["direction", "peer"], &target[..], &["tls", "no_tls_reason"]].concat(),
        ),
        (
            &at_client,
            vec![
                ("direction", "outbound"),
                ("peer", "dst"),
                ("target_port", "9000"),
                ("server_id", server.identity()),
            ],
            [
                &["direction", "peer", "authority"],
                &target[..],
                &["tls", "server_id"],
            ]
            .concat(),
        ),
        (
            &at_server,
            vec![
                ("direction", "inbound"),
                ("peer", "src"),
                ("target_port", "9000"),
                ("client_id", client.identity()),
            ],
            [&["direction", "peer"], &target[..], &["tls", "client_id"], &srv].concat(),
        ),
        (
            &at_server,
            vec![("direction", "inbound"), ("peer", "dst")],
            vec!["direction", "peer", "tls", "no_tls_reason"],
        ),
    ] {
        let opened = metrics.sum("tcp_open_total", &labels);
        let closed = metrics.sum("tcp_close_total", &[&labels[..], &[("errno", "")]].concat());
        assert!(opened >= 1.0 && closed >= 1.0, "{labels:?}:\n{}", metrics.text);
        let open = metrics.sum("tcp_open_connections", &labels);
        assert_eq!(open, opened - closed, "{labels:?}:\n{}", metrics.text);
        assert_labels(metrics, "tcp_open_total", &labels, &expected);
        assert_labels(metrics, "tcp_open_connections", &labels, &expected);
        assert_labels(
            metrics,
            "tcp_close_total",
            &labels,
            &[&expected[..], &["errno"]].concat(),
        );
        for family in ["tcp_read_bytes_total", "tcp_write_bytes_total"] {
            assert!(
                metrics.sum(family, &labels) >= 13.0,
                "{family} {labels:?}:\n{}",
                metrics.text
            );
            assert_labels(metrics, family, &labels, &expected);
        }
    }
}

#[test]
fn detection_authorization_process_and_certificate_are_there() {
    let (_mesh, _server, _client, at_client, at_server) = scrapes();
    let parent = [
        "parent_group",
        "parent_kind",
        "parent_namespace",
        "parent_name",
        "parent_port",
        "parent_section_name",
    ];
    let srv = ["srv_group", "srv_kind", "srv_name", "srv_port"];
    for (metrics, family, labels) in [
        (
            &at_client,
            "outbound_tcp_detect_http_results_total",
            [&["result"][..], &parent].concat(),
        ),
        (
            &at_client,
            "outbound_tcp_detect_http_duration_seconds_count",
            parent.to_vec(),
        ),
        (
            &at_client,
            "outbound_tcp_protocol_connections_total",
            [&["protocol"][..], &parent].concat(),
        ),
        (
            &at_server,
            "inbound_tcp_detect_http_results_total",
            [&["result"][..], &srv].concat(),
        ),
        (
            &at_server,
            "inbound_tcp_detect_http_duration_seconds_count",
            srv.to_vec(),
        ),
        (
            &at_server,
            "control_request_total",
            vec!["addr", "tls", "server_id"],
        ),
        (
            &at_server,
            "control_response_total",
            vec![
                "addr",
                "tls",
                "server_id",
                "status_code",
                "classification",
                "grpc_status",
                "error",
            ],
        ),
        (
            &at_server,
            "control_identity_cert_refreshes_total",
            vec!["result"],
        ),
        (
            &at_server,
            "control_identity_cert_expiration_timestamp_seconds",
            vec![],
        ),
        (
            &at_server,
            "control_identity_cert_refresh_timestamp_seconds",
            vec![],
        ),
        (
            &at_server,
            "proxy_build_info",
            vec!["date", "git_sha", "profile", "vendor", "version"],
        ),
        (&at_server, "process_start_time_seconds", vec![]),
        (&at_server, "process_clock_time_seconds", vec![]),
        (&at_server, "process_virtual_memory_bytes", vec![]),
        (&at_server, "process_resident_memory_bytes", vec![]),
        (&at_server, "process_open_fds", vec![]),
        (&at_server, "process_max_fds", vec![]),
        (&at_server, "process_threads", vec![]),
        (&at_server, "process_uptime_seconds_total", vec![]),
        (&at_server, "process_cpu_seconds_total", vec![]),
    ] {
        assert_labels(metrics, family, &[], &labels);
    }
    let allowed = [
        ("target_port", "8080"),
        ("authz_name", "all-unauthenticated"),
        ("tls", "true"),
    ];
    assert_eq!(
        at_server.sum("inbound_http_authz_allow_total", &allowed),
        1.0,
        "{}",
        at_server.text
    );
    assert_eq!(
        at_server.sum("control_identity_cert_refreshes_total", &[("result", "ok")]),
        1.0
    );
}

#[test]
fn routes_balancers_and_zones_are_there() {
    let (_mesh, server, client, _, _) = scrapes();
    client.sh("curl -s -o /dev/null -d hello http://web.demo.svc.cluster.local/");
    let (at_client, at_server) = (Metrics::of(&client), Metrics::of(&server));
    let parent = [
        "parent_group",
        "parent_kind",
        "parent_namespace",
        "parent_name",
        "parent_port",
        "parent_section_name",
    ];
    let route = ["route_group", "route_kind", "route_namespace", "route_name"];
    let backend = [
        "backend_group",
        "backend_kind",
        "backend_namespace",
        "backend_name",
        "backend_port",
        "backend_section_name",
    ];
    let of_route = [&parent[..], &route].concat();
    let of_backend = [&parent[..], &backend].concat();
    let of_balancer = [&of_backend[..], &["logical", "concrete"]].concat();
    let inbound = [
        "parent_group",
        "parent_kind",
        "parent_name",
        "parent_port",
        "route_group",
        "route_kind",
        "route_name",
    ];
    let with = |labels: &[&'static str], more: &[&'static str]| [labels, more].concat();
    for (metrics, family, labels, sum) in [
        (&at_server, "inbound_http_requests_total", inbound.to_vec(), 3.0),
        (
            &at_server,
            "inbound_http_request_duration_seconds_count",
            inbound.to_vec(),
            3.0,
        ),
        (
            &at_server,
            "inbound_http_response_duration_seconds_count",
            inbound.to_vec(),
            3.0,
        ),
        (
            &at_server,
            "inbound_http_request_frame_size_bytes_sum",
            inbound.to_vec(),
            5.0,
        ),
        (
            &at_server,
            "inbound_http_response_frame_size_bytes_count",
            inbound.to_vec(),
            3.0,
        ),
        (
            &at_server,
            "inbound_http_statuses_total",
            with(&inbound, &["status"]),
            3.0,
        ),
        (
            &at_client,
            "outbound_http_route_request_frame_size_bytes_sum",
            with(&of_route, &["hostname"]),
            5.0,
        ),
        (
            &at_client,
            "outbound_http_route_backend_response_frame_size_bytes_count",
            with(&of_route, &backend),
            2.0,
        ),
        (
            &at_client,
            "outbound_http_balancer_endpoints",
            with(&of_backend, &["endpoint_state"]),
            1.0,
        ),
        (
            &at_client,
            "outbound_http_balancer_p2c_endpoints",
            of_backend.clone(),
            1.0,
        ),
        (
            &at_client,
            "outbound_http_balancer_p2c_updates_total",
            with(&of_backend, &["op"]),
            1.0,
        ),
        (
            &at_client,
            "outbound_http_balancer_queue_length",
            of_backend.clone(),
            0.0,
        ),
        (
            &at_client,
            "outbound_http_balancer_queue_requests_total",
            of_backend.clone(),
            2.0,
        ),
        (
            &at_client,
            "outbound_http_balancer_queue_latency_seconds_count",
            of_backend.clone(),
            2.0,
        ),
        (
            &at_client,
            "outbound_http_balancer_queue_gate_open_total",
            of_backend.clone(),
            1.0,
        ),
        (
            &at_client,
            "outbound_http_balancer_queue_gate_timeout_seconds",
            of_backend,
            3.0,
        ),
        (
            &at_client,
            "outbound_tcp_route_open_total",
            with(&of_route, &["target_ip", "target_port"]),
            1.0,
        ),
        (
            &at_client,
            "outbound_tcp_route_close_total",
            with(&of_route, &["target_ip", "target_port", "error"]),
            1.0,
        ),
    ] {
        // Destinations whose protocol has to be found out have balancers for requests too.
        let some: &[_] = match family.starts_with("outbound_http_") {
            true => &[("parent_name", "web")],
            false => &[],
        };
        assert_labels(metrics, family, some, &labels);
        assert_eq!(metrics.sum(family, some), sum, "{family}:\n{}", metrics.text);
    }
    let pipe = [("backend_name", "pipe")];
    let requests = "outbound_tcp_balancer_queue_requests_total";
    assert_labels(&at_client, requests, &pipe, &of_balancer);
    assert_eq!(at_client.sum(requests, &pipe), 1.0);
    let cost = "outbound_tcp_transfer_cost_bytes_total";
    assert_labels(&at_client, cost, &[], &["op", "zone_locality"]);
    assert!(
        at_client.sum(cost, &[("op", "Send")]) >= 13.0,
        "{}",
        at_client.text
    );
}

#[test]
fn prometheus_scrapes_and_its_linter_reads_both_sides() {
    let (_mesh, server, client, at_client, at_server) = scrapes();
    for (pod, metrics) in [(&client, at_client), (&server, at_server)] {
        pod.file("metrics.txt", &metrics.text);
        // What it prints are its opinions of Linkerd's names; what can't be read is an error.
        let opinions = pod.sh("promtool check metrics <metrics.txt 2>&1 || [ $? -eq 3 ]");
        for opinion in opinions.lines() {
            let of_names = opinion.ends_with("_total no help text")
                || opinion.ends_with("response_latency_ms metric names should not contain abbreviated units");
            assert!(of_names, "{opinion}");
        }
    }
    // Prometheus itself asks for OpenMetrics.
    let targets = format!("['{}:4191', '{}:4191']", client.ip(), server.ip());
    server.file(
        "prometheus.yaml",
        format!("scrape_configs: [{{job_name: mesh, scrape_interval: 1s, static_configs: [{{targets: {targets}}}]}}]"),
    );
    let argv = [
        "prometheus",
        "--config.file=prometheus.yaml",
        "--storage.tsdb.path=data",
        "--web.listen-address=127.0.0.1:9090",
    ];
    let mut prometheus = server.start("prometheus", "nobody", &argv, &[]);
    prometheus.until_logged("ready to receive web requests");
    let found = |query: &str| {
        server.sh(&format!(
            "curl -sG --data-urlencode 'query={query}' 127.0.0.1:9090/api/v1/query"
        ))
    };
    wait::until("both proxies to be scraped without an error", || {
        found("sum(up)").contains("\"2\"]").then_some(())
    });
    let asked = found("sum(request_total{direction=\"outbound\",authority!=\"\"})");
    assert!(asked.contains("\"1\"]"), "{asked}");
}

/// The labels of a series, in any order; those of the endpoint (`dst_…`) are the control plane's to choose.
fn assert_labels(metrics: &Metrics, name: &str, some: &[(&str, &str)], expected: &[&str]) {
    let mut names = metrics.label_names(name, some);
    names.retain(|name| !name.starts_with("dst_"));
    names.sort_unstable();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(names, expected, "of {name}");
}
