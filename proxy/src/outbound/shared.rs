//! What connections from the application share.

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_policy::name::NameAddr;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::config;
use crate::control::{Discovery, DiscoveryError};
use crate::drain::Drain;
use crate::exchange::Limit;
use crate::http::upgrade::Tunnels;
use crate::outbound::builder::Builder;
use crate::outbound::memory::Memories;
use crate::outbound::report::Report;
use crate::outbound::target::Target;
use crate::room::Rooms;

/// Destinations remembered at the same time; more are served, and looked up each time.
const MAX_TARGETS: usize = 10_000;

/// Everything that connections from the application share.
#[derive(Debug)]
pub struct Outbound {
    pub(crate) config: config::Outbound,
    pub(crate) discovery: Discovery,
    pub(crate) builder: Arc<Builder>,
    pub(crate) targets: Cache<SocketAddr, Target, DiscoveryError>,
    /// Destinations that requests name, in ingress mode.
    pub(crate) names: Cache<NameAddr, Target, DiscoveryError>,
    pub(crate) limit: Limit,
    /// For request bodies that may be sent again.
    pub(crate) memories: Memories,
    pub(crate) report: Report,
    pub(crate) rooms: Rooms,
    pub(crate) tunnels: Tunnels,
    pub(crate) drain: Drain,
}

impl Outbound {
    /// Nothing is accepted yet.
    pub fn new(
        config: config::Outbound,
        discovery: Discovery,
        builder: Arc<Builder>,
        memories: Memories,
        report: Report,
        rooms: Rooms,
        drain: Drain,
    ) -> Arc<Self> {
        Arc::new(Self {
            targets: Cache::new(config.discovery_idle, MAX_TARGETS),
            names: Cache::new(config.discovery_idle, MAX_TARGETS),
            limit: Limit::new(config.max_in_flight),
            memories,
            tunnels: Tunnels {
                drain: drain.clone(),
                half_closed: config.half_closed,
            },
            config,
            discovery,
            builder,
            report,
            rooms,
            drain,
        })
    }

    /// Forgets destinations that nobody has used for a while; while the control plane is away, all are kept.
    pub fn sweep(&self, now: Instant) {
        if self.discovery.is_connected() {
            self.targets.sweep(now);
            self.names.sweep(now);
            self.builder.sweep(now);
        }
    }
}
