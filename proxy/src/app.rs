//! Builds everything once, top to bottom, in the order data flows, and runs it until it has drained.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep};

use crate::admin::{self, Admin, Condition, Environment, Readiness};
use crate::config::{self, Config};
use crate::control::{self, Discovery, identity};
use crate::drain::{self, Drain, Drainer};
use crate::gateway;
use crate::gateway::shared::Gateway;
use crate::http::h2::backlog;
use crate::http::pool;
use crate::inbound::shared::Inbound;
use crate::live::Live;
use crate::net::listen::{self, OriginalDst};
use crate::outbound::builder::Builder;
use crate::outbound::memory::Memories;
use crate::outbound::shared::Outbound;
use crate::room::Rooms;
use crate::telemetry::balancer::BalancerMetrics;
use crate::telemetry::connections;
use crate::telemetry::http::HttpMetrics;
use crate::telemetry::inbound_route::InboundRouteMetrics;
use crate::telemetry::labels::Direction;
use crate::telemetry::log::Level;
use crate::telemetry::process::ProcessMetrics;
use crate::telemetry::refusals::Refusals;
use crate::telemetry::registry::Registry;
use crate::telemetry::route::RouteMetrics;
use crate::telemetry::runtime;
use crate::telemetry::tcp_route::TcpRouteMetrics;
use crate::telemetry::transport::TransportMetrics;
use crate::tls::{self, Credentials};
use crate::{inbound, outbound, reclaim};

/// How often unused destinations, ports and pools are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// The proxy, built and bound, not yet serving.
#[derive(Debug)]
pub struct App {
    gateway: Arc<Gateway>,
    outbound: Arc<Outbound>,
    admin: Admin,
    listeners: Listeners,
    control: Handle,
    /// Resolves when `POST /shutdown` asks for the end.
    asked_to_end: mpsc::Receiver<()>,
    credentials: Live<Credentials>,
    original_dst: OriginalDst,
    serving: Condition,
    drainer: Drainer,
    rooms: Directions,
    grace_period: Duration,
    /// Where it is listening, for those who let the system choose a port.
    pub addrs: Addrs,
}

/// Where a proxy listens.
#[derive(Clone, Debug)]
pub struct Addrs {
    /// Connections from the mesh.
    pub inbound: SocketAddr,
    /// Connections from the application.
    pub outbound: Vec<SocketAddr>,
    /// Probes and metrics.
    pub admin: SocketAddr,
}

/// Every family that this proxy prints, registered in the order of the page.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The process.
    pub process: ProcessMetrics,
    /// The control plane.
    pub control: control::Metrics,
    /// Requests of both directions.
    pub http: HttpMetrics,
    /// Routes of traffic from the application.
    pub routes: RouteMetrics,
    /// Routes of opaque and TLS traffic from the application.
    pub tcp_routes: TcpRouteMetrics,
    /// Balancers of traffic from the application.
    pub balancers: BalancerMetrics,
    /// Routes of traffic to the application.
    pub inbound_routes: InboundRouteMetrics,
    /// Connections of both directions.
    pub transport: TransportMetrics,
    /// HTTP/2 connections to servers, of both directions.
    pub pools: pool::metrics::Metrics,
    /// What has come over HTTP/2 and was not read, of both directions.
    pub unread: backlog::Metrics,
    /// What only traffic to the application has.
    pub inbound: inbound::metrics::Metrics,
    /// What only traffic from the application has.
    pub outbound: outbound::metrics::Metrics,
}

impl Metrics {
    /// Registers all. `traffic` is the runtime that carries the traffic.
    pub fn register(registry: &mut Registry, traffic: &Handle) -> Self {
        let process = ProcessMetrics::register(registry);
        runtime::register(registry, traffic);
        tls::info::register(registry);
        Self {
            process,
            control: control::Metrics::register(registry),
            http: HttpMetrics::register(registry),
            routes: RouteMetrics::register(registry),
            tcp_routes: TcpRouteMetrics::register(registry),
            balancers: BalancerMetrics::register(registry),
            inbound_routes: InboundRouteMetrics::register(registry),
            transport: TransportMetrics::register(registry),
            pools: pool::metrics::Metrics::register(registry),
            unread: backlog::Metrics::register(registry),
            inbound: inbound::metrics::Metrics::register(registry),
            outbound: outbound::metrics::Metrics::register(registry),
        }
    }
}

impl Metrics {
    fn inbound_report(&self, refusals: Refusals) -> inbound::report::Report {
        inbound::report::Report {
            refusals,
            metrics: self.inbound.clone(),
            http: self.http.clone(),
            routes: self.inbound_routes.clone(),
            transport: self.transport.clone(),
            pools: self.pools.pools(Direction::Inbound),
            unread: self.unread.of(Direction::Inbound),
        }
    }

    fn outbound_report(&self) -> outbound::report::Report {
        outbound::report::Report {
            metrics: self.outbound.clone(),
            http: self.http.clone(),
            routes: self.routes.clone(),
            tcp_routes: self.tcp_routes.clone(),
            balancers: self.balancers.clone(),
            transport: self.transport.clone(),
            pools: self.pools.pools(Direction::Outbound),
            unread: self.unread.of(Direction::Outbound),
        }
    }
}

/// Descriptors for everything but traffic: the admin server, the control plane, files. At most a quarter of all.
const RESERVED: u64 = 512;

/// Room for the connections of both directions.
#[derive(Clone, Debug)]
struct Directions {
    inbound: Rooms,
    outbound: Rooms,
}

impl Directions {
    /// As it is configured, or as the limit of open files allows: a flood in one direction leaves the other its part.
    fn new(config: &Config) -> Result<Self, Error> {
        let files = outrigger_sys::files::limit().map_err(Error::Files)?;
        let left = files - RESERVED.min(files / 4);
        // Both directions accept, and open as many.
        let part = usize::try_from(left / 4).unwrap_or(usize::MAX);
        let (inbound, outbound) = (config.inbound.max_connections, config.outbound.max_connections);
        if inbound.unwrap_or(0).max(outbound.unwrap_or(0)) > part {
            tracing::warn!(
                "connections may use up the {files} files that the process may have open: raise that limit, or lower \
                 …_MAX_CONNECTIONS to {part}"
            );
        }
        Ok(Self {
            inbound: Rooms::new(inbound.unwrap_or(part)),
            outbound: Rooms::new(outbound.unwrap_or(part)),
        })
    }
}

impl Directions {
    /// From now on what ends is cut: whoever is on the other side can't take it for complete.
    fn cut(&self, end: End) {
        let [inbound, outbound] = [&self.inbound, &self.outbound].map(|rooms| {
            rooms.cut();
            rooms.accepted.taken()
        });
        tracing::warn!(
            inbound,
            outbound,
            ?end,
            "connections are cut that were still open"
        );
    }
}

/// Sockets that listen, and nothing is accepted from yet.
#[derive(Debug)]
struct Listeners {
    inbound: TcpListener,
    outbound: Vec<TcpListener>,
    admin: TcpListener,
}

impl Listeners {
    fn bind(config: &Config, control: &Handle) -> Result<(Self, Addrs), Error> {
        let listeners = Self {
            inbound: bind(config.inbound.listen, &config.inbound.accept)?,
            outbound: config
                .outbound
                .listen
                .iter()
                .map(|addr| bind(*addr, &config.outbound.accept))
                .collect::<Result<_, _>>()?,
            admin: {
                // The admin server runs beside the traffic, never in its way.
                let _control = control.enter();
                bind(config.admin.listen, &config.admin.accept)?
            },
        };
        let addrs = listeners
            .addrs()
            .map_err(|error| Error::Listen(config.admin.listen, error))?;
        Ok((listeners, addrs))
    }

    fn addrs(&self) -> io::Result<Addrs> {
        Ok(Addrs {
            inbound: self.inbound.local_addr()?,
            outbound: self
                .outbound
                .iter()
                .map(TcpListener::local_addr)
                .collect::<Result<_, _>>()?,
            admin: self.admin.local_addr()?,
        })
    }
}

/// Why the proxy could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A socket could not be bound.
    #[error("can't listen on {0}: is another proxy running in this pod?")]
    Listen(SocketAddr, #[source] io::Error),
    /// How many files may be open can't be learnt.
    #[error("the limit of open files can't be read")]
    Files(#[source] io::Error),
    /// The identity could not be set up.
    #[error("the identity can't be set up")]
    Identity(#[from] identity::StartError),
    /// A control-plane client could not be set up.
    #[error("the control plane's address can't be used")]
    Control(#[from] control::channel::Error),
}

impl Error {
    /// Whether the configuration is to blame (exit code 64), not the system (1).
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Identity(_) | Self::Control(_))
    }
}

impl App {
    /// Binds every listener, and starts what runs on `control`: identity, discovery, admin.
    ///
    /// Traffic is served on the runtime that polls [`run`](Self::run); call this there too.
    pub fn new(config: Config, original_dst: OriginalDst, control: &Handle) -> Result<Self, Error> {
        let mut registry = Registry::new(config.process.metrics_retain_idle);
        let metrics = Metrics::register(&mut registry, &Handle::current());
        metrics.process.count_panics();
        let refusals = Refusals::default();
        let inbound_report = metrics.inbound_report(refusals.clone());
        let outbound_report = metrics.outbound_report();
        let http2 = &config.outbound.http2_client;
        let credentials = identity::start(&config.identity, http2, &metrics.control, control)?;
        let discovery = Discovery::start(&config.control, &credentials, &metrics.control, control)?;
        let (drainer, drain) = drain::channel();

        let (listeners, addrs) = Listeners::bind(&config, control)?;
        let rooms = Directions::new(&config)?;
        connections::register(&mut registry, &rooms.inbound, &rooms.outbound);
        let memories = Memories::new(&config.outbound);
        memories.register(&mut registry);
        let builder = Builder::new(
            config.outbound.clone(),
            memories.clone(),
            credentials.clone(),
            discovery.clone(),
            outbound_report.clone(),
            rooms.outbound.opened.clone(),
            control.clone(),
        );
        let outbound = Outbound::new(
            config.outbound,
            discovery.clone(),
            builder,
            memories,
            outbound_report,
            rooms.outbound.clone(),
            drain.clone(),
        );
        let inbound = Inbound::new(
            config.inbound,
            discovery,
            credentials.clone(),
            inbound_report,
            rooms.inbound.clone(),
            drain,
        );
        let readiness = Readiness::new();
        let certified = readiness.condition("identity", "no certificate yet");
        let serving = readiness.condition("listeners", "not accepting connections");
        control.spawn(show_certificate(credentials.clone(), certified));
        let gateway = Gateway::new(inbound.clone(), outbound.clone());
        control.spawn(sweep(
            Arc::downgrade(&inbound),
            Arc::downgrade(&outbound),
            Arc::downgrade(&gateway),
        ));
        let (end, asked_to_end) = mpsc::channel(1);
        let admin = Admin {
            policy: inbound.policy(config.admin.listen.port()),
            registry,
            readiness,
            environment: Environment::new(config::env::all()),
            refusals,
            level: None,
            shutdown: config.admin.shutdown_endpoint.then_some(end),
        };
        Ok(Self {
            gateway,
            outbound,
            admin,
            listeners,
            control: control.clone(),
            asked_to_end,
            credentials,
            original_dst,
            serving,
            drainer,
            rooms,
            grace_period: config.process.grace_period,
            addrs,
        })
    }

    /// Lets the admin server change this log filter.
    #[must_use]
    pub fn with_log_level(mut self, level: Option<Level>) -> Self {
        self.admin.level = level;
        self
    }

    /// Serves from the first certificate on, until `shutdown` resolves or the admin server is asked for the end, and
    /// everything has drained, or `force` resolves. The admin server answers at once, and until the process ends.
    ///
    /// What has not drained goes on until its runtime ends, and is cut then.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>, force: impl Future<Output = ()>) -> End {
        self.control.spawn(serve_admin(
            self.listeners.admin,
            self.admin,
            self.credentials.clone(),
        ));
        let mut shutdown = std::pin::pin!(either(shutdown, &mut self.asked_to_end));
        tokio::select! {
            () = shutdown.as_mut() => return End::Drained,
            certified = identity::certified(&self.credentials) => if certified.is_err() {
                // The renewal has died with a panic, which has been logged: nothing can be served.
                return End::Drained;
            },
        }
        let Addrs {
            inbound,
            outbound,
            admin,
        } = &self.addrs;
        tracing::info!(%admin, %inbound, ?outbound, id = %self.credentials.get().identity(), "Serving");
        tokio::spawn(reclaim::run());
        for listener in self.listeners.outbound {
            tokio::spawn(outbound::serve(
                self.outbound.clone(),
                listener,
                self.original_dst.clone(),
            ));
        }
        tokio::spawn(gateway::serve(
            self.gateway.clone(),
            self.listeners.inbound,
            self.original_dst,
        ));
        self.serving.met();
        shutdown.await;
        self.serving.unmet("shutting down");
        drop((self.gateway, self.outbound));
        let end = drain(self.drainer, self.grace_period, force).await;
        if end != End::Drained {
            self.rooms.cut(end);
        }
        end
    }
}

/// How a proxy has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All that was under way has finished, or there was nothing.
    Drained,
    /// The grace period was over first.
    OutOfTime,
    /// Somebody did not want to wait.
    Forced,
}

/// Finishes what runs, within the grace period.
async fn drain(drainer: Drainer, grace_period: Duration, force: impl Future<Output = ()>) -> End {
    tracing::info!(?grace_period, "Draining");
    tokio::select! {
        () = drainer.drain() => End::Drained,
        () = sleep(grace_period) => {
            tracing::warn!("Graceful shutdown did not complete in {grace_period:?}, terminating now");
            End::OutOfTime
        }
        () = force => End::Forced,
    }
}

fn bind(addr: SocketAddr, accept: &config::Accept) -> Result<TcpListener, Error> {
    listen::bind(addr, accept).map_err(|error| Error::Listen(addr, error))
}

/// Resolves at a signal, or when the admin server is asked for the end.
async fn either(signal: impl Future<Output = ()>, asked: &mut mpsc::Receiver<()>) {
    tokio::select! {
        () = signal => {}
        Some(()) = asked.recv() => tracing::info!("received POST /shutdown, starting shutdown"),
    }
}

/// It answers until the process ends: nobody ever drains it.
async fn serve_admin(listener: TcpListener, admin: Admin, credentials: Live<Credentials>) {
    let (drainer, drain): (Drainer, Drain) = drain::channel();
    admin::serve(listener, Arc::new(admin), credentials, drain).await;
    drop(drainer);
}

/// Ready while there is a certificate, and it is valid.
async fn show_certificate(mut credentials: Live<Credentials>, condition: Condition) {
    loop {
        match credentials.get_and_mark_seen().expiry() {
            Some(expiry) => condition.met_until(expiry),
            None => condition.unmet("no certificate yet"),
        }
        if credentials.changed().await.is_err() {
            return;
        }
    }
}

/// Forgets, from time to time, what nobody uses any more.
///
/// It holds none of them: all hold the drain open.
async fn sweep(inbound: Weak<Inbound>, outbound: Weak<Outbound>, gateway: Weak<Gateway>) {
    let mut ticks = interval(SWEEP);
    loop {
        ticks.tick().await;
        let (Some(inbound), Some(outbound), Some(gateway)) =
            (inbound.upgrade(), outbound.upgrade(), gateway.upgrade())
        else {
            return;
        };
        let now = Instant::now();
        inbound.sweep(now);
        outbound.sweep(now);
        gateway.sweep(now);
    }
}
