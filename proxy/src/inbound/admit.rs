//! Whether a request may enter: its route, who may take it, its filters and the port's limits, by the policy as it is now.

use std::sync::Arc;

use http::{Request, Response};
use outrigger_policy::inbound::{InboundProtocol, InboundRule};
use outrigger_policy::name::ResourceRef;
use outrigger_policy::port::{Admitted, PortPolicy, Refusal};
use outrigger_policy::rate_limit::Limited;
use outrigger_policy::route::filter::{self, Filter, Filtered};
use outrigger_policy::route::{Found, Head};

use crate::error::{Fault, Kind, Side};
use crate::http::body::Body;
use crate::http::headers;
use crate::http::respond::{self, Asked};
use crate::inbound::arrival::Arrival;
use crate::inbound::report::{Handled, Resolved};
use crate::inbound::shared::Inbound;

/// Lets a request in, and gives the metrics that it is counted by to `count`. `Some`: a filter of its route has answered it.
pub(super) fn admit(
    inbound: &Inbound,
    arrival: &Arrival,
    resolved: &Resolved,
    request: &mut Request<Body>,
    asked: Asked,
    count: impl FnOnce(&Handled, &mut Body),
) -> Result<Option<Response<Body>>, Fault> {
    let (policy, report) = (arrival.port.policy.get(), &inbound.report);
    let refused = |route, no: No| {
        report.refused(arrival, &policy, route, &no.fault, no.remedy);
        no.fault
    };
    let strict = inbound.config.strict_paths;
    let Admitted { found, permit } = policy
        .request(&head(request), arrival.client.ip(), &arrival.tls, strict)
        .map_err(|refusal| {
            let (route, no) = explain(refusal, arrival, &policy, request);
            match no.fault.kind {
                Kind::NoRoute => report.route_not_found(arrival, &policy),
                Kind::Unauthorized => route
                    .into_iter()
                    .for_each(|route| report.http_denied(arrival, &policy, route)),
                _ => {}
            }
            refused(route, no)
        })?;
    let handles = resolved.allowed(report, arrival, &policy, found.meta, permit.by);
    count(&handles, request.body_mut());
    if permit.is_audit() {
        let (client, dst) = (arrival.client, arrival.dst);
        tracing::info!(client.addr = %client, %dst, tls = ?arrival.tls, "Request allowed: the policy only audits");
    }
    if !found.then.filters.is_empty()
        && let Some(answer) = filtered(&found, request, asked)?
    {
        return Ok(Some(answer));
    }
    limit(inbound, arrival, &policy).map_err(|no| refused(Some(found.meta), no))?;
    Ok(None)
}

/// A refusal, and what would have to change for the request to be let in.
struct No {
    fault: Fault,
    remedy: String,
}

/// A refusal in words, with the route that it is of.
fn explain<'a>(
    refusal: Refusal<'a>,
    arrival: &Arrival,
    policy: &PortPolicy,
    request: &Request<Body>,
) -> (Option<&'a Arc<ResourceRef>>, No) {
    let head = head(request);
    match refusal {
        Refusal::Invalid => {
            let why = match &policy.protocol {
                InboundProtocol::Invalid(why) => why.to_string(),
                _ => "its protocol is not known".to_owned(),
            };
            let text = format!("invalid server policy: {why}");
            let fault = Fault::because(Kind::Policy, Side::Control, text.clone());
            (None, No { fault, remedy: text })
        }
        Refusal::NoRoute => {
            let remedy = format!(
                "attach a route to {} whose rules match {} {}{}",
                policy.meta, head.method, head.host, head.path
            );
            let fault = Fault::new(Kind::NoRoute, Side::Client);
            (None, No { fault, remedy })
        }
        Refusal::Unauthorized(found) => {
            let remedy = arrival.remedy(&found.then.authorizations, policy);
            let fault = Fault::new(Kind::Unauthorized, Side::Client);
            (Some(found.meta), No { fault, remedy })
        }
        Refusal::AmbiguousPath(found, what) => {
            let remedy = "send the path as it is meant, admit the client to every route of the port, or set \
                          LINKERD2_PROXY_INBOUND_STRICT_PATHS=false";
            let fault = Fault::because(Kind::AmbiguousPath, Side::Client, what);
            (
                Some(found.meta),
                No {
                    fault,
                    remedy: remedy.to_owned(),
                },
            )
        }
        Refusal::Unenforced(found, why) => {
            let fault = Fault::because(Kind::Policy, Side::Control, why.to_string());
            (
                Some(found.meta),
                No {
                    fault,
                    remedy: why.to_string(),
                },
            )
        }
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
fn limit(inbound: &Inbound, arrival: &Arrival, policy: &PortPolicy) -> Result<(), No> {
    let Some(limiter) = policy.limiter() else {
        return Ok(());
    };
    let now = inbound.started.elapsed();
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
