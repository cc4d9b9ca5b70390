//! An endpoint as the balancer sees it: connections, load, and whether it may be tried.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use outrigger_policy::backoff::Backoff;
use outrigger_policy::balance::ewma::PeakEwma;
use outrigger_policy::balance::penalty;
use outrigger_policy::breaker::{Breaker, BreakerPolicy, Outcome, State, Ticket};
use outrigger_policy::classify::GrpcStatus;
use outrigger_policy::endpoint::Endpoint as Description;
use outrigger_policy::hint;
use outrigger_policy::outbound::{LoadParams, PenaltyParams};
use tokio::time::Instant;

use crate::balance::siblings::Siblings;
use crate::http::pool::Pool;
use crate::telemetry::handles::Handles;

/// One endpoint, with its connections.
#[derive(Debug)]
pub struct Endpoint {
    description: Description,
    pool: Arc<Pool>,
    handles: Arc<Handles>,
    load: Mutex<PeakEwma>,
    penalty: Option<PenaltyParams>,
    /// Requests sent whose first byte of the answer's body has not come, and open TCP connections.
    pending: AtomicU32,
    /// Connections that failed in a row.
    failures: AtomicU32,
    /// Microseconds on [`now`]'s clock before which it is not tried again because it could not be connected to.
    unreachable_until: AtomicU64,
    backoff: Backoff,
    /// The application beside this proxy.
    local: bool,
    breaker: Option<SharedBreaker>,
}

/// A circuit breaker, and the other endpoints of its balancer.
#[derive(Debug)]
struct SharedBreaker {
    state: Mutex<Breaker>,
    /// Microseconds on [`now`]'s clock before which the breaker admits nothing; [`NEVER`] while that is up to the
    /// request on probation. Written with the breaker's lock held, and read without it.
    shut_until: AtomicU64,
    siblings: Arc<Siblings>,
}

const NEVER: u64 = u64::MAX;

/// Whether an endpoint may be tried, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may.
    Ready,
    /// It could not be connected to, and is not tried again yet.
    Unreachable,
    /// Its breaker is shut.
    Shut,
    /// One request tries whether it is well again.
    Probation,
}

/// How an endpoint is chosen and guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Params {
    /// Parameters of the load estimate.
    pub load: LoadParams,
    /// When it is shut because it keeps failing.
    pub breaker: Option<BreakerPolicy>,
}

/// An endpoint chosen for a request. It counts as load until the answer's first byte, and owes its breaker an outcome.
#[derive(Debug)]
pub struct Picked {
    endpoint: Arc<Endpoint>,
    since: Duration,
    ticket: Option<Ticket>,
    /// How long the server asks to be left alone.
    hint: Option<Duration>,
    pending: bool,
}

impl Endpoint {
    /// An endpoint that nothing is known about but its description. `siblings` are those of its balancer.
    pub fn new(
        description: Description,
        pool: Arc<Pool>,
        handles: Arc<Handles>,
        params: Params,
        siblings: &Arc<Siblings>,
        backoff: Backoff,
        local: bool,
    ) -> Self {
        Self {
            description,
            pool,
            handles,
            load: Mutex::new(PeakEwma::new(params.load, now())),
            penalty: params.load.penalty,
            pending: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            unreachable_until: AtomicU64::new(0),
            backoff,
            local,
            breaker: params
                .breaker
                .map(|policy| SharedBreaker::new(policy, siblings.clone())),
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
        let now = micros(now());
        self.is_reachable_at(now) && !self.is_shut_at(now)
    }

    /// Whether it may be tried now, or why not.
    pub fn standing(&self) -> Standing {
        let now = micros(now());
        let breaker = self.breaker.as_ref();
        match breaker.map_or(0, |breaker| breaker.shut_until.load(Ordering::Relaxed)) {
            NEVER => Standing::Probation,
            until if until > now => Standing::Shut,
            _ if !self.is_reachable() => Standing::Unreachable,
            _ => Standing::Ready,
        }
    }

    /// Its load, `None` while others are preferred: because it could not be connected to, or its breaker is shut.
    /// `share` is its weight in proportion to the mean.
    pub fn load(&self, now: Duration, share: f64) -> Option<f64> {
        if !self.is_reachable_at(micros(now)) {
            return None;
        }
        self.load_if_reachable(now, share)
    }

    /// Its load, whether it could be connected to or not; `None` while its breaker is shut.
    pub fn load_if_reachable(&self, now: Duration, share: f64) -> Option<f64> {
        if self.is_shut_at(micros(now)) {
            return None;
        }
        let pending = self.pending.load(Ordering::Relaxed);
        Some(lock(&self.load).load_of_share(now, pending, share))
    }

    /// When its breaker lets a request through again, if that is a matter of time only.
    pub fn shut_until(&self) -> Option<Duration> {
        let until = self.breaker.as_ref()?.shut_until.load(Ordering::Relaxed);
        (until != NEVER).then(|| Duration::from_micros(until))
    }

    /// A connection could not be opened: others are preferred for a while.
    pub fn unreachable(&self) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed);
        let delay = self.backoff.delay(failures, &mut fastrand::Rng::new());
        self.unreachable_until
            .store(micros(now() + delay), Ordering::Relaxed);
    }

    /// It answered: earlier failures are forgotten.
    fn reachable(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.unreachable_until.store(0, Ordering::Relaxed);
        }
    }

    /// Whether it could be connected to, when that was tried, or may be tried again.
    pub fn is_reachable(&self) -> bool {
        self.is_reachable_at(micros(now()))
    }

    /// Whether its breaker lets no request through.
    pub fn is_shut(&self) -> bool {
        self.is_shut_at(micros(now()))
    }

    fn is_reachable_at(&self, now: u64) -> bool {
        self.unreachable_until.load(Ordering::Relaxed) <= now
    }

    fn is_shut_at(&self, now: u64) -> bool {
        let breaker = self.breaker.as_ref();
        breaker.is_some_and(|breaker| breaker.shut_until.load(Ordering::Relaxed) > now)
    }
}

impl SharedBreaker {
    fn new(policy: BreakerPolicy, siblings: Arc<Siblings>) -> Self {
        Self {
            state: Mutex::new(Breaker::new(policy)),
            shut_until: AtomicU64::new(0),
            siblings,
        }
    }

    fn admit(&self, now: Duration) -> Option<Ticket> {
        let mut breaker = lock(&self.state);
        let ticket = breaker.admit(now);
        self.show(&breaker, now);
        ticket
    }

    fn record(&self, ticket: Ticket, outcome: Outcome, hint: Option<Duration>) {
        let now = now();
        let mut breaker = lock(&self.state);
        let was_ready = breaker.state(now) == State::Ready;
        let others = || self.siblings.ready().saturating_sub(1);
        breaker.record(ticket, outcome, hint, now, others, &mut fastrand::Rng::new());
        let is_ready = breaker.state(now) == State::Ready;
        self.show(&breaker, now);
        drop(breaker);
        match (was_ready, is_ready) {
            (true, false) => self.siblings.enter_shut(),
            (false, true) => self.siblings.leave_shut(),
            // A probation that was cancelled is free for another request.
            (false, false) => self.siblings.open(),
            (true, true) => {}
        }
    }

    fn show(&self, breaker: &Breaker, now: Duration) {
        let until = if breaker.is_ready(now) {
            0
        } else {
            breaker.shut_until(now).map_or(NEVER, micros)
        };
        self.shut_until.store(until, Ordering::Relaxed);
    }
}

impl Drop for SharedBreaker {
    fn drop(&mut self) {
        if lock(&self.state).state(now()) != State::Ready {
            self.siblings.leave_shut();
        }
    }
}

impl Picked {
    /// Takes an endpoint, and counts as load; `None` if its breaker has just been shut. The time is [`now`]'s.
    pub fn new(endpoint: Arc<Endpoint>, now: Duration) -> Option<Self> {
        let ticket = match &endpoint.breaker {
            Some(breaker) => Some(breaker.admit(now)?),
            None => None,
        };
        endpoint.pending.fetch_add(1, Ordering::Relaxed);
        Some(Self {
            endpoint,
            since: now,
            ticket,
            hint: None,
            pending: true,
        })
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The head of an answer has come: one that says the server is not well may count for more than the time it took.
    pub fn heard(&mut self, status: StatusCode, grpc: Option<GrpcStatus>, fields: &HeaderMap) {
        if self.ticket.is_none() && self.endpoint.penalty.is_none() {
            return;
        }
        self.hint = hint::wait(status, fields, SystemTime::now());
        let Some(params) = self.endpoint.penalty else {
            return;
        };
        if let Some(penalty) = penalty::of(params, status, grpc, self.hint) {
            lock(&self.endpoint.load).penalise(penalty, now());
            self.endpoint.reachable();
            self.unload();
        }
    }

    /// The first byte has come: the time it took counts for the choices to come.
    pub fn answered(&mut self, at: Instant) {
        if self.pending {
            let now = on_clock(at);
            lock(&self.endpoint.load).observe(now.saturating_sub(self.since), now);
            self.endpoint.reachable();
            self.unload();
        }
    }

    /// A TCP connection is open: the time it took counts, and it stays load.
    pub fn connected(&mut self, at: Instant) {
        let now = on_clock(at);
        lock(&self.endpoint.load).observe(now.saturating_sub(self.since), now);
        self.endpoint.reachable();
        self.judge(Outcome::Success);
    }

    /// How the exchange ended, for the breaker. Only the first word counts.
    pub fn judge(&mut self, outcome: Outcome) {
        if let (Some(breaker), Some(ticket)) = (&self.endpoint.breaker, self.ticket.take()) {
            breaker.record(ticket, outcome, self.hint);
        }
    }

    fn unload(&mut self) {
        if std::mem::take(&mut self.pending) {
            self.endpoint.pending.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.judge(Outcome::Cancelled);
        self.unload();
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

/// A lock whose holder panicked: what it guards is as good as any.
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
        let params = Params {
            load: LoadParams::default(),
            breaker: None,
        };
        guarded(port, params, &Arc::default())
    }

    /// The same with a breaker.
    pub(crate) fn guarded(port: u16, params: Params, siblings: &Arc<Siblings>) -> Arc<Endpoint> {
        let addr = std::net::SocketAddr::from(([192, 0, 2, 1], port));
        described(Description::bare(addr), params, siblings)
    }

    /// An endpoint as discovery may describe it.
    pub(crate) fn described(
        description: Description,
        params: Params,
        siblings: &Arc<Siblings>,
    ) -> Arc<Endpoint> {
        let addr = description.addr;
        let metrics = HttpMetrics::register(&mut Registry::new(Duration::from_secs(60)));
        let labels = EndpointLabels::Outbound {
            authority: None,
            target: Target(addr),
            tls: TlsConnect::NoIdentity(NoTls::NotProvided),
            dst: Dst::default(),
        };
        let backoff = Backoff::try_new(Duration::from_secs(60), Duration::from_secs(60), 0.0).unwrap();
        let handles = Handles::new(&metrics, labels);
        Arc::new(Endpoint::new(
            description,
            pool(addr),
            handles,
            params,
            siblings,
            backoff,
            false,
        ))
    }
}
