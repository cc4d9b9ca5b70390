//! Outbound policies: what may be done to reach a destination.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::Unsupported;
use crate::breaker::BreakerPolicy;
use crate::budget::BudgetPolicy;
use crate::classify::ResponseClass;
use crate::endpoint::Endpoint;
use crate::name::ResourceRef;
use crate::retry::RetryPolicy;
use crate::route::RouteTable;
use crate::route::filter::{Filter, Ratio};
use crate::route::host::{self, HostMatch};
use crate::timeouts::Timeouts;

/// What the control plane said about one destination (`OutboundPolicy`).
#[derive(Clone, Debug, PartialEq)]
pub struct OutboundPolicy {
    /// The object the application connected to (metric labels `parent_*`).
    pub parent: Arc<ResourceRef>,
    /// What is spoken there, with the routes for it.
    pub protocol: OutboundProtocol,
    /// The `name:port` under which endpoint metrics report the destination (label `authority`); empty if none.
    pub authority: Arc<str>,
    /// What bounds the retries of all its routes together; `None`: nothing does.
    pub budget: Option<BudgetPolicy>,
}

/// What is spoken to a destination.
#[derive(Clone, Debug, PartialEq)]
pub enum OutboundProtocol {
    /// Unknown: look at the first bytes.
    Detect {
        /// Routes for HTTP/1 requests.
        http1: RouteTable<OutboundRule>,
        /// Routes for HTTP/2 requests.
        http2: RouteTable<OutboundRule>,
        /// Where anything else goes.
        opaque: OpaqueRoute,
    },
    /// HTTP/1, without looking.
    Http1(RouteTable<OutboundRule>),
    /// HTTP/2 with prior knowledge.
    Http2(RouteTable<OutboundRule>),
    /// gRPC: HTTP/2, with gRPC routes.
    Grpc(RouteTable<OutboundRule>),
    /// Bytes.
    Opaque(OpaqueRoute),
    /// TLS of the application, routed by SNI and passed through.
    Tls(Vec<TlsRoute>),
    /// The policy as a whole can't be enforced: HTTP is answered with 500, anything else is closed.
    Invalid(Unsupported),
}

/// What an outbound HTTP or gRPC rule does with a request that it matches.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboundRule {
    /// Where it may go, or why nothing may take this rule.
    pub backends: Result<Distribution, Unsupported>,
    /// What is done to requests and responses, in order. Those of the chosen backend follow.
    pub filters: Vec<Filter>,
    /// Copies of requests, whose responses nobody waits for.
    pub mirrors: Vec<Mirror>,
    /// How long an exchange may take.
    pub timeouts: Timeouts,
    /// When a request is sent again.
    pub retry: Option<RetryPolicy>,
    /// Whether requests may say so themselves ([`crate::overrides`]).
    pub allow_overrides: bool,
    /// What counts as a failure, the first that holds; else [`crate::classify::response`].
    pub classes: Arc<[ResponseClass]>,
    /// Labels of the ServiceProfile route (`rt_*` in the metrics `route_*`), in key order.
    pub labels: Arc<BTreeMap<String, String>>,
}

impl OutboundRule {
    /// A rule that does nothing but lead there.
    pub fn new(backends: Result<Distribution, Unsupported>) -> Self {
        Self {
            backends,
            filters: Vec::new(),
            mirrors: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            allow_overrides: false,
            classes: Arc::default(),
            labels: Arc::default(),
        }
    }

    /// A rule that leads to these backends, and does nothing else.
    pub fn to(distribution: Distribution) -> Self {
        Self::new(Ok(distribution))
    }
}

/// Where copies of requests are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// To whom.
    pub backend: Arc<Backend>,
    /// The share of requests.
    pub ratio: Ratio,
}

/// Where bytes go that are not HTTP (`OpaqueRoute`, of which there is at most one).
#[derive(Clone, Debug, PartialEq)]
pub struct OpaqueRoute {
    /// The route object (metric labels `route_*`).
    pub meta: Arc<ResourceRef>,
    /// Where they may go, or why not.
    pub action: OpaqueAction,
}

/// What an opaque or TLS route does with a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum OpaqueAction {
    /// Send it to one of these.
    Forward(Distribution),
    /// The policy forbids it (`forbidden` filter).
    Forbid,
    /// No route was given.
    NoRoute,
    /// The route can't be enforced.
    Invalid(Unsupported),
}

/// A route for TLS connections, by SNI.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsRoute<R = OpaqueRoute> {
    /// The server names it applies to; empty means all.
    pub snis: Vec<HostMatch>,
    /// The route object and what it does.
    pub route: R,
}

/// The route that describes the server name most closely, the first listed of equals; an empty name takes only
/// routes for all.
pub fn find_tls<'a, R>(routes: &'a [TlsRoute<R>], sni: &str) -> Option<&'a TlsRoute<R>> {
    let mut best = None;
    for route in routes {
        let Some(specificity) = host::most_specific(&route.snis, sni) else {
            continue;
        };
        if best.is_none_or(|(best, _)| specificity > best) {
            best = Some((specificity, route));
        }
    }
    best.map(|(_, route)| route)
}

/// How one of several backends is chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum Distribution {
    /// None: every request fails with 503.
    Empty,
    /// The first that is ready.
    FirstAvailable(Vec<Arc<Backend>>),
    /// By weight, at random, among those that are ready.
    RandomAvailable(Vec<(Arc<Backend>, u32)>),
}

impl Distribution {
    /// The backends named, in order.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let (first, random) = match self {
            Self::Empty => (&[][..], &[][..]),
            Self::FirstAvailable(backends) => (&backends[..], &[][..]),
            Self::RandomAvailable(backends) => (&[][..], &backends[..]),
        };
        first.iter().chain(random.iter().map(|(backend, _)| backend))
    }
}

/// Something that takes requests: an address or a balanced service.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// The object (metric labels `backend_*`).
    pub meta: Arc<ResourceRef>,
    /// How it is reached.
    pub dispatch: Dispatch,
    /// What is done to requests and responses on the way there, after the rule's own.
    pub filters: Vec<Filter>,
}

impl Backend {
    /// A backend without filters of its own.
    pub fn new(meta: Arc<ResourceRef>, dispatch: Dispatch) -> Self {
        Self {
            meta,
            dispatch,
            filters: Vec::new(),
        }
    }
}

/// How a backend is reached.
#[derive(Clone, Debug, PartialEq)]
pub enum Dispatch {
    /// One endpoint, as it stands.
    Forward(Endpoint),
    /// The endpoints that discovery reports for `path`, balanced.
    Balance {
        /// `name:port`, the argument of `Destination.Get`.
        path: Arc<str>,
        /// Parameters of the load estimate.
        load: LoadParams,
        /// When an endpoint that keeps failing is shut; `None`: never.
        breaker: Option<BreakerPolicy>,
    },
    /// The control plane gave no dispatcher, or one that this version does not have: requests fail with 502.
    Missing(Unsupported),
}

/// Parameters of the peak-EWMA load estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoadParams {
    /// Round-trip time assumed before the first measurement.
    pub default_rtt: Duration,
    /// Time over which an old measurement loses its weight.
    pub decay: Duration,
    /// What a failed response counts for; `None`: for what it took.
    pub penalty: Option<PenaltyParams>,
}

/// What failed responses count for in the load estimate ([`crate::balance::penalty`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PenaltyParams {
    /// The round-trip time that a failure counts for.
    pub penalty: Duration,
    /// The most that a server's own hint may make of it.
    pub max_retry_after: Duration,
    /// Time over which a penalty loses its weight.
    pub decay: Duration,
}

impl Default for LoadParams {
    fn default() -> Self {
        Self {
            default_rtt: Duration::from_millis(30),
            decay: Duration::from_secs(10),
            penalty: None,
        }
    }
}

impl Default for PenaltyParams {
    fn default() -> Self {
        Self {
            penalty: Duration::from_secs(5),
            max_retry_after: Duration::from_secs(300),
            decay: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls(sni: Option<HostMatch>, name: &str) -> TlsRoute {
        TlsRoute {
            snis: sni.into_iter().collect(),
            route: OpaqueRoute {
                meta: Arc::new(ResourceRef::of_default(name)),
                action: OpaqueAction::NoRoute,
            },
        }
    }

    #[test]
    fn the_most_specific_server_name_wins() {
        let routes = [
            tls(None, "all"),
            tls(Some(HostMatch::suffix("example.com")), "suffix"),
            tls(Some(HostMatch::exact("db.example.com")), "exact"),
            tls(Some(HostMatch::exact("db.example.com")), "second"),
        ];
        let name = |sni| find_tls(&routes, sni).map(|found| &*found.route.meta.name);
        assert_eq!(name("DB.example.com"), Some("exact"));
        assert_eq!(name("web.example.com"), Some("suffix"));
        assert_eq!(name("example.com"), Some("all"));
        assert!(find_tls(&routes[1..], "other").is_none());
    }
}
