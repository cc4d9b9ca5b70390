//! An outbound policy made live: the same routes, with balancers and connections attached.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::Version;
use outrigger_policy::Unsupported;
use outrigger_policy::endpoint::{Endpoint as Description, ProtocolHint};
use outrigger_policy::name::{DnsName, ResourceRef};
use outrigger_policy::outbound::{
    Backend as PolicyBackend, Dispatch, Distribution, LoadParams, OpaqueAction, OpaqueRoute, OutboundPolicy,
    OutboundProtocol, OutboundRule, TlsRoute,
};
use outrigger_policy::route::index::Indexed;
use outrigger_policy::route::{RouteTable, distribute};
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::balance::Balancer;
use crate::balance::endpoint::Endpoint;
use crate::cache::Cache;
use crate::config;
use crate::control::{Discovery, Endpoints, backoff};
use crate::error::{Fault, Kind, Side};
use crate::http::pool::{Pool, Settings};
use crate::live::{Live, Publisher};
use crate::net::connect::Options;
use crate::net::detect::first::Hint;
use crate::net::io::Meter;
use crate::outbound::report::{Reached, Report};
use crate::room::Room;
use crate::tls::Credentials;
use crate::tls::dial::{Dial, Peer, Target as HeaderTarget};
use crate::tls::turns::Turns;

/// Backends remembered at the same time, each with its balancer.
const MAX_BACKENDS: usize = 10_000;

/// Whatever is dialled on the loopback interface could come back here, for ever.
const LOOPBACK: &str = "Outbound proxy cannot initiate connections on the loopback interface";

/// A destination: what the application dialled, and the router that leads on from there.
#[derive(Debug)]
pub struct Target {
    dialled: SocketAddr,
    router: Live<Router>,
    hint: Arc<Hint>,
    accepted: Arc<dyn Meter>,
}

/// An outbound policy made live.
#[derive(Debug)]
pub struct Router {
    /// The object the application connected to.
    pub parent: Arc<ResourceRef>,
    /// What is spoken, with its routes.
    pub protocol: Protocol,
}

/// What is spoken, with live routes.
#[derive(Debug)]
pub enum Protocol {
    /// Look at the first bytes.
    Detect {
        /// For HTTP/1.
        http1: Indexed<Rule>,
        /// For HTTP/2.
        http2: Indexed<Rule>,
        /// For anything else.
        opaque: Opaque,
    },
    /// HTTP/1.
    Http1(Indexed<Rule>),
    /// HTTP/2 with prior knowledge, gRPC too.
    Http2(Indexed<Rule>),
    /// Bytes.
    Opaque(Opaque),
    /// TLS of the application, by SNI.
    Tls(Vec<TlsRoute<Opaque>>),
    /// Nothing can be done for this destination.
    Invalid(Unsupported),
}

/// What a rule leads to.
#[derive(Debug)]
pub struct Rule(Result<Backends, Unsupported>);

/// What an opaque route leads to.
#[derive(Debug)]
pub struct Opaque {
    backends: Result<Backends, Refusal>,
    /// How long a connection waits for an endpoint.
    pub(super) fail_fast: Duration,
}

#[derive(Debug)]
enum Refusal {
    Forbidden,
    NoRoute,
    Invalid(Unsupported),
}

/// Backends, and how one of them is chosen.
#[derive(Debug)]
enum Backends {
    Empty,
    First(Vec<Backend>),
    Random(Vec<(Backend, u32)>),
}

/// A backend, or why it takes nothing.
type Backend = Result<Arc<Balancer>, Unsupported>;

/// Makes policies live. One for the process, so that equal backends share endpoints and connections.
#[derive(Debug)]
pub struct Builder {
    config: config::Outbound,
    options: Options,
    credentials: Live<Credentials>,
    discovery: Discovery,
    report: Report,
    control: Handle,
    balancers: Cache<(Arc<str>, LoadParams), Balancer>,
    forwards: Cache<Description, Balancer>,
}

impl Target {
    /// Makes a policy live, and keeps it so for as long as the target is held.
    pub fn new(dialled: SocketAddr, mut policy: Live<OutboundPolicy>, builder: &Arc<Builder>) -> Self {
        let (publisher, router) = Live::new(builder.router(&policy.get_and_mark_seen()));
        let hint = Arc::new(Hint::default());
        let rebuilding = rebuild(policy, publisher, hint.clone(), builder.clone());
        builder.control.spawn(rebuilding);
        Self {
            dialled,
            router,
            hint,
            accepted: builder.report.accepted(dialled),
        }
    }

    /// What the application dialled.
    pub fn dialled(&self) -> SocketAddr {
        self.dialled
    }

    /// The router as it is now.
    pub fn router(&self) -> Arc<Router> {
        self.router.get()
    }

    /// Whether the server there was seen to speak first.
    pub(super) fn hint(&self) -> &Hint {
        &self.hint
    }

    /// Counts a connection from the application.
    pub fn accepted(&self) -> Arc<dyn Meter> {
        self.accepted.clone()
    }
}

/// Follows a policy's changes until nobody holds the router.
async fn rebuild(
    mut policy: Live<OutboundPolicy>,
    publisher: Publisher<Router>,
    hint: Arc<Hint>,
    builder: Arc<Builder>,
) {
    loop {
        tokio::select! {
            changed = policy.changed() => match changed {
                Ok(policy) => {
                    hint.forget();
                    publisher.set(builder.router(&policy));
                }
                // The last policy stays; its backends must not be forgotten while the target is in use.
                Err(_ended) => return publisher.unused().await,
            },
            () = publisher.unused() => return,
        }
    }
}

impl Router {
    /// The routes for requests of this version; `None` when the destination takes none of them.
    pub fn http(&self, version: Version) -> Option<&Indexed<Rule>> {
        match &self.protocol {
            Protocol::Detect { http2, .. } if version == Version::HTTP_2 => Some(http2),
            Protocol::Detect { http1, .. } => Some(http1),
            Protocol::Http1(routes) | Protocol::Http2(routes) => Some(routes),
            Protocol::Opaque(_) | Protocol::Tls(_) | Protocol::Invalid(_) => None,
        }
    }
}

impl Router {
    /// The route for what is not HTTP.
    pub(super) fn opaque(&self) -> Result<&Opaque, Fault> {
        match &self.protocol {
            Protocol::Detect { opaque, .. } | Protocol::Opaque(opaque) => Ok(opaque),
            _ => Err(Fault::because(
                Kind::Policy,
                Side::Control,
                "the destination takes nothing but HTTP or TLS",
            )),
        }
    }
}

impl Protocol {
    /// The `protocol` label of `outbound_tcp_protocol_connections_total`.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Detect { .. } | Self::Invalid(_) => "detect",
            Self::Http1(_) => "http/1",
            Self::Http2(_) => "http/2",
            Self::Opaque(_) => "opaq",
            Self::Tls(_) => "tls",
        }
    }
}

impl Rule {
    /// The balancer that a request takes.
    pub fn balancer(&self) -> Result<&Balancer, Fault> {
        match &self.0 {
            Ok(backends) => backends.choose(),
            Err(why) => Err(Fault::because(Kind::Policy, Side::Control, why.to_string())),
        }
    }
}

impl Opaque {
    /// The balancer that a connection takes.
    pub(super) fn balancer(&self) -> Result<&Balancer, Fault> {
        match &self.backends {
            Ok(backends) => backends.choose(),
            Err(Refusal::Forbidden) => Err(Fault::because(
                Kind::Unauthorized,
                Side::Control,
                "forbidden TCP route",
            )),
            Err(Refusal::NoRoute) => Err(Fault::because(Kind::NoRoute, Side::Control, "no route")),
            Err(Refusal::Invalid(why)) => Err(Fault::because(
                Kind::Policy,
                Side::Control,
                format!("invalid TCP backend: {why}"),
            )),
        }
    }
}

impl Backends {
    fn choose(&self) -> Result<&Balancer, Fault> {
        let ready = |backend: &Backend| backend.as_ref().is_ok_and(|balancer| balancer.is_ready());
        let chosen = match self {
            Self::Empty => None,
            Self::First(backends) => distribute::first_available(backends, ready),
            Self::Random(backends) => {
                distribute::random_available(backends, ready, &mut fastrand::Rng::new())
            }
        };
        match chosen {
            Some(Ok(balancer)) => Ok(balancer),
            Some(Err(why)) => Err(Fault::because(Kind::NoDispatcher, Side::Control, why.to_string())),
            None => Err(Fault::new(Kind::NoBackend, Side::Control)),
        }
    }
}

impl Builder {
    /// A builder without backends so far. Balancers follow their endpoints on `control`.
    pub fn new(
        config: config::Outbound,
        credentials: Live<Credentials>,
        discovery: Discovery,
        report: Report,
        room: Arc<Room>,
        control: Handle,
    ) -> Arc<Self> {
        let idle = config.discovery_idle;
        Arc::new(Self {
            options: Options::new(&config.connect, room),
            balancers: Cache::new(idle, MAX_BACKENDS),
            forwards: Cache::new(idle, MAX_BACKENDS),
            config,
            credentials,
            discovery,
            report,
            control,
        })
    }

    /// Forgets backends that no router leads to any more.
    pub fn sweep(&self, now: Instant) {
        self.balancers.sweep(now);
        self.forwards.sweep(now);
    }

    /// Makes a policy live; backends that are known already are kept as they are.
    pub fn router(self: &Arc<Self>, policy: &OutboundPolicy) -> Router {
        let rules =
            |table: &RouteTable<OutboundRule>| Indexed::new(table.map(|meta, rule| self.rule(meta, rule)));
        let protocol = match &policy.protocol {
            OutboundProtocol::Detect { http1, http2, opaque } => Protocol::Detect {
                http1: rules(http1),
                http2: rules(http2),
                opaque: self.opaque(opaque),
            },
            OutboundProtocol::Http1(table) => Protocol::Http1(rules(table)),
            OutboundProtocol::Http2(table) | OutboundProtocol::Grpc(table) => Protocol::Http2(rules(table)),
            OutboundProtocol::Opaque(route) => Protocol::Opaque(self.opaque(route)),
            OutboundProtocol::Tls(routes) => {
                let live = |tls: &TlsRoute| TlsRoute {
                    snis: tls.snis.clone(),
                    route: self.opaque(&tls.route),
                };
                Protocol::Tls(routes.iter().map(live).collect())
            }
            OutboundProtocol::Invalid(why) => Protocol::Invalid(why.clone()),
        };
        Router {
            parent: policy.parent.clone(),
            protocol,
        }
    }

    /// What a rule asks for in vain refuses all that would take it.
    fn rule(self: &Arc<Self>, route: &ResourceRef, rule: &OutboundRule) -> Rule {
        Rule(match (&rule.backends, rule.unenforced(route)) {
            (Ok(distribution), None) => Ok(self.backends(distribution)),
            (Err(why), _) => Err(why.clone()),
            (_, Some(why)) => Err(why),
        })
    }

    fn opaque(self: &Arc<Self>, route: &OpaqueRoute) -> Opaque {
        let backends = match &route.action {
            OpaqueAction::Forward(distribution) => match route.unenforced() {
                None => Ok(self.backends(distribution)),
                Some(why) => Err(Refusal::Invalid(why)),
            },
            OpaqueAction::Forbid => Err(Refusal::Forbidden),
            OpaqueAction::NoRoute => Err(Refusal::NoRoute),
            OpaqueAction::Invalid(why) => Err(Refusal::Invalid(why.clone())),
        };
        Opaque {
            backends,
            fail_fast: self.config.tcp_fail_fast,
        }
    }

    fn backends(self: &Arc<Self>, distribution: &Distribution) -> Backends {
        match distribution {
            Distribution::Empty => Backends::Empty,
            Distribution::FirstAvailable(backends) => {
                Backends::First(backends.iter().map(|backend| self.backend(backend)).collect())
            }
            Distribution::RandomAvailable(backends) => Backends::Random(
                backends
                    .iter()
                    .map(|(backend, weight)| (self.backend(backend), *weight))
                    .collect(),
            ),
        }
    }

    fn backend(self: &Arc<Self>, backend: &PolicyBackend) -> Backend {
        match &backend.dispatch {
            Dispatch::Missing(why) => Err(why.clone()),
            Dispatch::Forward(description) if description.addr.ip().is_loopback() => {
                Err(Unsupported::new(LOOPBACK))
            }
            Dispatch::Forward(description) => Ok(self.forwards.get_or(description, || {
                let endpoint = self.endpoint(description.clone(), &"".into(), LoadParams::default());
                Balancer::fixed(Arc::new(endpoint))
            })),
            Dispatch::Balance { path, load, .. } => Ok(self
                .balancers
                .get_or(&(path.clone(), *load), || self.balancer(path.clone(), *load))),
        }
    }

    fn balancer(self: &Arc<Self>, path: Arc<str>, load: LoadParams) -> Balancer {
        let (publisher, balancer) = Balancer::empty();
        let endpoints = self.discovery.endpoints(path.clone());
        self.control
            .spawn(follow(endpoints, publisher, Arc::downgrade(self), path, load));
        balancer
    }

    /// Attaches connections and metrics to an endpoint.
    fn endpoint(&self, description: Description, authority: &Arc<str>, load: LoadParams) -> Endpoint {
        let local = self.config.local_ips.contains(description.addr.ip());
        let peer = if local { None } else { self.peer(&description) };
        let port = description
            .transport_port
            .map_or_else(|| description.addr.port(), NonZeroU16::get);
        let addr = if peer.is_some() {
            SocketAddr::new(description.addr.ip(), port)
        } else {
            description.addr
        };
        let reached = match &peer {
            Some(_) => Reached::Meshed,
            None if local => Reached::Local,
            None => Reached::Plain,
        };
        let (handles, meter) = self.report.endpoint(authority, &description, reached);
        let config = &self.config;
        let dial = Dial {
            addr,
            options: self.options.clone(),
            peer,
            meter,
        };
        let settings = Settings::new(&config.pool, &config.http2_client, config.http_fail_fast);
        let metrics = self.report.pools.clone();
        let pool = Arc::new(Pool::new(dial, settings, description.http2, metrics));
        Endpoint::new(
            description,
            pool,
            handles,
            load,
            backoff(&config.connect.backoff),
            local,
        )
    }

    /// The peer proxy beside an endpoint, if it is meshed.
    fn peer(&self, description: &Description) -> Option<Peer> {
        let tls = description.tls.clone()?;
        let (name, port) = match description.authority_override.as_deref().map(split_authority) {
            Some((name, port)) => (
                DnsName::parse(name).ok(),
                port.or_else(|| NonZeroU16::new(description.addr.port())),
            ),
            None => (None, NonZeroU16::new(description.addr.port())),
        };
        let wanted = description.transport_port.is_some() || name.is_some();
        let opaque = description.hint == ProtocolHint::Opaque;
        let header = port
            .filter(|_| wanted)
            .map(|port| HeaderTarget { port, name, opaque });
        Some(Peer {
            credentials: self.credentials.clone(),
            tls,
            header,
            turns: Turns::new(),
        })
    }
}

/// `name[:port]`.
fn split_authority(text: &str) -> (&str, Option<NonZeroU16>) {
    match text.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok()),
        None => (text, None),
    }
}

/// Whether discovery's endpoint is one that can be dialled; see [`LOOPBACK`].
fn may_be_dialled(endpoint: &Description) -> bool {
    let loopback = endpoint.addr.ip().is_loopback();
    if loopback {
        tracing::warn!(addr = %endpoint.addr, "left out an endpoint: {LOOPBACK}");
    }
    !loopback
}

/// Keeps a balancer's endpoints as discovery reports them. Those that did not change keep connections and load.
async fn follow(
    mut discovered: Live<Endpoints>,
    publisher: Publisher<Vec<Arc<Endpoint>>>,
    builder: Weak<Builder>,
    authority: Arc<str>,
    load: LoadParams,
) {
    let mut news = Ok(discovered.get_and_mark_seen());
    while let Ok(endpoints) = news {
        let Some(builder) = builder.upgrade() else { return };
        if let Endpoints::Known { endpoints, .. } = &*endpoints {
            let current = publisher.get();
            let known: HashMap<_, _> = current.iter().map(|old| (old.description().addr, old)).collect();
            let keep = |new: &Description| {
                known
                    .get(&new.addr)
                    .filter(|old| old.description() == new)
                    .map(|old| Arc::clone(old))
            };
            let make = |new: &Description| Arc::new(builder.endpoint(new.clone(), &authority, load));
            publisher.set(
                endpoints
                    .values()
                    .filter(|new| may_be_dialled(new))
                    .map(|new| keep(new).unwrap_or_else(|| make(new)))
                    .collect(),
            );
        }
        drop(builder);
        news = tokio::select! {
            news = discovered.changed() => news,
            () = publisher.unused() => return,
        };
    }
    publisher.unused().await;
}
