//! Inbound policies.

use std::collections::HashMap;
use std::time::Duration;

use ipnet::IpNet;
use outrigger_policy::Unsupported;
use outrigger_policy::authz::{Authentication, Authorization, Network};
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol, InboundRule};
use outrigger_policy::name::ResourceRef;
use outrigger_policy::route::{Route, RouteTable, Rule};

use super::endpoint::ip;
use super::error::EncodeError;
use super::meta::{duration, reference};
use super::route;
use crate::decode::localhost;
use crate::grpc_route::GrpcFailureInjector;
use crate::http_route::HttpFailureInjector;
use crate::inbound::authn::permit_mesh_tls::{Clients, PermitClientIdentities};
use crate::inbound::authn::{Permit, PermitMeshTls, PermitUnauthenticated};
use crate::inbound::proxy_protocol::{Detect, Grpc, Http1, Http2, Kind, Opaque, Tls};
use crate::inbound::{
    self, Authn, Authz, GrpcRoute, HttpRoute, Identity, IdentitySuffix, ProxyProtocol, Server, grpc_route,
    http_route,
};
use crate::net::IpNetwork;

/// How long readers look for first bytes on a port that is not enforced as a whole.
const DETECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The HTTP status with which readers answer on a route that is not enforced.
const FAULT_STATUS: u32 = 500;

/// gRPC's INTERNAL, for the same.
const FAULT_CODE: u32 = 13;

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
    Ok(match &policy.protocol {
        InboundProtocol::Detect { timeout, routes } => Kind::Detect(Detect {
            timeout: Some(duration(*timeout)),
            http_routes: http_routes(routes, servers)?,
            http_local_rate_limit: None,
        }),
        InboundProtocol::Http1(routes) => Kind::Http1(Http1 {
            routes: http_routes(routes, servers)?,
            local_rate_limit: None,
        }),
        InboundProtocol::Http2(routes) => Kind::Http2(Http2 {
            routes: http_routes(routes, servers)?,
            local_rate_limit: None,
        }),
        InboundProtocol::Grpc(routes) => Kind::Grpc(Grpc {
            routes: grpc_routes(routes, servers)?,
        }),
        InboundProtocol::Opaque => Kind::Opaque(Opaque {}),
        InboundProtocol::Tls => Kind::Tls(Tls {}),
        InboundProtocol::Invalid(why) => {
            let rule = InboundRule {
                authorizations: [].into(),
                unsupported: Some(why.clone()),
            };
            Kind::Detect(Detect {
                timeout: Some(duration(DETECT_TIMEOUT)),
                http_routes: http_routes(&RouteTable::catch_all(policy.meta.clone(), rule), servers)?,
                http_local_rate_limit: None,
            })
        }
    })
}

fn http_routes(
    table: &RouteTable<InboundRule>,
    servers: &[Authorization],
) -> Result<Vec<HttpRoute>, EncodeError> {
    let rule = |rule: &Rule<InboundRule>| {
        Ok(http_route::Rule {
            matches: rule
                .matches
                .iter()
                .map(route::http_match)
                .collect::<Result<_, _>>()?,
            filters: rule.then.unsupported.iter().map(http_fault).collect(),
        })
    };
    let route = |r: &Route<InboundRule>| {
        Ok(HttpRoute {
            metadata: Some(reference(&r.meta)),
            hosts: route::hosts(&r.hosts),
            authorizations: own(r, servers)?.iter().map(authorization).collect(),
            rules: r.rules.iter().map(rule).collect::<Result<_, _>>()?,
        })
    };
    table.routes.iter().map(route).collect()
}

fn grpc_routes(
    table: &RouteTable<InboundRule>,
    servers: &[Authorization],
) -> Result<Vec<GrpcRoute>, EncodeError> {
    let rule = |rule: &Rule<InboundRule>| {
        Ok(grpc_route::Rule {
            matches: rule
                .matches
                .iter()
                .map(route::grpc_match)
                .collect::<Result<_, _>>()?,
            filters: rule.then.unsupported.iter().map(grpc_fault).collect(),
        })
    };
    let route = |r: &Route<InboundRule>| {
        Ok(GrpcRoute {
            metadata: Some(reference(&r.meta)),
            hosts: route::hosts(&r.hosts),
            authorizations: own(r, servers)?.iter().map(authorization).collect(),
            rules: r.rules.iter().map(rule).collect::<Result<_, _>>()?,
        })
    };
    table.routes.iter().map(route).collect()
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

fn http_fault(why: &Unsupported) -> http_route::Filter {
    let injector = HttpFailureInjector {
        status: FAULT_STATUS,
        message: why.to_string(),
        ratio: None,
    };
    http_route::Filter {
        kind: Some(http_route::filter::Kind::FailureInjector(injector)),
    }
}

fn grpc_fault(why: &Unsupported) -> grpc_route::Filter {
    let injector = GrpcFailureInjector {
        code: FAULT_CODE,
        message: why.to_string(),
        ratio: None,
    };
    grpc_route::Filter {
        kind: Some(grpc_route::filter::Kind::FailureInjector(injector)),
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
