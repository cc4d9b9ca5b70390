//! Servers: what the port that one selects accepts.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use outrigger_policy::Unsupported;
use outrigger_policy::authz::Authorization;
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol, InboundRule};
use outrigger_policy::name::{Identity, ResourceRef};
use outrigger_policy::rate_limit::{Override, RateLimitPolicy};
use outrigger_policy::route::{Route, RouteTable, Rule};

use crate::compile::authorization::{self, localhost, object_ref};
use crate::compile::filters::{self, Place};
use crate::compile::matches;
use crate::compile::settings::Settings;
use crate::index::cluster::Cluster;
use crate::index::policies::{ByNamespace, Policies, Resource};
use crate::resources::refused::ParentKind;
use crate::resources::report::ObjectId;
use crate::resources::route::{self as written, GrpcRule, HttpRule, LINKERD};
use crate::resources::server::{ProxyProtocol, Rate, RateLimit, Server};
use crate::resources::traffic::Traffic;
use crate::resources::values::namespace_or;

/// How long a proxy waits for the first bytes of a connection.
pub const DETECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What the port of a Server accepts. `default` is what it accepts of HTTP where it has no routes.
pub fn policy(
    cluster: &Cluster,
    settings: &Settings,
    server: &Resource<Server>,
    default: impl FnOnce(&Arc<[Authorization]>) -> RouteTable<InboundRule>,
) -> InboundPolicy {
    let policies = &cluster.policies;
    let id = &server.id;
    if let Some(by) = cluster.refused(ParentKind::Server, &id.namespace, &id.name, None, None) {
        return denied(id, by.to_string());
    }
    if let Err(reason) = unmixed(policies, server) {
        return denied(id, reason);
    }
    let granted = authorization::of_server(policies, settings, server).into_iter();
    let authorizations: Arc<[Authorization]> = granted.chain([localhost()]).collect();
    let own = |route: &ObjectId| -> Arc<[Authorization]> {
        let own = authorization::of_route(policies, settings, route).into_iter();
        own.chain(authorizations.iter().cloned()).collect()
    };
    let routes = match server.spec.proxy_protocol {
        ProxyProtocol::Grpc => grpc_routes(policies, server, own),
        _ => http_routes(policies, server, own),
    };
    let routes = match (routes.routes.is_empty(), server.spec.proxy_protocol) {
        (false, _) => routes,
        // The kubelet's HTTP probes are no gRPC.
        (true, ProxyProtocol::Grpc) => everything(&authorizations),
        (true, _) => default(&authorizations),
    };
    let rate_limit = rate_limit(policies, settings, server).map(Arc::new);
    let protocol = match server.spec.proxy_protocol {
        ProxyProtocol::Unknown => InboundProtocol::Detect {
            timeout: DETECT_TIMEOUT,
            routes,
        },
        ProxyProtocol::Http1 => InboundProtocol::Http1(routes),
        ProxyProtocol::Http2 => InboundProtocol::Http2(routes),
        ProxyProtocol::Grpc => InboundProtocol::Grpc(routes),
        ProxyProtocol::Opaque => InboundProtocol::Opaque,
        ProxyProtocol::Tls => InboundProtocol::Tls,
    };
    InboundPolicy {
        meta: Arc::new(object_ref(id)),
        protocol,
        authorizations,
        rate_limit,
    }
}

/// Where nothing is said about routes: everything, under the authorizations of the port.
pub fn everything(authorizations: &Arc<[Authorization]>) -> RouteTable<InboundRule> {
    let meta = Arc::new(ResourceRef::of_default("default"));
    RouteTable::catch_all(meta, InboundRule::new(authorizations.clone()))
}

/// A port about which something is said that can't be enforced: nobody may connect.
pub fn denied(about: &ObjectId, reason: String) -> InboundPolicy {
    InboundPolicy {
        meta: Arc::new(object_ref(about)),
        protocol: InboundProtocol::Invalid(Unsupported::new(reason)),
        authorizations: vec![localhost()].into(),
        rate_limit: None,
    }
}

/// Routes of another kind than the port speaks would do nothing: that is refused, not passed over.
fn unmixed(policies: &Policies, server: &Resource<Server>) -> Result<(), String> {
    let http = attached(&policies.http_routes, server)
        .next()
        .map(|route| &route.id);
    let grpc = attached(&policies.grpc_routes, server)
        .next()
        .map(|route| &route.id);
    let limit = rate_limit_of(policies, server).map(|limit| &limit.id);
    let (misplaced, spoken) = match server.spec.proxy_protocol {
        ProxyProtocol::Grpc => (http.or(limit), "gRPC"),
        ProxyProtocol::Opaque => (http.or(grpc).or(limit), "opaque"),
        ProxyProtocol::Tls => (http.or(grpc).or(limit), "TLS"),
        _ => (grpc, "HTTP"),
    };
    misplaced.map_or(Ok(()), |object| {
        Err(format!(
            "{object} is attached to {}, whose port is {spoken}: change proxyProtocol, or remove it",
            server.id
        ))
    })
}

/// The routes of one kind that are attached to a Server, in their order.
fn attached<'a, R>(
    routes: &'a ByNamespace<written::Route<R>>,
    server: &'a Resource<Server>,
) -> impl Iterator<Item = &'a Arc<Resource<written::Route<R>>>> {
    let id = &server.id;
    // A Server's routes are in its own namespace.
    routes.of(&id.namespace).iter().filter(|route| {
        let mut parents = route.spec.parent_refs.iter().flatten();
        parents.any(|parent| {
            let here = parent.namespace.as_deref().is_none_or(|ns| *ns == *id.namespace);
            here && parent.is(LINKERD, "Server") && *parent.name == *id.name
        })
    })
}

fn http_routes(
    policies: &Policies,
    server: &Resource<Server>,
    authorizations: impl Fn(&ObjectId) -> Arc<[Authorization]>,
) -> RouteTable<InboundRule> {
    let routes = attached(&policies.http_routes, server).map(|route| {
        let authorizations = authorizations(&route.id);
        let rule = |rule: &HttpRule| Rule {
            matches: matches::http(rule.matches.as_deref()),
            then: inbound_rule(
                &authorizations,
                rule.filters.as_deref(),
                &route.traffic,
                Place::InboundHttp,
            ),
        };
        Route {
            meta: Arc::new(route_ref(&route.id)),
            hosts: matches::hosts(route.spec.hostnames.as_deref()),
            rules: or_everything(
                route.spec.rules.as_deref(),
                rule,
                &authorizations,
                &route.traffic,
                Place::InboundHttp,
            ),
        }
    });
    RouteTable {
        routes: routes.collect(),
    }
}

fn grpc_routes(
    policies: &Policies,
    server: &Resource<Server>,
    authorizations: impl Fn(&ObjectId) -> Arc<[Authorization]>,
) -> RouteTable<InboundRule> {
    let routes = attached(&policies.grpc_routes, server).map(|route| {
        let authorizations = authorizations(&route.id);
        let rule = |rule: &GrpcRule| match matches::grpc(rule.matches.as_deref()) {
            Ok(matches) => Rule {
                matches,
                then: inbound_rule(
                    &authorizations,
                    rule.filters.as_deref(),
                    &route.traffic,
                    Place::InboundGrpc,
                ),
            },
            // What it would have matched is not known.
            Err(reason) => Rule {
                matches: Vec::new(),
                then: InboundRule {
                    unsupported: Some(Unsupported::new(reason)),
                    ..InboundRule::new(authorizations.clone())
                },
            },
        };
        Route {
            meta: Arc::new(route_ref(&route.id)),
            hosts: matches::hosts(route.spec.hostnames.as_deref()),
            rules: or_everything(
                route.spec.rules.as_deref(),
                rule,
                &authorizations,
                &route.traffic,
                Place::InboundGrpc,
            ),
        }
    });
    RouteTable {
        routes: routes.collect(),
    }
}

/// A route without rules takes everything (Gateway API, HTTPRouteSpec).
fn or_everything<R>(
    rules: Option<&[R]>,
    rule: impl Fn(&R) -> Rule<InboundRule>,
    authorizations: &Arc<[Authorization]>,
    traffic: &Traffic,
    place: Place,
) -> Vec<Rule<InboundRule>> {
    match rules {
        Some(rules) if !rules.is_empty() => rules.iter().map(rule).collect(),
        _ => vec![Rule {
            matches: Vec::new(),
            then: inbound_rule(authorizations, None, traffic, place),
        }],
    }
}

/// What a rule does. What can't be expressed refuses the requests that it matches.
fn inbound_rule(
    authorizations: &Arc<[Authorization]>,
    filters: Option<&[written::HttpFilter]>,
    traffic: &Traffic,
    place: Place,
) -> InboundRule {
    let rule = InboundRule::new(authorizations.clone());
    match filters::of_rule(filters, traffic, place) {
        Ok(filters) => InboundRule { filters, ..rule },
        Err(reason) => InboundRule {
            unsupported: Some(Unsupported::new(reason)),
            ..rule
        },
    }
}

/// The limits of a Server: those of the oldest policy about it.
fn rate_limit(
    policies: &Policies,
    settings: &Settings,
    server: &Resource<Server>,
) -> Option<RateLimitPolicy> {
    let limit = rate_limit_of(policies, server)?;
    let rate = |rate: Option<Rate>| rate.and_then(|rate| NonZeroU32::new(rate.requests_per_second));
    let overrides = limit.spec.overrides.iter().flatten().map(|written| Override {
        limit: NonZeroU32::new(written.requests_per_second),
        clients: written
            .client_refs
            .iter()
            .filter_map(|client| {
                let namespace = namespace_or(client.namespace.as_deref(), &limit.id.namespace);
                // A name that is too long for an identity is nobody's.
                settings
                    .identity(&namespace, &client.name)
                    .ok()
                    .map(Identity::Dns)
            })
            .collect(),
    });
    Some(RateLimitPolicy {
        meta: Arc::new(object_ref(&limit.id)),
        total: rate(limit.spec.total),
        identity: rate(limit.spec.identity),
        overrides: overrides.collect(),
    })
}

/// The oldest of the limits of a Server.
fn rate_limit_of<'a>(
    policies: &'a Policies,
    server: &Resource<Server>,
) -> Option<&'a Arc<Resource<RateLimit>>> {
    let limits = policies.rate_limits.of(&server.id.namespace).iter();
    limits
        .into_iter()
        .find(|limit| *limit.spec.target_ref.name == *server.id.name)
}

/// A route, as inbound policies refer to it.
fn route_ref(id: &ObjectId) -> ResourceRef {
    ResourceRef {
        kind: id.kind.clone(),
        ..object_ref(id)
    }
}
