//! Routes of Services: which hold for whom, where they lead, and what can't be followed.

use std::time::Duration;

use outrigger_policy::name::ResourceRef;
use outrigger_policy::outbound::{
    Dispatch, Distribution, OpaqueAction, OutboundPolicy, OutboundProtocol, OutboundRule,
};
use outrigger_policy::retry::RetryOn;
use outrigger_policy::route::filter::{Filter, InjectedStatus, Ratio};
use outrigger_policy::route::{Head, RouteTable};

use crate::policies::{annotated, object, reports};
use crate::support::{Mesh, web};

/// A Service at `10.96.0.2` beside `web`.
fn api() -> String {
    web("", &[])
        .replace("name: web", "name: api")
        .replace("10.96.0.1", "10.96.0.2")
}

const PARENT: &str = "parentRefs: [{group: core, kind: Service, name: web, port: 80}]";

fn table(policy: &OutboundPolicy) -> &RouteTable<OutboundRule> {
    match &policy.protocol {
        OutboundProtocol::Detect { http1, http2, .. } => {
            assert_eq!(http1, http2);
            http1
        }
        OutboundProtocol::Http1(table) | OutboundProtocol::Http2(table) | OutboundProtocol::Grpc(table) => {
            table
        }
        other => panic!("{other:?}"),
    }
}

/// The route and rule that a GET takes.
fn get<'a>(
    policy: &'a OutboundPolicy,
    path: &str,
    header: Option<&str>,
) -> Option<(&'a ResourceRef, &'a OutboundRule)> {
    let mut headers = http::HeaderMap::new();
    if let Some(value) = header {
        headers.insert("x-user", value.parse().unwrap());
    }
    let head = Head {
        host: "web.demo.svc.cluster.local",
        method: &http::Method::GET,
        path,
        query: None,
        headers: &headers,
    };
    table(policy).find(&head).map(|found| (&**found.meta, found.then))
}

/// Backends with their weights.
fn weights(rule: &OutboundRule) -> Vec<(String, u32)> {
    match rule.backends.as_ref().unwrap() {
        Distribution::RandomAvailable(backends) => backends
            .iter()
            .map(|(backend, weight)| (backend.meta.name.to_string(), *weight))
            .collect(),
        Distribution::FirstAvailable(backends) => backends
            .iter()
            .map(|backend| (backend.meta.name.to_string(), 0))
            .collect(),
        Distribution::Empty => Vec::new(),
    }
}

async fn with(policies: &str) -> (Mesh, OutboundPolicy) {
    let mesh = Mesh::of(&(web("", &[]) + &api() + policies));
    let policy = mesh.outbound("10.96.0.1:80").await.unwrap();
    (mesh, policy)
}

#[tokio::test]
async fn a_canary_takes_its_share_and_a_header_decides_before_it() {
    let canary = "{name: web, port: 80, weight: 90}, {name: api, port: 80, weight: 10}";
    let route = object(
        "HTTPRoute",
        "canary",
        &format!(
            "{{{PARENT}, rules: [{{backendRefs: [{canary}]}}, {{matches: [{{headers: [{{name: x-user, value: beta}}]}}], \
             backendRefs: [{{name: api, port: 80}}]}}]}}"
        ),
    );
    let (mesh, policy) = with(&route).await;
    assert_eq!(reports(&mesh), [] as [&str; 0]);
    let (meta, rule) = get(&policy, "/", None).unwrap();
    assert_eq!(
        (&*meta.kind, &*meta.name, &*meta.namespace),
        ("HTTPRoute", "canary", "demo")
    );
    assert_eq!(weights(rule), [("web".to_owned(), 90), ("api".to_owned(), 10)]);
    assert_eq!(
        weights(get(&policy, "/", Some("beta")).unwrap().1),
        [("api".to_owned(), 1)]
    );
    let other_port = mesh.outbound("10.96.0.2:80").await.unwrap();
    assert_eq!(&*get(&other_port, "/", None).unwrap().0.name, "http");
}

#[tokio::test]
async fn a_rule_without_backends_leads_to_its_parent_and_what_no_rule_matches_to_nothing() {
    let route = object(
        "HTTPRoute",
        "r",
        &format!("{{{PARENT}, rules: [{{matches: [{{path: {{value: /a}}}}]}}]}}"),
    );
    let (_, policy) = with(&route).await;
    assert_eq!(
        weights(get(&policy, "/a/b", None).unwrap().1),
        [("web".to_owned(), 0)]
    );
    assert_eq!(get(&policy, "/b", None), None);
}

#[tokio::test]
async fn a_consumers_route_holds_for_its_clients_beside_the_producers() {
    let to = |backend: &str, path: &str| {
        format!(
            "{{parentRefs: [{{group: '', kind: Service, name: web, namespace: demo}}], rules: [{{matches: [{{path: \
             {{value: {path}}}}}], backendRefs: [{{name: {backend}, namespace: demo, port: 80}}]}}]}}"
        )
    };
    let producer = object("HTTPRoute", "producer", &to("web", "/"));
    let consumer = object("HTTPRoute", "consumer", &to("api", "/x"));
    let (_, both) = with(&(producer.clone() + &consumer)).await;
    assert_eq!(
        weights(get(&both, "/x", None).unwrap().1),
        [("api".to_owned(), 1)]
    );
    let (_, one) = with(
        &(producer + &consumer.replace("namespace: demo, annotations", "namespace: other, annotations")),
    )
    .await;
    assert_eq!(weights(get(&one, "/x", None).unwrap().1), [("web".to_owned(), 1)]);
}

#[tokio::test]
async fn a_backend_that_is_not_there_fails_its_share_with_500() {
    let route = object(
        "HTTPRoute",
        "r",
        &format!(
            "{{{PARENT}, rules: [{{backendRefs: [{{name: gone, port: 80}}, {{name: api, port: 81}}]}}]}}"
        ),
    );
    let (mesh, policy) = with(&route).await;
    let (_, rule) = get(&policy, "/", None).unwrap();
    for backend in rule.backends.as_ref().unwrap().backends() {
        let [Filter::Fail(failure)] = &backend.filters[..] else {
            panic!("{backend:?}")
        };
        assert_eq!(
            failure.status,
            InjectedStatus::Http(http::StatusCode::INTERNAL_SERVER_ERROR)
        );
        assert!(matches!(backend.dispatch, Dispatch::Missing(_)));
    }
    assert_eq!(reports(&mesh).len(), 2, "{:?}", reports(&mesh));
}

#[tokio::test]
async fn filters_keep_their_order_and_rewrites_delays_and_mirrors_follow() {
    let filters = "[{type: URLRewrite, urlRewrite: {hostname: new.example, path: {type: ReplacePrefixMatch, \
                   replacePrefixMatch: /b}}}, {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: \
                   '1'}], remove: [b]}}, {type: RequestMirror, requestMirror: {percent: 5, backendRef: {name: api, port: \
                   80}}}]";
    let spec = format!("{{{PARENT}, rules: [{{filters: {filters}}}]}}");
    let annotations =
        "outrigger.dev/fault-status: '503', outrigger.dev/fault-percent: '10', outrigger.dev/delay: 5ms";
    let (_, policy) = with(&annotated("HTTPRoute", "r", annotations, &spec)).await;
    let (_, rule) = get(&policy, "/", None).unwrap();
    let [
        Filter::Fail(_),
        Filter::RequestHeaders(_),
        Filter::Rewrite(_),
        Filter::Delay(_),
    ] = &rule.filters[..]
    else {
        panic!("{:?}", rule.filters)
    };
    assert_eq!(rule.mirrors.len(), 1);
    assert_eq!(
        (&*rule.mirrors[0].backend.meta.name, rule.mirrors[0].ratio),
        ("api", Ratio::new(5, 100).unwrap())
    );
}

#[tokio::test]
async fn rules_with_fields_of_our_own_are_refused_to_others() {
    let spec = format!(
        "{{{PARENT}, rules: [{{matches: [{{path: {{value: /x}}}}], filters: [{{type: URLRewrite, urlRewrite: \
                        {{hostname: new.example}}}}]}}, {{}}]}}"
    );
    let (mesh, ours) = with(&object("HTTPRoute", "r", &spec)).await;
    assert!(matches!(
        get(&ours, "/x", None).unwrap().1.filters[..],
        [Filter::Rewrite(_)]
    ));
    let theirs = mesh.outbound_of_linkerd("10.96.0.1:80").await.unwrap();
    let [Filter::Fail(failure)] = &get(&theirs, "/x", None).unwrap().1.filters[..] else {
        panic!("{theirs:?}")
    };
    assert!(
        failure.message.contains("a rule that rewrites needs"),
        "{failure:?}"
    );
    assert_eq!(get(&ours, "/", None), get(&theirs, "/", None));
}

#[tokio::test]
async fn filters_that_exclude_each_other_are_refused() {
    let headers = "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [a]}}";
    for filters in [
        format!("{headers}, {headers}"),
        "{type: RequestRedirect, requestRedirect: {port: 81}}, {type: URLRewrite, urlRewrite: {hostname: a}}"
            .to_owned(),
    ] {
        let (mesh, _) = with(&object(
            "HTTPRoute",
            "r",
            &format!("{{{PARENT}, rules: [{{filters: [{filters}]}}]}}"),
        ))
        .await;
        assert!(
            reports(&mesh)[0].contains("can't be together"),
            "{:?}",
            reports(&mesh)
        );
    }
}

#[tokio::test]
async fn a_rule_that_cannot_be_expressed_is_refused_and_the_others_hold() {
    let route = object(
        "HTTPRoute",
        "r",
        &format!(
            "{{{PARENT}, rules: [{{matches: [{{path: {{value: /x}}}}], filters: [{{type: ExtensionRef, extensionRef: {{group: a, \
             kind: B, name: c}}}}]}}, {{backendRefs: [{{name: web, port: 80}}]}}]}}"
        ),
    );
    let (_, policy) = with(&route).await;
    assert!(
        get(&policy, "/x", None)
            .unwrap()
            .1
            .filters
            .iter()
            .any(|f| matches!(f, Filter::Fail(_)))
            || get(&policy, "/x", None).unwrap().1.backends.is_err()
    );
    assert_eq!(
        weights(get(&policy, "/", None).unwrap().1),
        [("web".to_owned(), 1)]
    );
}

#[tokio::test]
async fn a_service_whose_only_route_cannot_be_read_is_refused_for_those_concerned() {
    let broken = object(
        "HTTPRoute",
        "r",
        "{parentRefs: [{group: '', kind: Service, name: web, namespace: demo, port: 80}], rules: [{mirror: 1}]}",
    );
    let refused = |policy: &OutboundPolicy| {
        table(policy)
            .rules()
            .all(|(_, rule)| rule.backends.is_err() || !rule.filters.is_empty())
    };
    let (mesh, policy) = with(&broken).await;
    assert!(refused(&policy), "{policy:?}");
    assert!(
        reports(&mesh).len() == 1 && reports(&mesh)[0].contains("mirror"),
        "{:?}",
        reports(&mesh)
    );
    let (_, policy) =
        with(&broken.replace("namespace: demo, annotations", "namespace: other, annotations")).await;
    assert!(!refused(&policy), "{policy:?}");
    let (_, policy) = with(&broken.replace("port: 80", "port: 81")).await;
    assert!(!refused(&policy), "{policy:?}");
}

#[tokio::test]
async fn the_most_specific_kind_of_route_counts_and_the_others_are_reported() {
    let grpc = object(
        "GRPCRoute",
        "g",
        &format!("{{{PARENT}, rules: [{{matches: [{{method: {{service: s.S, method: M}}}}]}}]}}"),
    );
    let http = object("HTTPRoute", "h", &format!("{{{PARENT}}}"));
    let tls = object(
        "TLSRoute",
        "t",
        &format!(
            "{{{PARENT}, hostnames: ['*.example.com'], rules: [{{backendRefs: [{{name: web, port: 80}}]}}]}}"
        ),
    );
    let tcp = object(
        "TCPRoute",
        "c",
        &format!("{{{PARENT}, rules: [{{backendRefs: [{{name: api, port: 80}}]}}]}}"),
    );
    let protocol = async |routes: &str| with(routes).await.1.protocol;
    assert!(matches!(
        protocol(&(grpc.clone() + &http + &tls + &tcp)).await,
        OutboundProtocol::Grpc(_)
    ));
    assert!(matches!(
        protocol(&(http.clone() + &tls + &tcp)).await,
        OutboundProtocol::Detect { .. }
    ));
    let OutboundProtocol::Tls(routes) = protocol(&(tls.clone() + &tcp)).await else {
        panic!()
    };
    assert_eq!(routes[0].snis.len(), 1);
    let OutboundProtocol::Opaque(route) = protocol(&tcp).await else {
        panic!()
    };
    assert!(
        matches!(
            route.action,
            OpaqueAction::Forward(Distribution::RandomAvailable(_))
        ),
        "{route:?}"
    );
    let (mesh, _) = with(&(grpc + &http + &tls + &tcp)).await;
    assert_eq!(
        reports(&mesh)
            .iter()
            .filter(|r| r.contains("more specific kind"))
            .count(),
        3
    );
}

#[tokio::test]
async fn routes_of_a_port_that_speaks_something_else_refuse_it() {
    let http = object("HTTPRoute", "h", &format!("{{{PARENT}}}"));
    let opaque = web("config.linkerd.io/opaque-ports: '80'", &[]);
    let policy = Mesh::of(&(opaque + &http))
        .outbound("10.96.0.1:80")
        .await
        .unwrap();
    assert!(
        table(&policy)
            .rules()
            .all(|(_, rule)| rule.backends.is_err() || !rule.filters.is_empty())
    );
}

#[tokio::test]
async fn annotations_of_a_route_go_before_its_spec_and_that_before_its_services() {
    let seconds = Duration::from_secs;
    let service = web(
        "timeout.linkerd.io/request: 9s, timeout.linkerd.io/idle: 8s, retry.linkerd.io/http: 5xx, retry.linkerd.io/limit: '2'",
        &[],
    );
    let rule = async |annotations: &str, timeouts: &str| {
        let route = annotated(
            "HTTPRoute",
            "r",
            annotations,
            &format!("{{{PARENT}, rules: [{{timeouts: {{{timeouts}}}}}]}}"),
        );
        let policy = Mesh::of(&(service.clone() + &route))
            .outbound("10.96.0.1:80")
            .await
            .unwrap();
        get(&policy, "/", None).unwrap().1.clone()
    };
    let inherited = rule("", "").await;
    assert_eq!(
        (inherited.timeouts.request, inherited.timeouts.idle),
        (Some(seconds(9)), Some(seconds(8)))
    );
    let retry = inherited.retry.unwrap();
    assert_eq!(retry.max_retries, 2);
    let RetryOn::Statuses { http, .. } = retry.on else {
        panic!()
    };
    assert_eq!(http, [500..=599]);
    let spec = rule("", "request: 5s, backendRequest: 1s").await;
    assert_eq!(spec.timeouts.request, Some(seconds(5)));
    assert_eq!(spec.retry.unwrap().per_try, Some(seconds(1)));
    let own = rule(
        "timeout.linkerd.io/request: 3s, retry.linkerd.io/http: gateway-error",
        "request: 5s",
    )
    .await;
    assert_eq!(own.timeouts.request, Some(seconds(3)));
    let RetryOn::Statuses { http, .. } = own.retry.unwrap().on else {
        panic!()
    };
    assert_eq!(http, [502..=504]);
}

#[tokio::test]
async fn a_breaker_and_a_load_estimate_are_the_services() {
    let service = web(
        "balancer.linkerd.io/failure-accrual: consecutive, balancer.linkerd.io/failure-accrual-consecutive-max-failures: '3', \
         balancer.alpha.linkerd.io/penalize-failures: 'true'",
        &[],
    );
    let policy = Mesh::of(&service).outbound("10.96.0.1:80").await.unwrap();
    let (_, rule) = get(&policy, "/", None).unwrap();
    let backend = rule.backends.as_ref().unwrap().backends().next().unwrap();
    let Dispatch::Balance { load, breaker, .. } = &backend.dispatch else {
        panic!()
    };
    assert!(load.penalty.is_some() && breaker.is_some(), "{backend:?}");
}

#[tokio::test]
async fn an_annotation_that_cannot_be_read_refuses_its_service() {
    for annotation in [
        "retry.linkerd.io/http: 6xx",
        "timeout.linkerd.io/requests: 1s",
        "outrigger.dev/fault-status: '503'",
    ] {
        let mesh = Mesh::of(&web(annotation, &[]));
        let policy = mesh.outbound("10.96.0.1:80").await.unwrap();
        assert!(
            table(&policy)
                .rules()
                .all(|(_, rule)| rule.backends.is_err() || !rule.filters.is_empty())
        );
        assert_eq!(reports(&mesh).len(), 1);
    }
}

#[tokio::test]
async fn a_route_and_its_service_change_while_a_proxy_watches() {
    let mesh = Mesh::of(&web("", &[]));
    assert_eq!(
        &*get(&mesh.outbound("10.96.0.1:80").await.unwrap(), "/", None)
            .unwrap()
            .0
            .name,
        "http"
    );
    mesh.change(&(web("", &[]) + &object("HTTPRoute", "r", &format!("{{{PARENT}}}"))));
    assert_eq!(
        &*get(&mesh.outbound("10.96.0.1:80").await.unwrap(), "/", None)
            .unwrap()
            .0
            .name,
        "r"
    );
}
