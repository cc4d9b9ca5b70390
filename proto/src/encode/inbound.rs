//! Inbound policies.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::IpNet;
use outrigger_policy::authz::{Authentication, Authorization, Network};
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol, InboundRule};
use outrigger_policy::name::ResourceRef;
use outrigger_policy::rate_limit::RateLimitPolicy;
use outrigger_policy::route::{Route, RouteTable, Rule};

use super::endpoint::ip;
use super::error::EncodeError;
use super::meta::{duration, reference};
use super::{filter, route};
use crate::decode::localhost;
use crate::inbound::authn::permit_mesh_tls::{Clients, PermitClientIdentities};
use crate::inbound::authn::{Permit, PermitMeshTls, PermitUnauthenticated};
use crate::inbound::http_local_rate_limit::r#override::ClientIdentities;
use crate::inbound::http_local_rate_limit::{Limit, Override};
use crate::inbound::proxy_protocol::{Detect, Grpc, Http1, Http2, Kind, Opaque, Tls};
use crate::inbound::{
    self, Authn, Authz, GrpcRoute, HttpLocalRateLimit, HttpRoute, Identity, IdentitySuffix, ProxyProtocol,
    Server, grpc_route, http_route,
};
use crate::net::IpNetwork;

/// How long readers look for first bytes on a port that is not enforced as a whole.
const DETECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A policy.
///
/// Readers add the authorization `default:localhost` to the server's, and the server's to those of each route: here
/// both are left out. A route that does not end with the server's authorizations can't be expressed. A policy that
/// is not enforced as a whole allows nobody.
pub fn server(policy: &InboundPolicy) -> Result<Server, EncodeError> {
    let invalid = matches!(policy.protocol, InboundProtocol::Invalid(_));
    let servers = match invalid {
        true => &[],
        false => without_localhost(&policy.authorizations),
    };
    Ok(Server {
        protocol: Some(ProxyProtocol {
            kind: Some(protocol(policy, servers)?),
        }),
        server_ips: Vec::new(),
        authorizations: servers.iter().map(authorization).collect(),
        labels: labels(&policy.meta),
    })
}

fn protocol(policy: &InboundPolicy, servers: &[Authorization]) -> Result<Kind, EncodeError> {
    let limit = policy.rate_limit.as_deref().map(rate_limit);
    Ok(match &policy.protocol {
        InboundProtocol::Detect { timeout, routes } => Kind::Detect(Detect {
            timeout: Some(duration(*timeout)),
            http_routes: http_routes(routes, servers)?,
            http_local_rate_limit: limit,
        }),
        InboundProtocol::Http1(routes) => Kind::Http1(Http1 {
            routes: http_routes(routes, servers)?,
            local_rate_limit: limit,
        }),
        InboundProtocol::Http2(routes) => Kind::Http2(Http2 {
            routes: http_routes(routes, servers)?,
            local_rate_limit: limit,
        }),
        InboundProtocol::Grpc(_) | InboundProtocol::Opaque | InboundProtocol::Tls if limit.is_some() => {
            return Err(EncodeError("only a port that takes HTTP can have a rate limit"));
        }
        InboundProtocol::Grpc(routes) => Kind::Grpc(Grpc {
            routes: grpc_routes(routes, servers)?,
        }),
        InboundProtocol::Opaque => Kind::Opaque(Opaque {}),
        InboundProtocol::Tls => Kind::Tls(Tls {}),
        InboundProtocol::Invalid(why) => {
            let rule = InboundRule {
                unsupported: Some(why.clone()),
                ..InboundRule::new([].into())
            };
            Kind::Detect(Detect {
                timeout: Some(duration(DETECT_TIMEOUT)),
                http_routes: http_routes(&RouteTable::catch_all(policy.meta.clone(), rule), servers)?,
                http_local_rate_limit: None,
            })
        }
    })
}

/// The routes of one kind; their messages differ by name, and by the functions that write their parts. A rule that is
/// refused fails every request.
macro_rules! routes {
    ($name:ident, $route:ident, $kind:ident, $match:path, $filter:path, $fault:path) => {
        fn $name(
            table: &RouteTable<InboundRule>,
            servers: &[Authorization],
        ) -> Result<Vec<$route>, EncodeError> {
            let rule = |rule: &Rule<InboundRule>| {
                let filters = match &rule.then.unsupported {
                    Some(why) => vec![$filter(&$fault(why))?],
                    None => rule
                        .then
                        .filters
                        .iter()
                        .map($filter)
                        .collect::<Result<_, _>>()?,
                };
                Ok($kind::Rule {
                    matches: rule.matches.iter().map($match).collect::<Result<_, _>>()?,
                    filters,
                })
            };
            let route = |r: &Route<InboundRule>| {
                Ok($route {
                    metadata: Some(reference(&r.meta)),
                    hosts: route::hosts(&r.hosts),
                    authorizations: own(r, servers)?.iter().map(authorization).collect(),
                    rules: r.rules.iter().map(rule).collect::<Result<_, _>>()?,
                })
            };
            table.routes.iter().map(route).collect()
        }
    };
}

routes!(
    http_routes,
    HttpRoute,
    http_route,
    route::http_match,
    filter::inbound_http,
    filter::fault
);
routes!(
    grpc_routes,
    GrpcRoute,
    grpc_route,
    route::grpc_match,
    filter::inbound_grpc,
    filter::grpc_fault
);

fn rate_limit(policy: &RateLimitPolicy) -> HttpLocalRateLimit {
    let limit = |limit: Option<NonZeroU32>| {
        limit.map(|limit| Limit {
            requests_per_second: limit.get(),
        })
    };
    let clients = |clients: &[outrigger_policy::name::Identity]| ClientIdentities {
        identities: clients
            .iter()
            .map(|id| Identity {
                name: id.as_str().to_owned(),
            })
            .collect(),
    };
    HttpLocalRateLimit {
        metadata: Some(reference(&policy.meta)),
        total: limit(policy.total),
        identity: limit(policy.identity),
        overrides: policy
            .overrides
            .iter()
            .map(|over| Override {
                limit: limit(over.limit),
                clients: Some(clients(&over.clients)),
            })
            .collect(),
    }
}

/// What the rules of a route allow beyond the server's authorizations; it must be the same for all of them.
fn own<'a>(
    route: &'a Route<InboundRule>,
    servers: &[Authorization],
) -> Result<&'a [Authorization], EncodeError> {
    let mut rules = route.rules.iter().map(|rule| &rule.then.authorizations);
    let Some(first) = rules.next() else {
        return Ok(&[]);
    };
    if rules.any(|other| other != first) {
        return Err(EncodeError(
            "the rules of one route can't have different authorizations",
        ));
    }
    without_localhost(first).strip_suffix(servers).ok_or(EncodeError(
        "the authorizations of a route must end with the server's",
    ))
}

fn without_localhost(list: &[Authorization]) -> &[Authorization] {
    match list {
        [rest @ .., last] if *last == localhost() => rest,
        all => all,
    }
}

fn labels(object: &ResourceRef) -> HashMap<String, String> {
    let labels = [
        ("group", &object.group),
        ("kind", &object.kind),
        ("name", &object.name),
    ];
    labels
        .map(|(key, value)| (key.to_owned(), value.to_string()))
        .into()
}

/// With labels beside the metadata, for readers that know only those.
fn authorization(authorization: &Authorization) -> Authz {
    Authz {
        networks: authorization.networks.iter().map(network).collect(),
        authentication: Some(Authn {
            permit: Some(permit(&authorization.authentication)),
        }),
        labels: labels(&authorization.meta),
        metadata: Some(reference(&authorization.meta)),
    }
}

fn network(network: &Network) -> inbound::Network {
    inbound::Network {
        net: Some(ip_net(&network.net)),
        except: network.except.iter().map(ip_net).collect(),
    }
}

fn ip_net(net: &IpNet) -> IpNetwork {
    IpNetwork {
        ip: Some(ip(net.addr())),
        prefix_len: net.prefix_len().into(),
    }
}

fn permit(authentication: &Authentication) -> Permit {
    let clients = match authentication {
        Authentication::Unauthenticated => return Permit::Unauthenticated(PermitUnauthenticated {}),
        Authentication::TlsUnauthenticated => Clients::Unauthenticated(PermitUnauthenticated {}),
        Authentication::TlsAuthenticated { identities, suffixes } => {
            let parts = |suffix: &str| match suffix.strip_prefix('.') {
                Some(name) => name.split('.').map(str::to_owned).collect(),
                None => Vec::new(),
            };
            Clients::Identities(PermitClientIdentities {
                identities: identities
                    .iter()
                    .map(|id| Identity { name: id.to_string() })
                    .collect(),
                suffixes: suffixes
                    .iter()
                    .map(|s| IdentitySuffix { parts: parts(&s.0) })
                    .collect(),
            })
        }
    };
    Permit::MeshTls(PermitMeshTls {
        clients: Some(clients),
    })
}
