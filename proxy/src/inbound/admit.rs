//! Whether a request may enter: its route, who may take it, its filters and the port's limits, by the policy as it is now.

use http::{Request, Response};
use outrigger_policy::authz::{Deny, Permit, authorize};
use outrigger_policy::inbound::{InboundProtocol, InboundRule};
use outrigger_policy::port::PortPolicy;
use outrigger_policy::rate_limit::Limited;
use outrigger_policy::route::filter::{self, Filter, Filtered};
use outrigger_policy::route::index::Indexed;
use outrigger_policy::route::{Found, Head, path};

use crate::error::{Fault, Kind, Side};
use crate::exchange::Exchange;
use crate::http::body::Body;
use crate::http::headers;
use crate::http::respond::{self, Asked};
use crate::inbound::arrival::Arrival;
use crate::inbound::report::Resolved;
use crate::inbound::shared::Inbound;

/// Lets a request in. `Some`: a filter of its route has answered it.
pub(super) fn admit(
    inbound: &Inbound,
    arrival: &Arrival,
    resolved: &Resolved,
    request: &mut Request<Body>,
    exchange: &mut Exchange,
    asked: Asked,
) -> Result<Option<Response<Body>>, Fault> {
    let (policy, report) = (arrival.port.policy.get(), &inbound.report);
    let refused = |route, no: No| {
        report.refused(arrival, &policy, route, &no.fault, no.remedy);
        no.fault
    };
    let found = find(&policy, &head(request)).map_err(|no| {
        if no.fault.kind == Kind::NoRoute {
            report.route_not_found(arrival, &policy);
        }
        refused(None, no)
    })?;
    let entered = permit(inbound, arrival, &policy, &found, request).map_err(|no| {
        if no.fault.kind == Kind::Unauthorized {
            report.http_denied(arrival, &policy, found.meta);
        }
        refused(Some(found.meta), no)
    })?;
    let handles = resolved.allowed(report, arrival, &policy, found.meta, entered.by);
    exchange.on(&handles.route, request.body_mut());
    exchange.dispatch(&handles.endpoint);
    if entered.is_audit() {
        let (client, dst) = (arrival.client, arrival.dst);
        tracing::info!(client.addr = %client, %dst, tls = ?arrival.tls, "Request allowed: the policy only audits");
    }
    if !found.then.filters.is_empty()
        && let Some(answer) = filtered(&found, request, asked)?
    {
        return Ok(Some(answer));
    }
    limit(inbound, arrival, &policy, exchange).map_err(|no| refused(Some(found.meta), no))?;
    Ok(None)
}

/// A refusal, and what would have to change for the request to be let in.
struct No {
    fault: Fault,
    remedy: String,
}

/// The route of a request.
fn find<'a>(policy: &'a PortPolicy, head: &Head<'_>) -> Result<Found<'a, InboundRule>, No> {
    let no_route = || No {
        fault: Fault::new(Kind::NoRoute, Side::Client),
        remedy: format!(
            "attach a route to {} whose rules match {} {}{}",
            policy.meta, head.method, head.host, head.path
        ),
    };
    routes(policy)?.find(head).ok_or_else(no_route)
}

/// What permits the client to take the route.
fn permit<'a>(
    inbound: &Inbound,
    arrival: &Arrival,
    policy: &PortPolicy,
    found: &Found<'a, InboundRule>,
    request: &Request<Body>,
) -> Result<Permit<'a>, No> {
    let list = &found.then.authorizations;
    let permit = authorize(list, arrival.client.ip(), &arrival.tls).map_err(|Deny| No {
        fault: Fault::new(Kind::Unauthorized, Side::Client),
        remedy: arrival.remedy(list, policy),
    })?;
    if inbound.config.strict_paths {
        unambiguous(request.uri().path(), policy, arrival)?;
    }
    match found.then.unenforced(found.meta) {
        Some(why) => Err(No {
            remedy: why.to_string(),
            fault: Fault::because(Kind::Policy, Side::Control, why.to_string()),
        }),
        None => Ok(permit),
    }
}

/// What routes look at.
fn head(request: &Request<Body>) -> Head<'_> {
    Head {
        host: headers::authority(request),
        method: request.method(),
        path: request.uri().path(),
        query: request.uri().query(),
        headers: request.headers(),
    }
}

/// The routes that a port's policy has for requests.
fn routes(policy: &PortPolicy) -> Result<&Indexed<InboundRule>, No> {
    if let Some(routes) = policy.routes() {
        return Ok(routes);
    }
    let text = match &policy.protocol {
        InboundProtocol::Invalid(why) => format!("invalid server policy: {why}"),
        _ => "the port takes no HTTP: the client's side must call it opaque too (config.linkerd.io/opaque-ports)"
            .to_owned(),
    };
    Err(No {
        remedy: text.clone(),
        fault: Fault::because(Kind::Policy, Side::Control, text),
    })
}

/// Refuses a path that the application may read in another way than the routes do, where that could lead the client past an
/// authorization.
fn unambiguous(path: &str, policy: &PortPolicy, arrival: &Arrival) -> Result<(), No> {
    match path::ambiguity(path) {
        Some(what) if !policy.admits_any_path(arrival.client.ip(), &arrival.tls) => Err(No {
            fault: Fault::because(Kind::AmbiguousPath, Side::Client, what),
            remedy: "send the path as it is meant, admit the client to every route of the port, or set \
                         LINKERD2_PROXY_INBOUND_STRICT_PATHS=false"
                .to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Does to a request what its route's filters say. `Some`: one of them has answered it.
fn filtered(
    found: &Found<'_, InboundRule>,
    request: &mut Request<Body>,
    asked: Asked,
) -> Result<Option<Response<Body>>, Fault> {
    let filters: &[Filter] = &found.then.filters;
    let authority = headers::authority(request).to_owned();
    let (mut head, body) = std::mem::take(request).into_parts();
    let rng = &mut fastrand::Rng::new();
    let filtered = filter::request(filters, &mut head, &authority, found.prefix(), rng);
    *request = Request::from_parts(head, body);
    match filtered {
        // What waits is refused before: nothing says so inbound.
        Filtered::Pass(_wait) => Ok(None),
        Filtered::Fail(failure) => Ok(Some(respond::injected(failure, asked))),
        Filtered::Redirect { status, location } => Ok(Some(respond::redirect(status, location, asked))),
        Filtered::Inapplicable(why) => Err(Fault::because(Kind::Policy, Side::Control, why)),
    }
}

/// Counts the request towards the port's limits.
fn limit(inbound: &Inbound, arrival: &Arrival, policy: &PortPolicy, exchange: &Exchange) -> Result<(), No> {
    let Some(limiter) = policy.limiter() else {
        return Ok(());
    };
    let now = exchange.started().saturating_duration_since(inbound.started);
    limiter
        .admit(arrival.identity(), now)
        .map_err(|limited: Limited| {
            let meta = &limiter.policy().meta;
            inbound.report.rate_limited(arrival, policy, meta, limited.scope);
            No {
                fault: Fault::because(Kind::RateLimited, Side::Client, limited.to_string()),
                remedy: format!("send less, or raise the limit that {meta} sets"),
            }
        })
}
