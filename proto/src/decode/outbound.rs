//! Outbound policies: `OutboundPolicy` to [`OutboundPolicy`].

use std::sync::Arc;

use outrigger_policy::Unsupported;
use outrigger_policy::breaker::BreakerPolicy;
use outrigger_policy::budget::BudgetPolicy;
use outrigger_policy::name::ResourceRef;
use outrigger_policy::outbound::{
    Dispatch, Distribution, Mirror, OpaqueAction, OpaqueRoute, OutboundPolicy, OutboundProtocol,
    OutboundRule, TlsRoute,
};
use outrigger_policy::route::filter::Filter;
use outrigger_policy::route::{Route, RouteTable, Rule};

use super::backend;
use super::error::{DecodeError, bounded, each, not_enforced, required};
use super::filter::{self, Filters};
use super::meta;
use super::retry;
use super::route::{self, check_size};
use crate::outbound::proxy_protocol::{Detect, Kind};
use crate::outbound::{self, GrpcRoute, HttpRoute, ProxyProtocol, grpc_route, http_route};

/// Mirrors accepted in one rule: each is a copy of every request that takes it.
pub const MAX_MIRRORS: usize = 8;

/// What may be done to reach a destination.
///
/// The authority is the path of the first balancer among the backends.
pub fn policy(policy: outbound::OutboundPolicy) -> Result<OutboundPolicy, DecodeError> {
    let parent = meta::reference("metadata", &policy.metadata)?;
    let protocol = required("protocol", &policy.protocol)?;
    let protocol = protocol_of(protocol).map_err(|e| e.within("protocol"))?;
    Ok(OutboundPolicy {
        authority: first_balanced(&protocol).unwrap_or_default(),
        budget: match &policy.retry_budget {
            None => Some(BudgetPolicy::default()),
            Some(budget) => retry::budget(budget).map_err(|e| e.within("retry_budget"))?,
        },
        protocol,
        parent,
    })
}

fn protocol_of(protocol: &ProxyProtocol) -> Result<OutboundProtocol, DecodeError> {
    Ok(match required("kind", &protocol.kind)? {
        Kind::Detect(detect) => detected(detect).map_err(|e| e.within("detect"))?,
        Kind::Opaque(opaque) => OutboundProtocol::Opaque(of_opaque(opaque, None)?),
        Kind::Http1(http) => OutboundProtocol::Http1(of_http1(http)?.0),
        Kind::Http2(http) => {
            let breaker = retry::accrual(&http.failure_accrual).map_err(|e| e.within("http2"))?;
            OutboundProtocol::Http2(http_routes("http2.routes", &http.routes, breaker)?)
        }
        Kind::Grpc(grpc) => {
            let breaker = retry::accrual(&grpc.failure_accrual).map_err(|e| e.within("grpc"))?;
            OutboundProtocol::Grpc(grpc_routes("grpc.routes", &grpc.routes, breaker)?)
        }
        Kind::Tls(tls) => {
            let breaker = retry::accrual(&tls.failure_accrual).map_err(|e| e.within("tls"))?;
            OutboundProtocol::Tls(tls_routes("tls.routes", &tls.routes, breaker)?)
        }
    })
}

/// The timeout is not used: the proxy's own decides how long it looks.
fn detected(detect: &Detect) -> Result<OutboundProtocol, DecodeError> {
    let (http1, breaker) = of_http1(required("http1", &detect.http1)?)?;
    let http2 = required("http2", &detect.http2)?;
    let breaker2 = retry::accrual(&http2.failure_accrual).map_err(|e| e.within("http2"))?;
    Ok(OutboundProtocol::Detect {
        http1,
        http2: http_routes("http2.routes", &http2.routes, breaker2)?,
        opaque: of_opaque(required("opaque", &detect.opaque)?, breaker)?,
    })
}

fn of_http1(
    http: &outbound::proxy_protocol::Http1,
) -> Result<(RouteTable<OutboundRule>, Option<BreakerPolicy>), DecodeError> {
    let breaker = retry::accrual(&http.failure_accrual).map_err(|e| e.within("http1"))?;
    Ok((http_routes("http1.routes", &http.routes, breaker)?, breaker))
}

/// Without accrual of its own, what shuts endpoints for HTTP/1 shuts them here too: they are the same.
fn of_opaque(
    opaque: &outbound::proxy_protocol::Opaque,
    http: Option<BreakerPolicy>,
) -> Result<OpaqueRoute, DecodeError> {
    let own = retry::accrual(&opaque.failure_accrual).map_err(|e| e.within("opaque"))?;
    opaque_route("opaque.routes", &opaque.routes, own.or(http))
}

/// Reads the routes of one kind; their messages differ by name, and by the functions that read their parts.
macro_rules! routes {
    ($name:ident, $route:ty, $rule:ident, $patterns:path, $match:path) => {
        fn $name(
            field: &str,
            routes: &[$route],
            breaker: Option<BreakerPolicy>,
        ) -> Result<RouteTable<OutboundRule>, DecodeError> {
            let matches = routes
                .iter()
                .flat_map(|r| &r.rules)
                .flat_map(|r| &r.matches);
            check_size(
                field,
                routes.iter().map(|r| r.rules.len()),
                matches.map($patterns),
            )?;
            let routes = each(field, routes, |route| {
                let meta = meta::reference("metadata", &route.metadata)?;
                let rules = each("rules", &route.rules, |rule| {
                    Ok(Rule {
                        matches: each("matches", &rule.matches, $match)?,
                        then: $rule(&meta, rule, breaker)?,
                    })
                })?;
                Ok(Route {
                    hosts: route::hosts(&route.hosts)?,
                    meta,
                    rules,
                })
            })?;
            Ok(RouteTable { routes })
        }
    };
}

routes!(
    http_routes,
    HttpRoute,
    http_rule,
    route::http_patterns,
    route::http_match
);
routes!(
    grpc_routes,
    GrpcRoute,
    grpc_rule,
    route::grpc_patterns,
    route::grpc_match
);

/// Reads what a rule of one kind does.
macro_rules! rule {
    ($name:ident, $kind:ident, $filters:path, $backends:path, $retry:path) => {
        fn $name(
            route: &ResourceRef,
            rule: &$kind::Rule,
            breaker: Option<BreakerPolicy>,
        ) -> Result<OutboundRule, DecodeError> {
            let backends = $backends(route, &rule.backends, breaker)?;
            let own = $filters(route, &rule.filters)?;
            let (filters, backends) = joined(own, extensions(&rule.rewrites, &rule.delays)?, backends);
            Ok(OutboundRule {
                backends,
                filters,
                mirrors: mirrors(&rule.mirrors, breaker)?,
                timeouts: retry::timeouts(&rule.timeouts, &rule.request_timeout)?,
                retry: $retry(&rule.retry)?,
                allow_overrides: rule.allow_l5d_request_headers,
                classes: Arc::default(),
                labels: Arc::default(),
            })
        }
    };
}

rule!(
    http_rule,
    http_route,
    filter::of_outbound_http,
    backend::http,
    retry::http
);
rule!(
    grpc_rule,
    grpc_route,
    filter::of_outbound_grpc,
    backend::grpc,
    retry::grpc
);

/// A filter that is refused refuses the rule.
fn joined(own: Filters, ours: Vec<Filter>, backends: backend::Choice) -> (Vec<Filter>, backend::Choice) {
    match own {
        Ok(mut filters) => {
            filters.extend(ours);
            (filters, backends)
        }
        Err(why) => (Vec::new(), Err(why)),
    }
}

/// The filters that are ours; they stand after the others.
fn extensions(
    rewrites: &[outbound::Rewrite],
    delays: &[outbound::Delay],
) -> Result<Vec<Filter>, DecodeError> {
    let mut filters = each("rewrites", rewrites, filter::rewrite)?;
    filters.extend(each("delays", delays, filter::delay)?);
    Ok(filters)
}

fn mirrors(list: &[outbound::Mirror], breaker: Option<BreakerPolicy>) -> Result<Vec<Mirror>, DecodeError> {
    bounded("mirrors", list.len(), MAX_MIRRORS)?;
    each("mirrors", list, |mirror| {
        let to = required("backend", &mirror.backend)?;
        Ok(Mirror {
            backend: Arc::new(backend::backend(to, Vec::new(), breaker)?),
            ratio: filter::ratio(&mirror.ratio)?,
        })
    })
}

/// What one rule of an opaque or TLS route does; a route without rules leads nowhere.
macro_rules! action {
    ($kind:ident, $meta:expr, $rules:expr, $breaker:expr) => {
        match $rules {
            [] => Ok(OpaqueAction::NoRoute),
            [rule] => match rule.filters.first().map(|filter| &filter.kind) {
                Some(Some(outbound::$kind::filter::Kind::Forbidden(_))) => Ok(OpaqueAction::Forbid),
                Some(Some(outbound::$kind::filter::Kind::Invalid(invalid))) => {
                    Ok(OpaqueAction::Invalid(misconfigured($meta, &invalid.message)))
                }
                Some(None) => Ok(OpaqueAction::Invalid(not_enforced(
                    $meta,
                    "a filter of an unknown kind",
                    "remove it from the route",
                ))),
                None => backend::$kind($meta, &rule.backends, $breaker).map(|choice| match choice {
                    Ok(distribution) => OpaqueAction::Forward(distribution),
                    Err(refusal) => OpaqueAction::Invalid(refusal),
                }),
            },
            _ => Ok(OpaqueAction::Invalid(not_enforced(
                $meta,
                "more than one rule",
                "leave one in the route",
            ))),
        }
        .map_err(|e| e.within("rules[0]"))
    };
}

fn misconfigured(route: &ResourceRef, message: &str) -> Unsupported {
    match message {
        "" => Unsupported::new(format!("{route}: the control plane calls the route invalid")),
        message => Unsupported::new(message),
    }
}

fn opaque_route(
    field: &str,
    routes: &[outbound::OpaqueRoute],
    breaker: Option<BreakerPolicy>,
) -> Result<OpaqueRoute, DecodeError> {
    let Some(first) = routes.first() else {
        return Ok(OpaqueRoute {
            meta: Arc::new(ResourceRef::of_default("none")),
            action: OpaqueAction::NoRoute,
        });
    };
    let at = |e: DecodeError| e.within(&format!("{field}[0]"));
    let meta = meta::reference("metadata", &first.metadata).map_err(at)?;
    let action = match routes.len() {
        1 => action!(opaque_route, &meta, first.rules.as_slice(), breaker).map_err(at)?,
        _ => OpaqueAction::Invalid(not_enforced(&meta, "one of several opaque routes", "leave one")),
    };
    Ok(OpaqueRoute { meta, action })
}

fn tls_routes(
    field: &str,
    routes: &[outbound::TlsRoute],
    breaker: Option<BreakerPolicy>,
) -> Result<Vec<TlsRoute>, DecodeError> {
    check_size(field, routes.iter().map(|r| r.rules.len()), std::iter::empty())?;
    each(field, routes, |route| {
        let meta = meta::reference("metadata", &route.metadata)?;
        Ok(TlsRoute {
            snis: route::snis(&route.snis)?,
            route: OpaqueRoute {
                action: action!(tls_route, &meta, route.rules.as_slice(), breaker)?,
                meta,
            },
        })
    })
}

fn first_balanced(protocol: &OutboundProtocol) -> Option<Arc<str>> {
    let of_table = |table: &RouteTable<OutboundRule>| {
        let mut rules = table.routes.iter().flat_map(|route| &route.rules);
        rules.find_map(|rule| balanced(rule.then.backends.as_ref().ok()?))
    };
    let of_opaque = |route: &OpaqueRoute| match &route.action {
        OpaqueAction::Forward(distribution) => balanced(distribution),
        OpaqueAction::Forbid | OpaqueAction::NoRoute | OpaqueAction::Invalid(_) => None,
    };
    match protocol {
        OutboundProtocol::Detect { http1, http2, opaque } => of_table(http1)
            .or_else(|| of_table(http2))
            .or_else(|| of_opaque(opaque)),
        OutboundProtocol::Http1(table) | OutboundProtocol::Http2(table) | OutboundProtocol::Grpc(table) => {
            of_table(table)
        }
        OutboundProtocol::Opaque(route) => of_opaque(route),
        OutboundProtocol::Tls(routes) => routes.iter().find_map(|tls| of_opaque(&tls.route)),
        OutboundProtocol::Invalid(_) => None,
    }
}

fn balanced(distribution: &Distribution) -> Option<Arc<str>> {
    distribution
        .backends()
        .find_map(|backend| match &backend.dispatch {
            Dispatch::Balance { path, .. } => Some(path.clone()),
            Dispatch::Forward(_) | Dispatch::Missing(_) => None,
        })
}
