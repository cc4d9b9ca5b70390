//! What routes, annotations and ServiceProfiles say of outbound requests, through two proxies. `examples` has more.

use std::net::SocketAddr;

use outrigger_e2e::http::{self, Echo, Response};
use outrigger_e2e::mesh::{Mesh, Meshed, until_status};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::wait;

/// A service, and a client.
struct Stage {
    mesh: Mesh,
    client: Meshed,
    _server: Meshed,
    app: Echo,
    web: SocketAddr,
}

fn stage() -> Stage {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080]).meshed();
    let client = mesh.pod("client").meshed();
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    let app = Echo::serve(&server, 8080);
    until_status(&client, web, "web", 200);
    Stage {
        mesh,
        client,
        _server: server,
        app,
        web,
    }
}

impl Stage {
    fn get(&self, path: &str, headers: &[&str]) -> Response {
        let headers: Vec<_> = headers.iter().copied().chain(["connection: close"]).collect();
        http::get(&self.client, self.web, "web", path, &headers)
    }

    /// Waits until the answer to a path is as expected.
    fn until(&self, what: &str, path: &str, expected: impl Fn(&Response) -> bool) {
        wait::until(what, || expected(&self.get(path, &[])).then_some(()));
    }

    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        Metrics::of(&self.client).sum(name, labels)
    }
}

/// A route of the service `web`.
fn route(name: &str, annotations: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: {name}, namespace: demo, annotations: {{{annotations}}}}}\n\
         spec:\n  parentRefs: [{{group: core, kind: Service, name: web, port: 80}}]\n  rules:\n{rules}"
    )
}

const ALL_TO_ONE: &str = "    - backendRefs: [{name: web, port: 80}]\n";

#[test]
fn filters_edit_redirect_and_fail() {
    let stage = stage();
    let rules = "    - matches: [{path: {type: PathPrefix, value: /edited}}]\n      \
         filters:\n        \
         - {type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: x-a, value: b}], remove: [x-gone]}}\n        \
         - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-answer, value: edited}]}}\n      \
         backendRefs: [{name: web, port: 80}]\n    \
         - matches: [{path: {type: PathPrefix, value: /old}}]\n      \
         filters: [{type: RequestRedirect, requestRedirect: {hostname: new.example, statusCode: 301, \
         path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]\n"
        .to_owned()
        + ALL_TO_ONE;
    stage.mesh.write("filters.yaml", &route("filters", "", &rules));
    stage.until("the edit", "/edited", |response| {
        response.header("x-answer") == "edited"
    });
    let edited = stage.get("/edited", &["x-gone: here"]);
    assert!(
        edited.body.contains("x-a: b") && !edited.body.contains("x-gone"),
        "{edited:?}"
    );
    let moved = stage.get("/old/page?q=1", &[]);
    assert_eq!(
        (moved.status, moved.header("location")),
        (301, "http://new.example/new/page?q=1")
    );
    assert_eq!(stage.get("/plain", &[]).header("x-answer"), "");
}

#[test]
fn failures_are_tried_again_as_often_as_the_route_says() {
    let stage = stage();
    let annotations = "retry.linkerd.io/http: 5xx, retry.linkerd.io/limit: \"2\"";
    stage
        .mesh
        .write("retries.yaml", &route("retries", annotations, ALL_TO_ONE));
    let route = [("route_name", "retries")];
    let requests = "outbound_http_route_request_statuses_total";
    stage.until("the route", "/", |_| stage.metric(requests, &route) > 0.0);
    stage.app.fail(2);
    assert_eq!(stage.get("/", &[]).status, 200);
    assert_eq!(
        stage.metric("outbound_http_route_retry_requests_total", &route),
        2.0
    );
    assert_eq!(
        stage.metric("outbound_http_route_retry_successes_total", &route),
        1.0
    );
    stage.app.fail(3);
    assert_eq!(stage.get("/", &[]).status, 503);
    assert_eq!(
        stage.metric("outbound_http_route_retry_limit_exceeded_total", &route),
        1.0
    );
    let failed = [("route_name", "retries"), ("http_status", "503")];
    assert_eq!(stage.metric(requests, &failed), 1.0);
    assert_eq!(
        stage.metric("outbound_http_route_backend_response_statuses_total", &failed),
        5.0
    );
}

#[test]
fn what_takes_too_long_is_answered_with_504_and_says_why() {
    let stage = stage();
    let annotations = "timeout.linkerd.io/request: 300ms";
    stage
        .mesh
        .write("timeouts.yaml", &route("timeouts", annotations, ALL_TO_ONE));
    let route = [("route_name", "timeouts")];
    let requests = "outbound_http_route_request_statuses_total";
    stage.until("the route", "/", |_| stage.metric(requests, &route) > 0.0);
    let late = stage.get(http::GATE, &[]);
    assert_eq!(late.status, 504);
    let error = late.header("l5d-proxy-error");
    assert!(
        error.contains("request timeout: 300ms") && error.contains("timeouts") && error.contains("endpoint "),
        "{error}"
    );
    let late = [("route_name", "timeouts"), ("error", "REQUEST_TIMEOUT")];
    assert_eq!(stage.metric(requests, &late), 1.0);
    stage.app.open_gate();
    assert_eq!(stage.get(http::GATE, &[]).status, 200);
}

#[test]
fn an_endpoint_that_keeps_failing_is_shut_and_comes_back() {
    let mesh = Mesh::start();
    let one = mesh.pod("one").ports(&[8080]).meshed();
    let two = mesh.pod("two").ports(&[8080]).meshed();
    let client = mesh.pod("client").meshed();
    let apps = [Echo::serve(&one, 8080), Echo::serve(&two, 8080)];
    let web = mesh.service("web", 80, &[(&one, 8080), (&two, 8080)]);
    let service = std::fs::read_to_string(mesh.manifest("service-web.yaml")).unwrap();
    let annotated = "name: web, namespace: demo, annotations: {balancer.linkerd.io/failure-accrual: consecutive, \
         balancer.linkerd.io/failure-accrual-consecutive-max-failures: \"2\", \
         balancer.linkerd.io/failure-accrual-consecutive-min-penalty: 1s, \
         balancer.linkerd.io/failure-accrual-consecutive-max-penalty: 1s}";
    mesh.write(
        "service-web.yaml",
        &service.replacen("name: web, namespace: demo", annotated, 1),
    );
    until_status(&client, web, "web", 200);
    apps[0].fail(usize::MAX);
    let status = || http::get(&client, web, "web", "/", &["connection: close"]).status;
    wait::until("the failing endpoint to be shut", || {
        (0..20).all(|_| status() == 200).then_some(())
    });
    apps[0].fail(0);
    let before = apps[0].requests();
    wait::until("it to get requests again", || {
        status();
        (apps[0].requests() > before + 2).then_some(())
    });
}

#[test]
fn a_service_profile_times_and_retries_its_routes() {
    let stage = stage();
    let profile = "apiVersion: linkerd.io/v1alpha2\nkind: ServiceProfile\n\
         metadata: {name: web.demo.svc.cluster.local, namespace: demo}\n\
         spec:\n  retryBudget: {retryRatio: 0.2, minRetriesPerSecond: 10, ttl: 10s}\n  routes:\n    \
         - {name: gate, condition: {pathRegex: /gate}, timeout: 300ms}\n    \
         - {name: all, condition: {pathRegex: '/.*'}, isRetryable: true}\n";
    stage.mesh.write("profile.yaml", profile);
    let all = [("rt_route", "all")];
    stage.until("the profile", "/", |_| {
        stage.metric("route_request_total", &all) > 0.0
    });
    stage.app.fail(3);
    let seen = stage.get("/", &[]);
    assert_eq!(seen.status, 200);
    assert!(
        seen.body
            .contains("l5d-dst-canonical: web.demo.svc.cluster.local:80"),
        "{}",
        seen.body
    );
    assert_eq!(stage.metric("route_retryable_total", &all), 3.0);
    let failed = [("rt_route", "all"), ("status_code", "503")];
    assert_eq!(stage.metric("route_actual_response_total", &failed), 3.0);
    assert_eq!(stage.metric("route_response_total", &failed), 0.0);
    let late = stage.get(http::GATE, &[]);
    assert_eq!(late.status, 504);
    assert!(
        late.header("l5d-proxy-error").contains("HTTP response timeout"),
        "{late:?}"
    );
}
