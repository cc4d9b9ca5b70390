//! A rule of a route made live: what is done to a request that takes it, and where the request may go.

use std::ops::Deref;
use std::sync::Arc;

use http::HeaderMap;
use outrigger_policy::Unsupported;
use outrigger_policy::budget::RetryBudget;
use outrigger_policy::name::ResourceRef;
use outrigger_policy::outbound::OutboundRule;
use outrigger_policy::overrides::Overrides;
use outrigger_policy::retry::RetryPolicy;
use outrigger_policy::timeouts::Timeouts;

use crate::error::{Fault, Kind, Side};
use crate::http::headers;
use crate::outbound::backends::Backends;
use crate::outbound::kept::Spare;
use crate::outbound::mirror::Mirrors;
use crate::telemetry::route::RouteHandles;

/// A rule made live.
#[derive(Debug)]
pub struct Rule {
    /// The route that it is part of.
    pub meta: Arc<ResourceRef>,
    /// What the control plane says.
    pub policy: OutboundRule,
    /// Where requests go, or why none may take the rule.
    pub backends: Result<Backends, Unsupported>,
    /// Who gets copies of its requests; `None`: nobody.
    pub mirrors: Option<Mirrors>,
    /// What bounds retries to the destination; `None`: nothing but the rule.
    pub budget: Option<Arc<RetryBudget>>,
    /// What its requests report to.
    pub handles: Arc<RouteHandles>,
    /// For requests that may be sent again.
    pub spare: Spare,
}

/// What holds for one request: the rule's, with what the request says about itself in its place.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub(super) timeouts: Timeouts,
    pub(super) retry: Option<Retries<'a>>,
}

/// When a request is sent again. Boxed where the request says so itself, which is rare.
#[derive(Debug)]
pub(super) enum Retries<'a> {
    Rule(&'a RetryPolicy),
    Request(Box<RetryPolicy>),
}

impl Deref for Retries<'_> {
    type Target = RetryPolicy;

    fn deref(&self) -> &RetryPolicy {
        match self {
            Self::Rule(policy) => policy,
            Self::Request(policy) => policy,
        }
    }
}

impl Rule {
    /// Where requests go.
    pub fn backends(&self) -> Result<&Backends, Fault> {
        match &self.backends {
            Ok(backends) => Ok(backends),
            Err(why) => Err(Fault::because(Kind::Policy, Side::Control, why.to_string())),
        }
    }

    /// What holds for a request with these headers. Those that say so are taken out, if the rule lets requests say so.
    pub(super) fn terms(&self, fields: &mut HeaderMap) -> Terms<'_> {
        let policy = &self.policy;
        if policy.allow_overrides && headers::has_linkerds(fields) {
            let overrides = Overrides::take(fields);
            let retry = overrides.retry(policy.retry.as_ref());
            return Terms {
                timeouts: overrides.timeouts(policy.timeouts),
                retry: retry.map(|policy| Retries::Request(Box::new(policy))),
            };
        }
        Terms {
            timeouts: policy.timeouts,
            retry: policy.retry.as_ref().map(Retries::Rule),
        }
    }
}
