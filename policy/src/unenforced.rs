//! What policies can say and this version does not enforce yet: each line here goes when its part is built.
//!
//! Until then what carries such an element is refused, with the reason given here.

use crate::Unsupported;
use crate::inbound::{InboundPolicy, InboundRule};
use crate::name::ResourceRef;
use crate::outbound::{Dispatch, Distribution, OpaqueAction, OpaqueRoute, OutboundRule};
use crate::route::filter::Filter;
use crate::timeouts::Timeouts;

impl OutboundRule {
    /// Why requests may not take this rule of a route, if there is a reason.
    pub fn unenforced(&self, route: &ResourceRef) -> Option<Unsupported> {
        if let Err(why) = &self.backends {
            return Some(why.clone());
        }
        let refuse = |what: &str, remedy| Some(refusal(route, what, remedy));
        if let Some(filter) = self.filters.first() {
            return refuse(&of_filter(filter), "remove it from the route");
        }
        if !self.mirrors.is_empty() {
            return refuse("a mirror", "remove it from the route");
        }
        if self.timeouts != Timeouts::default() {
            return refuse(
                "a timeout",
                "remove timeouts from the route, or the annotations timeout.linkerd.io/* from it and the Service",
            );
        }
        if self.retry.is_some() {
            return refuse(
                "retry",
                "remove the annotations retry.linkerd.io/* from the route and the Service",
            );
        }
        if self.allow_overrides {
            return refuse(
                "allow_l5d_request_headers",
                "start the policy controller without --allow-l5d-request-headers",
            );
        }
        if !self.classes.is_empty() {
            return refuse("a response class", "remove it from the ServiceProfile");
        }
        let backends = self.backends.as_ref().ok();
        backends.and_then(|backends| of_backends(route, backends))
    }
}

impl OpaqueRoute {
    /// Why connections may not take this route, if there is a reason beyond its action.
    pub fn unenforced(&self) -> Option<Unsupported> {
        match &self.action {
            OpaqueAction::Forward(backends) => of_backends(&self.meta, backends),
            OpaqueAction::Forbid | OpaqueAction::NoRoute | OpaqueAction::Invalid(_) => None,
        }
    }
}

impl InboundPolicy {
    /// Why HTTP requests may not enter the port, if there is a reason.
    pub fn unenforced(&self) -> Option<Unsupported> {
        let limit = self.rate_limit.as_ref().filter(|limit| limit.limits())?;
        let remedy = "remove the HTTPLocalRateLimitPolicy, or limit in the application";
        Some(refusal(&limit.meta, "the local rate limit", remedy))
    }
}

impl InboundRule {
    /// Why requests may not take this rule of a route, if there is a reason.
    pub fn unenforced(&self, route: &ResourceRef) -> Option<Unsupported> {
        if let Some(why) = &self.unsupported {
            return Some(why.clone());
        }
        let filter = self.filters.first()?;
        Some(refusal(route, &of_filter(filter), "remove it from the route"))
    }
}

fn of_backends(route: &ResourceRef, backends: &Distribution) -> Option<Unsupported> {
    backends.backends().find_map(|backend| {
        if let Some(filter) = backend.filters.first() {
            let what = format!("{} of a backend", of_filter(filter));
            return Some(refusal(route, &what, "remove it from the route"));
        }
        let Dispatch::Balance { load, breaker, .. } = &backend.dispatch else {
            return None;
        };
        if breaker.is_some() {
            let remedy = "remove the annotation balancer.linkerd.io/failure-accrual";
            return Some(refusal(&backend.meta, "failure_accrual", remedy));
        }
        let remedy = "remove the annotation balancer.alpha.linkerd.io/penalize-failures";
        load.penalty
            .map(|_| refusal(&backend.meta, "the load estimate penalty_peak_ewma", remedy))
    })
}

fn of_filter(filter: &Filter) -> String {
    match filter {
        Filter::Fail(failure) => format!("the filter failure_injector ({:?})", failure.message),
        Filter::RequestHeaders(_) => "the filter request_header_modifier".to_owned(),
        Filter::ResponseHeaders(_) => "the filter response_header_modifier".to_owned(),
        Filter::Redirect(_) => "the filter redirect".to_owned(),
        Filter::Rewrite(_) => "the filter rewrite".to_owned(),
        Filter::Delay(_) => "the filter delay".to_owned(),
    }
}

fn refusal(object: &ResourceRef, what: &str, remedy: &str) -> Unsupported {
    Unsupported::new(format!(
        "{object}: {what} is not enforced by this version; {remedy}"
    ))
}
