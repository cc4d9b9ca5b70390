//! What connections from the mesh share.

use std::sync::Arc;

use outrigger_policy::port::PortPolicy;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::config;
use crate::control::Discovery;
use crate::drain::Drain;
use crate::exchange::Limit;
use crate::http::h2::backlog::Backlog;
use crate::http::upgrade::Tunnels;
use crate::inbound::local::Local;
use crate::inbound::port::Port;
use crate::inbound::report::Report;
use crate::live::Live;
use crate::room::Rooms;
use crate::tls::Credentials;

/// Ports whose policies are remembered at the same time: all there are.
const MAX_PORTS: usize = 65_536;

/// Requests in flight, counted apart: a flood of strangers leaves peer proxies their part.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Those on connections that the kernel redirected here.
    pub(crate) redirected: Limit,
    /// Those on connections that peer proxies opened to this one.
    pub(crate) direct: Limit,
}

/// Everything that connections from the mesh share.
#[derive(Debug)]
pub struct Inbound {
    pub(crate) config: config::Inbound,
    pub(crate) discovery: Discovery,
    pub(crate) credentials: Live<Credentials>,
    pub(crate) ports: Cache<u16, Port>,
    /// Ports that are watched for ever.
    _eager: Vec<Arc<Port>>,
    pub(crate) local: Local,
    pub(crate) limits: Limits,
    pub(crate) backlog: Arc<Backlog>,
    /// Rate limits count time from here.
    pub(crate) started: Instant,
    pub(crate) report: Report,
    pub(crate) rooms: Rooms,
    pub(crate) tunnels: Tunnels,
    pub(crate) drain: Drain,
}

impl Inbound {
    /// Nothing is accepted yet; the configured ports are watched from now on.
    pub fn new(
        config: config::Inbound,
        discovery: Discovery,
        credentials: Live<Credentials>,
        report: Report,
        rooms: Rooms,
        drain: Drain,
    ) -> Arc<Self> {
        let ports = Cache::new(config.discovery_idle, MAX_PORTS);
        let eager = config
            .ports
            .iter()
            .map(|port| ports.get_or(&port, || Port::new(discovery.inbound(port))))
            .collect();
        let backlog = Backlog::new(config.max_unread, report.unread.clone());
        Arc::new(Self {
            _eager: eager,
            ports,
            local: Local::new(&config, &report, backlog.clone(), rooms.opened.clone()),
            started: Instant::now(),
            limits: Limits {
                redirected: Limit::new(config.max_in_flight),
                direct: Limit::new(config.max_in_flight),
            },
            tunnels: Tunnels {
                drain: drain.clone(),
                half_closed: config.half_closed,
            },
            backlog,
            config,
            discovery,
            credentials,
            report,
            rooms,
            drain,
        })
    }

    /// Forgets ports and pools that nobody has used for a while; while the control plane is away, all are kept.
    pub fn sweep(&self, now: Instant) {
        if self.discovery.is_connected() {
            self.ports.sweep(now);
        }
        self.local.sweep(now);
    }

    /// The policy of a port, kept current for as long as it is read.
    pub fn policy(&self, port: u16) -> Live<PortPolicy> {
        self.port(port).policy.clone()
    }

    /// A port; its policy is the configured default until the control plane has answered.
    pub(super) fn port(&self, port: u16) -> Arc<Port> {
        self.ports
            .get_or(&port, || Port::new(self.discovery.inbound(port)))
    }
}
