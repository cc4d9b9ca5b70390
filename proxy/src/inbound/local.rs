//! Connections to the application beside this proxy.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_policy::endpoint::Http2Params;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::config;
use crate::error::{Fault, Kind, Side};
use crate::http::h2::backlog::Backlog;
use crate::http::pool::metrics::PoolMetrics;
use crate::http::pool::{Pool, Settings};
use crate::inbound::report::Report;
use crate::net::connect::Options;
use crate::net::io::Meter;
use crate::room::Room;
use crate::tls::dial::Dial;

/// Pools remembered at the same time.
const MAX_POOLS: usize = 10_000;
/// How long a pool outlives its last request; its idle connections are closed long before.
const POOL_IDLE: Duration = Duration::from_secs(90);

/// A pool for each address that the application listens on.
#[derive(Debug)]
pub struct Local {
    pools: Cache<SocketAddr, Pool>,
    options: Options,
    settings: Settings,
    meter: Arc<dyn Meter>,
    metrics: PoolMetrics,
    /// Dialling this port would come back here.
    own_port: u16,
}

impl Local {
    /// No connections yet.
    pub fn new(config: &config::Inbound, report: &Report, backlog: Arc<Backlog>, room: Arc<Room>) -> Self {
        let (pool, http2) = (&config.pool, &config.http2_client);
        Self {
            pools: Cache::new(POOL_IDLE, MAX_POOLS),
            options: Options {
                patience: config.http_fail_fast,
                ..Options::new(&config.connect, room)
            },
            settings: Settings::new(pool, http2, backlog, config.http_fail_fast),
            meter: report.connected(),
            metrics: report.pools.clone(),
            own_port: config.listen.port(),
        }
    }

    /// The pool for an address of the application.
    pub(super) fn pool(&self, addr: SocketAddr) -> Result<Arc<Pool>, Fault> {
        if addr.port() == self.own_port {
            let text = format!("inbound connection must not target port {}", addr.port());
            return Err(Fault::because(Kind::Loop, Side::Client, text));
        }
        Ok(self.pools.get_or(&addr, || {
            let dial = Dial {
                addr,
                options: self.options.clone(),
                peer: None,
                meter: self.meter.clone(),
            };
            Pool::new(
                dial,
                self.settings.clone(),
                Http2Params::default(),
                self.metrics.clone(),
            )
        }))
    }

    /// Forgets pools that nobody has used for a while.
    pub fn sweep(&self, now: Instant) {
        self.pools.sweep(now);
    }
}
