//! Egress: how addresses outside the cluster are used.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::StatusCode;
use ipnet::IpNet;
use outrigger_policy::Unsupported;
use outrigger_policy::budget::BudgetPolicy;
use outrigger_policy::classify::GrpcStatus;
use outrigger_policy::endpoint::Endpoint;
use outrigger_policy::name::ResourceRef;
use outrigger_policy::outbound::{
    Distribution, OpaqueAction, OpaqueRoute, OutboundPolicy, OutboundProtocol, OutboundRule, TlsRoute,
};
use outrigger_policy::profile::forward;
use outrigger_policy::route::filter::{Filter, InjectedFailure, InjectedStatus, Ratio};
use outrigger_policy::route::{Route, RouteTable};

use crate::compile::attached::Parent;
use crate::compile::backends::{Carries, Destination};
use crate::compile::client::Client;
use crate::compile::routes;
use crate::compile::settings::Settings;
use crate::index::cluster::{Cluster, GLOBAL_EGRESS_NAMESPACE};
use crate::index::policies::Resource;
use crate::resources::egress::{EgressNetwork, TrafficPolicy};
use crate::resources::refused::ParentKind;
use crate::resources::route::LINKERD;

/// How an address outside the cluster is used: as its EgressNetwork says, else it is forwarded to as it stands.
pub fn policy(cluster: &Cluster, settings: &Settings, addr: SocketAddr, client: &Client) -> OutboundPolicy {
    let namespace = client.namespace.as_deref();
    if let Some(by) = cluster.egress_refused_by(addr.ip(), namespace) {
        return refused(by.to_string());
    }
    match network_of(cluster, addr.ip(), client) {
        None => forward("egress-fallback", Endpoint::bare(addr)),
        Some(network) => through(cluster, settings, network, addr, client),
    }
}

/// The EgressNetwork for an address: of those of the client's namespace, if it has any, else of the global namespace's,
/// the one with the smallest block around the address, the oldest of equals.
pub fn network_of<'a>(
    cluster: &'a Cluster,
    ip: IpAddr,
    client: &Client,
) -> Option<&'a Arc<Resource<EgressNetwork>>> {
    let networks = &cluster.policies.egress_networks;
    let own = client
        .namespace
        .as_deref()
        .map_or(&[][..], |namespace| networks.of(namespace));
    let candidates = match own {
        [] => networks.of(GLOBAL_EGRESS_NAMESPACE),
        own => own,
    };
    let mut best = None;
    for network in candidates {
        let Some(length) = covers(&network.spec, ip) else {
            continue;
        };
        if best.is_none_or(|(longest, _)| length > longest) {
            best = Some((length, network));
        }
    }
    best.map(|(_, network)| network)
}

/// The length of the smallest block of a network around an address; 0 where it is for all outside the cluster.
fn covers(network: &EgressNetwork, ip: IpAddr) -> Option<u8> {
    let Some(ranges) = network.networks.as_deref().filter(|ranges| !ranges.is_empty()) else {
        return Some(0);
    };
    let around = ranges.iter().filter(|range| {
        let excepted = range.except.iter().flatten().any(|except| except.0.contains(&ip));
        range.cidr.0.contains(&ip) && !excepted
    });
    around.map(|range| range.cidr.0.prefix_len()).max()
}

fn through(
    cluster: &Cluster,
    settings: &Settings,
    network: &Resource<EgressNetwork>,
    addr: SocketAddr,
    client: &Client,
) -> OutboundPolicy {
    let id = &network.id;
    let namespace = client.namespace.as_deref();
    if let Some(inside) = overlap(&network.spec, &settings.cluster_networks) {
        return refused(format!(
            "{id}: {inside} overlaps with the cluster's own networks: take it out"
        ));
    }
    let port = Some(addr.port());
    if let Some(by) = cluster.refused(
        ParentKind::EgressNetwork,
        &id.namespace,
        &id.name,
        port,
        namespace,
    ) {
        return refused(by.to_string());
    }
    let to = Destination {
        cluster,
        settings,
        meta: Arc::new(ResourceRef {
            group: LINKERD.into(),
            kind: id.kind.clone(),
            namespace: id.namespace.clone(),
            name: id.name.clone(),
            section: "".into(),
            port,
        }),
        address: Some(addr),
        traffic: &network.traffic,
    };
    OutboundPolicy {
        protocol: protocol(&to, &network.spec, Parent::egress(id, addr.port()), client),
        parent: to.meta,
        authority: "".into(),
        budget: Some(BudgetPolicy::default()),
    }
}

/// What is spoken: by the routes of the most specific kind, and for the rest by the traffic policy.
fn protocol(
    to: &Destination<'_>,
    network: &EgressNetwork,
    parent: Parent<'_>,
    client: &Client,
) -> OutboundProtocol {
    let policies = &to.cluster.policies;
    let allowed = network.traffic_policy == TrafficPolicy::Allow;
    let grpc = parent.routes(&policies.grpc_routes, client);
    if !grpc.is_empty() {
        let table = routes::grpc(to, &grpc);
        return OutboundProtocol::Grpc(with_default(to, table, allowed, Carries::Grpc));
    }
    let http = parent.routes(&policies.http_routes, client);
    let tls = parent.routes(&policies.tls_routes, client);
    if http.is_empty() && !tls.is_empty() {
        let mut all = routes::tls(to, &tls);
        all.push(TlsRoute {
            snis: Vec::new(),
            route: stream(to, "tls", allowed),
        });
        return OutboundProtocol::Tls(all);
    }
    let tcp = parent.routes(&policies.tcp_routes, client);
    if let Some(route) = routes::tcp(to, &tcp).filter(|_| http.is_empty()) {
        return OutboundProtocol::Opaque(route);
    }
    let table = with_default(to, routes::http(to, &http), allowed, Carries::Http);
    OutboundProtocol::Detect {
        http1: table.clone(),
        http2: table,
        opaque: stream(to, "tcp", allowed),
    }
}

/// The routes, and behind them one for what they do not match.
fn with_default(
    to: &Destination<'_>,
    mut table: RouteTable<OutboundRule>,
    allowed: bool,
    carries: Carries,
) -> RouteTable<OutboundRule> {
    let (protocol, status) = match carries {
        Carries::Grpc => ("grpc", InjectedStatus::Grpc(GrpcStatus(7))),
        Carries::Http | Carries::Bytes => ("http", InjectedStatus::Http(StatusCode::FORBIDDEN)),
    };
    let rule = match allowed {
        true => routes::default_rule(to, carries),
        false => OutboundRule {
            filters: vec![Filter::Fail(InjectedFailure {
                status,
                message: format!("{} denies what no route allows", to.meta).into(),
                ratio: Ratio::ALWAYS,
            })],
            ..OutboundRule::to(Distribution::Empty)
        },
    };
    let default = RouteTable::catch_all(default_ref(protocol, allowed), rule);
    let default: Vec<Route<OutboundRule>> = default.routes;
    table.routes.extend(default);
    table
}

fn stream(to: &Destination<'_>, protocol: &str, allowed: bool) -> OpaqueRoute {
    OpaqueRoute {
        meta: default_ref(protocol, allowed),
        action: match allowed {
            true => OpaqueAction::Forward(Distribution::FirstAvailable(vec![to.itself(Carries::Bytes)])),
            false => OpaqueAction::Forbid,
        },
    }
}

/// `http-egress-deny` and its like.
fn default_ref(protocol: &str, allowed: bool) -> Arc<ResourceRef> {
    let verdict = if allowed { "allow" } else { "deny" };
    Arc::new(ResourceRef::of_default(format!("{protocol}-egress-{verdict}")))
}

fn overlap(network: &EgressNetwork, cluster: &[IpNet]) -> Option<IpNet> {
    let mut blocks = network.networks.iter().flatten().map(|range| range.cidr.0);
    blocks.find(|block| {
        cluster
            .iter()
            .any(|own| own.contains(block) || block.contains(own))
    })
}

fn refused(reason: String) -> OutboundPolicy {
    OutboundPolicy {
        parent: Arc::new(ResourceRef::of_default("egress-fallback")),
        protocol: OutboundProtocol::Invalid(Unsupported::new(reason)),
        authority: "".into(),
        budget: Some(BudgetPolicy::default()),
    }
}
