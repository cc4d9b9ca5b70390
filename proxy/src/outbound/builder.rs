//! Makes outbound policies live: routes get balancers, balancers endpoints, endpoints connections.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::{Arc, Weak};

use http::Version;
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
use crate::http::h2::backlog::Backlog;
use crate::http::pool::{Pool, Settings};
use crate::live::{Live, Publisher};
use crate::net::connect::Options;
use crate::outbound::again::Again;
use crate::outbound::backends::{Backend, Backends};
use crate::outbound::kept::Spare;
use crate::outbound::memory::Memories;
use crate::outbound::metrics::Service;
use crate::outbound::mirror::{Mirror, Mirrors};
use crate::outbound::report::{Reached, Report, Traffic};
use crate::outbound::router::{Opaque, Protocol, Refusal, Router};
use crate::outbound::rule::Rule;
use crate::outbound::unchanged::Unchanged;
use crate::room::Room;
use crate::telemetry::Counter;
use crate::telemetry::balancer::{BalancerHandles, Observed};
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
    backlog: Arc<Backlog>,
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
            backlog: Backlog::new(config.max_unread, report.unread.clone()),
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

    /// Where HTTP/2 that nobody has read yet counts, from servers and from the application.
    pub(super) fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
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

    /// Makes a policy live. Backends that are known already are kept as they are, and so are a budget and rules that did
    /// not change since the router before.
    pub fn router(self: &Arc<Self>, policy: &OutboundPolicy, before: Option<&Router>) -> Router {
        let budget = policy.budget.map(|wanted| {
            let kept = before.and_then(|before| before.budget.clone());
            kept.filter(|kept| kept.policy() == wanted)
                .unwrap_or_else(|| Arc::new(RetryBudget::new(wanted)))
        });
        let grpc = matches!(policy.protocol, OutboundProtocol::Grpc(_));
        let before = before.filter(|before| before.takes_rules_of(policy, budget.as_ref(), grpc));
        let rules = |table: &RouteTable<OutboundRule>, version| {
            let mut unchanged = Unchanged::of(before.and_then(|before| before.http(version)));
            Indexed::new(table.map(|meta, rule| {
                let make = || Arc::new(self.rule(policy, meta, rule, grpc, budget.as_ref()));
                unchanged.take(meta, rule).unwrap_or_else(make)
            }))
        };
        let protocol = match &policy.protocol {
            OutboundProtocol::Detect { http1, http2, opaque } => Protocol::Detect {
                http1: rules(http1, Version::HTTP_11),
                http2: rules(http2, Version::HTTP_2),
                opaque: self.opaque(policy, opaque, Traffic::Opaque),
            },
            OutboundProtocol::Http1(table) => Protocol::Http1(rules(table, Version::HTTP_11)),
            OutboundProtocol::Http2(table) | OutboundProtocol::Grpc(table) => {
                Protocol::Http2(rules(table, Version::HTTP_2))
            }
            OutboundProtocol::Opaque(route) => Protocol::Opaque(self.opaque(policy, route, Traffic::Opaque)),
            OutboundProtocol::Tls(routes) => {
                let live = |tls: &TlsRoute| TlsRoute {
                    snis: tls.snis.clone(),
                    route: self.opaque(policy, &tls.route, Traffic::Tls),
                };
                Protocol::Tls(routes.iter().map(live).collect())
            }
            OutboundProtocol::Invalid(why) => Protocol::Invalid(why.clone()),
        };
        Router {
            parent: policy.parent.clone(),
            authority: policy.authority.clone(),
            grpc,
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
            Ok(distribution) => Ok(self.backends(policy, distribution, Traffic::Http(&handles))),
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
            let backend = self.backend(policy, &mirror.backend, Traffic::Mirror(handles));
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

    fn opaque(
        self: &Arc<Self>,
        policy: &OutboundPolicy,
        route: &OpaqueRoute,
        traffic: Traffic<'_>,
    ) -> Opaque {
        let backends = match &route.action {
            OpaqueAction::Forward(distribution) => Ok(self.backends(policy, distribution, traffic)),
            OpaqueAction::Forbid => Err(Refusal::Forbidden),
            OpaqueAction::NoRoute => Err(Refusal::NoRoute),
            OpaqueAction::Invalid(why) => Err(Refusal::Invalid(why.clone())),
        };
        Opaque {
            parent: policy.parent.clone(),
            meta: route.meta.clone(),
            backends,
            fail_fast: self.config.tcp_fail_fast,
        }
    }

    fn backends(
        self: &Arc<Self>,
        policy: &OutboundPolicy,
        distribution: &Distribution,
        traffic: Traffic<'_>,
    ) -> Backends {
        let backend = |backend: &PolicyBackend| self.backend(policy, backend, traffic);
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
        policy: &OutboundPolicy,
        backend: &PolicyBackend,
        traffic: Traffic<'_>,
    ) -> Backend {
        let purpose = match traffic {
            Traffic::Mirror(_) => Purpose::Mirror,
            Traffic::Http(_) | Traffic::Opaque | Traffic::Tls => Purpose::Traffic,
        };
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
            waits: self.waits(policy, backend, &balancer, traffic),
            balancer,
            filters: backend.filters.clone(),
            handles: match traffic {
                Traffic::Http(route) | Traffic::Mirror(route) => Some(route.backend(&backend.meta)),
                Traffic::Opaque | Traffic::Tls => None,
            },
        }
    }

    /// What is reported of a backend's balancer. A single address has none, and mirrors report what becomes of copies.
    fn waits(
        &self,
        policy: &OutboundPolicy,
        backend: &PolicyBackend,
        balancer: &Result<Arc<Balancer>, Unsupported>,
        traffic: Traffic<'_>,
    ) -> Arc<BalancerHandles> {
        let labels = match &backend.dispatch {
            Dispatch::Balance { path, .. } => traffic.balancer(policy, &backend.meta, path),
            Dispatch::Forward(_) | Dispatch::Missing(_) => None,
        };
        let (Ok(balancer), Some(labels)) = (balancer, labels) else {
            return Arc::new(BalancerHandles::unseen());
        };
        let fail_fast = match traffic {
            Traffic::Http(_) | Traffic::Mirror(_) => self.config.http_fail_fast,
            Traffic::Opaque | Traffic::Tls => self.config.tcp_fail_fast,
        };
        let observed: Arc<dyn Observed> = balancer.clone();
        self.report
            .balancers
            .backend(labels, Arc::downgrade(&observed), fail_fast)
    }

    fn balancer(self: &Arc<Self>, path: Arc<str>, params: Params) -> Balancer {
        let siblings = Arc::<Siblings>::default();
        let (publisher, balancer) = Balancer::empty(siblings.clone());
        let authority = path.clone();
        let service = Followed {
            builder: Arc::downgrade(self),
            authority: path.clone(),
            params,
            siblings,
            asked_again: self.report.metrics.asked_again.handle(Service { authority }),
        };
        let again = Again::new(backoff(&self.config.connect.backoff));
        let discovered = self.discovery.endpoints(path);
        self.control.spawn(follow(service, discovered, again, publisher));
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
        let settings = Settings::new(
            &config.pool,
            &config.http2_client,
            self.backlog.clone(),
            config.http_fail_fast,
        );
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
        let authority = description.authority_override.as_deref();
        // A name is of use only with its port.
        let (name, port) = match authority.map(split_authority) {
            Some((name, Some(port))) => (DnsName::parse(name).ok(), Some(port)),
            _ => (None, NonZeroU16::new(description.addr.port())),
        };
        let wanted = description.transport_port.is_some() || authority.is_some();
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

/// A service whose endpoints a balancer takes.
#[derive(Debug)]
struct Followed {
    builder: Weak<Builder>,
    /// `name:port`, as discovery is asked for it.
    authority: Arc<str>,
    params: Params,
    siblings: Arc<Siblings>,
    asked_again: Arc<Counter>,
}

/// Keeps a balancer's endpoints as discovery reports them, and asks again when none of them can be connected to.
async fn follow(
    service: Followed,
    mut discovered: Live<Endpoints>,
    mut again: Again,
    publisher: Publisher<balance::Endpoints>,
) {
    let mut news = discovered.get_and_mark_seen();
    loop {
        if let Endpoints::Known { exists, endpoints } = &*news {
            let current = publisher.get();
            let Some(list) = service.endpoints(endpoints.values(), current.list()) else {
                return;
            };
            service.siblings.count(list.len());
            publisher.set(match *exists {
                true => balance::Endpoints::new(list),
                false => balance::Endpoints::of_nobody(),
            });
        }
        news = tokio::select! {
            // A stream that has ended for good says nothing more; what it said stays.
            Ok(news) = discovered.changed() => news,
            () = again.due(&service.siblings) => {
                let Some(builder) = service.builder.upgrade() else { return };
                service.asked_again.inc();
                discovered = builder.discovery.endpoints(service.authority.clone());
                discovered.get_and_mark_seen()
            }
            () = publisher.unused() => return,
        };
    }
}

impl Followed {
    /// The endpoints that discovery reports. Those that did not change keep connections and load. `None`: the proxy ends.
    fn endpoints<'a>(
        &self,
        reported: impl Iterator<Item = &'a Arc<Description>>,
        current: &[Arc<Endpoint>],
    ) -> Option<Vec<Arc<Endpoint>>> {
        let builder = self.builder.upgrade()?;
        let known: HashMap<_, _> = current.iter().map(|old| (old.description().addr, old)).collect();
        let mut added = 0;
        let mut live = |new: &Description| {
            let same = known.get(&new.addr).filter(|old| old.description() == new);
            same.map(|old| Arc::clone(old)).unwrap_or_else(|| {
                added += 1;
                Arc::new(builder.endpoint(new.clone(), &self.authority, self.params, &self.siblings))
            })
        };
        let dialled = reported.filter(|new| may_be_dialled(new));
        let list: Vec<_> = dialled.map(|new| live(new)).collect();
        self.siblings.changed(added, current.len() + added - list.len());
        Some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::endpoint::Picked;
    use crate::config::{DefaultInbound, DefaultPolicy, PortSet};
    use crate::control::testing::{self, Answer, Fake};
    use crate::http::h2::backlog;
    use crate::http::pool;
    use crate::outbound::metrics::Metrics;
    use crate::telemetry::Registry;
    use crate::telemetry::balancer::BalancerMetrics;
    use crate::telemetry::http::HttpMetrics;
    use crate::telemetry::route::RouteMetrics;
    use crate::telemetry::tcp_route::TcpRouteMetrics;
    use crate::telemetry::transport::TransportMetrics;
    use crate::tls::testing::Ca;
    use outrigger_policy::breaker::{Accrual, BreakerPolicy, Outcome};
    use outrigger_policy::endpoint::EndpointTls;
    use outrigger_policy::name::Identity;
    use outrigger_policy::route::{Route, Rule as PolicyRule};
    use outrigger_proto::encode::endpoint::{update_add, update_remove};
    use std::time::Duration;

    fn builder(fake: &Fake) -> Arc<Builder> {
        let mut registry = Registry::new(Duration::from_secs(60));
        let config = config::testing::outbound();
        let default = DefaultInbound {
            policy: DefaultPolicy::Deny,
            cluster_networks: config::Networks::default(),
            opaque_ports: PortSet::default(),
            detect_timeout: Duration::from_secs(10),
        };
        let report = Report {
            metrics: Metrics::register(&mut registry),
            http: HttpMetrics::register(&mut registry),
            routes: RouteMetrics::register(&mut registry),
            tcp_routes: TcpRouteMetrics::register(&mut registry),
            balancers: BalancerMetrics::register(&mut registry),
            transport: TransportMetrics::register(&mut registry),
            pools: pool::testing::metrics(),
            unread: backlog::Handles::default(),
        };
        let (memories, control) = (Memories::new(&config), Handle::current());
        let credentials = Live::fixed(Ca::new("unused").credentials("web.test"));
        let discovery = testing::discovery(fake, default);
        Builder::new(
            config,
            memories,
            credentials,
            discovery,
            report,
            Room::new(10),
            control,
        )
    }

    /// A rule that leads to a service whose endpoints one failure shuts for a minute.
    fn to(service: &str) -> OutboundRule {
        let minute = Duration::from_secs(60);
        let dispatch = Dispatch::Balance {
            path: service.into(),
            load: LoadParams::default(),
            breaker: Some(BreakerPolicy {
                accrual: Accrual::Consecutive(1),
                backoff: outrigger_policy::backoff::Backoff::try_new(minute, minute, 0.0).unwrap(),
                respect_hints: false,
                min_ready_endpoints: 0,
            }),
        };
        let backend = PolicyBackend::new(Arc::new(ResourceRef::of_default(service)), dispatch);
        OutboundRule::to(Distribution::FirstAvailable(vec![Arc::new(backend)]))
    }

    fn policy(rules: Vec<OutboundRule>) -> OutboundPolicy {
        let meta = Arc::new(ResourceRef::of_default("web"));
        let rules = rules.into_iter().map(|then| PolicyRule {
            matches: Vec::new(),
            then,
        });
        let route = Route {
            meta: meta.clone(),
            hosts: Vec::new(),
            rules: rules.collect(),
        };
        OutboundPolicy {
            parent: meta,
            protocol: OutboundProtocol::Http1(RouteTable { routes: vec![route] }),
            authority: "web:80".into(),
            budget: Some(outrigger_policy::budget::BudgetPolicy::default()),
        }
    }

    fn rules(router: &Router) -> Vec<Arc<Rule>> {
        let table = router.http(Version::HTTP_11).unwrap();
        table.rules().map(|(_, rule)| rule.clone()).collect()
    }

    fn balancer(rule: &Rule) -> Arc<Balancer> {
        let backend = rule.backends().unwrap().choose().unwrap();
        backend.balancer.clone().unwrap()
    }

    #[tokio::test]
    async fn what_a_policy_does_not_change_stays_as_it_is() {
        let fake = Fake::start().await;
        let builder = builder(&fake);
        let before = builder.router(&policy(vec![to("a:80"), to("b:80")]), None);
        let mut changed = to("b:80");
        changed.allow_overrides = true;
        let after = builder.router(&policy(vec![to("c:80"), to("a:80"), changed]), Some(&before));
        let (old, new) = (rules(&before), rules(&after));
        assert!(Arc::ptr_eq(&old[0], &new[1]));
        assert!(!Arc::ptr_eq(&old[1], &new[2]) && new[2].policy.allow_overrides);
        // Where a rule changed, its endpoints keep their load and breakers.
        assert!(Arc::ptr_eq(&balancer(&old[1]), &balancer(&new[2])));
        assert!(Arc::ptr_eq(
            before.budget.as_ref().unwrap(),
            after.budget.as_ref().unwrap()
        ));
    }

    #[tokio::test]
    async fn rules_share_a_budget_that_did_change() {
        let fake = Fake::start().await;
        let builder = builder(&fake);
        let before = builder.router(&policy(vec![to("a:80")]), None);
        let budgetless = OutboundPolicy {
            budget: None,
            ..policy(vec![to("a:80")])
        };
        let after = builder.router(&budgetless, Some(&before));
        assert!(rules(&after)[0].budget.is_none());
        assert!(Arc::ptr_eq(
            &balancer(&rules(&before)[0]),
            &balancer(&rules(&after)[0])
        ));
    }

    fn at(addr: &str) -> Description {
        Description::bare(addr.parse().unwrap())
    }

    async fn pick(balancer: &Balancer) -> Picked {
        balancer
            .pick(Instant::now(), Duration::from_secs(3), &BalancerHandles::unseen())
            .await
            .unwrap()
    }

    /// The next question for endpoints, answered with these.
    async fn answer(fake: &mut Fake, endpoints: &[Description]) -> Answer {
        let answer = fake.call("/Get").await.open();
        answer.send(&update_add(endpoints, HashMap::new())).await;
        answer
    }

    #[tokio::test]
    async fn an_endpoint_that_stays_is_still_shut_when_others_come_and_the_policy_changes() {
        let mut fake = Fake::start().await;
        let builder = builder(&fake);
        let before = builder.router(&policy(vec![to("a:80")]), None);
        let stream = answer(&mut fake, &[at("192.0.2.1:1"), at("192.0.2.2:1")]).await;
        let mut failing = pick(&balancer(&rules(&before)[0])).await;
        let shut = failing.endpoint().clone();
        failing.judge(Outcome::Failure);
        stream
            .send(&update_add(&[at("192.0.2.3:1")], HashMap::new()))
            .await;
        let after = builder.router(&policy(vec![to("b:80"), to("a:80")]), Some(&before));
        drop(before);
        let balancer = balancer(&rules(&after)[1]);
        // What is picked counts as load, so that the one that has come gets its turn.
        let mut held = vec![pick(&balancer).await];
        while held[held.len() - 1]
            .endpoint()
            .description()
            .addr
            .ip()
            .to_string()
            != "192.0.2.3"
        {
            tokio::task::yield_now().await;
            held.push(pick(&balancer).await);
        }
        for _ in 0..50 {
            assert!(!Arc::ptr_eq(pick(&balancer).await.endpoint(), &shut));
        }
        assert!(shut.is_shut());
    }

    #[tokio::test]
    async fn a_transport_header_says_which_port_and_whose_where_the_authority_is_another() {
        let fake = Fake::start().await;
        let builder = builder(&fake);
        let header = |transport_port: Option<u16>, authority: Option<&str>| {
            let endpoint = Description {
                tls: Some(EndpointTls {
                    identity: Identity::parse("web.ns").unwrap(),
                    server_name: DnsName::parse("web.ns").unwrap(),
                }),
                transport_port: transport_port.and_then(NonZeroU16::new),
                authority_override: authority.map(Into::into),
                ..at("192.0.2.1:80")
            };
            let header = builder.peer(&endpoint).unwrap().header;
            header.map(|header| (header.port.get(), header.name.map(|name| name.to_string())))
        };
        let west = Some((81, Some("web.west".to_owned())));
        assert_eq!(header(None, None), None);
        assert_eq!(header(Some(4143), None), Some((80, None)));
        assert_eq!(header(Some(4143), Some("web.west:81")), west);
        assert_eq!(header(None, Some("web.west:81")), west);
        assert_eq!(header(Some(4143), Some("web.west")), Some((80, None)));
    }

    #[tokio::test]
    async fn discovery_is_asked_again_when_no_endpoint_can_be_connected_to() {
        let mut fake = Fake::start().await;
        let builder = builder(&fake);
        let router = builder.router(&policy(vec![to("a:80")]), None);
        let stale = answer(&mut fake, &[at("192.0.2.1:1")]).await;
        let balancer = balancer(&rules(&router)[0]);
        balancer.unreachable(pick(&balancer).await.endpoint());
        let fresh = answer(&mut fake, &[at("192.0.2.2:1")]).await;
        while pick(&balancer)
            .await
            .endpoint()
            .description()
            .addr
            .ip()
            .to_string()
            != "192.0.2.2"
        {
            tokio::task::yield_now().await;
        }
        stale.abandoned().await;
        let authority = "a:80".into();
        let asked = builder.report.metrics.asked_again.handle(Service { authority });
        assert_eq!(asked.value(), 1);
        fresh.send(&update_remove(&[at("192.0.2.2:1").addr])).await;
    }
}
