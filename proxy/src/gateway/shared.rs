//! `Gateway`: what connections for somebody else share, and the destinations behind it.

use std::sync::Arc;

use outrigger_policy::name::{Identity, NameAddr};
use outrigger_policy::profile;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::control::DiscoveryError;
use crate::error::{Fault, Kind, Side};
use crate::inbound::shared::Inbound;
use crate::outbound::dialled::Dialled;
use crate::outbound::shared::Outbound;
use crate::outbound::target::Target;

/// Destinations remembered at the same time; more are served, and looked up each time.
const MAX_TARGETS: usize = 10_000;

/// Where the two directions meet.
#[derive(Debug)]
pub struct Gateway {
    pub(super) inbound: Arc<Inbound>,
    pub(super) outbound: Arc<Outbound>,
    targets: Cache<NameAddr, Target, DiscoveryError>,
}

impl Gateway {
    /// Joins the two directions. What may be named is said by the inbound side's configuration.
    pub fn new(inbound: Arc<Inbound>, outbound: Arc<Outbound>) -> Arc<Self> {
        Arc::new(Self {
            targets: Cache::new(outbound.config.discovery_idle, MAX_TARGETS),
            inbound,
            outbound,
        })
    }

    /// Forgets destinations that nobody has used for a while; while the control plane is away, all are kept.
    pub fn sweep(&self, now: Instant) {
        if self.outbound.discovery.is_connected() {
            self.targets.sweep(now);
        }
    }

    /// The destination of this name, if it is one that we carry on to.
    pub(super) async fn target(&self, to: &NameAddr) -> Result<Arc<Target>, Fault> {
        if !self.inbound.config.gateway.contains(&to.name) {
            let text = format!("{to} is under none of LINKERD2_PROXY_INBOUND_GATEWAY_SUFFIXES");
            return Err(Fault::because(Kind::GatewayDomain, Side::Client, text));
        }
        let make = || {
            let (outbound, to) = (self.outbound.clone(), to.clone());
            async move {
                let policy = outbound.discovery.by_name(&to, profile::through_gateway).await?;
                Ok(Target::new(Dialled::Name(to), policy, &outbound.builder))
            }
        };
        self.targets
            .get_or_try(to, make)
            .await
            .map_err(|error| match &*error {
                DiscoveryError::Nobody(_) => Fault::because(Kind::GatewayDomain, Side::Client, error),
                DiscoveryError::Timeout(_) | DiscoveryError::Refused(..) => {
                    Fault::because(Kind::Discovery, Side::Control, error)
                }
            })
    }

    /// Refuses a client that is this gateway itself: what it names leads back here.
    pub(super) fn check_client(&self, client: Option<&Identity>) -> Result<(), Fault> {
        match client == Some(self.inbound.credentials.get().identity()) {
            true => Err(looped()),
            false => Ok(()),
        }
    }
}

/// What has been here before.
pub(super) fn looped() -> Fault {
    Fault::because(Kind::Loop, Side::Client, "gateway loop detected")
}
