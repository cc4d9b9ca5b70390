//! The control plane goes, comes back, is another one, or says nonsense: what runs goes on.

use outrigger_e2e::app;
use outrigger_e2e::http::{self, Echo};
use outrigger_e2e::load::Load;
use outrigger_e2e::mesh::{Mesh, Meshed, until_status};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::pod::Pod;
use outrigger_e2e::wait;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// One more than a destination's idle time: what is cached must outlive it while nobody could tell it anew.
const LONGER_THAN_IDLE: Duration = Duration::from_secs(2);

#[test]
fn losing_the_control_plane_stops_nothing_that_runs_and_its_return_is_picked_up() {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080]).meshed();
    let client = mesh
        .pod("client")
        .env("LINKERD2_PROXY_OUTBOUND_DISCOVERY_IDLE_TIMEOUT", "1s")
        .meshed();
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    Echo::serve(&server, 8080);
    let mut kept = client.connect(web).unwrap();
    assert_eq!(http::exchange(&mut kept, "web", "/", &[]).unwrap().status, 200);

    mesh.kill_controller();
    let until = std::time::Instant::now() + LONGER_THAN_IDLE;
    while std::time::Instant::now() < until {
        assert_eq!(http::exchange(&mut kept, "web", "/", &[]).unwrap().status, 200);
        let response = http::get(&client, web, "web", "/", &["connection: close"]);
        assert!(response.body.contains(client.identity()), "{response:?}");
    }
    assert!(client.is_ready() && server.is_ready());

    mesh.start_controller();
    let other = mesh.service("other", 80, &[(&server, 8080)]);
    until_status(&client, other, "other", 200);
}

#[test]
fn without_the_control_plane_a_new_destination_fails_with_its_reason_and_the_world_outside_is_reached() {
    let mesh = Mesh::start();
    let client = mesh.pod("client").meshed();
    let world = mesh.pod("world").ip([192, 0, 2, 10].into()).unmeshed();
    Echo::serve(&world, 8080);
    mesh.kill_controller();
    assert_undiscovered(&client, ([10, 96, 7, 7], 80).into());
    let response = http::get(&client, world.addr(8080), "world", "/", &[]);
    assert_eq!(response.status, 200, "{response:?}");
}

#[test]
fn a_control_plane_of_another_authority_is_refused() {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080]).meshed();
    let client = mesh.pod("client").meshed();
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    Echo::serve(&server, 8080);
    until_status(&client, web, "web", 200);

    mesh.kill_controller();
    mesh.start_controller_on("the-state-of-another");
    let refused = || {
        mesh.controller()
            .as_ref()
            .unwrap()
            .log()
            .matches("TLS handshake failed")
            .count()
    };
    wait::until("proxies to have refused the other control plane", || {
        (refused() >= 4).then_some(())
    });
    let other = mesh.service("other", 80, &[(&server, 8080)]);
    assert_undiscovered(&client, other);
    assert_eq!(http::get(&client, web, "web", "/", &[]).status, 200);

    mesh.kill_controller();
    mesh.start_controller();
    until_status(&client, other, "other", 200);
}

#[test]
fn a_proxy_that_starts_without_its_control_plane_is_alive_and_gets_ready_with_it() {
    let mesh = Mesh::start();
    mesh.kill_controller();
    let pod = mesh.pod("early").ports(&[8080]).starting();
    let live = || http::try_get(&pod, local(4191), "localhost", "/live", &["connection: close"]).ok();
    assert_eq!(pod.proxy().until("it is alive", live).status, 200);
    let ready = http::get(&pod, local(4191), "localhost", "/ready", &["connection: close"]);
    assert_eq!(ready.status, 503);
    mesh.start_controller();
    pod.until_ready();
}

#[test]
fn endpoints_come_and_go_with_no_failed_request() {
    let mesh = Mesh::start();
    let servers: Vec<_> = ["one", "two", "three"]
        .iter()
        .map(|name| mesh.pod(name).ports(&[8080]).meshed())
        .collect();
    let client = mesh.pod("client").meshed();
    let echoes: Vec<_> = servers.iter().map(|server| Echo::serve(server, 8080)).collect();
    let web = mesh.service("web", 80, &[(&servers[0], 8080)]);
    until_status(&client, web, "web", 200);
    let load = Load::start(&client, web);
    for subset in [&[0, 1, 2][..], &[1, 2], &[2], &[0], &[0, 1]] {
        let endpoints: Vec<(&Pod, u16)> = subset.iter().map(|at| (&*servers[*at], 8080)).collect();
        mesh.endpoints("web", 8080, &endpoints);
        // Each change has arrived when those named now, and nobody else, get requests.
        wait::until(&format!("requests to {subset:?} only"), || {
            let before: Vec<_> = echoes.iter().map(Echo::requests).collect();
            load.wait_for(60);
            let answered = (0..echoes.len()).filter(|at| echoes[*at].requests() > before[*at]);
            answered.eq(subset.iter().copied()).then_some(())
        });
    }
    assert_eq!(load.stop(), Vec::<String>::new());
}

#[test]
fn the_control_plane_ends_when_it_is_told_to() {
    let mesh = Mesh::start();
    let client = mesh.pod("client").meshed();
    let controller = mesh.controller().take().unwrap();
    assert_eq!(controller.stop().code(), Some(0));
    assert!(client.is_ready());
}

#[test]
fn a_broken_manifest_changes_nothing_until_it_is_mended() {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080]).meshed();
    let client = mesh.pod("client").meshed();
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    Echo::serve(&server, 8080);
    until_status(&client, web, "web", 200);
    mesh.write(
        "endpoints-web.yaml",
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: [\n",
    );
    assert_eq!(http::get(&client, web, "web", "/", &[]).status, 200);
    let log = mesh.controller().as_ref().unwrap().log();
    assert!(log.contains("endpoints-web.yaml:"), "{log}");
}

#[test]
fn a_control_plane_that_talks_nonsense_harms_nobody() {
    let mesh = Mesh::start();
    for (name, nonsense) in [
        ("mute", &b""[..]),
        ("http1", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes"),
        ("noise", b"\x00\xff\x00\xff\x00\xff\x00\xff\x00\xff\x00\xff"),
        // SETTINGS, then a HEADERS frame whose block is not HPACK; then a frame that is longer than allowed.
        (
            "frames",
            b"\0\0\0\x04\0\0\0\0\0\0\0\x04\x01\x04\0\0\0\x01\xff\xff\xff\xff",
        ),
        ("giant", b"\0\0\0\x04\0\0\0\0\0\xff\xff\xff\0\0\0\0\0\x01"),
    ] {
        // A control plane on loopback is spoken to without TLS: nothing keeps the nonsense from the parser.
        let client = mesh
            .pod(name)
            .env("LINKERD2_PROXY_DESTINATION_SVC_ADDR", "127.0.0.1:18086")
            .env("LINKERD2_PROXY_POLICY_SVC_ADDR", "127.0.0.1:18086")
            .starting();
        let heard = talk_nonsense(&client, 18086, nonsense);
        client.until_ready();
        assert_undiscovered(&client, ([10, 96, 7, 7], 80).into());
        wait::until("it has tried again", || {
            (heard.load(Ordering::Relaxed) > 2).then_some(())
        });
        assert_unharmed(&client);
    }
}

/// Answers every connection to this port with the same bytes, and counts them.
fn talk_nonsense(pod: &Pod, port: u16, nonsense: &'static [u8]) -> Arc<AtomicUsize> {
    let listener = pod.listen(port);
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            count.fetch_add(1, Ordering::Relaxed);
            thread::spawn(move || {
                // The proxy may be gone already; that is its right.
                let _ = stream.write_all(nonsense);
                let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
    });
    heard
}

/// A connection to a destination that nobody could tell anything about is closed, and the proxy says why.
fn assert_undiscovered(client: &Meshed, addr: SocketAddr) {
    let response = http::try_get(client, addr, "nowhere", "/", &[]);
    assert!(response.is_err(), "{response:?}");
    let reason = |line: &&str| line.contains(&addr.to_string()) && line.contains("reason=\"discovery\"");
    wait::until("the proxy to say why", || {
        client.proxy().log().lines().find(reason).map(drop)
    });
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// The proxy runs, is ready, and nothing in it has panicked.
fn assert_unharmed(pod: &Meshed) {
    assert!(pod.proxy().runs() && pod.is_ready());
    assert_eq!(Metrics::of(pod).sum("outrigger_panics_total", &[]), 0.0);
    app::listens(pod, 4143).unwrap();
}
