//! An endpoint as the balancer sees it: connections, load, and whether it may be tried.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outrigger_policy::backoff::Backoff;
use outrigger_policy::balance::ewma::PeakEwma;
use outrigger_policy::endpoint::Endpoint as Description;
use outrigger_policy::outbound::LoadParams;
use tokio::time::Instant;

use crate::http::pool::Pool;
use crate::telemetry::handles::Handles;

/// One endpoint, with its connections.
#[derive(Debug)]
pub struct Endpoint {
    description: Description,
    pool: Arc<Pool>,
    handles: Arc<Handles>,
    load: Mutex<PeakEwma>,
    /// Requests sent whose first byte of the answer's body has not come, and open TCP connections.
    pending: AtomicU32,
    /// Connections that failed in a row.
    failures: AtomicU32,
    /// Microseconds on [`now`]'s clock before which it is not tried again.
    shut_until: AtomicU64,
    backoff: Backoff,
    /// The application beside this proxy.
    local: bool,
}

/// An endpoint chosen for a request; it counts as load until this is dropped.
#[derive(Debug)]
pub struct Picked {
    endpoint: Arc<Endpoint>,
    since: Duration,
}

impl Endpoint {
    /// An endpoint that nothing is known about but its description.
    pub fn new(
        description: Description,
        pool: Arc<Pool>,
        handles: Arc<Handles>,
        load: LoadParams,
        backoff: Backoff,
        local: bool,
    ) -> Self {
        Self {
            description,
            pool,
            handles,
            load: Mutex::new(PeakEwma::new(load, now())),
            pending: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            shut_until: AtomicU64::new(0),
            backoff,
            local,
        }
    }

    /// What discovery says about it.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Its connections.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Its metrics.
    pub fn handles(&self) -> &Arc<Handles> {
        &self.handles
    }

    /// Whether it is the application beside this proxy.
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// Whether it may be tried now.
    pub fn is_ready(&self) -> bool {
        self.shut_until.load(Ordering::Relaxed) <= micros(now())
    }

    /// Its load, `None` while others are preferred because it could not be connected to.
    pub fn load(&self, now: Duration) -> Option<f64> {
        if self.shut_until.load(Ordering::Relaxed) > micros(now) {
            return None;
        }
        Some(self.load_regardless(now))
    }

    /// Its load, whether it could be connected to or not.
    pub fn load_regardless(&self, now: Duration) -> f64 {
        lock(&self.load).load(now, self.pending.load(Ordering::Relaxed))
    }

    /// A connection could not be opened: others are preferred for a while.
    pub fn unreachable(&self) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        let delay = self.backoff.delay(failures, &mut fastrand::Rng::new());
        self.shut_until.store(micros(now() + delay), Ordering::Relaxed);
    }

    /// It answered: earlier failures are forgotten.
    fn reachable(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.shut_until.store(0, Ordering::Relaxed);
        }
    }
}

impl Picked {
    /// Takes an endpoint, and counts as load. The time is [`now`]'s.
    pub fn new(endpoint: Arc<Endpoint>, now: Duration) -> Self {
        endpoint.pending.fetch_add(1, Ordering::Relaxed);
        Self { endpoint, since: now }
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The endpoint has answered: the time it took counts for the choices to come.
    pub fn answered(&self, at: Instant) {
        let now = at.saturating_duration_since(*EPOCH);
        lock(&self.endpoint.load).observe(now.saturating_sub(self.since), now);
        self.endpoint.reachable();
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.endpoint.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Time since the process began to balance: the clock of the load estimates.
pub fn now() -> Duration {
    EPOCH.elapsed()
}

/// A moment on that clock.
pub fn on_clock(moment: Instant) -> Duration {
    moment.saturating_duration_since(*EPOCH)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A lock whose holder panicked: the estimate is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::http::pool::testing::pool;
    use crate::telemetry::handles::Handles;
    use crate::telemetry::http::{EndpointLabels, HttpMetrics};
    use crate::telemetry::labels::{Dst, NoTls, Target, TlsConnect};
    use crate::telemetry::registry::Registry;

    /// An endpoint on a port of an address that nothing is ever sent to.
    pub(crate) fn endpoint(port: u16) -> Arc<Endpoint> {
        let addr = std::net::SocketAddr::from(([192, 0, 2, 1], port));
        let metrics = HttpMetrics::register(&mut Registry::new(Duration::from_secs(60)));
        let labels = EndpointLabels::Outbound {
            authority: None,
            target: Target(addr),
            tls: TlsConnect::NoIdentity(NoTls::NotProvided),
            dst: Dst::default(),
        };
        let backoff = Backoff::try_new(Duration::from_secs(60), Duration::from_secs(60), 0.0).unwrap();
        let handles = Handles::new(&metrics, labels);
        let load = LoadParams::default();
        Arc::new(Endpoint::new(
            Description::bare(addr),
            pool(addr),
            handles,
            load,
            backoff,
            false,
        ))
    }
}
