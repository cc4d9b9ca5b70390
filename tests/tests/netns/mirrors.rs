//! Mirrors: copies of requests go elsewhere too, and the requests themselves notice nothing of it.

use std::net::SocketAddr;

use outrigger_e2e::http::{self, Echo};
use outrigger_e2e::load::Load;
use outrigger_e2e::mesh::{Mesh, Meshed, until_status};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::recorder::Recorder;
use outrigger_e2e::{app, wait};

/// A service `web`, another one that gets copies of its requests, and a client.
struct Pair {
    mesh: Mesh,
    client: Meshed,
    _server: Meshed,
    mirror: Meshed,
    app: Echo,
    web: SocketAddr,
}

impl Pair {
    /// `env` are variables of the client's proxy.
    fn start(env: &[(&'static str, &str)]) -> Self {
        let mesh = Mesh::start();
        let server = mesh.pod("server").ports(&[8080]).meshed();
        let mirror = mesh.pod("mirror").ports(&[8080]).meshed();
        let plan = mesh.pod("client");
        let client = env
            .iter()
            .fold(plan, |plan, (name, value)| plan.env(name, *value))
            .meshed();
        let web = mesh.service("web", 80, &[(&server, 8080)]);
        mesh.service("web-v2", 80, &[(&mirror, 8080)]);
        let app = Echo::serve(&server, 8080);
        until_status(&client, web, "web", 200);
        Self {
            mesh,
            client,
            _server: server,
            mirror,
            app,
            web,
        }
    }

    /// Lets every request be mirrored there, and waits until the client's proxy does so.
    fn mirror_to(&self, service: &str, annotations: &str) {
        let route = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
             metadata: {{name: to-{service}, namespace: demo, annotations: {{{annotations}}}}}\n\
             spec:\n  parentRefs: [{{group: core, kind: Service, name: web, port: 80}}]\n  rules:\n    \
             - filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: {service}, port: 80}}}}}}]\n      \
             backendRefs: [{{name: web, port: 80}}]\n"
        );
        self.mesh.write("mirror.yaml", &route);
        let route = format!("to-{service}");
        wait::until("the route", || {
            assert_eq!(self.get("/first"), 200);
            (self.results(&[("route_name", &route)]) > 0.0).then_some(())
        });
    }

    fn get(&self, path: &str) -> u16 {
        http::get(&self.client, self.web, "web", path, &["connection: close"]).status
    }

    /// Copies that ended like this.
    fn results(&self, labels: &[(&str, &str)]) -> f64 {
        Metrics::of(&self.client).sum("outrigger_mirror_requests_total", labels)
    }

    fn until_result(&self, result: &str, count: f64) {
        wait::until(&format!("{count} copies that are {result}"), || {
            (self.results(&[("result", result)]) == count).then_some(())
        });
    }

    /// Nothing is under way to a mirror, nor kept for one.
    fn until_nothing_is_kept(&self) {
        wait::until("nothing to be kept", || {
            let metrics = Metrics::of(&self.client);
            let kept = metrics.sum("outrigger_kept_body_bytes", &[("purpose", "mirror")]);
            (kept + metrics.sum("outrigger_mirror_in_flight", &[]) == 0.0).then_some(())
        });
    }
}

#[test]
fn the_example_mirrors_one_request_in_ten_and_no_request_notices() {
    let pair = Pair::start(&[]);
    let mirrored = Echo::serve(&pair.mirror, 8080);
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/traffic/mirroring.yaml");
    let load = Load::start(&pair.client, pair.web);
    pair.mesh
        .write("mirroring.yaml", &std::fs::read_to_string(example).unwrap());
    wait::until("the first copies", || (mirrored.requests() > 0).then_some(()));
    load.wait_for(1_500);
    assert_eq!(load.stop(), [] as [String; 0]);
    pair.until_nothing_is_kept();
    let copies = pair.results(&[]);
    let route = [("route_name", "mirror")];
    let requests = Metrics::of(&pair.client).sum("outbound_http_route_request_statuses_total", &route);
    let share = copies / requests;
    assert!((0.05..0.15).contains(&share), "{copies} of {requests}");
    assert_eq!(pair.results(&[("result", "answered")]), copies);
    assert_eq!(mirrored.requests() as f64, copies);
}

#[test]
fn a_mirror_that_does_not_answer_holds_up_nobody() {
    let pair = Pair::start(&[("LINKERD2_PROXY_OUTBOUND_MIRROR_MAX_IN_FLIGHT", "1")]);
    let mirrored = Echo::serve(&pair.mirror, 8080);
    pair.mirror_to("web-v2", "");
    pair.until_nothing_is_kept();
    let busy = pair.results(&[("result", "busy")]);
    pair.app.open_gate();
    assert_eq!(pair.get(http::GATE), 200);
    wait::until("the copy to wait for its answer", || {
        (mirrored.waiting() == 1).then_some(())
    });
    assert_eq!(pair.get("/more"), 200);
    pair.until_result("busy", busy + 1.0);
    mirrored.open_gate();
    pair.until_nothing_is_kept();
    mirrored.fail(1);
    let answered = pair.results(&[("result", "answered")]);
    assert_eq!(pair.get("/failing"), 200);
    pair.until_result("answered", answered + 1.0);
    let failed = [("backend_name", "web-v2"), ("http_status", "503")];
    let statuses = "outbound_http_route_backend_response_statuses_total";
    assert_eq!(Metrics::of(&pair.client).sum(statuses, &failed), 1.0);
}

#[test]
fn a_mirror_without_endpoints_fails_its_copies_only() {
    let pair = Pair::start(&[("LINKERD2_PROXY_OUTBOUND_HTTP_FAILFAST_TIMEOUT", "100ms")]);
    pair.mesh.service("nobody", 80, &[]);
    pair.mirror_to("nobody", "");
    let failed = pair.results(&[("result", "failed")]);
    assert_eq!(pair.get("/"), 200);
    pair.until_result("failed", failed + 1.0);
}

#[test]
fn bodies_are_mirrored_byte_for_byte_and_those_that_are_too_long_are_not() {
    let pair = Pair::start(&[]);
    let mirrored = Recorder::serve(&pair.mirror, 8080);
    pair.mirror_to("web-v2", "");
    pair.until_nothing_is_kept();
    let before = mirrored.seen();
    let post = |lines: u32| {
        pair.client.sh(&format!(
            "seq 1 {lines} >body; curl -sS --max-time 20 -o /dev/null -w '%{{http_code}}' -H Expect: --data-binary @body \
             http://web/upload"
        ))
    };
    assert_eq!(post(60_000), "200");
    let whole: String = (1..=60_000).map(|line| format!("{line}\n")).collect();
    wait::until("the copy", || {
        (mirrored.observed(&before) == [format!("POST /upload {}", whole.len())]).then_some(())
    });
    let seen = mirrored.seen();
    assert!(
        seen.iter()
            .any(|connection| connection.bytes.ends_with(whole.as_bytes()))
    );
    assert_eq!(post(200_000), "200");
    pair.until_result("too_long", 1.0);
    pair.until_nothing_is_kept();
    assert_eq!(mirrored.observed(&seen), [] as [String; 0]);
}

#[test]
fn a_request_that_is_sent_again_is_mirrored_once() {
    let pair = Pair::start(&[]);
    let mirrored = Recorder::serve(&pair.mirror, 8080);
    pair.mirror_to(
        "web-v2",
        "retry.linkerd.io/http: 5xx, retry.linkerd.io/limit: \"2\"",
    );
    pair.until_nothing_is_kept();
    let before = mirrored.seen();
    pair.app.fail(2);
    assert_eq!(pair.get("/again"), 200);
    wait::until("the copy", || {
        (!mirrored.observed(&before).is_empty()).then_some(())
    });
    pair.until_nothing_is_kept();
    let retries = Metrics::of(&pair.client).sum("outbound_http_route_retry_requests_total", &[]);
    assert_eq!((retries, mirrored.observed(&before).len()), (2.0, 1));
}

#[test]
fn grpc_calls_are_mirrored_streams_and_all() {
    let mesh = Mesh::start();
    let [server, mirror] = ["server", "mirror"].map(|name| mesh.pod(name).ports(&[50051]).meshed());
    let client = mesh.pod("client").meshed();
    mesh.service("greeter", 50051, &[(&server, 50051)]);
    mesh.service("greeter-v2", 50051, &[(&mirror, 50051)]);
    let _apps = [&server, &mirror].map(|pod| app::greeter(pod, 50051));
    mesh.write(
        "mirror.yaml",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {name: mirror, namespace: demo}\n\
         spec:\n  parentRefs: [{group: core, kind: Service, name: greeter, port: 50051}]\n  rules:\n    \
         - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: greeter-v2, port: 50051}}}]\n      \
         backendRefs: [{name: greeter, port: 50051}]\n",
    );
    let printed = app::call_greeter(&client, "greeter:50051");
    assert!(printed.contains("both streaming: HERE AND BACK"), "{printed}");
    let statuses = |backend: &str, status: &str| {
        let labels = [("backend_name", backend), ("grpc_status", status)];
        Metrics::of(&client).sum("outbound_grpc_route_backend_response_statuses_total", &labels)
    };
    // Of the four kinds of calls one is answered with a failure.
    wait::until("the copies to be answered as the calls were", || {
        let (ok, failed) = (
            statuses("greeter-v2", "OK"),
            statuses("greeter-v2", "FAILED_PRECONDITION"),
        );
        ((ok, failed) == (3.0, 1.0)).then_some(())
    });
    assert_eq!(
        (
            statuses("greeter", "OK"),
            statuses("greeter", "FAILED_PRECONDITION")
        ),
        (3.0, 1.0)
    );
}
