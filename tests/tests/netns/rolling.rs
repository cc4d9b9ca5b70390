//! Rolling restarts under load: pods are replaced one after another, with their proxies, and no request fails.

use hyper::Version;
use outrigger_e2e::mesh::{Mesh, Meshed};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::process::Process;
use outrigger_e2e::steady::{CONNECTIONS, Outcome, Steady};
use outrigger_e2e::{app, wait};
use std::net::SocketAddr;
use std::{env, mem};

const HTTP1: u16 = 8080;
const HTTP2: u16 = 8081;
const GRPC: u16 = 50_051;
const SERVICES: [(&str, u16, u16); 3] = [("web", 80, HTTP1), ("web2", 81, HTTP2), ("greeter", GRPC, GRPC)];

/// Requests a second in all, as clients try: two processors carry some 900 through proxies that are built without
/// optimisation, and what they don't carry is left out. `OUTRIGGER_RATE` asks for another rate.
const RATE: u32 = 1_000;

#[expect(
    clippy::disallowed_methods,
    reason = "the rate of a test is no configuration of a program"
)]
fn rate() -> u32 {
    env::var("OUTRIGGER_RATE").map_or(RATE, |rate| rate.parse().expect("requests a second"))
}

/// A pod that serves HTTP/1.1, HTTP/2 and gRPC.
struct Server {
    pod: Meshed,
    nginx: Process,
    greeter: Process,
}

impl Server {
    fn start(mesh: &Mesh, name: &str) -> Self {
        let pod = mesh
            .pod(name)
            .account("server")
            .ports(&[HTTP1, HTTP2, GRPC])
            .meshed();
        let (nginx, greeter) = (app::nginx(&pod), app::greeter(&pod, GRPC));
        Self { pod, nginx, greeter }
    }

    /// Waits until requests have come to it.
    fn until_used(&self) {
        wait::until("requests to the new server", || {
            let asked = Metrics::of(&self.pod).sum("request_total", &[("direction", "inbound")]);
            (asked > 10.0).then_some(())
        });
    }

    /// Ends the proxy, and when it has ended, the applications.
    fn end(self) {
        end(&self.pod);
        self.nginx.stop();
        self.greeter.stop();
    }
}

/// Ends a proxy, which finishes in time what it has.
fn end(pod: &Meshed) {
    pod.proxy().terminate();
    let status = pod.proxy().ended();
    let log = pod.proxy().log();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("did not complete"), "{log}");
}

/// The addresses of the services, by these servers.
fn serve(mesh: &Mesh, servers: [&Server; 2]) -> [SocketAddr; 3] {
    SERVICES.map(|(name, port, to)| mesh.service(name, port, &servers.map(|server| (&*server.pod, to))))
}

/// HTTP/1.1 and HTTP/2, each at half the rate.
fn load(pod: &Meshed, web: SocketAddr, web2: SocketAddr) -> [Steady; 2] {
    [(web, Version::HTTP_11), (web2, Version::HTTP_2)]
        .map(|(addr, version)| Steady::start(pod, addr, version, rate() / 2))
}

fn outcome(told: u32) -> Outcome {
    Outcome {
        told: told as usize,
        failures: Vec::new(),
    }
}

/// A second's worth of requests has been answered.
fn a_while(loads: &[Steady]) {
    for load in loads {
        load.wait_for(rate() as usize / 2);
    }
}

#[test]
fn servers_are_replaced_under_load_with_no_failed_request() {
    let mesh = Mesh::start();
    let client = mesh.pod("client").meshed();
    let mut servers = ["server-0", "server-1"].map(|name| Server::start(&mesh, name));
    let [web, web2, _] = serve(&mesh, servers.each_ref());
    let loads = load(&client, web, web2);
    let mut calls = app::keep_calling(&client, &format!("greeter:{GRPC}"));
    for place in [0, 1] {
        a_while(&loads);
        let new = Server::start(&mesh, &format!("server-{}", place + 2));
        let old = mem::replace(&mut servers[place], new);
        for (name, _, to) in SERVICES {
            mesh.endpoints(name, to, &servers.each_ref().map(|server| (&*server.pod, to)));
        }
        // The proxy of the client may not have heard of it yet.
        old.end();
        servers[place].until_used();
    }
    a_while(&loads);
    // The connections of the application have lived through it.
    assert_eq!(loads.map(Steady::stop), [outcome(0), outcome(0)]);
    calls.terminate();
    assert_eq!(calls.ended().code(), Some(0), "{}", calls.log());
}

#[test]
fn clients_are_replaced_under_load_with_no_failed_request() {
    let mesh = Mesh::start();
    let servers = ["server-0", "server-1"].map(|name| Server::start(&mesh, name));
    let [web, web2, _] = serve(&mesh, servers.each_ref());
    let pod = |name| mesh.pod(name).account("client").meshed();
    let old = pod("client-0");
    let before = load(&old, web, web2);
    let mut calls = app::keep_calling(&old, &format!("greeter:{GRPC}"));
    a_while(&before);
    let new = pod("client-1");
    let after = load(&new, web, web2);
    a_while(&after);
    // The kubelet tells both at the same time. This application makes no more calls, the others go on until they hear of it.
    calls.terminate();
    end(&old);
    assert_eq!(
        before.map(Steady::stop),
        [outcome(CONNECTIONS), outcome(CONNECTIONS)]
    );
    assert_eq!(calls.ended().code(), Some(0), "{}", calls.log());
    a_while(&after);
    assert_eq!(after.map(Steady::stop), [outcome(0), outcome(0)]);
}

#[test]
fn clients_without_a_proxy_hear_that_a_server_ends() {
    let mesh = Mesh::start();
    let server = Server::start(&mesh, "server");
    let outside = mesh.node().outside();
    let loads = [(HTTP1, Version::HTTP_11), (HTTP2, Version::HTTP_2)]
        .map(|(port, version)| Steady::start(outside, server.pod.addr(port), version, rate() / 2));
    a_while(&loads);
    server.end();
    assert_eq!(
        loads.map(Steady::stop),
        [outcome(CONNECTIONS), outcome(CONNECTIONS)]
    );
}
