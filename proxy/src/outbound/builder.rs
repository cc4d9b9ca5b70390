//! Makes outbound policies live: routes get balancers, balancers endpoints, endpoints connections.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::{Arc, Weak};

use outrigger_policy::Unsupported;
use outrigger_policy::budget::RetryBudget;
use outrigger_policy::endpoint::{Endpoint as Description, ProtocolHint};
use outrigger_policy::name::{DnsName, ResourceRef};
use outrigger_policy::outbound::{
    Backend as PolicyBackend, Dispatch, Distribution, LoadParams, Mirror as PolicyMirror, OpaqueAction,
    OpaqueRoute, OutboundPolicy, OutboundProtocol, OutboundRule, TlsRoute,
};
use outrigger_policy::profile;
use outrigger_policy::route::RouteTable;
use outrigger_policy::route::index::Indexed;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::balance::endpoint::{Endpoint, Params};
use crate::balance::siblings::Siblings;
use crate::balance::{self, Balancer};
use crate::cache::Cache;
use crate::config;
use crate::control::{Discovery, Endpoints, backoff};
use crate::http::pool::{Pool, Settings};
use crate::live::{Live, Publisher};
use crate::net::connect::Options;
use crate::outbound::backends::{Backend, Backends};
use crate::outbound::kept::Spare;
use crate::outbound::memory::Memories;
use crate::outbound::mirror::{Mirror, Mirrors};
use crate::outbound::report::{Reached, Report};
use crate::outbound::router::{Opaque, Protocol, Refusal, Router};
use crate::outbound::rule::Rule;
use crate::room::Room;
use crate::telemetry::labels::{Backend as BackendLabel, OutboundRoute, Parent};
use crate::telemetry::route::RouteHandles;
use crate::tls::Credentials;
use crate::tls::dial::{Dial, Peer, Target as HeaderTarget};
use crate::tls::turns::Turns;

/// Backends remembered at the same time, each with its balancer.
const MAX_BACKENDS: usize = 10_000;

/// Whatever is dialled on the loopback interface could come back here, for ever.
const LOOPBACK: &str = "Outbound proxy cannot initiate connections on the loopback interface";

/// Makes policies live. One for the process, so that equal backends share endpoints and connections.
#[derive(Debug)]
pub struct Builder {
    config: config::Outbound,
    memories: Memories,
    options: Options,
    credentials: Live<Credentials>,
    discovery: Discovery,
    report: Report,
    control: Handle,
    balancers: Cache<(Arc<str>, Params, Purpose), Balancer>,
    forwards: Cache<(Description, Purpose), Balancer>,
}

/// What requests are to a backend. Each purpose has balancers of its own: what becomes of copies for a mirror shuts no
/// breaker of the requests themselves, and takes no place on their connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    Traffic,
    Mirror,
}

impl Builder {
    /// A builder without backends so far. Balancers follow their endpoints on `control`.
    pub fn new(
        config: config::Outbound,
        memories: Memories,
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
            memories,
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

    /// Runs what follows a policy, beside the traffic.
    pub(super) fn spawn(&self, follow: impl Future<Output = ()> + Send + 'static) {
        self.control.spawn(follow);
    }

    /// Makes a policy live. Backends that are known already are kept as they are, and so is a budget that did not
    /// change since the router before.
    pub fn router(self: &Arc<Self>, policy: &OutboundPolicy, before: Option<&Router>) -> Router {
        let budget = policy.budget.map(|wanted| {
            let kept = before.and_then(|before| before.budget.clone());
            kept.filter(|kept| kept.policy() == wanted)
                .unwrap_or_else(|| Arc::new(RetryBudget::new(wanted)))
        });
        let grpc = matches!(policy.protocol, OutboundProtocol::Grpc(_));
        let rules = |table: &RouteTable<OutboundRule>| {
            Indexed::new(table.map(|meta, rule| self.rule(policy, meta, rule, grpc, budget.as_ref())))
        };
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
            budget,
        }
    }

    /// What a rule asks for in vain refuses all that would take it.
    fn rule(
        self: &Arc<Self>,
        policy: &OutboundPolicy,
        route: &Arc<ResourceRef>,
        rule: &OutboundRule,
        grpc: bool,
        budget: Option<&Arc<RetryBudget>>,
    ) -> Rule {
        let metrics = &self.report.routes;
        let handles = Arc::new(if profile::is_profile(route) {
            metrics.profile(&policy.authority, &rule.labels, &rule.classes)
        } else {
            metrics.route(&policy.parent, route, grpc)
        });
        let backends = match &rule.backends {
            Ok(distribution) => Ok(self.backends(distribution, Some(&handles))),
            Err(why) => Err(why.clone()),
        };
        Rule {
            meta: route.clone(),
            policy: rule.clone(),
            backends,
            mirrors: self.mirrors(policy, route, rule, &handles),
            budget: budget.cloned(),
            handles,
            spare: Spare::default(),
        }
    }

    fn mirrors(
        self: &Arc<Self>,
        policy: &OutboundPolicy,
        route: &Arc<ResourceRef>,
        rule: &OutboundRule,
        handles: &Arc<RouteHandles>,
    ) -> Option<Mirrors> {
        if rule.mirrors.is_empty() {
            return None;
        }
        let live = |mirror: &PolicyMirror| {
            let backend = self.backend(&mirror.backend, Purpose::Mirror, Some(handles));
            let report = self.report.metrics.mirror(
                Parent(policy.parent.clone()),
                OutboundRoute(route.clone()),
                BackendLabel(mirror.backend.meta.clone()),
            );
            Mirror::new(backend, mirror.ratio, report)
        };
        let mirrors = rule.mirrors.iter().map(live).collect();
        let (memories, fail_fast) = (self.memories.clone(), self.config.http_fail_fast);
        Some(Mirrors::new(route.clone(), mirrors, memories, fail_fast))
    }

    fn opaque(self: &Arc<Self>, route: &OpaqueRoute) -> Opaque {
        let backends = match &route.action {
            OpaqueAction::Forward(distribution) => Ok(self.backends(distribution, None)),
            OpaqueAction::Forbid => Err(Refusal::Forbidden),
            OpaqueAction::NoRoute => Err(Refusal::NoRoute),
            OpaqueAction::Invalid(why) => Err(Refusal::Invalid(why.clone())),
        };
        Opaque {
            backends,
            fail_fast: self.config.tcp_fail_fast,
        }
    }

    fn backends(
        self: &Arc<Self>,
        distribution: &Distribution,
        route: Option<&Arc<RouteHandles>>,
    ) -> Backends {
        let backend = |backend: &PolicyBackend| self.backend(backend, Purpose::Traffic, route);
        match distribution {
            Distribution::Empty => Backends::Empty,
            Distribution::FirstAvailable(backends) => {
                Backends::First(backends.iter().map(|of| backend(of)).collect())
            }
            Distribution::RandomAvailable(backends) => Backends::Random(
                backends
                    .iter()
                    .map(|(of, weight)| (backend(of), *weight))
                    .collect(),
            ),
        }
    }

    fn backend(
        self: &Arc<Self>,
        backend: &PolicyBackend,
        purpose: Purpose,
        route: Option<&Arc<RouteHandles>>,
    ) -> Backend {
        let balancer = match &backend.dispatch {
            Dispatch::Missing(why) => Err(why.clone()),
            Dispatch::Forward(description) if description.addr.ip().is_loopback() => {
                Err(Unsupported::new(LOOPBACK))
            }
            Dispatch::Forward(description) => {
                Ok(self.forwards.get_or(&(description.clone(), purpose), || {
                    let params = Params {
                        load: LoadParams::default(),
                        breaker: None,
                    };
                    let siblings = Arc::default();
                    Balancer::fixed(Arc::new(self.endpoint(
                        description.clone(),
                        &"".into(),
                        params,
                        &siblings,
                    )))
                }))
            }
            Dispatch::Balance { path, load, breaker } => {
                let params = Params {
                    load: *load,
                    breaker: *breaker,
                };
                let key = (path.clone(), params, purpose);
                Ok(self
                    .balancers
                    .get_or(&key, || self.balancer(path.clone(), params)))
            }
        };
        Backend {
            meta: backend.meta.clone(),
            balancer,
            filters: backend.filters.clone(),
            handles: route.map(|route| route.backend(&backend.meta)),
        }
    }

    fn balancer(self: &Arc<Self>, path: Arc<str>, params: Params) -> Balancer {
        let siblings = Arc::<Siblings>::default();
        let (publisher, balancer) = Balancer::empty(siblings.clone());
        let endpoints = self.discovery.endpoints(path.clone());
        let follow = follow(endpoints, publisher, Arc::downgrade(self), path, params, siblings);
        self.control.spawn(follow);
        balancer
    }

    /// Attaches connections and metrics to an endpoint.
    fn endpoint(
        &self,
        description: Description,
        authority: &Arc<str>,
        params: Params,
        siblings: &Arc<Siblings>,
    ) -> Endpoint {
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
            params,
            siblings,
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
    publisher: Publisher<balance::Endpoints>,
    builder: Weak<Builder>,
    authority: Arc<str>,
    params: Params,
    siblings: Arc<Siblings>,
) {
    let mut news = Ok(discovered.get_and_mark_seen());
    while let Ok(endpoints) = news {
        let Some(builder) = builder.upgrade() else { return };
        if let Endpoints::Known { endpoints, .. } = &*endpoints {
            let current = publisher.get();
            let known: HashMap<_, _> = current
                .list()
                .iter()
                .map(|old| (old.description().addr, old))
                .collect();
            let keep = |new: &Description| {
                known
                    .get(&new.addr)
                    .filter(|old| old.description() == new)
                    .map(|old| Arc::clone(old))
            };
            let make =
                |new: &Description| Arc::new(builder.endpoint(new.clone(), &authority, params, &siblings));
            let list: Vec<_> = endpoints
                .values()
                .filter(|new| may_be_dialled(new))
                .map(|new| keep(new).unwrap_or_else(|| make(new)))
                .collect();
            siblings.count(list.len());
            publisher.set(balance::Endpoints::new(list));
        }
        drop(builder);
        news = tokio::select! {
            news = discovered.changed() => news,
            () = publisher.unused() => return,
        };
    }
    publisher.unused().await;
}
