//! EgressNetworks: how addresses outside the cluster are used.

use outrigger_policy::outbound::{Dispatch, OpaqueAction, OpaqueRoute, OutboundPolicy, OutboundProtocol};
use outrigger_policy::route::filter::{Filter, InjectedStatus};

use crate::policies::{object, reports};
use crate::support::Mesh;

fn opaque(policy: &OutboundPolicy) -> &OpaqueRoute {
    match &policy.protocol {
        OutboundProtocol::Detect { opaque, .. } | OutboundProtocol::Opaque(opaque) => opaque,
        other => panic!("{other:?}"),
    }
}

fn forwards(policy: &OutboundPolicy) -> bool {
    matches!(opaque(policy).action, OpaqueAction::Forward(_))
}

#[tokio::test]
async fn a_network_denies_what_no_route_allows() {
    let network = object(
        "EgressNetwork",
        "e",
        "{trafficPolicy: Deny, networks: [{cidr: 192.0.2.0/24, except: [192.0.2.9/32]}]}",
    );
    let mesh = Mesh::of(&network);
    let denied = mesh.outbound("192.0.2.1:443").await.unwrap();
    assert_eq!(
        (&*denied.parent.kind, &*denied.parent.name),
        ("EgressNetwork", "e")
    );
    assert_eq!(
        (&*opaque(&denied).meta.name, opaque(&denied).action.clone()),
        ("tcp-egress-deny", OpaqueAction::Forbid)
    );
    let OutboundProtocol::Detect { http1, .. } = &denied.protocol else {
        panic!()
    };
    let (meta, rule) = http1.rules().next().unwrap();
    let [Filter::Fail(failure)] = &rule.filters[..] else {
        panic!("{rule:?}")
    };
    assert_eq!(
        (&*meta.name, failure.status),
        (
            "http-egress-deny",
            InjectedStatus::Http(http::StatusCode::FORBIDDEN)
        )
    );
    for outside in ["192.0.2.9:443", "198.51.100.1:443"] {
        let policy = mesh.outbound(outside).await.unwrap();
        assert_eq!(policy.parent.to_string(), "default.egress-fallback");
        assert!(forwards(&policy));
    }
}

#[tokio::test]
async fn a_route_of_a_network_lets_through_what_it_matches() {
    let policies = object("EgressNetwork", "e", "{trafficPolicy: Deny}")
        + &object(
            "HTTPRoute",
            "allowed",
            "{parentRefs: [{group: policy.linkerd.io, kind: EgressNetwork, name: e, port: 80}], hostnames: [httpbin.org], rules: \
             [{matches: [{path: {value: /get}}]}]}",
        )
        + &object(
            "TLSRoute",
            "names",
            "{parentRefs: [{group: policy.linkerd.io, kind: EgressNetwork, name: e, port: 443}], hostnames: ['*.example.com'], \
             rules: [{backendRefs: [{group: policy.linkerd.io, kind: EgressNetwork, name: e}]}]}",
        );
    let mesh = Mesh::of(&policies);
    assert_eq!(reports(&mesh), [] as [&str; 0]);
    let policy = mesh.outbound("192.0.2.1:80").await.unwrap();
    let OutboundProtocol::Detect { http1, .. } = &policy.protocol else {
        panic!()
    };
    let names: Vec<_> = http1.rules().map(|(meta, _)| meta.name.to_string()).collect();
    assert_eq!(names, ["allowed", "http-egress-deny"]);
    let backends = http1.rules().next().unwrap().1.backends.as_ref().unwrap();
    let Dispatch::Forward(endpoint) = &backends.backends().next().unwrap().dispatch else {
        panic!()
    };
    assert_eq!(endpoint.addr.to_string(), "192.0.2.1:80");
    let tls = mesh.outbound("192.0.2.1:443").await.unwrap();
    let OutboundProtocol::Tls(routes) = &tls.protocol else {
        panic!("{tls:?}")
    };
    let names: Vec<_> = routes.iter().map(|tls| tls.route.meta.name.to_string()).collect();
    assert_eq!(names, ["names", "tls-egress-deny"]);
}

#[tokio::test]
async fn the_smallest_block_of_the_clients_own_networks_decides_else_the_global_ones() {
    let network = |name: &str, namespace: &str, policy: &str, cidr: &str| {
        object(
            "EgressNetwork",
            name,
            &format!("{{trafficPolicy: {policy}, networks: [{{cidr: {cidr}}}]}}"),
        )
        .replace("namespace: demo", &format!("namespace: {namespace}"))
    };
    let global = network("all", "linkerd-egress", "Deny", "0.0.0.0/0").replace("0.0.0.0/0", "192.0.0.0/8");
    let mesh = Mesh::of(&global);
    assert!(!forwards(&mesh.outbound("192.0.2.1:80").await.unwrap()));
    let wide = network("a-wide", "demo", "Deny", "192.0.2.0/24");
    let narrow = network("narrow", "demo", "Allow", "192.0.2.0/28");
    mesh.change(&(global.clone() + &wide + &narrow));
    assert!(forwards(&mesh.outbound("192.0.2.1:80").await.unwrap()));
    assert!(!forwards(&mesh.outbound("192.0.2.100:80").await.unwrap()));
    let elsewhere = network("other", "other", "Allow", "192.0.2.0/28");
    mesh.change(&(global + &elsewhere));
    assert!(!forwards(&mesh.outbound("192.0.2.1:80").await.unwrap()));
}

#[tokio::test]
async fn a_network_that_cannot_be_read_or_is_the_clusters_own_closes_what_it_covers() {
    for spec in [
        "{trafficPolicy: Maybe, networks: [{cidr: 192.0.2.0/24}]}",
        "{trafficPolicy: Allow, networks: [{cidr: 192.0.2.0/24}, {cidr: 10.0.0.0/16}]}",
    ] {
        let mesh = Mesh::of(&object("EgressNetwork", "e", spec));
        assert!(
            !forwards(&mesh.outbound("192.0.2.1:443").await.unwrap()),
            "{spec}"
        );
        assert!(
            forwards(&mesh.outbound("198.51.100.1:443").await.unwrap()),
            "{spec}"
        );
    }
}
