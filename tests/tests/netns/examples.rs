//! The examples of `examples/traffic` as they stand there: served from a directory, through two proxies, each changed and
//! taken away while requests flow that must not notice.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Instant;

use hyper::Version;
use outrigger_e2e::http::{self, Echo, GATE, Response};
use outrigger_e2e::mesh::{Mesh, Meshed, until_status};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::pod::Pod;
use outrigger_e2e::process::Process;
use outrigger_e2e::steady::Steady;
use outrigger_e2e::{app, tls, wait};

/// Requests a second for `/`, which no example may make fail.
const RATE: u32 = 100;

/// What examples lead to, with the addresses that `examples/mesh` and `examples/traffic` give it.
const WEB: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 0, 10), 80);
const GREETER: &str = "10.96.0.11:50051";
const GUARDED: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 0, 21), 80);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const SERVER_V2: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 3);
/// Outside the cluster's networks.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

/// Shows that an example, given as its text, does what it says, before and after a change.
type Works = fn(&Stage, &str);

const EXAMPLES: [(&str, Works); 10] = [
    ("canary-httproute.yaml", canary),
    ("canary-trafficsplit.yaml", canary),
    ("blue-green.yaml", blue_green),
    ("header-routing.yaml", header_routing),
    ("retries.yaml", retries),
    ("service-profile.yaml", service_profile),
    ("fault-injection.yaml", fault_injection),
    ("circuit-breaking.yaml", circuit_breaking),
    ("egress.yaml", egress),
    ("grpc.yaml", grpc),
];

/// A mesh with two versions of a service, and something outside.
struct Stage {
    mesh: Mesh,
    client: Meshed,
    _servers: [Meshed; 2],
    old: Echo,
    new: Echo,
    outside: Pod,
    _apps: [Process; 2],
}

#[test]
fn every_example_does_what_it_says_and_is_changed_under_load() {
    let stage = Stage::set();
    let load = Steady::start(&stage.client, WEB.into(), Version::HTTP_11, RATE);
    let mut calls = app::keep_calling(&stage.client, GREETER);
    for (file, works) in EXAMPLES {
        let begun = Instant::now();
        works(&stage, &example(file));
        stage
            .mesh
            .reread(|| fs::remove_file(stage.mesh.manifest("example.yaml")).unwrap());
        stage.until_all_go_to("server");
        println!("{file}: {:.1?}", begun.elapsed());
    }
    assert_eq!(load.stop().failures, [] as [String; 0]);
    calls.terminate();
    assert!(calls.ended().success(), "{}", calls.log());
}

#[test]
fn every_example_is_among_those_that_are_tried() {
    let mut files: Vec<_> = fs::read_dir(examples())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort_unstable();
    // What examples lead to, and one that `mirrors` tries.
    let mut tried = vec!["web-v2.yaml", "mirroring.yaml"];
    tried.extend(EXAMPLES.map(|(file, _)| file));
    tried.sort_unstable();
    assert_eq!(files, tried);
}

fn examples() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/traffic")
}

fn example(file: &str) -> String {
    fs::read_to_string(examples().join(file)).unwrap()
}

/// The text with something in it replaced, which has to be there.
fn changed(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in {text}");
    text.replace(from, to)
}

impl Stage {
    fn set() -> Self {
        let mesh = Mesh::start();
        let serve = |name, ip| mesh.pod(name).ip(ip).ports(&[8080, 50_051]).meshed();
        let servers = [serve("server", SERVER), serve("server-v2", SERVER_V2)];
        let client = mesh.pod("client").ip(CLIENT).meshed();
        let of_mesh = |file| fs::read_to_string(examples().join("../mesh").join(file)).unwrap();
        mesh.write("web.yaml", &of_mesh("web.yaml"));
        mesh.write("greeter.yaml", &of_mesh("greeter.yaml"));
        let v2 = changed(&example("web-v2.yaml"), "[10.77.2.2]", &format!("[{SERVER_V2}]"));
        mesh.write(
            "web-v2.yaml",
            &changed(&v2, "name: server }", "name: server-v2 }"),
        );
        let [old, new] = servers.each_ref().map(|server| Echo::serve(server, 8080));
        let outside = mesh
            .node()
            .pod("outside", OUTSIDE, &mesh.dir().join("pods/outside"));
        Echo::serve(&outside, 80);
        let apps = [app::greeter(&servers[0], 50_051), tls_server(&outside)];
        until_status(&client, WEB.into(), "web", 200);
        Self {
            mesh,
            client,
            _servers: servers,
            old,
            new,
            outside,
            _apps: apps,
        }
    }

    /// Serves an example, or a change of it.
    fn write(&self, text: &str) {
        self.mesh.write("example.yaml", text);
    }

    fn get(&self, path: &str, headers: &[&str]) -> Response {
        self.get_from(WEB.into(), path, headers)
    }

    fn get_from(&self, addr: SocketAddr, path: &str, headers: &[&str]) -> Response {
        let headers: Vec<_> = headers.iter().copied().chain(["connection: close"]).collect();
        http::get(&self.client, addr, "web", path, &headers)
    }

    /// The server that answers a request.
    fn server_of(&self, headers: &[&str]) -> String {
        let answer = self.get("/", headers);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body.lines().next().unwrap_or_default().to_owned()
    }

    fn until_all_go_to(&self, server: &str) {
        wait::until(&format!("all requests to go to {server}"), || {
            (0..20).all(|_| self.server_of(&[]) == server).then_some(())
        });
    }

    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        Metrics::of(&self.client).sum(name, labels)
    }

    /// Waits until requests take the route of this name.
    fn until_routed(&self, name: &str, path: &str) {
        wait::until(&format!("requests to take {name}"), || {
            self.get(path, &[]);
            let taken = self.metric(
                "outbound_http_route_request_statuses_total",
                &[("route_name", name)],
            );
            (taken > 0.0).then_some(())
        });
    }

    /// The status that curl is answered with; 0 if there is no answer.
    fn curl(&self, args: &str) -> u16 {
        let line = format!("curl -s -o /dev/null -w '%{{http_code}}' --max-time 20 {args} || true");
        self.client.sh(&line).trim().parse().unwrap()
    }
}

/// TLS on 443 for any name, as some service on the internet would have it.
fn tls_server(pod: &Pod) -> Process {
    let own = tls::self_signed("outside");
    let (certificate, key) = (pod.file("crt", &own.certificate), pod.file("key", &own.key));
    let argv = [
        "openssl",
        "s_server",
        "-accept",
        "443",
        "-cert",
        &certificate,
        "-key",
        &key,
        "-www",
    ];
    let mut server = pod.start("tls", "root", &argv, &[]);
    server.until_logged("ACCEPT");
    server
}

fn canary(stage: &Stage, text: &str) {
    stage.write(text);
    let before = stage.new.requests();
    wait::until("the new version to get requests", || {
        (stage.new.requests() > before).then_some(())
    });
    let mut stream = stage.client.connect(SocketAddr::from(WEB)).unwrap();
    let new = (0..500)
        .filter(|_| {
            let answer = http::exchange(&mut stream, "web", "/", &[]).unwrap();
            assert_eq!(answer.status, 200);
            answer.body.starts_with("server-v2\n")
        })
        .count();
    // One in ten is 50; less than one of a million runs is further off than this.
    assert!((17..=83).contains(&new), "{new} of 500");
    let all = changed(
        &changed(text, "weight: 90", "weight: 0"),
        "weight: 10",
        "weight: 100",
    );
    stage.write(&all);
    stage.until_all_go_to("server-v2");
}

fn blue_green(stage: &Stage, text: &str) {
    stage.write(text);
    stage.until_routed("blue-green", "/");
    stage.until_all_go_to("server");
    let exchanged = changed(text, "weight: 1\n", "weight: one\n");
    let exchanged = changed(
        &changed(&exchanged, "weight: 0\n", "weight: 1\n"),
        "weight: one\n",
        "weight: 0\n",
    );
    stage.write(&exchanged);
    stage.until_all_go_to("server-v2");
}

fn header_routing(stage: &Stage, text: &str) {
    let version = |version: &str| stage.server_of(&[&format!("x-version: {version}")]);
    let until = |asked: &str| {
        wait::until("the new version to answer who asks for it", || {
            (version(asked) == "server-v2").then_some(())
        });
        assert_eq!(stage.server_of(&[]), "server");
    };
    stage.write(text);
    until("v2");
    assert_eq!(version("v3"), "server");
    stage.write(&changed(text, "value: v2", "value: v3"));
    until("v3");
    assert_eq!(version("v2"), "server");
}

fn retries(stage: &Stage, text: &str) {
    stage.write(text);
    stage.until_routed("retries", "/");
    let retried = |suffix: &str| {
        let name = format!("outbound_http_route_retry_{suffix}");
        stage.metric(&name, &[("route_name", "retries")])
    };
    stage.old.fail_at("/flaky", 503, 2);
    assert_eq!(stage.get("/flaky", &[]).status, 200);
    assert_eq!(
        (retried("requests_total"), retried("successes_total")),
        (2.0, 1.0)
    );
    let late = stage.get(GATE, &[]);
    assert_eq!((late.status, retried("requests_total")), (504, 4.0), "{late:?}");
    assert_eq!(stage.curl(&format!("-X POST http://{}{GATE}", WEB.0)), 504);
    stage.write(&changed(text, "limit: \"2\"", "limit: \"1\""));
    wait::until("two failures to be too many", || {
        stage.old.fail_at("/flaky", 503, 2);
        (stage.get("/flaky", &[]).status == 503).then_some(())
    });
    stage.old.fail_at("/flaky", 503, 0);
}

fn service_profile(stage: &Stage, text: &str) {
    let orders = ("rt_route", "GET /orders/{id}");
    stage.write(text);
    wait::until("requests to take the profile's route", || {
        stage.get("/orders/7", &[]);
        (stage.metric("route_request_total", &[orders]) > 0.0).then_some(())
    });
    stage.old.fail_at("/orders", 404, 2);
    assert_eq!(stage.get("/orders/7", &[]).status, 200);
    let missed = [orders, ("status_code", "404"), ("classification", "failure")];
    assert_eq!(stage.metric("route_actual_response_total", &missed), 2.0);
    assert_eq!(stage.metric("route_response_total", &missed), 0.0);
    let late = stage.get(&format!("/orders{GATE}"), &[]);
    assert_eq!(late.status, 504, "{late:?}");
    stage.write(&changed(text, "isRetryable: true", "isRetryable: false"));
    wait::until("orders not to be asked for again", || {
        stage.old.fail_at("/orders", 404, 1);
        (stage.get("/orders/7", &[]).status == 404).then_some(())
    });
    stage.old.fail_at("/orders", 404, 0);
}

fn fault_injection(stage: &Stage, text: &str) {
    stage.write(text);
    let checkout = || stage.get("/checkout", &[]).status;
    wait::until("a fault", || (checkout() == 503).then_some(()));
    wait::until("one that is spared", || (checkout() == 200).then_some(()));
    let all = changed(
        &changed(text, "percent: \"20\"", "percent: \"100\""),
        "\"503\"",
        "\"418\"",
    );
    let all = changed(&all, "delay: 200ms", "delay: 1ms");
    stage.write(&all);
    wait::until("faults only", || (0..10).all(|_| checkout() == 418).then_some(()));
    let failed = [("route_name", "faults"), ("http_status", "418")];
    assert!(stage.metric("outbound_http_route_request_statuses_total", &failed) >= 10.0);
}

fn circuit_breaking(stage: &Stage, text: &str) {
    let states = |state| {
        let of = [
            ("protocol", "http"),
            ("backend_name", "guarded"),
            ("state", state),
        ];
        stage.metric("outrigger_balancer_endpoints", &of)
    };
    let guarded = || stage.get_from(GUARDED.into(), "/guarded", &[]).status;
    stage.write(text);
    until_status(&stage.client, GUARDED.into(), "guarded", 200);
    assert_eq!((states("ready"), states("shut")), (1.0, 0.0));
    stage.old.fail_at("/guarded", 503, usize::MAX);
    let before = stage.old.requests();
    assert_eq!([guarded(), guarded(), guarded()], [503; 3]);
    wait::until("the endpoint to be shut", || {
        (states("shut") + states("probation") == 1.0).then_some(())
    });
    assert!(stage.old.requests() >= before + 3);
    stage.old.fail_at("/guarded", 503, 0);
    wait::until("the endpoint to be ready again", || {
        guarded();
        (states("ready") == 1.0).then_some(())
    });
    stage.write(&changed(text, "max-failures: \"3\"", "max-failures: \"1000\""));
    stage.old.fail_at("/guarded", 503, usize::MAX);
    wait::until("ten failures to be few", || {
        let failed = (0..10).all(|_| guarded() == 503);
        (failed && states("ready") == 1.0).then_some(())
    });
    stage.old.fail_at("/guarded", 503, 0);
}

fn egress(stage: &Stage, text: &str) {
    let http = |method: &str| stage.curl(&format!("-X {method} http://{}/", stage.outside.ip()));
    let tls = |name: &str| {
        let (name, ip) = (format!("https://{name}/"), stage.outside.ip());
        stage.curl(&format!("-k --connect-to ::{ip}: {name}"))
    };
    assert_eq!((http("POST"), tls("other.test")), (200, 200));
    stage.write(text);
    wait::until("what no route takes to be refused", || {
        (http("POST") != 200 && tls("other.test") == 0).then_some(())
    });
    assert_eq!((http("GET"), tls("db.example.com")), (200, 200));
    stage.write(&changed(text, "*.example.com", "other.test"));
    wait::until("the other name to be let out", || {
        (tls("other.test") == 200 && tls("db.example.com") == 0).then_some(())
    });
    let closed = [("route_name", "example-com"), ("error", "")];
    wait::until("its connections to be counted", || {
        (stage.metric("outbound_tls_route_close_total", &closed) >= 1.0).then_some(())
    });
}

fn grpc(stage: &Stage, text: &str) {
    stage.write(text);
    let answered = || {
        let ok = [("route_name", "greeter"), ("grpc_status", "OK")];
        stage.metric("outbound_grpc_route_request_statuses_total", &ok)
    };
    wait::until("calls to take the route", || (answered() > 0.0).then_some(()));
    app::call_greeter(&stage.client, GREETER);
    stage.write(&changed(text, "request: 1s", "request: 5s"));
    let before = answered();
    wait::until("more calls", || (answered() > before + 20.0).then_some(()));
}
