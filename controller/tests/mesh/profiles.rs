//! ServiceProfiles and TrafficSplits: `Destination.GetProfile`.

use std::time::Duration;

use outrigger_policy::classify::Class;
use outrigger_policy::route::Head;

use crate::policies::{object, reports};
use crate::support::{Mesh, web};

const NAME: &str = "web.demo.svc.cluster.local";

fn api() -> String {
    web("", &[])
        .replace("name: web", "name: api")
        .replace("10.96.0.1", "10.96.0.2")
}

#[tokio::test]
async fn routes_classes_and_the_budget_of_a_profile_are_told() {
    let spec = "{routes: [{name: GET /a, condition: {method: GET, pathRegex: '/a/\\d+'}, isRetryable: true, timeout: 250ms, \
                responseClasses: [{condition: {status: {min: 500, max: 599}}, isFailure: true}]}], retryBudget: {retryRatio: \
                0.5, minRetriesPerSecond: 3, ttl: 20s}}";
    let mesh = Mesh::of(&(web("", &[]) + &object("ServiceProfile", NAME, spec)));
    assert_eq!(reports(&mesh), [] as [&str; 0]);
    let profile = mesh.profile("10.96.0.1:80").await.unwrap();
    let [route] = &profile.routes[..] else {
        panic!("{profile:?}")
    };
    assert!(route.retryable && route.timeout == Some(Duration::from_millis(250)));
    assert_eq!(route.labels.get("route").map(String::as_str), Some("GET /a"));
    assert_eq!(route.classes[0].class, Class::Failure);
    let headers = http::HeaderMap::new();
    let holds = |path| {
        route.condition.holds(&Head {
            host: "web",
            method: &http::Method::GET,
            path,
            query: None,
            headers: &headers,
        })
    };
    assert!(holds("/a/1") && !holds("/a/b"));
    let budget = profile.budget.unwrap();
    assert_eq!(
        (budget.min_per_second(), budget.ttl()),
        (3, Duration::from_secs(20))
    );
}

#[tokio::test]
async fn the_profile_of_the_clients_namespace_goes_before_the_services() {
    let of = |namespace: &str, route: &str| {
        let spec = format!("{{routes: [{{name: {route}, condition: {{method: GET}}}}]}}");
        object("ServiceProfile", "web.other.svc.cluster.local", &spec)
            .replace("namespace: demo", &format!("namespace: {namespace}"))
    };
    let service = web("", &[]).replace("namespace: demo", "namespace: other");
    let mesh = Mesh::of(&(service.clone() + &of("demo", "mine") + &of("other", "theirs")));
    let name = async |mesh: &Mesh| {
        let profile = mesh.profile("10.96.0.1:80").await.unwrap();
        profile.routes[0].labels["route"].clone()
    };
    assert_eq!(name(&mesh).await, "mine");
    mesh.change(&(service + &of("other", "theirs")));
    assert_eq!(name(&mesh).await, "theirs");
}

#[tokio::test]
async fn a_split_gives_each_service_its_weight() {
    let split = object(
        "TrafficSplit",
        "canary",
        "{service: web, backends: [{service: web, weight: 900m}, {service: api, weight: 100m}]}",
    );
    let mesh = Mesh::of(&(web("", &[]) + &api() + &split));
    assert_eq!(reports(&mesh), [] as [&str; 0]);
    let overrides = mesh.profile("10.96.0.1:80").await.unwrap().overrides;
    let seen: Vec<_> = overrides.iter().map(|o| (&*o.authority, o.weight)).collect();
    assert_eq!(
        seen,
        [
            ("web.demo.svc.cluster.local:80", 9_000),
            ("api.demo.svc.cluster.local:80", 1_000)
        ]
    );
}

#[tokio::test]
async fn a_profile_or_a_split_that_cannot_be_read_refuses_its_service_for_those_concerned() {
    let profile = object("ServiceProfile", NAME, "{routes: [{name: a, condition: {}}]}");
    let split = object(
        "TrafficSplit",
        "canary",
        "{service: web, backends: [{service: web, weight: many}]}",
    );
    for broken in [&profile, &split] {
        let mesh = Mesh::of(&(web("", &[]) + broken));
        assert!(
            mesh.profile("10.96.0.1:80").await.unwrap().unsupported.is_some(),
            "{broken}"
        );
        assert_eq!(reports(&mesh).len(), 1, "{:?}", reports(&mesh));
    }
    let consumers = profile.replace("namespace: demo", "namespace: other");
    let mesh = Mesh::of(&(web("", &[]) + &consumers));
    assert!(mesh.profile("10.96.0.1:80").await.unwrap().unsupported.is_none());
}
