//! What ports accept that a Server selects: authorizations, routes, conflicts, and what can't be read.

use outrigger_policy::authz::{ClientTls, authorize};
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol};
use outrigger_policy::name::Identity;
use outrigger_policy::route::Head;
use outrigger_policy::route::filter::Filter;

use crate::policies::{object, reports};
use crate::support::{Mesh, pod, web};

const SERVER: &str = "---\napiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: http, namespace: demo, \
                      labels: {tier: front}}\nspec: {podSelector: {matchLabels: {app: web}}, port: http}\n";

/// A pod `a` with port 8080 named `http`, and these policies.
fn mesh(policies: &str) -> Mesh {
    Mesh::of(&(pod("a", "10.1.0.1", "") + policies))
}

/// The identity of a service account of `demo`.
fn account(name: &str) -> ClientTls {
    let id = format!("{name}.demo.serviceaccount.identity.linkerd.cluster.local");
    ClientTls::Terminated(Some(Identity::parse(&id).unwrap()))
}

/// Who lets a connection in; empty when nobody does.
fn connects(policy: &InboundPolicy, ip: &str, tls: &ClientTls) -> String {
    let permit = authorize(&policy.authorizations, ip.parse().unwrap(), tls);
    permit
        .map(|permit| permit.by.name.to_string())
        .unwrap_or_default()
}

/// Which route a GET takes, and who lets it through.
fn gets(policy: &InboundPolicy, path: &str, ip: &str, tls: &ClientTls) -> Option<(String, String)> {
    let routes = match &policy.protocol {
        InboundProtocol::Detect { routes, .. }
        | InboundProtocol::Http1(routes)
        | InboundProtocol::Http2(routes)
        | InboundProtocol::Grpc(routes) => routes,
        InboundProtocol::Opaque | InboundProtocol::Tls | InboundProtocol::Invalid(_) => return None,
    };
    let headers = http::HeaderMap::new();
    let head = Head {
        host: "a",
        method: &http::Method::GET,
        path,
        query: None,
        headers: &headers,
    };
    let found = routes.find(&head)?;
    let fails = found
        .then
        .filters
        .iter()
        .any(|filter| matches!(filter, Filter::Fail(_)));
    if fails || found.then.unsupported.is_some() {
        return Some((found.meta.name.to_string(), "unsupported".into()));
    }
    let permit = authorize(&found.then.authorizations, ip.parse().unwrap(), tls);
    let by = permit
        .map(|permit| permit.by.name.to_string())
        .unwrap_or_default();
    Some((found.meta.name.to_string(), by))
}

fn is_refused(policy: &InboundPolicy) -> bool {
    let anybody = connects(policy, "10.1.0.9", &account("client"));
    let route = gets(policy, "/", "10.1.0.9", &account("client"));
    anybody.is_empty() && route.is_some_and(|(_, by)| by == "unsupported")
}

#[tokio::test]
async fn a_server_denies_whom_nobody_names_and_says_what_is_spoken() {
    for (written, expected) in [
        ("HTTP/1", "Http1"),
        ("HTTP/2", "Http2"),
        ("gRPC", "Grpc"),
        ("opaque", "Opaque"),
        ("TLS", "Tls"),
        ("unknown", "Detect"),
    ] {
        let mesh = mesh(&SERVER.replace("port: http", &format!("port: http, proxyProtocol: {written}")));
        let policy = mesh.inbound("demo:a", 8080).await.unwrap();
        assert_eq!((&*policy.meta.kind, &*policy.meta.name), ("server", "http"));
        assert!(
            format!("{:?}", policy.protocol).starts_with(expected),
            "{policy:?}"
        );
        assert_eq!(connects(&policy, "10.1.0.9", &account("client")), "");
        assert_eq!(connects(&policy, "127.0.0.1", &ClientTls::None), "localhost");
        assert_eq!(
            &*mesh.inbound("demo:a", 8081).await.unwrap().meta.name,
            "all-unauthenticated"
        );
        assert_eq!(reports(&mesh), [] as [&str; 0]);
    }
}

#[tokio::test]
async fn every_version_of_a_server_is_served() {
    for version in ["v1alpha1", "v1beta1", "v1beta2", "v1beta3"] {
        let mesh = mesh(
            &SERVER
                .replace("v1beta3", version)
                .replace("port: http", "port: 8080"),
        );
        assert_eq!(&*mesh.inbound("demo:a", 8080).await.unwrap().meta.kind, "server");
    }
    let mesh = mesh(&SERVER.replace("v1beta3", "v9"));
    assert!(is_refused(&mesh.inbound("demo:a", 8080).await.unwrap()));
}

#[tokio::test]
async fn server_authorizations_name_clients_by_what_they_prove_and_where_they_are() {
    let authorize = async |server: &str, client: &str| {
        let spec = format!("{{server: {{{server}}}, client: {client}}}");
        let mesh = mesh(&(SERVER.to_owned() + &object("ServerAuthorization", "some", &spec)));
        mesh.inbound("demo:a", 8080).await.unwrap()
    };
    let policy = authorize("name: http", "{meshTLS: {serviceAccounts: [{name: client}]}}").await;
    assert_eq!(connects(&policy, "10.1.0.9", &account("client")), "some");
    assert_eq!(connects(&policy, "10.1.0.9", &account("other")), "");
    assert_eq!(
        connects(&policy, "192.0.2.1", &account("client")),
        "",
        "outside the cluster's networks"
    );
    let policy = authorize(
        "selector: {matchLabels: {tier: front}}",
        "{meshTLS: {identities: ['*']}}",
    )
    .await;
    assert_eq!(connects(&policy, "10.1.0.9", &account("other")), "some");
    assert_eq!(connects(&policy, "10.1.0.9", &ClientTls::Terminated(None)), "");
    let policy = authorize("name: http", "{meshTLS: {unauthenticatedTLS: true}}").await;
    assert_eq!(
        connects(&policy, "10.1.0.9", &ClientTls::Terminated(None)),
        "some"
    );
    let networks = "{unauthenticated: true, networks: [{cidr: 192.0.2.0/24, except: [192.0.2.9]}]}";
    let policy = authorize("name: http", networks).await;
    assert_eq!(connects(&policy, "192.0.2.1", &ClientTls::None), "some");
    assert_eq!(connects(&policy, "192.0.2.9", &ClientTls::None), "");
    let policy = authorize("name: other", "{unauthenticated: true}").await;
    assert_eq!(connects(&policy, "10.1.0.9", &ClientTls::None), "");
}

#[tokio::test]
async fn an_authorization_policy_asks_for_all_that_it_refers_to() {
    let policies = SERVER.to_owned()
        + &object(
            "MeshTLSAuthentication",
            "clients",
            "{identityRefs: [{kind: ServiceAccount, name: client}, {kind: Namespace, name: ops}]}",
        )
        + &object(
            "NetworkAuthentication",
            "near",
            "{networks: [{cidr: 10.1.0.0/16}]}",
        )
        + &object(
            "AuthorizationPolicy",
            "both",
            "{targetRef: {group: policy.linkerd.io, kind: Server, name: http}, requiredAuthenticationRefs: [{group: \
             policy.linkerd.io, kind: MeshTLSAuthentication, name: clients}, {group: policy.linkerd.io, kind: \
             NetworkAuthentication, name: near}]}",
        );
    let mesh = mesh(&policies);
    let policy = mesh.inbound("demo:a", 8080).await.unwrap();
    let ops = "tool.ops.serviceaccount.identity.linkerd.cluster.local";
    let ops = ClientTls::Terminated(Some(Identity::parse(ops).unwrap()));
    assert_eq!(connects(&policy, "10.1.0.9", &account("client")), "both");
    assert_eq!(connects(&policy, "10.1.0.9", &ops), "both");
    assert_eq!(connects(&policy, "10.2.0.9", &account("client")), "");
    assert_eq!(connects(&policy, "10.1.0.9", &account("other")), "");
    assert_eq!(reports(&mesh), [] as [&str; 0]);
}

#[tokio::test]
async fn a_policy_on_the_namespace_holds_for_its_servers_only() {
    let policies = SERVER.to_owned()
        + &object(
            "AuthorizationPolicy",
            "all",
            "{targetRef: {kind: Namespace, name: demo}, requiredAuthenticationRefs: [{kind: ServiceAccount, name: client}]}",
        );
    let mesh =
        Mesh::of(&(pod("a", "10.1.0.1", "config.linkerd.io/default-inbound-policy: deny") + &policies));
    let port = mesh.inbound("demo:a", 8080).await.unwrap();
    assert_eq!(connects(&port, "10.1.0.9", &account("client")), "all");
    let other = mesh.inbound("demo:a", 8081).await.unwrap();
    assert_eq!(connects(&other, "10.1.0.9", &account("client")), "");
}

#[tokio::test]
async fn a_reference_that_leads_nowhere_lets_nobody_in_and_is_reported() {
    let required = object(
        "AuthorizationPolicy",
        "lost",
        "{targetRef: {group: policy.linkerd.io, kind: Server, name: http}, requiredAuthenticationRefs: [{group: \
         policy.linkerd.io, kind: NetworkAuthentication, name: gone}]}",
    );
    let mesh = mesh(&(SERVER.to_owned() + &required));
    let policy = mesh.inbound("demo:a", 8080).await.unwrap();
    assert_eq!(connects(&policy, "10.1.0.9", &account("client")), "");
    let reports = reports(&mesh);
    assert!(
        reports.len() == 1 && reports[0].contains("NetworkAuthentication gone is not defined"),
        "{reports:?}"
    );
}

#[tokio::test]
async fn the_access_policy_lets_in_besides() {
    let open = SERVER.replace("port: http", "port: http, accessPolicy: all-authenticated");
    let policy = mesh(&open).inbound("demo:a", 8080).await.unwrap();
    assert_eq!(
        connects(&policy, "10.1.0.9", &account("client")),
        "all-authenticated"
    );
    assert_eq!(connects(&policy, "10.1.0.9", &ClientTls::None), "");
}

#[tokio::test]
async fn routes_take_the_place_of_the_default_and_have_authorizations_of_their_own() {
    let without = mesh(SERVER).inbound("demo:a", 8080).await.unwrap();
    let nobody = ClientTls::None;
    assert_eq!(
        gets(&without, "/live", "10.77.0.1", &nobody),
        Some(("probe".into(), "probe".into()))
    );
    assert_eq!(
        gets(&without, "/x", "10.77.0.1", &nobody),
        Some(("default".into(), String::new()))
    );
    let policies = SERVER.to_owned()
        + &object(
            "HTTPRoute",
            "admin",
            "{parentRefs: [{group: policy.linkerd.io, kind: Server, name: http}], rules: [{matches: [{path: {value: \
             /admin}}]}]}",
        )
        + &object(
            "AuthorizationPolicy",
            "ops",
            "{targetRef: {group: policy.linkerd.io, kind: HTTPRoute, name: admin}, requiredAuthenticationRefs: [{kind: \
             ServiceAccount, name: ops}]}",
        );
    let mesh = mesh(&policies);
    assert_eq!(reports(&mesh), [] as [&str; 0]);
    let policy = mesh.inbound("demo:a", 8080).await.unwrap();
    assert_eq!(
        gets(&policy, "/admin/x", "10.1.0.9", &account("ops")),
        Some(("admin".into(), "ops".into()))
    );
    assert_eq!(
        gets(&policy, "/admin/x", "10.1.0.9", &account("client")),
        Some(("admin".into(), String::new()))
    );
    assert_eq!(
        gets(&policy, "/live", "10.77.0.1", &nobody),
        None,
        "no probe route besides"
    );
    assert_eq!(
        connects(&policy, "10.1.0.9", &account("ops")),
        "",
        "the route's authorization is the route's"
    );
}

#[tokio::test]
async fn of_two_servers_on_a_port_the_older_counts_and_the_other_is_reported() {
    let older = SERVER
        .replace("name: http", "name: z-old")
        .replace("labels:", "creationTimestamp: '2025-01-01T00:00:00Z', labels:");
    let mesh = mesh(&(SERVER.to_owned() + &older));
    assert_eq!(&*mesh.inbound("demo:a", 8080).await.unwrap().meta.name, "z-old");
    let reports = reports(&mesh);
    assert!(
        reports.len() == 1
            && reports[0].contains(
                "Server demo/http: it selects port 8080 of Pod demo/a, which Server demo/z-old has"
            ),
        "{reports:?}"
    );
}

#[tokio::test]
async fn a_server_that_cannot_be_read_closes_what_it_selects_and_nothing_else() {
    for (good, bad, line) in [
        ("port: http", "port: http, proxyProtocol: SPDY", 17),
        ("port: http", "port: http, proxyprotocol: TLS", 17),
        ("port: http", "port: http, accessPolicy: everybody", 17),
        (
            "podSelector: {matchLabels: {app: web}}",
            "podSelector: {matchlabels: {app: web}}",
            17,
        ),
        ("port: http", "port: [http]", 17),
    ] {
        let other = object(
            "Server",
            "other",
            "{podSelector: {matchLabels: {app: api}}, port: 9090}",
        );
        let api = pod("b", "10.1.0.2", "").replace("app: web", "app: api");
        let mesh = mesh(&(SERVER.replace(good, bad) + &other + &api));
        assert!(is_refused(&mesh.inbound("demo:a", 8080).await.unwrap()), "{bad}");
        let elsewhere = mesh.inbound("demo:b", 9090).await.unwrap();
        let selects_all = bad.contains("matchlabels");
        assert_eq!(&*elsewhere.meta.name, "other", "{bad}");
        assert_eq!(
            is_refused(&mesh.inbound("demo:a", 1).await.unwrap()),
            bad.contains("[http]"),
            "{bad}"
        );
        assert_eq!(
            is_refused(&mesh.inbound("demo:b", 8080).await.unwrap()),
            selects_all,
            "{bad}"
        );
        let reports = reports(&mesh);
        assert_eq!(reports.len(), 1, "{reports:?}");
        assert!(
            reports[0].starts_with(&format!("test.yaml:{line}: Server demo/http: ")),
            "{reports:?}"
        );
    }
}

#[tokio::test]
async fn an_authorization_that_cannot_be_read_lets_nobody_in() {
    let broken = object(
        "ServerAuthorization",
        "some",
        "{server: {name: http}, client: {unauthenticated: true, networks: [{cidr: 10.0.0.0/99}]}}",
    );
    let mesh = mesh(&(SERVER.to_owned() + &broken));
    assert_eq!(
        connects(
            &mesh.inbound("demo:a", 8080).await.unwrap(),
            "10.1.0.9",
            &ClientTls::None
        ),
        ""
    );
    let reports = reports(&mesh);
    assert!(
        reports.len() == 1 && reports[0].contains("10.0.0.0/99"),
        "{reports:?}"
    );
}

#[tokio::test]
async fn a_route_that_cannot_be_read_closes_its_server() {
    let parent = "parentRefs: [{group: policy.linkerd.io, kind: Server, name: http}]";
    let bad = [
        object(
            "HTTPRoute",
            "r",
            &format!("{{{parent}, rules: [{{matches: [{{path: {{type: Regex, value: /}}}}]}}]}}"),
        ),
        object(
            "HTTPRoute",
            "r",
            &format!("{{{parent}, rules: [{{filters: [{{type: RequestRedirect}}]}}]}}"),
        ),
        object("GRPCRoute", "r", &format!("{{{parent}, rules: []}}")),
    ];
    for route in bad {
        let mesh = mesh(&(SERVER.to_owned() + &route));
        assert!(
            is_refused(&mesh.inbound("demo:a", 8080).await.unwrap()),
            "{route}"
        );
    }
}

#[tokio::test]
async fn a_port_that_a_server_calls_opaque_is_opaque_to_clients() {
    let manifests = pod("a", "10.1.0.1", "") + &web("", &[("a", "10.1.0.1")]);
    let mesh = Mesh::of(&manifests);
    assert!(!mesh.profile("10.1.0.1:8080").await.unwrap().opaque);
    let opaque = SERVER.replace("port: http", "port: http, proxyProtocol: opaque");
    mesh.change(&(manifests + &opaque));
    assert!(mesh.profile("10.1.0.1:8080").await.unwrap().opaque);
    assert!(!mesh.profile("10.1.0.1:8081").await.unwrap().opaque);
}

#[tokio::test]
async fn one_file_may_hold_what_cannot_be_read_beside_what_can() {
    let mesh = mesh(&(object("AuthorizationPolicy", "x", "7") + &object("Unheard", "y", "{}") + SERVER));
    assert_eq!(&*mesh.inbound("demo:a", 8080).await.unwrap().meta.name, "http");
    assert_eq!(reports(&mesh).len(), 2);
}

#[tokio::test]
async fn the_oldest_limit_of_a_server_counts() {
    let limit = object(
        "HTTPLocalRateLimitPolicy",
        "some",
        "{targetRef: {group: policy.linkerd.io, kind: Server, name: http}, total: {requestsPerSecond: 100}, identity: \
         {requestsPerSecond: 0}, overrides: [{requestsPerSecond: 5, clientRefs: [{kind: ServiceAccount, name: client}]}]}",
    );
    let younger = object(
        "HTTPLocalRateLimitPolicy",
        "z",
        "{targetRef: {group: policy.linkerd.io, kind: Server, name: http}, total: {requestsPerSecond: 1}}",
    );
    let mesh = mesh(&(SERVER.to_owned() + &limit + &younger));
    let policy = mesh.inbound("demo:a", 8080).await.unwrap();
    let limit = policy.rate_limit.unwrap();
    assert_eq!((limit.total.map(u32::from), limit.identity), (Some(100), None));
    assert_eq!(
        limit.overrides[0].clients[0].as_str(),
        "client.demo.serviceaccount.identity.linkerd.cluster.local"
    );
    assert!(
        reports(&mesh).len() == 1 && reports(&mesh)[0].contains("limited by"),
        "{:?}",
        reports(&mesh)
    );
}

#[tokio::test]
async fn a_limit_that_cannot_be_followed_closes_its_server() {
    let target = "targetRef: {group: policy.linkerd.io, kind: Server, name: http}";
    let broken = object(
        "HTTPLocalRateLimitPolicy",
        "l",
        &format!("{{{target}, total: {{requestsPerMinute: 1}}}}"),
    );
    assert!(is_refused(
        &mesh(&(SERVER.to_owned() + &broken))
            .inbound("demo:a", 8080)
            .await
            .unwrap()
    ));
    let of_grpc = object(
        "HTTPLocalRateLimitPolicy",
        "l",
        &format!("{{{target}, total: {{requestsPerSecond: 1}}}}"),
    );
    let grpc = SERVER.replace("port: http", "port: http, proxyProtocol: gRPC");
    assert!(is_refused(
        &mesh(&(grpc + &of_grpc)).inbound("demo:a", 8080).await.unwrap()
    ));
}

#[tokio::test]
async fn a_filter_without_a_field_refuses_its_rule_only() {
    let route = object(
        "HTTPRoute",
        "r",
        "{parentRefs: [{group: policy.linkerd.io, kind: Server, name: http}], rules: [{matches: [{path: {value: /x}}], \
         filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {remove: [a]}}]}, {filters: [{type: \
         RequestHeaderModifier, requestHeaderModifier: {remove: [a]}}]}]}",
    );
    let policy = mesh(&(SERVER.to_owned() + &route))
        .inbound("demo:a", 8080)
        .await
        .unwrap();
    let by = |path| gets(&policy, path, "10.1.0.9", &ClientTls::None).unwrap().1;
    assert_eq!((by("/x").as_str(), by("/y").as_str()), ("unsupported", ""));
}
