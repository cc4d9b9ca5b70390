//! What `outrigger explain` says.

use outrigger_controller::compile::client::Client;
use outrigger_controller::compile::refusal::Refusal;
use outrigger_controller::compile::settings::Settings;
use outrigger_controller::explain::outbound::{Question, explain};
use outrigger_controller::explain::request::{Header, Request};

use crate::policies::{annotated, object};
use crate::support::{cluster, pod, web};

/// What a request of a pod of `demo` to `to` becomes.
fn ask(manifests: &str, to: &str, path: &str, headers: &[&str]) -> Result<Vec<String>, Refusal> {
    let headers: Vec<Header> = headers.iter().map(|header| header.parse().unwrap()).collect();
    let question = Question {
        client: Client::of_workload("demo:client").unwrap(),
        to: to.into(),
        request: Request::new(http::Method::GET, path, &headers),
    };
    explain(&cluster(manifests), &Settings::default(), &question)
}

fn mesh() -> String {
    pod("a", "10.1.0.1", "") + &web("", &[("a", "10.1.0.1")])
}

fn has(lines: &[String], text: &str) -> bool {
    lines.iter().any(|line| line.contains(text))
}

#[test]
fn short_names_mean_what_they_mean_to_the_clients_resolver() {
    for to in [
        "web:80",
        "web",
        "web.demo:80",
        "web.demo.svc:80",
        "web.demo.svc.cluster.local:80",
        "10.96.0.1:80",
    ] {
        let lines = ask(&mesh(), to, "/", &[]).unwrap();
        assert_eq!(lines[0], "10.96.0.1:80 is Service demo/web:80", "{to}");
        assert!(has(&lines, "takes default http"), "{lines:?}");
        let identity =
            "10.1.0.1:8080 (pod a), mutual TLS with web.demo.serviceaccount.identity.linkerd.cluster.local";
        assert!(has(&lines, identity), "{lines:?}");
    }
    assert!(matches!(
        ask(&mesh(), "gone:80", "/", &[]),
        Err(Refusal::NotFound(_))
    ));
    assert!(matches!(
        ask(&mesh(), "www.example.com:80", "/", &[]),
        Err(Refusal::Invalid(_))
    ));
}

#[test]
fn the_rule_that_a_request_takes_is_named_with_the_reason() {
    let spec = "{parentRefs: [{group: core, kind: Service, name: web}], rules: [{backendRefs: [{name: web, port: 80}]}, {matches: \
                [{headers: [{name: x-v, value: '2'}]}], backendRefs: [{name: web, port: 80}], timeouts: {request: 1s}}]}";
    let route = annotated("HTTPRoute", "r", "retry.linkerd.io/http: 5xx", spec);
    let lines = ask(&(mesh() + &route), "web:80", "/", &["x-v: 2"]).unwrap();
    assert!(
        has(
            &lines,
            "takes HTTPRoute demo/r, rule 2: it is the most specific that matches (header x-v = \"2\")"
        ),
        "{lines:?}"
    );
    assert!(
        has(&lines, "  timeout request: 1s") && has(&lines, "  retries: at most 1 on status 500-599"),
        "{lines:?}"
    );
    let lines = ask(&(mesh() + &route), "web:80", "/", &[]).unwrap();
    assert!(has(&lines, "rule 1: it takes every request"), "{lines:?}");
}

#[test]
fn a_service_profile_goes_before_the_routes() {
    let profile = object(
        "ServiceProfile",
        "web.demo.svc.cluster.local",
        "{routes: [{name: a, condition: {pathRegex: /a.*}, timeout: 1s}]}",
    );
    let lines = ask(&(mesh() + &profile), "web:80", "/ab", &[]).unwrap();
    assert!(
        has(&lines, "A ServiceProfile or TrafficSplit replaces") && has(&lines, "path like /a.*"),
        "{lines:?}"
    );
}

#[test]
fn what_is_refused_says_why() {
    let broken = object(
        "HTTPRoute",
        "r",
        "{parentRefs: [{group: core, kind: Service, name: web}], rules: 5}",
    );
    let lines = ask(&(mesh() + &broken), "web:80", "/", &[]).unwrap();
    assert!(has(&lines, "HTTPRoute demo/r can't be used: "), "{lines:?}");
    let lines = ask(&mesh(), "10.96.0.1:81", "/", &[]).unwrap();
    assert!(has(&lines, "undefined-port is forbidden"), "{lines:?}");
}
