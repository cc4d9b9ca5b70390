//! The addresses of the control plane, asked of a DNS server on loopback.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SOA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::{DnsLifetime, Host, HostPort};
use crate::control::dns::{Error, Names};
use crate::control::metrics::{Client, DnsMetrics};
use crate::control::testing::{address, metrics};

const NAME: &str = "dst.linkerd.svc.cluster.local";

/// What the server says to each type of question; to others it says that the name does not exist.
type Zone = HashMap<RecordType, Vec<(RData, u32)>>;

/// Names that are followed, and the server that is asked.
struct Following {
    addresses: watch::Receiver<Vec<SocketAddr>>,
    /// When SRV was asked for.
    asked: mpsc::Receiver<Instant>,
    zone: watch::Sender<Zone>,
    counts: DnsMetrics,
    _tasks: JoinSet<()>,
}

async fn follow(zone: Zone, lifetime: DnsLifetime) -> Following {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = socket.local_addr().unwrap();
    let (zone, served) = watch::channel(zone);
    let (asked, taken) = mpsc::channel(64);
    let (known, addresses) = watch::channel(Vec::new());
    let counts = metrics().channel(Client::Policy).dns;
    let mut addr = address(server, None);
    (addr.addr, addr.dns) = (host(NAME), lifetime);
    let names = Names::new(&addr, counts.clone());
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(socket, served, asked));
    tasks.spawn(async move { names.follow(|| resolver(server), &known, &Notify::new()).await });
    Following {
        addresses,
        asked: taken,
        zone,
        counts,
        _tasks: tasks,
    }
}

impl Following {
    async fn next(&mut self) -> Vec<SocketAddr> {
        self.addresses.changed().await.unwrap();
        self.addresses.borrow_and_update().clone()
    }

    /// The virtual time between two questions.
    async fn pause(&mut self) -> Duration {
        let first = self.asked.recv().await.unwrap();
        self.asked.recv().await.unwrap() - first
    }
}

fn host(name: &str) -> HostPort {
    let name = outrigger_policy::name::DnsName::parse(name).unwrap();
    let host = Host::Name { name, absolute: true };
    HostPort { host, port: 8086 }
}

fn resolver(server: SocketAddr) -> Result<TokioResolver, Error> {
    let mut udp = ConnectionConfig::udp();
    udp.port = server.port();
    let server = NameServerConfig::new(server.ip(), true, vec![udp]);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().cache_size = 0;
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build().map_err(Error::Servers)
}

async fn serve(socket: UdpSocket, zone: watch::Receiver<Zone>, asked: mpsc::Sender<Instant>) {
    let mut packet = [0; 1500];
    loop {
        let (length, client) = socket.recv_from(&mut packet).await.unwrap();
        let question = Message::from_vec(&packet[..length]).unwrap();
        let query = question.queries[0].clone();
        if query.query_type() == RecordType::SRV {
            let _full = asked.try_send(Instant::now());
        }
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.add_query(query.clone());
        match zone.borrow().get(&query.query_type()) {
            Some(records) => answer.add_answers(
                records
                    .iter()
                    .map(|(data, ttl)| Record::from_rdata(query.name().clone(), *ttl, data.clone())),
            ),
            None => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                let soa = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, 30);
                answer.add_authority(Record::from_rdata(Name::root(), 30, RData::SOA(soa)))
            }
        };
        socket.send_to(&answer.to_vec().unwrap(), client).await.unwrap();
    }
}

fn srv(target: &str, port: u16) -> RData {
    RData::SRV(SRV::new(0, 1, port, Name::from_ascii(target).unwrap()))
}

fn a(ip: &str) -> RData {
    RData::A(A(ip.parse().unwrap()))
}

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[tokio::test]
async fn the_pods_of_a_headless_service_are_found_by_srv() {
    let records = [
        "10-1-2-3.dst.",
        "2001-db8--1.dst.",
        "pod-a.dst.",
        "300-1-2-3.dst.",
    ];
    let mut records: Vec<_> = records.iter().map(|target| (srv(target, 8090), 30)).collect();
    records.push((srv("10-9-9-9.dst.", 0), 30));
    let zone = Zone::from([
        (RecordType::SRV, records),
        (RecordType::A, vec![(a("10.0.0.9"), 30)]),
    ]);
    let mut following = follow(zone, DnsLifetime::default()).await;
    assert_eq!(
        following.next().await,
        addresses(&["10.1.2.3:8090", "[2001:db8::1]:8090"])
    );
    let counts = following.counts;
    assert_eq!((counts.srv.found.value(), counts.address.found.value()), (1, 0));
}

#[tokio::test]
async fn a_name_without_services_has_addresses_and_the_configured_port() {
    let v6 = RData::AAAA(AAAA("fd00::1".parse().unwrap()));
    for srv in [None, Some(vec![(srv("pod-a.dst.", 8090), 30)])] {
        let mut zone = Zone::from([
            (RecordType::A, vec![(a("10.0.0.9"), 30), (a("10.0.0.9"), 30)]),
            (RecordType::AAAA, vec![(v6.clone(), 30)]),
        ]);
        zone.extend(srv.map(|records| (RecordType::SRV, records)));
        let mut following = follow(zone, DnsLifetime::default()).await;
        assert_eq!(
            following.next().await,
            addresses(&["10.0.0.9:8086", "[fd00::1]:8086"])
        );
        let counts = following.counts;
        assert_eq!((counts.srv.missing.value(), counts.address.found.value()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_asked_for_again_when_it_expires_within_bounds() {
    let seconds = |s| Some(Duration::from_secs(s));
    let bounds = |min, max| DnsLifetime { min, max };
    for (ttl, lifetime, pause) in [
        (30, bounds(None, None), 30),
        (0, bounds(None, None), 5),
        (1, bounds(seconds(9), None), 9),
        (3600, bounds(None, seconds(60)), 60),
        (3600, bounds(None, seconds(1)), 5),
    ] {
        let zone = Zone::from([(RecordType::SRV, vec![(srv("10-0-0-1.dst.", 1), ttl)])]);
        let waited = follow(zone, lifetime).await.pause().await;
        assert_eq!(waited.as_secs(), pause, "{ttl} s within {lifetime:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_known_stays_when_the_name_is_gone_and_changes_when_it_is_back() {
    let zone = |target| Zone::from([(RecordType::SRV, vec![(srv(target, 1), 5)])]);
    let mut following = follow(zone("10-0-0-1.dst."), DnsLifetime::default()).await;
    assert_eq!(following.next().await, addresses(&["10.0.0.1:1"]));
    following.zone.send_replace(Zone::new());
    assert_eq!(following.pause().await.as_secs(), 5);
    // The zone says that the name is gone for half a minute.
    let gone = Instant::now();
    following.zone.send_replace(zone("10-0-0-2.dst."));
    assert_eq!(following.next().await, addresses(&["10.0.0.2:1"]));
    assert_eq!(gone.elapsed().as_secs(), 30);
}

#[tokio::test]
async fn localhost_is_known_without_asking() {
    let (known, mut addresses) = watch::channel(Vec::new());
    let mut addr = address("127.0.0.1:1".parse().unwrap(), None);
    addr.addr = host("localhost");
    let names = Names::new(&addr, metrics().channel(Client::Policy).dns);
    let nobody = || -> Result<TokioResolver, Error> { panic!("nobody is asked") };
    let again = Notify::new();
    tokio::select! {
        () = names.follow(nobody, &known, &again) => {}
        changed = addresses.changed() => changed.unwrap(),
    }
    assert_eq!(*addresses.borrow(), ["127.0.0.1:8086".parse().unwrap()]);
}
