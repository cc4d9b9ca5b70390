//! Routes of a destination, lowered: HTTPRoutes, GRPCRoutes, TLSRoutes, TCPRoutes.

use std::sync::Arc;
use std::time::Duration;

use outrigger_policy::Unsupported;
use outrigger_policy::backoff::Backoff;
use outrigger_policy::name::ResourceRef;
use outrigger_policy::outbound::{Mirror, OpaqueAction, OpaqueRoute, OutboundRule, TlsRoute};
use outrigger_policy::retry::{GrpcCodes, RetryOn, RetryPolicy};
use outrigger_policy::route::request::RequestMatch;
use outrigger_policy::route::{Route, RouteTable, Rule};
use outrigger_policy::timeouts::Timeouts;

use crate::compile::backends::{Carries, Destination};
use crate::compile::filters::{self, Place};
use crate::compile::matches;
use crate::index::policies::Resource;
use crate::resources::report::ObjectId;
use crate::resources::route::{self as written, BackendRef, GrpcRule, HttpFilter, HttpRule, StreamRule};
use crate::resources::traffic::{Retry, Traffic};
use crate::resources::values::GatewayDuration;

/// Request bodies that are kept to be sent again, bytes.
const MAX_REQUEST_BYTES: usize = 64 << 10;

/// The waits before further attempts: from, to, and by how much they vary.
const BACKOFF: (Duration, Duration, f64) = (Duration::from_millis(25), Duration::from_millis(250), 1.0);

type Attached<'a, R> = Vec<&'a Arc<Resource<written::Route<R>>>>;

/// A rule of an HTTPRoute or a GRPCRoute, as far as the two are alike.
struct Written<'a> {
    matches: Result<Vec<RequestMatch>, String>,
    filters: Option<&'a [HttpFilter]>,
    backends: &'a [BackendRef],
    timeouts: Option<written::Timeouts>,
}

/// The routes for HTTP.
pub fn http(to: &Destination<'_>, routes: &Attached<'_, HttpRule>) -> RouteTable<OutboundRule> {
    let lower = |rule: Option<&HttpRule>, route: &Resource<_>| {
        let written = Written {
            matches: Ok(matches::http(rule.and_then(|rule| rule.matches.as_deref()))),
            filters: rule.and_then(|rule| rule.filters.as_deref()),
            backends: rule
                .and_then(|rule| rule.backend_refs.as_deref())
                .unwrap_or_default(),
            timeouts: rule.and_then(|rule| rule.timeouts),
        };
        lowered(to, written, &route.id, &route.traffic, Carries::Http)
    };
    table(routes, lower)
}

/// The routes for gRPC.
pub fn grpc(to: &Destination<'_>, routes: &Attached<'_, GrpcRule>) -> RouteTable<OutboundRule> {
    let lower = |rule: Option<&GrpcRule>, route: &Resource<_>| {
        let written = Written {
            matches: matches::grpc(rule.and_then(|rule| rule.matches.as_deref())),
            filters: rule.and_then(|rule| rule.filters.as_deref()),
            backends: rule
                .and_then(|rule| rule.backend_refs.as_deref())
                .unwrap_or_default(),
            timeouts: None,
        };
        lowered(to, written, &route.id, &route.traffic, Carries::Grpc)
    };
    table(routes, lower)
}

/// The routes for TLS, by server name.
pub fn tls(to: &Destination<'_>, routes: &Attached<'_, StreamRule>) -> Vec<TlsRoute> {
    let route = |route: &&Arc<Resource<written::Route<StreamRule>>>| TlsRoute {
        snis: matches::hosts(route.spec.hostnames.as_deref()),
        route: stream(to, route),
    };
    routes.iter().map(route).collect()
}

/// The route for bytes: the first.
pub fn tcp(to: &Destination<'_>, routes: &Attached<'_, StreamRule>) -> Option<OpaqueRoute> {
    routes.first().map(|route| stream(to, route))
}

/// A route, as outbound policies refer to it.
pub fn route_ref(id: &ObjectId) -> ResourceRef {
    ResourceRef {
        group: id.group.clone(),
        kind: id.kind.clone(),
        namespace: id.namespace.clone(),
        name: id.name.clone(),
        section: "".into(),
        port: None,
    }
}

/// A rule for what no route is about: to the destination itself, as its annotations say.
pub fn default_rule(to: &Destination<'_>, carries: Carries) -> OutboundRule {
    let written = Written {
        matches: Ok(Vec::new()),
        filters: None,
        backends: &[],
        timeouts: None,
    };
    consequence(to, &written, &"".into(), &Traffic::default(), carries)
        .unwrap_or_else(|reason| OutboundRule::new(Err(Unsupported::new(reason))))
}

/// A route without rules leads to its parent (Gateway API, HTTPRouteSpec).
fn table<R>(
    routes: &Attached<'_, R>,
    lower: impl Fn(Option<&R>, &Resource<written::Route<R>>) -> Rule<OutboundRule>,
) -> RouteTable<OutboundRule> {
    let route = |route: &&Arc<Resource<written::Route<R>>>| Route {
        meta: Arc::new(route_ref(&route.id)),
        hosts: matches::hosts(route.spec.hostnames.as_deref()),
        rules: match route.spec.rules.as_deref() {
            None | Some([]) => vec![lower(None, route)],
            Some(rules) => rules.iter().map(|rule| lower(Some(rule), route)).collect(),
        },
    };
    RouteTable {
        routes: routes.iter().map(route).collect(),
    }
}

/// A rule. One that can't be expressed refuses what it matches; everything, where that can't be expressed.
fn lowered(
    to: &Destination<'_>,
    rule: Written<'_>,
    route: &ObjectId,
    traffic: &Traffic,
    carries: Carries,
) -> Rule<OutboundRule> {
    let refused = |reason: String| OutboundRule::new(Err(Unsupported::new(format!("{route}: {reason}"))));
    match &rule.matches {
        Ok(matches) => Rule {
            matches: matches.clone(),
            then: consequence(to, &rule, &route.namespace, traffic, carries).unwrap_or_else(refused),
        },
        Err(reason) => Rule {
            matches: Vec::new(),
            then: refused(reason.clone()),
        },
    }
}

fn consequence(
    to: &Destination<'_>,
    rule: &Written<'_>,
    namespace: &Arc<str>,
    traffic: &Traffic,
    carries: Carries,
) -> Result<OutboundRule, String> {
    let place = match carries {
        Carries::Grpc => Place::OutboundGrpc,
        Carries::Http | Carries::Bytes => Place::OutboundHttp,
    };
    let distribution = to.distribution(rule.backends, namespace, carries)?;
    let mirrors = filters::mirrors(rule.filters)?
        .into_iter()
        .map(|(mirror, ratio)| {
            let backend = to.mirrored(&mirror.backend_ref, namespace, carries)?;
            Ok(Mirror { backend, ratio })
        });
    let mirrors = mirrors.collect::<Result<_, String>>()?;
    let retry = traffic.retry.as_ref().or(to.traffic.retry.as_ref());
    let mut retry = retry.and_then(|retry| retry_policy(retry, carries));
    let timeouts = timeouts(to.traffic, traffic, rule.timeouts, retry.as_mut());
    Ok(OutboundRule {
        filters: filters::of_rule(rule.filters, traffic, place)?,
        mirrors,
        timeouts,
        retry,
        allow_overrides: to.settings.allow_l5d_request_headers,
        ..OutboundRule::to(distribution)
    })
}

/// The route's annotations go before its spec, and that before the destination's annotations. A limit for each attempt
/// is one for the whole where there is one attempt only.
fn timeouts(
    destination: &Traffic,
    route: &Traffic,
    spec: Option<written::Timeouts>,
    retry: Option<&mut RetryPolicy>,
) -> Timeouts {
    let given = |duration: Option<GatewayDuration>| {
        duration
            .map(|duration| duration.0)
            .filter(|duration| !duration.is_zero())
    };
    let in_spec = given(spec.and_then(|spec| spec.request));
    let each = given(spec.and_then(|spec| spec.backend_request));
    let mut request = route.request.or(in_spec).or(destination.request);
    match (retry, each) {
        (Some(retry), Some(each)) => retry.per_try = retry.per_try.or(Some(each)),
        (None, Some(each)) => request = Some(request.map_or(each, |request| request.min(each))),
        (_, None) => {}
    }
    Timeouts {
        request,
        response: route.response.or(destination.response),
        idle: route.idle.or(destination.idle),
        headers: None,
    }
}

/// `None`: what the annotations ask for is about another protocol.
fn retry_policy(retry: &Retry, carries: Carries) -> Option<RetryPolicy> {
    let (given, http, grpc) = match carries {
        Carries::Http => (
            retry.http.is_some(),
            retry.http.clone().unwrap_or_default(),
            GrpcCodes::default(),
        ),
        Carries::Grpc => (retry.grpc.is_some(), Vec::new(), retry.grpc.unwrap_or_default()),
        Carries::Bytes => return None,
    };
    let (min, max, jitter) = BACKOFF;
    (given || retry.limit.is_some() || retry.timeout.is_some()).then(|| RetryPolicy {
        on: RetryOn::Statuses { http, grpc },
        max_retries: retry.limit.unwrap_or(1).into(),
        max_request_bytes: MAX_REQUEST_BYTES,
        per_try: retry.timeout,
        backoff: Backoff::try_new(min, max, jitter).ok(),
    })
}

fn stream(to: &Destination<'_>, route: &Resource<written::Route<StreamRule>>) -> OpaqueRoute {
    let rule = route.spec.rules.iter().flatten().next();
    let refs = rule
        .and_then(|rule| rule.backend_refs.as_deref())
        .unwrap_or_default();
    let action = match to.distribution(refs, &route.id.namespace, Carries::Bytes) {
        Ok(distribution) => OpaqueAction::Forward(distribution),
        Err(reason) => OpaqueAction::Invalid(Unsupported::new(format!("{}: {reason}", route.id))),
    };
    OpaqueRoute {
        meta: Arc::new(route_ref(&route.id)),
        action,
    }
}
