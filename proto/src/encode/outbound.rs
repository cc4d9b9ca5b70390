//! Outbound policies.

use std::sync::Arc;
use std::time::Duration;

use outrigger_policy::outbound::{
    Backend, Dispatch, Distribution, LoadParams, Mirror, OpaqueAction, OpaqueRoute, OutboundPolicy,
    OutboundProtocol, OutboundRule, TlsRoute,
};
use outrigger_policy::route::filter::Filter as PolicyFilter;
use outrigger_policy::route::{Route, RouteTable, Rule};

use super::endpoint::weighted_addr;
use super::error::EncodeError;
use super::meta::{duration, reference};
use super::{filter, retry, route};
use crate::outbound::backend::balance_p2c::{Load, PeakEwma, PenaltyPeakEwma};
use crate::outbound::backend::{BalanceP2c, EndpointDiscovery, Kind as BackendKind, endpoint_discovery};
use crate::outbound::proxy_protocol::{Detect, Grpc, Http1, Http2, Kind, Opaque, Tls};
use crate::outbound::{
    self, FailureAccrual, GrpcRoute, HttpRoute, ProxyProtocol, Queue, grpc_route, http_route, opaque_route,
    tls_route,
};

/// How long readers should look for the first bytes; Linkerd's proxy and ours use their own setting.
const DETECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Capacity and fail-fast time of a backend's queue. The field is obligatory; proxies use their own setting.
const QUEUE: (u32, Duration) = (100, Duration::from_secs(3));

/// A policy. One that is not enforced as a whole becomes routes that fail each request and connection.
pub fn policy(policy: &OutboundPolicy) -> Result<outbound::OutboundPolicy, EncodeError> {
    Ok(outbound::OutboundPolicy {
        protocol: Some(ProxyProtocol {
            kind: Some(protocol(policy)?),
        }),
        metadata: Some(reference(&policy.parent)),
        retry_budget: retry::budget(&policy.budget),
    })
}

fn protocol(policy: &OutboundPolicy) -> Result<Kind, EncodeError> {
    Ok(match &policy.protocol {
        OutboundProtocol::Detect {
            http1: one,
            http2: two,
            opaque,
        } => Kind::Detect(Detect {
            timeout: Some(duration(DETECT_TIMEOUT)),
            opaque: Some(opaque_routes(opaque)?),
            http1: Some(http1(one)?),
            http2: Some(http2(two)?),
        }),
        OutboundProtocol::Http1(table) => Kind::Http1(http1(table)?),
        OutboundProtocol::Http2(table) => Kind::Http2(http2(table)?),
        OutboundProtocol::Grpc(table) => Kind::Grpc(Grpc {
            routes: grpc_routes(table)?,
            failure_accrual: breaker_of(table)?,
        }),
        OutboundProtocol::Opaque(route) => Kind::Opaque(opaque_routes(route)?),
        OutboundProtocol::Tls(routes) => Kind::Tls(Tls {
            routes: routes.iter().map(tls_route).collect::<Result<_, _>>()?,
            failure_accrual: retry::accrual(routes.iter().flat_map(|tls| forwarded(&tls.route)))?,
        }),
        OutboundProtocol::Invalid(why) => {
            let table = RouteTable::catch_all(policy.parent.clone(), OutboundRule::new(Err(why.clone())));
            Kind::Detect(Detect {
                timeout: Some(duration(DETECT_TIMEOUT)),
                opaque: Some(opaque_routes(&OpaqueRoute {
                    meta: policy.parent.clone(),
                    action: OpaqueAction::Invalid(why.clone()),
                })?),
                http1: Some(http1(&table)?),
                http2: Some(http2(&table)?),
            })
        }
    })
}

fn http1(table: &RouteTable<OutboundRule>) -> Result<Http1, EncodeError> {
    Ok(Http1 {
        routes: http_routes(table)?,
        failure_accrual: breaker_of(table)?,
    })
}

fn http2(table: &RouteTable<OutboundRule>) -> Result<Http2, EncodeError> {
    Ok(Http2 {
        routes: http_routes(table)?,
        failure_accrual: breaker_of(table)?,
    })
}

/// What shuts the endpoints of a table's backends, those of mirrors too.
fn breaker_of(table: &RouteTable<OutboundRule>) -> Result<Option<FailureAccrual>, EncodeError> {
    let backends = table.rules().flat_map(|(_, rule)| {
        let backends = rule.backends.iter().flat_map(Distribution::backends);
        backends.chain(rule.mirrors.iter().map(|mirror| &mirror.backend))
    });
    retry::accrual(backends)
}

fn forwarded(route: &OpaqueRoute) -> impl Iterator<Item = &Arc<Backend>> {
    let distribution = match &route.action {
        OpaqueAction::Forward(distribution) => Some(distribution),
        OpaqueAction::Forbid | OpaqueAction::NoRoute | OpaqueAction::Invalid(_) => None,
    };
    distribution.into_iter().flat_map(Distribution::backends)
}

/// The routes of one kind; their messages differ by name, and by the functions that write their parts.
macro_rules! routes {
    ($name:ident, $route:ident, $rule:ident, $match:path) => {
        fn $name(table: &RouteTable<OutboundRule>) -> Result<Vec<$route>, EncodeError> {
            let route = |r: &Route<OutboundRule>| {
                let rule = |of: &Rule<OutboundRule>| {
                    let mut rule = $rule(&of.then)?;
                    rule.matches = of.matches.iter().map($match).collect::<Result<_, _>>()?;
                    Ok(rule)
                };
                Ok($route {
                    metadata: Some(reference(&r.meta)),
                    hosts: route::hosts(&r.hosts),
                    rules: r.rules.iter().map(rule).collect::<Result<_, _>>()?,
                })
            };
            table.routes.iter().map(route).collect()
        }
    };
}

routes!(http_routes, HttpRoute, http_rule, route::http_match);
routes!(grpc_routes, GrpcRoute, grpc_rule, route::grpc_match);

/// What a rule of one kind does, without its matches. One that is refused fails every request.
macro_rules! rule {
    ($name:ident, $kind:ident, $filter:path, $fault:path, $distribution:ident, $retry:path) => {
        fn $name(rule: &OutboundRule) -> Result<$kind::Rule, EncodeError> {
            if !rule.classes.is_empty() || !rule.labels.is_empty() {
                return Err(EncodeError(
                    "only a ServiceProfile can have response classes and labels",
                ));
            }
            let distribution = match &rule.backends {
                Ok(distribution) => $distribution(distribution)?,
                Err(why) => {
                    return Ok($kind::Rule {
                        filters: vec![$filter(&$fault(why))?],
                        backends: Some($distribution(&Distribution::Empty)?),
                        ..Default::default()
                    });
                }
            };
            Ok($kind::Rule {
                filters: filter::theirs(&rule.filters)
                    .map($filter)
                    .collect::<Result<_, _>>()?,
                backends: Some(distribution),
                timeouts: retry::timeouts(&rule.timeouts)?,
                retry: $retry(&rule.retry)?,
                allow_l5d_request_headers: rule.allow_overrides,
                rewrites: filter::rewrites(&rule.filters),
                delays: filter::delays(&rule.filters),
                mirrors: rule.mirrors.iter().map(mirror).collect::<Result<_, _>>()?,
                ..Default::default()
            })
        }
    };
}

rule!(
    http_rule,
    http_route,
    filter::outbound_http,
    filter::fault,
    http_distribution,
    retry::http
);
rule!(
    grpc_rule,
    grpc_route,
    filter::outbound_grpc,
    filter::grpc_fault,
    grpc_distribution,
    retry::grpc
);

fn mirror(mirror: &Mirror) -> Result<outbound::Mirror, EncodeError> {
    if !mirror.backend.filters.is_empty() {
        return Err(EncodeError("the backend of a mirror can't have filters"));
    }
    Ok(outbound::Mirror {
        backend: Some(backend(&mirror.backend)),
        ratio: filter::ratio(mirror.ratio),
    })
}

/// The rules of an opaque or TLS route, whose messages differ by name only.
macro_rules! rules {
    ($kind:ident, $distribution:ident, $action:expr) => {{
        use $kind::filter::Kind;
        let fault = |kind: Kind| (vec![$kind::Filter { kind: Some(kind) }], &Distribution::Empty);
        let (filters, distribution) = match $action {
            OpaqueAction::NoRoute => return Ok(Vec::new()),
            OpaqueAction::Forward(distribution) => (Vec::new(), distribution),
            OpaqueAction::Forbid => fault(Kind::Forbidden(Default::default())),
            OpaqueAction::Invalid(why) => fault(Kind::Invalid(crate::opaque_route::Invalid {
                message: why.to_string(),
            })),
        };
        Ok(vec![$kind::Rule {
            backends: Some($distribution(distribution)?),
            filters,
        }])
    }};
}

fn opaque_routes(route: &OpaqueRoute) -> Result<Opaque, EncodeError> {
    if route.action == OpaqueAction::NoRoute {
        return Ok(Opaque::default());
    }
    let rules = |action: &OpaqueAction| -> Result<Vec<opaque_route::Rule>, EncodeError> {
        rules!(opaque_route, opaque_distribution, action)
    };
    Ok(Opaque {
        routes: vec![outbound::OpaqueRoute {
            metadata: Some(reference(&route.meta)),
            rules: rules(&route.action)?,
        }],
        failure_accrual: retry::accrual(forwarded(route))?,
    })
}

fn tls_route(route: &TlsRoute) -> Result<outbound::TlsRoute, EncodeError> {
    let rules = |action: &OpaqueAction| -> Result<Vec<tls_route::Rule>, EncodeError> {
        rules!(tls_route, tls_distribution, action)
    };
    Ok(outbound::TlsRoute {
        metadata: Some(reference(&route.route.meta)),
        snis: route::snis(&route.snis),
        rules: rules(&route.route.action)?,
    })
}

/// The distribution of one kind of route; `$filter` writes what a backend does besides, and the other fields stand
/// behind it.
macro_rules! distribution {
    ($name:ident, $kind:ident, $filter:expr $(, $field:ident: $value:expr)?) => {
        fn $name(distribution: &Distribution) -> Result<$kind::Distribution, EncodeError> {
            use $kind::distribution::{Empty, FirstAvailable, Kind, RandomAvailable};
            use $kind::{Filter, RouteBackend, WeightedRouteBackend};
            let filter: fn(&PolicyFilter) -> Result<Filter, EncodeError> = $filter;
            let part = |b: &Backend| {
                Ok(RouteBackend {
                    backend: Some(backend(b)),
                    filters: b.filters.iter().map(filter).collect::<Result<_, _>>()?,
                    $($field: $value)?
                })
            };
            let kind = match distribution {
                Distribution::Empty => Kind::Empty(Empty {}),
                Distribution::FirstAvailable(backends) => Kind::FirstAvailable(FirstAvailable {
                    backends: backends.iter().map(|b| part(b)).collect::<Result<_, _>>()?,
                }),
                Distribution::RandomAvailable(backends) => {
                    let weighted = |(b, weight): &(Arc<Backend>, u32)| {
                        Ok(WeightedRouteBackend {
                            backend: Some(part(b)?),
                            weight: *weight,
                        })
                    };
                    Kind::RandomAvailable(RandomAvailable {
                        backends: backends.iter().map(weighted).collect::<Result<_, _>>()?,
                    })
                }
            };
            Ok($kind::Distribution { kind: Some(kind) })
        }
    };
}

distribution!(http_distribution, http_route, filter::outbound_http, request_timeout: None);
distribution!(grpc_distribution, grpc_route, filter::outbound_grpc, request_timeout: None);
distribution!(opaque_distribution, opaque_route, |_| Err(NO_FILTERS));
distribution!(tls_distribution, tls_route, |_| Err(NO_FILTERS));

const NO_FILTERS: EncodeError = EncodeError("the backends of an opaque or TLS route can't have filters");

fn backend(backend: &Backend) -> outbound::Backend {
    let kind = match &backend.dispatch {
        Dispatch::Forward(endpoint) => Some(BackendKind::Forward(weighted_addr(endpoint))),
        Dispatch::Balance { path, load, .. } => Some(BackendKind::Balancer(BalanceP2c {
            discovery: Some(EndpointDiscovery {
                kind: Some(endpoint_discovery::Kind::Dst(
                    endpoint_discovery::DestinationGet {
                        path: path.to_string(),
                    },
                )),
            }),
            load: Some(of_load(load)),
        })),
        Dispatch::Missing(_) => None,
    };
    let (capacity, failfast) = QUEUE;
    outbound::Backend {
        metadata: Some(reference(&backend.meta)),
        kind,
        queue: Some(Queue {
            capacity,
            failfast_timeout: Some(duration(failfast)),
        }),
    }
}

fn of_load(load: &LoadParams) -> Load {
    let (default_rtt, decay) = (Some(duration(load.default_rtt)), Some(duration(load.decay)));
    match load.penalty {
        None => Load::PeakEwma(PeakEwma { default_rtt, decay }),
        Some(penalty) => Load::PenaltyPeakEwma(PenaltyPeakEwma {
            default_rtt,
            decay,
            penalty: Some(duration(penalty.penalty)),
            max_retry_after: Some(duration(penalty.max_retry_after)),
            penalty_decay: Some(duration(penalty.decay)),
        }),
    }
}
