//! Where a rule or an opaque route leads: its backends, and how one of them is chosen.

use std::sync::Arc;

use outrigger_policy::Unsupported;
use outrigger_policy::name::ResourceRef;
use outrigger_policy::route::distribute;
use outrigger_policy::route::filter::Filter;

use crate::balance::Balancer;
use crate::error::{Fault, Kind, Side};
use crate::telemetry::balancer::BalancerHandles;
use crate::telemetry::route::BackendHandles;

/// Backends, and how one of them is chosen.
#[derive(Debug)]
pub enum Backends {
    /// None: all requests fail.
    Empty,
    /// The first that is ready.
    First(Vec<Backend>),
    /// One of those that are ready, by weight.
    Random(Vec<(Backend, u32)>),
}

/// A backend of a rule.
#[derive(Debug)]
pub struct Backend {
    /// The object.
    pub meta: Arc<ResourceRef>,
    /// Its endpoints, or why it takes nothing.
    pub balancer: Result<Arc<Balancer>, Unsupported>,
    /// What is done to requests on the way there and to responses on the way back, after the rule's own.
    pub filters: Vec<Filter>,
    /// What it reports to; those of opaque routes have nothing of the kind.
    pub handles: Option<Arc<BackendHandles>>,
    /// What is reported of the wait for one of its endpoints.
    pub waits: Arc<BalancerHandles>,
}

impl Backends {
    /// One of them; where none is ready, one whose fail-fast then decides.
    pub fn choose(&self) -> Result<&Backend, Fault> {
        let chosen = match self {
            Self::Empty => None,
            Self::First(backends) => distribute::first_available(backends, Backend::is_ready),
            Self::Random(backends) => {
                let rng = &mut fastrand::Rng::new();
                distribute::random_available(backends, Backend::is_ready, rng)
            }
        };
        chosen.ok_or_else(|| {
            let text = "the route leads nowhere: look whether it has backends with a weight above 0";
            Fault::because(Kind::NoBackend, Side::Control, text)
        })
    }
}

impl Backend {
    /// Its endpoints.
    pub fn balancer(&self) -> Result<&Balancer, Fault> {
        match &self.balancer {
            Ok(balancer) => Ok(balancer),
            Err(why) => Err(Fault::because(Kind::NoDispatcher, Side::Control, why.to_string())),
        }
    }

    fn is_ready(&self) -> bool {
        self.balancer.as_ref().is_ok_and(|balancer| balancer.is_ready())
    }
}
