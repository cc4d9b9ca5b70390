//! Inbound policies: `Server` to [`InboundPolicy`].

use std::sync::Arc;

use outrigger_policy::authz::Authorization;
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol, InboundRule};
use outrigger_policy::name::ResourceRef;
use outrigger_policy::rate_limit::RateLimitPolicy;
use outrigger_policy::route::{Route, RouteTable, Rule};

use super::authz::{self, MAX_AUTHORIZATIONS};
use super::error::{DecodeError, bounded, duration, each, required};
use super::filter;
use super::meta;
use super::rate_limit::rate_limit;
use super::route::{self, check_size};
use crate::inbound::proxy_protocol::Kind;
use crate::inbound::{Authz, GrpcRoute, HttpRoute, ProxyProtocol, Server};

/// What a port accepts, with the authorization `default:localhost` added at the end of the server's own, and those
/// after the authorizations of each route. Without routes there is one, `default:default`, that takes everything.
pub fn server(server: Server) -> Result<InboundPolicy, DecodeError> {
    let meta = meta::labelled(&server.labels, "server")?;
    let mut authorizations = each("authorizations", &server.authorizations, authz::authorization)?;
    authorizations.push(authz::localhost());
    bounded("authorizations", authz::size(&authorizations), MAX_AUTHORIZATIONS)?;
    let authorizations: Arc<[Authorization]> = authorizations.into();
    let protocol = required("protocol", &server.protocol)?;
    let within = |e: DecodeError| e.within("protocol");
    Ok(InboundPolicy {
        protocol: protocol_of(protocol, &authorizations).map_err(within)?,
        rate_limit: limit_of(protocol).map_err(within)?,
        authorizations,
        meta,
    })
}

fn protocol_of(
    protocol: &ProxyProtocol,
    servers: &Arc<[Authorization]>,
) -> Result<InboundProtocol, DecodeError> {
    Ok(match required("kind", &protocol.kind)? {
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

fn limit_of(protocol: &ProxyProtocol) -> Result<Option<Arc<RateLimitPolicy>>, DecodeError> {
    let (field, limit) = match required("kind", &protocol.kind)? {
        Kind::Detect(detect) => ("detect.http_local_rate_limit", &detect.http_local_rate_limit),
        Kind::Http1(http) => ("http1.local_rate_limit", &http.local_rate_limit),
        Kind::Http2(http) => ("http2.local_rate_limit", &http.local_rate_limit),
        Kind::Grpc(_) | Kind::Opaque(_) | Kind::Tls(_) => return Ok(None),
    };
    rate_limit(limit).map_err(|e| e.within(field))
}

/// Reads the routes of one kind; their messages differ by name, and by the functions that read their parts.
macro_rules! routes {
    ($name:ident, $route:ty, $patterns:path, $match:path, $filters:path) => {
        fn $name(
            field: &str,
            routes: &[$route],
            servers: &Arc<[Authorization]>,
        ) -> Result<RouteTable<InboundRule>, DecodeError> {
            let matches = routes
                .iter()
                .flat_map(|r| &r.rules)
                .flat_map(|r| &r.matches);
            check_size(
                field,
                routes.iter().map(|r| r.rules.len()),
                matches.map($patterns),
            )?;
            let mut grants = Grants::of(servers);
            let routes = each(field, routes, |route| {
                let meta = meta::inbound("metadata", &route.metadata)?;
                let authorizations = grants.with(&route.authorizations)?;
                let rules = each("rules", &route.rules, |rule| {
                    let filters = $filters(&meta, &rule.filters)?;
                    let unsupported = filters.as_ref().err().cloned();
                    Ok(Rule {
                        matches: each("matches", &rule.matches, $match)?,
                        then: InboundRule {
                            authorizations: authorizations.clone(),
                            filters: filters.unwrap_or_default(),
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
    };
}

routes!(
    http_routes,
    HttpRoute,
    route::http_patterns,
    route::http_match,
    filter::of_inbound_http
);
routes!(
    grpc_routes,
    GrpcRoute,
    route::grpc_patterns,
    route::grpc_match,
    filter::of_inbound_grpc
);

fn table(routes: Vec<Route<InboundRule>>, servers: &Arc<[Authorization]>) -> RouteTable<InboundRule> {
    if !routes.is_empty() {
        return RouteTable { routes };
    }
    let everything = InboundRule::new(servers.clone());
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
