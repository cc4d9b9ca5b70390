//! Many connections: in one burst, idle for long, up and down, and more than there is room for.

use outrigger_e2e::crowd::{BYTES, Crowd, Mirror, REQUEST};
use outrigger_e2e::http::{self, Echo};
use outrigger_e2e::mesh::{Mesh, Meshed};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::{sockets, wait};
use std::net::Ipv4Addr;

const HTTP: u16 = 8080;
const OPAQUE: u16 = 3306;

fn none() -> Vec<String> {
    Vec::new()
}

fn open(pod: &Meshed, direction: &str, peer: &str) -> f64 {
    Metrics::of(pod).sum(
        "outrigger_connections",
        &[("direction", direction), ("peer", peer)],
    )
}

/// Waits until a pod's proxy has this many connections of its application open.
fn until_open(pod: &Meshed, count: f64) {
    wait::until(&format!("{count} connections"), || {
        (open(pod, "outbound", "src") == count).then_some(())
    });
}

#[test]
fn a_thousand_opaque_connections_at_once_all_succeed() {
    const CLIENTS: usize = 1_000;
    outrigger_sys::files::raise_limit().unwrap();
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[OPAQUE]).meshed();
    let client = mesh.pod("client").meshed();
    let db = mesh.service("db", OPAQUE, &[(&server, OPAQUE)]);
    let mirror = Mirror::serve(&server, OPAQUE);
    let crowd = Crowd::open(&client, db, BYTES, CLIENTS, CLIENTS);
    assert_eq!((crowd.len(), &crowd.failures), (CLIENTS, &none()));
    assert_eq!(mirror.open(), CLIENTS);
    assert_eq!(open(&client, "outbound", "src"), CLIENTS as f64);
    assert_eq!(open(&server, "inbound", "dst"), CLIENTS as f64);
    drop(crowd);
    until_open(&client, 0.0);
    wait::until("the application's ends", || (mirror.open() == 0).then_some(()));
    sockets::until_none_is_half_ended(&[&client, &server]);
}

#[test]
fn ten_thousand_connections_are_held_and_leave_little_behind() {
    const CONNECTIONS: usize = 10_000;
    const AT_ONCE: usize = 100;
    outrigger_sys::files::raise_limit().unwrap();
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[HTTP, OPAQUE]).meshed();
    let client = mesh
        .pod("client")
        .env("LINKERD2_PROXY_OUTBOUND_MAX_CONNECTIONS", "12000")
        .meshed();
    let web = mesh.service("web", 80, &[(&server, HTTP)]);
    let db = mesh.service("db", OPAQUE, &[(&server, OPAQUE)]);
    Echo::serve(&server, HTTP);
    let mirror = Mirror::serve(&server, OPAQUE);
    let memory = || [&client, &server].map(|pod| pod.proxy().memory());
    // What the first connections need is needed once.
    for (addr, words) in [(web, REQUEST), (db, BYTES)] {
        assert_eq!(
            Crowd::open(&client, addr, words, AT_ONCE, AT_ONCE).failures,
            none()
        );
    }
    until_open(&client, 0.0);
    let before = memory();
    let mut held = before;
    for (addr, words, at_a_time) in [(web, REQUEST, CONNECTIONS), (db, BYTES, CONNECTIONS / 10)] {
        let crowd = Crowd::open(&client, addr, words, at_a_time, AT_ONCE);
        assert_eq!((crowd.len(), &crowd.failures), (at_a_time, &none()));
        until_open(&client, at_a_time as f64);
        let now = memory();
        held = [held[0].max(now[0]), held[1].max(now[1])];
        // The idle ones take nothing from others.
        assert_eq!(
            http::get(&client, web, "web", "/", &["connection: close"]).status,
            200
        );
        drop(crowd);
        until_open(&client, 0.0);
    }
    wait::until("the application's ends", || (mirror.open() == 0).then_some(()));
    sockets::until_none_is_half_ended(&[&client, &server]);
    for (side, name) in ["client", "server"].iter().enumerate() {
        let mut now = 0;
        let falls = wait::within(wait::BOUND, || {
            now = memory()[side];
            (now * 2 <= before[side] * 3).then_some(())
        });
        println!(
            "{name}: {} bytes, {} with all open, {now} after",
            before[side], held[side]
        );
        assert!(
            falls.is_some(),
            "{name}: {} -> {} -> {now}",
            before[side],
            held[side]
        );
    }
}

#[test]
fn more_connections_than_there_is_room_for_wait_and_the_admin_port_answers() {
    const FILES: u32 = 200;
    const CLIENTS: usize = 300;
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[HTTP]).files(FILES).meshed();
    let outside = mesh.node().outside();
    Echo::serve(&server, HTTP);
    let limit = [("direction", "inbound"), ("peer", "src")];
    let at = |name| Metrics::of(&server).sum(name, &limit);
    let room = at("outrigger_connections_limit") as usize;
    assert!(room > 10 && room < FILES as usize / 4, "{room}");
    // Each says a part of a request, and nothing more.
    let mut flood: Vec<_> = (0..CLIENTS)
        .map(|_| outside.connect(server.addr(HTTP)).unwrap())
        .collect();
    wait::until("there is no more room", || {
        (at("outrigger_connections") as usize == room).then_some(())
    });
    assert!(at("outrigger_connections_full_total") >= 1.0);
    assert_eq!(at("outrigger_connections_starved_total"), 0.0);
    let admin = (Ipv4Addr::LOCALHOST, 4191).into();
    assert_eq!(http::get(&server, admin, "localhost", "/ready", &[]).status, 200);
    // Those that waited are served as soon as others have left, and in the end all of them.
    for stream in &mut flood {
        let response = http::exchange(stream, "web", "/", &["connection: close"]).unwrap();
        assert_eq!(response.status, 200);
    }
    assert_eq!(at("outrigger_connections_starved_total"), 0.0);
}
