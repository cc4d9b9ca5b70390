//! The metrics of balancers: how long requests wait for an endpoint, and what state the endpoints are in.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::telemetry::labels::{Backend, Parent};
use crate::telemetry::metric::{Counter, Gauge, Histogram, Metric as _, Seconds};
use crate::telemetry::registry::{Collect, Family, Registry};
use crate::telemetry::shared::Shared;
use crate::telemetry::text::{Description, Document, EncodeLabels, LabelWriter, Name};

/// Bounds of the times that requests wait for an endpoint, seconds.
const LATENCY_SECONDS: &[f64] = &[0.0005, 0.005, 0.05, 0.5, 1., 3.];

/// The families of balancers: once for each kind of traffic.
#[derive(Clone, Debug)]
pub struct BalancerMetrics {
    http: Families,
    tcp: Families,
    tls: Families,
    states: Family<StateLabels, Gauge>,
    resolved: Shared<BalancerLabels, BalancerHandles>,
}

#[derive(Clone, Debug)]
struct Families {
    endpoints: Family<Ready, Gauge>,
    p2c_endpoints: Family<BalancerLabels, Gauge>,
    p2c_updates: Family<Update, Counter>,
    waiting: Family<BalancerLabels, Gauge>,
    requests: Family<BalancerLabels, Counter>,
    latency: Family<BalancerLabels, Histogram>,
    opened: Family<BalancerLabels, Counter>,
    shut: Family<BalancerLabels, Counter>,
    opened_at: Family<BalancerLabels, Seconds>,
    shut_at: Family<BalancerLabels, Seconds>,
    timeout: Family<BalancerLabels, Seconds>,
}

/// A backend of a destination, as Linkerd tells those of each kind of traffic apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BalancerLabels {
    /// Of requests.
    Http {
        /// The destination.
        parent: Parent,
        /// The backend.
        backend: Backend,
    },
    /// Of opaque connections.
    Tcp {
        /// The destination.
        parent: Parent,
        /// The backend.
        backend: Backend,
        /// The destination's `name:port`; empty if it has none.
        logical: Arc<str>,
        /// The `name:port` whose endpoints there are.
        concrete: Arc<str>,
    },
    /// Of connections with TLS of the application.
    Tls {
        /// The `name:port` whose endpoints there are.
        concrete: Arc<str>,
    },
}

/// How many endpoints of a balancer are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// May be tried.
    pub ready: usize,
    /// Could not be connected to, and are not tried again yet.
    pub unreachable: usize,
    /// A breaker has shut them.
    pub shut: usize,
    /// One request tries whether they are well again.
    pub probation: usize,
    /// Endpoints that have come so far.
    pub added: u64,
    /// Endpoints that have gone so far.
    pub removed: u64,
}

/// A balancer, as a scrape sees it.
pub trait Observed: Send + Sync {
    /// What state its endpoints are in now.
    fn census(&self) -> Census;
}

/// What the requests that one destination sends to one backend report, whichever route they take.
#[derive(Debug)]
pub struct BalancerHandles {
    waiting: Arc<Gauge>,
    requests: Arc<Counter>,
    latency: Arc<Histogram>,
    gate: Gate,
    endpoints: Option<EndpointHandles>,
}

/// Whether requests would fail fast: it is shut by the first that does, and open again when one finds an endpoint.
#[derive(Debug, Default)]
struct Gate {
    is_shut: AtomicBool,
    opened: Arc<Counter>,
    shut: Arc<Counter>,
    opened_at: Arc<Seconds>,
    shut_at: Arc<Seconds>,
    timeout: Arc<Seconds>,
}

/// What is looked up when it is scraped.
#[derive(Debug)]
struct EndpointHandles {
    balancer: Mutex<Balancer>,
    ready: Arc<Gauge>,
    pending: Arc<Gauge>,
    p2c_endpoints: Arc<Gauge>,
    added: Arc<Counter>,
    removed: Arc<Counter>,
    /// Ready, unreachable, shut, on probation.
    states: [Arc<Gauge>; 4],
}

/// The balancer that is in use now, and what of its changes has been counted.
struct Balancer {
    observed: Weak<dyn Observed>,
    added: u64,
    removed: u64,
}

/// A request that waits for an endpoint.
#[derive(Debug)]
pub struct Waiting<'a> {
    handles: &'a BalancerHandles,
    since: Instant,
}

impl BalancerMetrics {
    /// Registers the families.
    pub fn register(registry: &mut Registry) -> Self {
        let resolved = Shared::default();
        // Before the families, since what it looks up they print.
        registry.collector(LookUp(resolved.clone()));
        Self {
            http: Families::register(registry, "http"),
            tcp: Families::register(registry, "tcp"),
            tls: Families::register(registry, "tls"),
            states: registry.gauge(
                "outrigger_balancer_endpoints",
                "Endpoints of a backend by state: ready, unreachable, shut by a breaker, or on probation",
            ),
            resolved,
        }
    }

    /// What requests for a backend report to, which `balancer` spreads. They fail when they have waited for `timeout`.
    pub fn backend(
        &self,
        labels: BalancerLabels,
        balancer: Weak<dyn Observed>,
        timeout: Duration,
    ) -> Arc<BalancerHandles> {
        let families = match labels {
            BalancerLabels::Http { .. } => &self.http,
            BalancerLabels::Tcp { .. } => &self.tcp,
            BalancerLabels::Tls { .. } => &self.tls,
        };
        let handles = self
            .resolved
            .get_or(labels, |labels| families.handles(&labels, &self.states));
        handles.gate.timeout.set(timeout.as_secs_f64());
        handles.observe(balancer);
        handles
    }
}

impl Families {
    fn register(registry: &mut Registry, balanced: &str) -> Self {
        let name = |suffix: &str| Name::open(format!("outbound_{balanced}_balancer_{suffix}"));
        Self {
            endpoints: registry.gauge(name("endpoints"), "Endpoints by whether they may be tried"),
            p2c_endpoints: registry.gauge(name("p2c_endpoints"), "Endpoints to choose from"),
            p2c_updates: registry.counter(name("p2c_updates_total"), "Endpoints that have come or gone"),
            waiting: registry.gauge(name("queue_length"), "Requests that wait for an endpoint"),
            requests: registry.counter(
                name("queue_requests_total"),
                "Requests that an endpoint was wanted for, retries included",
            ),
            latency: registry.histogram(
                name("queue_latency_seconds"),
                "How long requests waited for an endpoint; most do not",
                LATENCY_SECONDS,
            ),
            opened: registry.counter(
                name("queue_gate_open_total"),
                "How often requests have found an endpoint again, after they had failed fast; the start counts too",
            ),
            shut: registry.counter(
                name("queue_gate_shut_total"),
                "How often requests have begun to fail fast for want of an endpoint",
            ),
            opened_at: registry.seconds(
                name("queue_gate_open_time_seconds"),
                "When requests last found an endpoint again, in seconds since 1970",
            ),
            shut_at: registry.seconds(
                name("queue_gate_shut_time_seconds"),
                "When requests last began to fail fast, in seconds since 1970",
            ),
            timeout: registry.seconds(
                name("queue_gate_timeout_seconds"),
                "How long a request waits for an endpoint before it fails",
            ),
        }
    }

    fn handles(&self, labels: &Arc<BalancerLabels>, states: &Family<StateLabels, Gauge>) -> BalancerHandles {
        let labels = (**labels).clone();
        BalancerHandles {
            waiting: self.waiting.handle(labels.clone()),
            requests: self.requests.handle(labels.clone()),
            latency: self.latency.handle(labels.clone()),
            gate: Gate {
                is_shut: AtomicBool::new(false),
                opened: self.opened.handle(labels.clone()),
                shut: self.shut.handle(labels.clone()),
                opened_at: self.opened_at.handle(labels.clone()),
                shut_at: self.shut_at.handle(labels.clone()),
                timeout: self.timeout.handle(labels.clone()),
            }
            .opened(),
            endpoints: Some(self.endpoints(labels, states)),
        }
    }

    fn endpoints(&self, labels: BalancerLabels, states: &Family<StateLabels, Gauge>) -> EndpointHandles {
        let ready = |state| {
            let labels = labels.clone();
            self.endpoints.handle(Ready { labels, state })
        };
        let update = |op| {
            let labels = labels.clone();
            self.p2c_updates.handle(Update { labels, op })
        };
        EndpointHandles {
            balancer: Mutex::new(Balancer {
                observed: Weak::<Nothing>::new(),
                added: 0,
                removed: 0,
            }),
            ready: ready("ready"),
            pending: ready("pending"),
            p2c_endpoints: self.p2c_endpoints.handle(labels.clone()),
            added: update("Add"),
            removed: update("Remove"),
            states: ["ready", "unreachable", "shut", "probation"].map(|state| {
                let labels = labels.clone();
                states.handle(StateLabels { labels, state })
            }),
        }
    }
}

impl BalancerHandles {
    /// For what is balanced, and shown nowhere.
    pub fn unseen() -> Self {
        Self {
            waiting: Arc::default(),
            requests: Arc::default(),
            latency: Arc::new(Histogram::new(LATENCY_SECONDS)),
            gate: Gate::default(),
            endpoints: None,
        }
    }

    /// A request has found an endpoint at once.
    pub fn at_once(&self) {
        self.requests.inc();
        self.latency.observe_zero();
        self.gate.open();
    }

    /// A request has to wait for an endpoint, as long as what comes back is held.
    pub fn wait(&self) -> Waiting<'_> {
        self.requests.inc();
        self.waiting.inc();
        Waiting {
            handles: self,
            since: Instant::now(),
        }
    }

    fn observe(&self, balancer: Weak<dyn Observed>) {
        if let Some(endpoints) = &self.endpoints {
            let mut current = endpoints.lock();
            if !current.observed.ptr_eq(&balancer) {
                *current = Balancer {
                    observed: balancer,
                    added: 0,
                    removed: 0,
                };
            }
        }
    }
}

impl Waiting<'_> {
    /// There is an endpoint now.
    pub fn served(self) {
        self.handles.gate.open();
    }

    /// There was none in time.
    pub fn failed(self) {
        self.handles.gate.shut();
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.handles.waiting.dec();
        self.handles.latency.observe(self.since.elapsed().as_secs_f64());
    }
}

impl Gate {
    /// Nothing has failed so far.
    fn opened(self) -> Self {
        self.opened.inc();
        self.opened_at.set(since_1970());
        self
    }

    fn open(&self) {
        if self.is_shut.load(Relaxed) && self.is_shut.swap(false, Relaxed) {
            self.opened.inc();
            self.opened_at.set(since_1970());
        }
    }

    fn shut(&self) {
        if !self.is_shut.swap(true, Relaxed) {
            self.shut.inc();
            self.shut_at.set(since_1970());
        }
    }
}

fn since_1970() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 is no reason to fail.
    now.unwrap_or_default().as_secs_f64()
}

impl EndpointHandles {
    fn look_up(&self) {
        let mut balancer = self.lock();
        let Some(observed) = balancer.observed.upgrade() else {
            return;
        };
        let census = observed.census();
        let states = [census.ready, census.unreachable, census.shut, census.probation];
        let pending = states[1..].iter().sum::<usize>();
        set(&self.ready, census.ready);
        set(&self.pending, pending);
        set(&self.p2c_endpoints, census.ready + pending);
        for (gauge, count) in self.states.iter().zip(states) {
            set(gauge, count);
        }
        self.added.add(census.added.saturating_sub(balancer.added));
        self.removed.add(census.removed.saturating_sub(balancer.removed));
        (balancer.added, balancer.removed) = (census.added, census.removed);
    }

    fn lock(&self) -> MutexGuard<'_, Balancer> {
        self.balancer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set(gauge: &Gauge, count: usize) {
    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
}

/// Brings what is looked up to the state of now. It prints nothing itself.
#[derive(Debug)]
struct LookUp(Shared<BalancerLabels, BalancerHandles>);

impl Collect for LookUp {
    fn describe(&self) -> Vec<Description> {
        Vec::new()
    }

    fn collect(&self, _now: Instant, _out: &mut Document) {
        for handles in self.0.held() {
            if let Some(endpoints) = &handles.endpoints {
                endpoints.look_up();
            }
        }
    }
}

/// Stands for a balancer until there is one.
struct Nothing;

impl Observed for Nothing {
    fn census(&self) -> Census {
        Census::default()
    }
}

impl std::fmt::Debug for Balancer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Balancer(+{} -{})", self.added, self.removed)
    }
}

/// A balancer's endpoints that are ready, or are not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ready {
    labels: BalancerLabels,
    state: &'static str,
}

/// A kind of change of a balancer's endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Update {
    labels: BalancerLabels,
    op: &'static str,
}

/// A state that a balancer's endpoints may be in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct StateLabels {
    labels: BalancerLabels,
    state: &'static str,
}

impl EncodeLabels for BalancerLabels {
    const DOC: &'static str =
        "(http: parent_*, backend_*) (tcp: parent_*, backend_*, logical, concrete) (tls: concrete)";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        match self {
            Self::Http { parent, backend } => {
                parent.encode(out);
                backend.encode(out);
            }
            Self::Tcp {
                parent,
                backend,
                logical,
                concrete,
            } => {
                parent.encode(out);
                backend.encode(out);
                out.label("logical", logical);
                out.label("concrete", concrete);
            }
            Self::Tls { concrete } => out.label("concrete", concrete),
        }
    }
}

impl EncodeLabels for Ready {
    const DOC: &'static str = "as …_balancer_queue_length, endpoint_state";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.labels.encode(out);
        out.label("endpoint_state", self.state);
    }
}

impl EncodeLabels for Update {
    const DOC: &'static str = "as …_balancer_queue_length, op";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.labels.encode(out);
        out.label("op", self.op);
    }
}

impl EncodeLabels for StateLabels {
    const DOC: &'static str = "protocol, as …_balancer_queue_length, state";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        let protocol = match self.labels {
            BalancerLabels::Http { .. } => "http",
            BalancerLabels::Tcp { .. } => "opaq",
            BalancerLabels::Tls { .. } => "tls",
        };
        out.label("protocol", protocol);
        self.labels.encode(out);
        out.label("state", self.state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_policy::name::ResourceRef;

    struct Three;

    impl Observed for Three {
        fn census(&self) -> Census {
            Census {
                ready: 1,
                unreachable: 0,
                shut: 1,
                probation: 1,
                added: 4,
                removed: 1,
            }
        }
    }

    fn labels() -> BalancerLabels {
        let meta = |name| Arc::new(ResourceRef::of_default(name));
        BalancerLabels::Tcp {
            parent: Parent(meta("web")),
            backend: Backend(meta("web-v2")),
            logical: "web:80".into(),
            concrete: "web-v2:80".into(),
        }
    }

    /// The value of a family's series, whose labels end like this.
    fn value(text: &str, name: &str, end: &str) -> f64 {
        let start = format!("{name}{{parent_group=");
        let end = format!("{end}}} ");
        let line = text
            .lines()
            .find(|line| line.starts_with(&start) && line.contains(&end));
        let line = line.unwrap_or_else(|| panic!("no {name} … {end} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    #[test]
    fn a_scrape_shows_the_endpoints_as_they_are_then() {
        let mut registry = Registry::new(Duration::from_secs(60));
        let metrics = BalancerMetrics::register(&mut registry);
        let balancer = Arc::new(Three);
        let weak = Arc::downgrade(&balancer);
        let _handles = metrics.backend(labels(), weak, Duration::from_millis(500));
        registry.encode(Instant::now());
        let text = registry.encode(Instant::now());
        let tcp = |suffix: &str, end: &str| value(&text, &format!("outbound_tcp_balancer_{suffix}"), end);
        let of = "logical=\"web:80\",concrete=\"web-v2:80\"";
        assert_eq!(tcp("endpoints", &format!("{of},endpoint_state=\"ready\"")), 1.0);
        assert_eq!(tcp("endpoints", &format!("{of},endpoint_state=\"pending\"")), 2.0);
        assert_eq!(tcp("p2c_endpoints", of), 3.0);
        assert_eq!(tcp("p2c_updates_total", &format!("{of},op=\"Add\"")), 4.0);
        assert_eq!(tcp("queue_gate_timeout_seconds", of), 0.5);
        let shut = format!("{of},state=\"shut\"}} 1\n");
        assert!(text.contains("outrigger_balancer_endpoints{protocol=\"opaq\",parent_"));
        assert!(text.contains(&shut), "{text}");
    }

    #[test]
    fn requests_are_counted_with_what_they_waited_and_whether_they_failed() {
        let mut registry = Registry::new(Duration::from_secs(60));
        let metrics = BalancerMetrics::register(&mut registry);
        let handles = metrics.backend(labels(), Weak::<Three>::new(), Duration::from_secs(3));
        handles.at_once();
        handles.wait().failed();
        handles.wait().failed();
        let waiting = handles.wait();
        let text = registry.encode(Instant::now());
        let tcp = |text: &str, suffix: &str| {
            value(
                text,
                &format!("outbound_tcp_balancer_{suffix}"),
                "concrete=\"web-v2:80\"",
            )
        };
        assert_eq!(tcp(&text, "queue_length"), 1.0);
        assert_eq!(tcp(&text, "queue_gate_shut_total"), 1.0);
        assert_eq!(tcp(&text, "queue_gate_open_total"), 1.0);
        waiting.served();
        let text = registry.encode(Instant::now());
        assert_eq!(tcp(&text, "queue_length"), 0.0);
        assert_eq!(tcp(&text, "queue_gate_open_total"), 2.0);
        assert_eq!(tcp(&text, "queue_requests_total"), 4.0);
        assert_eq!(tcp(&text, "queue_latency_seconds_count"), 4.0);
    }
}
