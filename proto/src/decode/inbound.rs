//! Inbound policies: `Server` to [`InboundPolicy`].

use std::sync::Arc;

use outrigger_policy::Unsupported;
use outrigger_policy::authz::Authorization;
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol, InboundRule};
use outrigger_policy::name::ResourceRef;
use outrigger_policy::route::{Route, RouteTable, Rule};

use super::authz::{self, MAX_AUTHORIZATIONS};
use super::error::{DecodeError, bounded, duration, each, not_enforced, required};
use super::meta;
use super::route::{self, check_size};
use crate::inbound::proxy_protocol::Kind;
use crate::inbound::{
    Authz, GrpcRoute, HttpLocalRateLimit, HttpRoute, ProxyProtocol, Server, grpc_route, http_route,
};

/// What a port accepts, with the authorization `default:localhost` added at the end of the server's own, and those
/// after the authorizations of each route. Without routes there is one, `default:default`, that takes everything.
pub fn server(server: Server) -> Result<InboundPolicy, DecodeError> {
    let meta = meta::labelled(&server.labels, "server")?;
    let mut authorizations = each("authorizations", &server.authorizations, authz::authorization)?;
    authorizations.push(authz::localhost());
    bounded("authorizations", authz::size(&authorizations), MAX_AUTHORIZATIONS)?;
    let authorizations: Arc<[Authorization]> = authorizations.into();
    let protocol = required("protocol", &server.protocol)?;
    Ok(InboundPolicy {
        protocol: protocol_of(protocol, &meta, &authorizations).map_err(|e| e.within("protocol"))?,
        authorizations,
        meta,
    })
}

fn protocol_of(
    protocol: &ProxyProtocol,
    meta: &ResourceRef,
    servers: &Arc<[Authorization]>,
) -> Result<InboundProtocol, DecodeError> {
    let kind = required("kind", &protocol.kind)?;
    let limit = match kind {
        Kind::Detect(detect) => &detect.http_local_rate_limit,
        Kind::Http1(http) => &http.local_rate_limit,
        Kind::Http2(http) => &http.local_rate_limit,
        Kind::Grpc(_) | Kind::Opaque(_) | Kind::Tls(_) => &None,
    };
    if limit.as_ref().is_some_and(limits_anything) {
        let remedy = "remove the HTTPLocalRateLimitPolicy, or limit in the application";
        return Ok(InboundProtocol::Invalid(not_enforced(
            meta,
            "the local rate limit",
            remedy,
        )));
    }
    Ok(match kind {
        Kind::Detect(detect) => InboundProtocol::Detect {
            timeout: duration("detect.timeout", required("detect.timeout", &detect.timeout)?)?,
            routes: http_routes("detect.http_routes", &detect.http_routes, servers)?,
        },
        Kind::Http1(http) => InboundProtocol::Http1(http_routes("http1.routes", &http.routes, servers)?),
        Kind::Http2(http) => InboundProtocol::Http2(http_routes("http2.routes", &http.routes, servers)?),
        Kind::Grpc(grpc) => InboundProtocol::Grpc(grpc_routes("grpc.routes", &grpc.routes, servers)?),
        Kind::Opaque(_) => InboundProtocol::Opaque,
        Kind::Tls(_) => InboundProtocol::Tls,
    })
}

/// A limit of zero requests per second is none.
fn limits_anything(limit: &HttpLocalRateLimit) -> bool {
    let overrides = limit.overrides.iter().map(|o| &o.limit);
    let mut limits = [&limit.total, &limit.identity].into_iter().chain(overrides);
    limits.any(|limit| limit.is_some_and(|l| l.requests_per_second != 0))
}

fn http_routes(
    field: &str,
    routes: &[HttpRoute],
    servers: &Arc<[Authorization]>,
) -> Result<RouteTable<InboundRule>, DecodeError> {
    let matches = routes.iter().flat_map(|r| &r.rules).flat_map(|r| &r.matches);
    check_size(
        field,
        routes.iter().map(|r| r.rules.len()),
        matches.map(route::http_patterns),
    )?;
    let mut grants = Grants::of(servers);
    let routes = each(field, routes, |route| {
        let meta = meta::inbound("metadata", &route.metadata)?;
        let authorizations = grants.with(&route.authorizations)?;
        let rules = each("rules", &route.rules, |rule| {
            let unsupported = rule
                .filters
                .first()
                .map(|filter| refuse(&meta, http_filter(filter)));
            Ok(Rule {
                matches: each("matches", &rule.matches, route::http_match)?,
                then: InboundRule {
                    authorizations: authorizations.clone(),
                    unsupported,
                },
            })
        })?;
        Ok(Route {
            hosts: route::hosts(&route.hosts)?,
            meta,
            rules,
        })
    })?;
    Ok(table(routes, servers))
}

fn grpc_routes(
    field: &str,
    routes: &[GrpcRoute],
    servers: &Arc<[Authorization]>,
) -> Result<RouteTable<InboundRule>, DecodeError> {
    let matches = routes.iter().flat_map(|r| &r.rules).flat_map(|r| &r.matches);
    check_size(
        field,
        routes.iter().map(|r| r.rules.len()),
        matches.map(route::grpc_patterns),
    )?;
    let mut grants = Grants::of(servers);
    let routes = each(field, routes, |route| {
        let meta = meta::inbound("metadata", &route.metadata)?;
        let authorizations = grants.with(&route.authorizations)?;
        let rules = each("rules", &route.rules, |rule| {
            let unsupported = rule
                .filters
                .first()
                .map(|filter| refuse(&meta, grpc_filter(filter)));
            Ok(Rule {
                matches: each("matches", &rule.matches, route::grpc_match)?,
                then: InboundRule {
                    authorizations: authorizations.clone(),
                    unsupported,
                },
            })
        })?;
        Ok(Route {
            hosts: route::hosts(&route.hosts)?,
            meta,
            rules,
        })
    })?;
    Ok(table(routes, servers))
}

fn table(routes: Vec<Route<InboundRule>>, servers: &Arc<[Authorization]>) -> RouteTable<InboundRule> {
    if !routes.is_empty() {
        return RouteTable { routes };
    }
    let everything = InboundRule {
        authorizations: servers.clone(),
        unsupported: None,
    };
    RouteTable::catch_all(Arc::new(ResourceRef::of_default("default")), everything)
}

/// The authorizations of routes; they hold copies of the server's, so what they hold together is bounded.
struct Grants<'a> {
    servers: &'a Arc<[Authorization]>,
    size: usize,
}

impl<'a> Grants<'a> {
    fn of(servers: &'a Arc<[Authorization]>) -> Self {
        Self { servers, size: 0 }
    }

    /// The route's own followed by the server's.
    fn with(&mut self, own: &[Authz]) -> Result<Arc<[Authorization]>, DecodeError> {
        if own.is_empty() {
            return Ok(self.servers.clone());
        }
        let own = each("authorizations", own, authz::authorization)?;
        self.size += authz::size(&own) + authz::size(self.servers);
        bounded("authorizations", self.size, MAX_AUTHORIZATIONS)?;
        Ok(own.into_iter().chain(self.servers.iter().cloned()).collect())
    }
}

fn refuse(route: &ResourceRef, filter: &str) -> Unsupported {
    not_enforced(route, &format!("the filter {filter}"), "remove it from the route")
}

fn http_filter(filter: &http_route::Filter) -> &'static str {
    match &filter.kind {
        Some(http_route::filter::Kind::FailureInjector(_)) => "failure_injector",
        Some(http_route::filter::Kind::RequestHeaderModifier(_)) => "request_header_modifier",
        Some(http_route::filter::Kind::Redirect(_)) => "redirect",
        None => "(of an unknown kind)",
    }
}

fn grpc_filter(filter: &grpc_route::Filter) -> &'static str {
    match &filter.kind {
        Some(grpc_route::filter::Kind::FailureInjector(_)) => "failure_injector",
        Some(grpc_route::filter::Kind::RequestHeaderModifier(_)) => "request_header_modifier",
        None => "(of an unknown kind)",
    }
}
