//! Whether a request may enter: its route, who may take it, its filters and the port's limits, by the policy as it is now.

use http::{Request, Response};
use outrigger_policy::authz::{ClientTls, Deny, authorize};
use outrigger_policy::inbound::{InboundProtocol, InboundRule};
use outrigger_policy::name::Identity;
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
    let policy = arrival.port.policy.get();
    let Some(found) = routes(&policy)?.find(&head(request)) else {
        inbound.report.route_not_found(arrival, &policy);
        return Err(Fault::new(Kind::NoRoute, Side::Client));
    };
    match authorize(&found.then.authorizations, arrival.client.ip(), &arrival.tls) {
        Ok(permit) => {
            let handles = resolved.allowed(&inbound.report, arrival, &policy, found.meta, permit.by);
            exchange.dispatch(&handles);
            if permit.is_audit() {
                let (client, dst) = (arrival.client, arrival.dst);
                tracing::info!(client.addr = %client, %dst, tls = ?arrival.tls, "Request allowed: the policy only audits");
            }
        }
        Err(Deny) => {
            inbound.report.http_denied(arrival, &policy, found.meta);
            return Err(Fault::new(Kind::Unauthorized, Side::Client));
        }
    }
    if inbound.config.strict_paths {
        unambiguous(request.uri().path(), &policy, arrival)?;
    }
    if let Some(why) = found.then.unenforced(found.meta) {
        return Err(Fault::because(Kind::Policy, Side::Control, why.to_string()));
    }
    if !found.then.filters.is_empty()
        && let Some(answer) = filtered(&found, request, asked)?
    {
        return Ok(Some(answer));
    }
    limit(inbound, arrival, &policy, exchange)?;
    Ok(None)
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
fn routes(policy: &PortPolicy) -> Result<&Indexed<InboundRule>, Fault> {
    if let Some(routes) = policy.routes() {
        return Ok(routes);
    }
    let text = match &policy.protocol {
        InboundProtocol::Invalid(why) => format!("invalid server policy: {why}"),
        _ => "the port takes no HTTP: the client's side must call it opaque too (config.linkerd.io/opaque-ports)"
            .to_owned(),
    };
    Err(Fault::because(Kind::Policy, Side::Control, text))
}

/// Refuses a path that the application may read in another way than the routes do, where that could lead the client past an
/// authorization.
fn unambiguous(path: &str, policy: &PortPolicy, arrival: &Arrival) -> Result<(), Fault> {
    match path::ambiguity(path) {
        Some(what) if !policy.admits_any_path(arrival.client.ip(), &arrival.tls) => {
            Err(Fault::because(Kind::AmbiguousPath, Side::Client, what))
        }
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
fn limit(
    inbound: &Inbound,
    arrival: &Arrival,
    policy: &PortPolicy,
    exchange: &Exchange,
) -> Result<(), Fault> {
    let Some(limiter) = policy.limiter() else {
        return Ok(());
    };
    let now = exchange.started().saturating_duration_since(inbound.started);
    limiter
        .admit(identity(&arrival.tls), now)
        .map_err(|limited: Limited| {
            let meta = &limiter.policy().meta;
            inbound.report.rate_limited(arrival, policy, meta, limited.scope);
            Fault::because(Kind::RateLimited, Side::Client, limited.to_string())
        })
}

/// Who the client proved to be.
fn identity(tls: &ClientTls) -> Option<&Identity> {
    match tls {
        ClientTls::Terminated(id) => id.as_ref(),
        ClientTls::None => None,
    }
}
