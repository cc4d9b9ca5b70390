//! One attempt: filters, then a backend.

use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use outrigger_policy::route::filter::{self, Filter, Filtered};

use crate::error::{Fault, Kind, Side};
use crate::exchange::Exchange;
use crate::http::body::Body;
use crate::http::deadline::Deadline;
use crate::http::headers;
use crate::http::interim::Interims;
use crate::http::respond::{self, Asked};
use crate::http::upgrade::Tunnels;
use crate::outbound::backends::Backend;
use crate::outbound::dialled::Dialled;
use crate::outbound::dispatch::{self, Leg, Prepared};
use crate::outbound::rule::Rule;

/// The way of a request. Lent from here on: what a future is given by value it keeps twice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'a> {
    /// The rule that it takes.
    pub(super) rule: &'a Rule,
    /// The length of the path prefix that the rule matched, if it matched one.
    pub(super) prefix: Option<usize>,
    /// How the client asked.
    pub(super) asked: Asked,
    /// Where interim answers go.
    pub(super) interims: &'a Interims,
    /// How long it waits for an endpoint.
    pub(super) fail_fast: Duration,
    /// What leads to the destination: the host of a request that names none.
    pub(super) dialled: &'a Dialled,
}

/// Sends a request once, which leaves an empty one behind. The answer is as the application is to see it, and comes
/// within the limits of time; so does its body.
pub(super) async fn send(
    way: &Way<'_>,
    deadline: &Deadline,
    per_try: Option<Duration>,
    prepared: &mut Prepared,
    request: &mut Request<Body>,
    exchange: &mut Exchange,
    tunnels: &Tunnels,
) -> Result<Response<Body>, Fault> {
    if !way.rule.policy.filters.is_empty()
        && let Some(answer) = Box::pin(filtered(&way.rule.policy.filters, way, deadline, request)).await?
    {
        return Ok(answer);
    }
    let backend = way
        .rule
        .backends()?
        .choose()
        .map_err(|fault| fault.at(|| format!("route {}: ", way.rule.meta)))?;
    if let Some(mirrors) = &way.rule.mirrors
        && prepared.begin()
    {
        mirrors.copy(request, prepared.is_tunnel(), way.prefix, way.dialled, tunnels);
    }
    if !backend.filters.is_empty()
        && let Some(answer) = Box::pin(filtered(&backend.filters, way, deadline, request)).await?
    {
        return Ok(answer);
    }
    let (attempt, body) = deadline.attempt(per_try, std::mem::take(request.body_mut()));
    *request.body_mut() = body;
    let leg = Leg {
        route: &way.rule.meta,
        backend,
        fail_fast: way.fail_fast,
        dialled: way.dialled,
        interims: way.interims,
    };
    let sent = {
        let mut sent = pin!(dispatch::send(&leg, prepared, request, exchange, tunnels));
        // By reference: a future that is passed on by value is kept twice.
        attempt.headers(sent.as_mut()).await
    };
    let mut response = sent
        .flatten()
        .map_err(|fault| placed(fault, way.rule, backend, exchange))?;
    filter::response(&backend.filters, response.headers_mut());
    filter::response(&way.rule.policy.filters, response.headers_mut());
    Ok(response.map(|body| attempt.body(body)))
}

/// A fault with where it happened. Who is late is the endpoint that has the request, if one has it.
fn placed(fault: Fault, rule: &Rule, backend: &Backend, exchange: &Exchange) -> Fault {
    let late = match fault.kind {
        Kind::Timeout(_) => exchange.endpoint(),
        _ => None,
    };
    fault.at(|| {
        let place = format!("route {}: backend {}: ", rule.meta, backend.meta);
        match late {
            Some(endpoint) => format!("{place}endpoint {endpoint}: "),
            None => place,
        }
    })
}

/// Does to a request what filters say, and waits if they say so. `Some`: one of them has answered it.
async fn filtered(
    filters: &[Filter],
    way: &Way<'_>,
    deadline: &Deadline,
    request: &mut Request<Body>,
) -> Result<Option<Response<Body>>, Fault> {
    let authority = headers::authority(request).to_owned();
    let (mut head, body) = std::mem::take(request).into_parts();
    let filtered = filter::request(
        filters,
        &mut head,
        &authority,
        way.prefix,
        &mut fastrand::Rng::new(),
    );
    *request = Request::from_parts(head, body);
    match filtered {
        Filtered::Pass(wait) if wait.is_zero() => Ok(None),
        Filtered::Pass(wait) => deadline.sleep(wait).await.map(|()| None),
        Filtered::Fail(failure) => Ok(Some(respond::injected(failure, way.asked))),
        Filtered::Redirect { status, location } => Ok(Some(respond::redirect(status, location, way.asked))),
        Filtered::Inapplicable(why) => Err(Fault::because(Kind::Policy, Side::Control, why)),
    }
}
