//! Outbound policies.

use std::time::Duration;

use outrigger_policy::Unsupported;
use outrigger_policy::outbound::{
    Backend, Dispatch, Distribution, OpaqueAction, OpaqueRoute, OutboundPolicy, OutboundProtocol,
    OutboundRule, TlsRoute,
};
use outrigger_policy::route::{Route, RouteTable, Rule};

use super::endpoint::weighted_addr;
use super::error::EncodeError;
use super::meta::{duration, reference};
use super::route;
use crate::grpc_route::GrpcFailureInjector;
use crate::http_route::HttpFailureInjector;
use crate::outbound::backend::balance_p2c::{Load, PeakEwma};
use crate::outbound::backend::{BalanceP2c, EndpointDiscovery, Kind as BackendKind, endpoint_discovery};
use crate::outbound::proxy_protocol::{Detect, Grpc, Http1, Http2, Kind, Opaque, Tls};
use crate::outbound::{
    self, GrpcRoute, HttpRoute, ProxyProtocol, Queue, grpc_route, http_route, opaque_route, tls_route,
};

/// How long readers should look for the first bytes; Linkerd's proxy and ours use their own setting.
const DETECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Capacity and fail-fast time of a backend's queue. The field is obligatory; proxies use their own setting.
const QUEUE: (u32, Duration) = (100, Duration::from_secs(3));

/// The HTTP status with which readers answer on a route that is not enforced.
const FAULT_STATUS: u32 = 500;

/// gRPC's INTERNAL, for the same.
const FAULT_CODE: u32 = 13;

/// A policy. One that is not enforced as a whole becomes routes that fail each request and connection.
pub fn policy(policy: &OutboundPolicy) -> Result<outbound::OutboundPolicy, EncodeError> {
    Ok(outbound::OutboundPolicy {
        protocol: Some(ProxyProtocol {
            kind: Some(protocol(policy)?),
        }),
        metadata: Some(reference(&policy.parent)),
    })
}

fn protocol(policy: &OutboundPolicy) -> Result<Kind, EncodeError> {
    let http1 = |table: &_| {
        Ok(Http1 {
            routes: http_routes(table)?,
            failure_accrual: None,
        })
    };
    let http2 = |table: &_| {
        Ok(Http2 {
            routes: http_routes(table)?,
            failure_accrual: None,
        })
    };
    Ok(match &policy.protocol {
        OutboundProtocol::Detect {
            http1: one,
            http2: two,
            opaque,
        } => Kind::Detect(Detect {
            timeout: Some(duration(DETECT_TIMEOUT)),
            opaque: Some(opaque_routes(opaque)),
            http1: Some(http1(one)?),
            http2: Some(http2(two)?),
        }),
        OutboundProtocol::Http1(table) => Kind::Http1(http1(table)?),
        OutboundProtocol::Http2(table) => Kind::Http2(http2(table)?),
        OutboundProtocol::Grpc(table) => Kind::Grpc(Grpc {
            routes: grpc_routes(table)?,
            failure_accrual: None,
        }),
        OutboundProtocol::Opaque(route) => Kind::Opaque(opaque_routes(route)),
        OutboundProtocol::Tls(routes) => Kind::Tls(Tls {
            routes: routes.iter().map(tls_route).collect(),
        }),
        OutboundProtocol::Invalid(why) => {
            let rule = OutboundRule {
                backends: Err(why.clone()),
            };
            let table = RouteTable::catch_all(policy.parent.clone(), rule);
            Kind::Detect(Detect {
                timeout: Some(duration(DETECT_TIMEOUT)),
                opaque: Some(opaque_routes(&OpaqueRoute {
                    meta: policy.parent.clone(),
                    action: OpaqueAction::Invalid(why.clone()),
                })),
                http1: Some(http1(&table)?),
                http2: Some(http2(&table)?),
            })
        }
    })
}

fn http_routes(table: &RouteTable<OutboundRule>) -> Result<Vec<HttpRoute>, EncodeError> {
    let rule = |rule: &Rule<OutboundRule>| {
        let (filters, backends) = match &rule.then.backends {
            Ok(distribution) => (Vec::new(), http_distribution(distribution)),
            Err(why) => (vec![http_fault(why)], http_distribution(&Distribution::Empty)),
        };
        Ok(http_route::Rule {
            matches: rule
                .matches
                .iter()
                .map(route::http_match)
                .collect::<Result<_, _>>()?,
            filters,
            backends: Some(backends),
            ..Default::default()
        })
    };
    let route = |r: &Route<OutboundRule>| {
        Ok(HttpRoute {
            metadata: Some(reference(&r.meta)),
            hosts: route::hosts(&r.hosts),
            rules: r.rules.iter().map(rule).collect::<Result<_, _>>()?,
        })
    };
    table.routes.iter().map(route).collect()
}

fn grpc_routes(table: &RouteTable<OutboundRule>) -> Result<Vec<GrpcRoute>, EncodeError> {
    let rule = |rule: &Rule<OutboundRule>| {
        let (filters, backends) = match &rule.then.backends {
            Ok(distribution) => (Vec::new(), grpc_distribution(distribution)),
            Err(why) => (vec![grpc_fault(why)], grpc_distribution(&Distribution::Empty)),
        };
        Ok(grpc_route::Rule {
            matches: rule
                .matches
                .iter()
                .map(route::grpc_match)
                .collect::<Result<_, _>>()?,
            filters,
            backends: Some(backends),
            ..Default::default()
        })
    };
    let route = |r: &Route<OutboundRule>| {
        Ok(GrpcRoute {
            metadata: Some(reference(&r.meta)),
            hosts: route::hosts(&r.hosts),
            rules: r.rules.iter().map(rule).collect::<Result<_, _>>()?,
        })
    };
    table.routes.iter().map(route).collect()
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

/// The rules of an opaque or TLS route, whose messages differ by name only.
macro_rules! rules {
    ($kind:ident, $distribution:ident, $action:expr) => {{
        use $kind::filter::Kind;
        let fault = |kind: Kind| (vec![$kind::Filter { kind: Some(kind) }], &Distribution::Empty);
        let (filters, distribution) = match $action {
            OpaqueAction::NoRoute => return Vec::new(),
            OpaqueAction::Forward(distribution) => (Vec::new(), distribution),
            OpaqueAction::Forbid => fault(Kind::Forbidden(Default::default())),
            OpaqueAction::Invalid(why) => fault(Kind::Invalid(crate::opaque_route::Invalid {
                message: why.to_string(),
            })),
        };
        vec![$kind::Rule {
            backends: Some($distribution(distribution)),
            filters,
        }]
    }};
}

fn opaque_routes(route: &OpaqueRoute) -> Opaque {
    if route.action == OpaqueAction::NoRoute {
        return Opaque::default();
    }
    let rules = |action: &OpaqueAction| -> Vec<opaque_route::Rule> {
        rules!(opaque_route, opaque_distribution, action)
    };
    Opaque {
        routes: vec![outbound::OpaqueRoute {
            metadata: Some(reference(&route.meta)),
            rules: rules(&route.action),
        }],
    }
}

fn tls_route(route: &TlsRoute) -> outbound::TlsRoute {
    let rules =
        |action: &OpaqueAction| -> Vec<tls_route::Rule> { rules!(tls_route, tls_distribution, action) };
    outbound::TlsRoute {
        metadata: Some(reference(&route.route.meta)),
        snis: route::snis(&route.snis),
        rules: rules(&route.route.action),
    }
}

/// The distribution of one kind of route.
macro_rules! distribution {
    ($name:ident, $kind:ident) => {
        fn $name(distribution: &Distribution) -> $kind::Distribution {
            use $kind::distribution::{Empty, FirstAvailable, Kind, RandomAvailable};
            use $kind::{RouteBackend, WeightedRouteBackend};
            let part = |b: &Backend| RouteBackend {
                backend: Some(backend(b)),
                ..Default::default()
            };
            let kind = match distribution {
                Distribution::Empty => Kind::Empty(Empty {}),
                Distribution::FirstAvailable(backends) => Kind::FirstAvailable(FirstAvailable {
                    backends: backends.iter().map(|b| part(b)).collect(),
                }),
                Distribution::RandomAvailable(backends) => Kind::RandomAvailable(RandomAvailable {
                    backends: backends
                        .iter()
                        .map(|(b, weight)| WeightedRouteBackend {
                            backend: Some(part(b)),
                            weight: *weight,
                        })
                        .collect(),
                }),
            };
            $kind::Distribution { kind: Some(kind) }
        }
    };
}

distribution!(http_distribution, http_route);
distribution!(grpc_distribution, grpc_route);
distribution!(opaque_distribution, opaque_route);
distribution!(tls_distribution, tls_route);

fn backend(backend: &Backend) -> outbound::Backend {
    let kind = match &backend.dispatch {
        Dispatch::Forward(endpoint) => Some(BackendKind::Forward(weighted_addr(endpoint))),
        Dispatch::Balance { path, load } => Some(BackendKind::Balancer(BalanceP2c {
            discovery: Some(EndpointDiscovery {
                kind: Some(endpoint_discovery::Kind::Dst(
                    endpoint_discovery::DestinationGet {
                        path: path.to_string(),
                    },
                )),
            }),
            load: Some(Load::PeakEwma(PeakEwma {
                default_rtt: Some(duration(load.default_rtt)),
                decay: Some(duration(load.decay)),
            })),
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
