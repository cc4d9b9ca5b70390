//! The end of a proxy: what runs finishes, nothing new begins.

use outrigger_e2e::app;
use outrigger_e2e::http::{self, Echo, GATE};
use outrigger_e2e::load::Load;
use outrigger_e2e::mesh::{Mesh, Meshed, until_status};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::wait;
use std::io::{Read, Write};
use std::thread;

fn pair(ports: &[u16]) -> (Mesh, Meshed, Meshed) {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(ports).meshed();
    let client = mesh.pod("client").meshed();
    (mesh, server, client)
}

/// Waits until the proxy has begun to drain.
fn until_draining(pod: &Meshed) {
    pod.proxy().until_logged("Draining");
}

#[test]
fn a_request_in_flight_is_answered_before_either_proxy_ends() {
    for ending in ["server", "client"] {
        let (mesh, server, client) = pair(&[8080]);
        let web = mesh.service("web", 80, &[(&server, 8080)]);
        let echo = Echo::serve(&server, 8080);
        let pod = client.pod();
        let request = thread::spawn(move || http::get(&pod, web, "web", GATE, &[]));
        wait::until("the request is in flight", || (echo.waiting() == 1).then_some(()));
        let ending = if ending == "server" { &server } else { &client };
        ending.proxy().terminate();
        until_draining(ending);
        assert!(ending.proxy().runs());
        echo.open_gate();
        assert_eq!(request.join().unwrap().status, 200);
        let status = ending.proxy().ended();
        assert_eq!(status.code(), Some(0), "{}", ending.proxy().log());
    }
}

#[test]
fn a_servers_proxy_ends_under_load_with_no_failed_request() {
    let mesh = Mesh::start();
    let servers = ["leaving", "staying"].map(|name| mesh.pod(name).ports(&[8080]).meshed());
    let client = mesh.pod("client").meshed();
    let echoes = servers.each_ref().map(|server| Echo::serve(server, 8080));
    let web = mesh.service("web", 80, &[(&servers[0], 8080), (&servers[1], 8080)]);
    until_status(&client, web, "web", 200);
    let load = Load::start(&client, web);
    wait::until("requests to both", || {
        echoes.iter().all(|echo| echo.requests() > 20).then_some(())
    });
    servers[0].proxy().terminate();
    assert_eq!(
        servers[0].proxy().ended().code(),
        Some(0),
        "{}",
        servers[0].proxy().log()
    );
    load.wait_for(100);
    assert_eq!(load.stop(), Vec::<String>::new());
}

#[test]
fn while_it_drains_nothing_new_is_accepted_and_an_open_pipe_is_not_cut() {
    let (mesh, server, client) = pair(&[9000]);
    let pipe = mesh.service("pipe", 9000, &[(&server, 9000)]);
    app::pipe(&server, 9000, "");
    let mut stream = client.connect(pipe).unwrap();
    let mut echoed = [0; 5];
    stream.write_all(b"\x01open").unwrap();
    stream.read_exact(&mut echoed).unwrap();
    client.proxy().terminate();
    until_draining(&client);
    wait::until("new connections are refused", || {
        client.connect(pipe).is_err().then_some(())
    });
    assert_eq!(app::send_all(&mut stream, b"\x01rest").unwrap(), b"\x01rest");
    assert_eq!(client.proxy().ended().code(), Some(0));
}

#[test]
fn certificates_are_renewed_under_load_with_no_failed_request() {
    let mesh = Mesh::start();
    let pod = |name| {
        mesh.pod(name)
            .ports(&[8080])
            .env("LINKERD2_PROXY_IDENTITY_MIN_REFRESH", "100ms")
            .env("LINKERD2_PROXY_IDENTITY_MAX_REFRESH", "100ms")
            .meshed()
    };
    let (server, client) = (pod("server"), pod("client"));
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    Echo::serve(&server, 8080);
    until_status(&client, web, "web", 200);
    let load = Load::start(&client, web);
    let renewed =
        |pod| Metrics::of(pod).sum("control_identity_cert_refreshes_total", &[("result", "ok")]) >= 5.0;
    wait::until("five certificates each", || {
        (renewed(&client) && renewed(&server)).then_some(())
    });
    assert_eq!(load.stop(), Vec::<String>::new());
}

#[test]
fn the_grace_period_bounds_the_drain() {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[9000]).meshed();
    let client = mesh
        .pod("client")
        .env("LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD", "500ms")
        .meshed();
    app::pipe(&server, 9000, "");
    let mut stream = client.connect(server.addr(9000)).unwrap();
    let mut echoed = [0; 5];
    stream.write_all(b"\x01open").unwrap();
    stream.read_exact(&mut echoed).unwrap();
    client.proxy().terminate();
    assert_eq!(client.proxy().ended().code(), Some(0));
    assert!(
        client
            .proxy()
            .log()
            .contains("Graceful shutdown did not complete"),
        "{}",
        client.proxy().log()
    );
}

#[test]
fn a_configuration_that_can_not_be_used_ends_the_start_with_all_reasons() {
    let mesh = Mesh::start();
    let pod = mesh
        .pod("wrong")
        .env("LINKERD2_PROXY_OUTBOUND_CONNECT_TIMEOUT", "soon")
        .env("LINKERD2_PROXY_INBOUND_IPS", "here")
        .starting();
    assert_eq!(pod.proxy().ended().code(), Some(64));
    let log = pod.proxy().log();
    for name in ["OUTBOUND_CONNECT_TIMEOUT", "INBOUND_IPS"] {
        assert!(log.contains(name), "no word about {name}: {log}");
    }
}
