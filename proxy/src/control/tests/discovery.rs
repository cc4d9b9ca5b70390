//! What the data path is told, for everything the control plane may say.

use std::net::SocketAddr;
use std::time::Duration;

use outrigger_policy::endpoint::Endpoint;
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol};
use outrigger_policy::outbound::{OutboundPolicy, OutboundProtocol};
use outrigger_policy::profile::{Profile, forward};
use outrigger_proto::destination::{GetDestination, Update};
use outrigger_proto::encode;
use outrigger_proto::encode::endpoint::{update_add, update_none, update_remove};
use outrigger_proto::inbound::{PortSpec, Server};
use outrigger_proto::outbound::{self as api, TrafficSpec};
use tokio::task::JoinHandle;
use tonic::Code;

use crate::config::{DefaultInbound, DefaultPolicy, Networks, PortSet};
use crate::control::discovery::{Discovery, DiscoveryError, Endpoints, default_policy};
use crate::control::testing::{self, Fake};
use crate::live::Live;

const SERVICE: &str = "10.1.2.3:80";
const INTERNET: &str = "192.0.2.1:443";

fn default_inbound(policy: DefaultPolicy) -> DefaultInbound {
    DefaultInbound {
        policy,
        cluster_networks: Networks(["10.0.0.0/8".parse().unwrap()].into()),
        opaque_ports: PortSet::default().with(3306),
        detect_timeout: Duration::from_secs(10),
    }
}

fn discovery(fake: &Fake) -> Discovery {
    testing::discovery(fake, default_inbound(DefaultPolicy::AllUnauthenticated))
}

type Looked = JoinHandle<Result<Live<OutboundPolicy>, DiscoveryError>>;

fn look_up(fake: &Fake, dst: &str) -> Looked {
    let (discovery, dst) = (discovery(fake), dst.parse().unwrap());
    tokio::spawn(async move { discovery.outbound(dst).await })
}

fn at(addr: &str) -> Endpoint {
    Endpoint::bare(addr.parse::<SocketAddr>().unwrap())
}

fn policy_to(addr: &str) -> OutboundPolicy {
    forward("test", at(addr))
}

fn encoded(policy: &OutboundPolicy) -> api::OutboundPolicy {
    encode::outbound::policy(policy).unwrap()
}

fn profile(profile: &Profile) -> outrigger_proto::destination::DestinationProfile {
    encode::profile::profile(profile, None, None)
}

/// The addresses of a set; `None` while there is none.
fn addresses(endpoints: &Endpoints) -> Option<(bool, Vec<String>)> {
    match endpoints {
        Endpoints::Waiting => None,
        Endpoints::Known { exists, endpoints } => {
            Some((*exists, endpoints.keys().map(ToString::to_string).collect()))
        }
    }
}

async fn next(live: &mut Live<Endpoints>) -> (bool, Vec<String>) {
    addresses(&live.changed().await.unwrap()).unwrap()
}

fn add(addrs: &[&str]) -> Update {
    let endpoints: Vec<_> = addrs.iter().map(|addr| at(addr)).collect();
    update_add(&endpoints, Default::default())
}

#[tokio::test]
async fn the_control_plane_is_told_who_asks_about_what() {
    let mut fake = Fake::start().await;
    let _looked = look_up(&fake, SERVICE);
    let asked: GetDestination = fake.call("/GetProfile").await.request();
    assert_eq!((&*asked.path, &*asked.context_token), (SERVICE, "the-context"));
    let asked: TrafficSpec = fake.call("/Watch").await.request();
    assert_eq!(asked.source_workload, "the-workload");
    let discovery = discovery(&fake);
    let (_port, _service) = (
        discovery.inbound(8080),
        discovery.endpoints("web.default:80".into()),
    );
    let asked: PortSpec = fake.call("/WatchPort").await.request();
    assert_eq!((&*asked.workload, asked.port), ("the-workload", 8080));
    let asked: GetDestination = fake.call("/Get").await.request();
    assert_eq!(&*asked.path, "web.default:80");
}

#[tokio::test]
async fn a_policy_is_used_and_followed() {
    let mut fake = Fake::start().await;
    let looked = look_up(&fake, SERVICE);
    fake.call("/GetProfile").await.refuse(Code::InvalidArgument);
    let answer = fake.call("/Watch").await.open();
    answer.send(&encoded(&policy_to("10.0.0.1:80"))).await;
    let mut live = looked.await.unwrap().unwrap();
    assert_eq!(
        live.get_and_mark_seen().protocol,
        policy_to("10.0.0.1:80").protocol
    );
    answer.send(&encoded(&policy_to("10.0.0.2:80"))).await;
    assert_eq!(
        live.changed().await.unwrap().protocol,
        policy_to("10.0.0.2:80").protocol
    );
}

#[tokio::test]
async fn without_a_policy_the_profiles_endpoint_or_the_address_itself_is_forwarded_to() {
    for code in [Code::NotFound, Code::Unimplemented] {
        for endpoint in [Some("10.9.9.9:80"), None] {
            let mut fake = Fake::start().await;
            let looked = look_up(&fake, SERVICE);
            let known = Profile {
                endpoint: endpoint.map(at),
                ..Profile::default()
            };
            let answer = fake.call("/GetProfile").await.open();
            answer.send(&profile(&known)).await;
            fake.call("/Watch").await.refuse(code);
            let expected = forward("endpoint", at(endpoint.unwrap_or(SERVICE)));
            assert_eq!(*looked.await.unwrap().unwrap().get(), expected);
        }
    }
}

#[tokio::test]
async fn with_neither_the_address_is_forwarded_to() {
    let mut fake = Fake::start().await;
    let looked = look_up(&fake, SERVICE);
    fake.call("/GetProfile").await.refuse(Code::FailedPrecondition);
    fake.call("/Watch").await.refuse(Code::NotFound);
    assert_eq!(
        *looked.await.unwrap().unwrap().get(),
        forward("fallback", at(SERVICE))
    );
}

#[tokio::test]
async fn other_terminal_codes_fail_the_lookup() {
    for code in [Code::InvalidArgument, Code::FailedPrecondition] {
        let mut fake = Fake::start().await;
        let looked = look_up(&fake, SERVICE);
        fake.call("/GetProfile").await.refuse(code);
        fake.call("/Watch").await.refuse(code);
        let error = looked.await.unwrap().unwrap_err();
        assert!(matches!(error, DiscoveryError::Refused(..)), "{error}");
    }
}

#[tokio::test]
async fn a_profile_is_not_asked_for_outside_its_networks() {
    let mut fake = Fake::start().await;
    let looked = look_up(&fake, INTERNET);
    fake.call("/Watch").await.refuse(Code::NotFound);
    assert_eq!(
        *looked.await.unwrap().unwrap().get(),
        forward("fallback", at(INTERNET))
    );
}

#[tokio::test]
async fn an_opaque_profile_makes_the_destination_opaque_when_it_comes() {
    let mut fake = Fake::start().await;
    let looked = look_up(&fake, SERVICE);
    let answer = fake.call("/GetProfile").await.open();
    answer.send(&profile(&Profile::default())).await;
    fake.call("/Watch").await.refuse(Code::NotFound);
    let mut live = looked.await.unwrap().unwrap();
    assert!(matches!(
        live.get_and_mark_seen().protocol,
        OutboundProtocol::Detect { .. }
    ));
    answer
        .send(&profile(&Profile {
            opaque: true,
            ..Profile::default()
        }))
        .await;
    assert!(matches!(
        live.changed().await.unwrap().protocol,
        OutboundProtocol::Opaque(_)
    ));
}

#[tokio::test]
async fn a_first_policy_that_cannot_be_read_refuses_and_a_later_one_changes_nothing() {
    let mut fake = Fake::start().await;
    let looked = look_up(&fake, INTERNET);
    let answer = fake.call("/Watch").await.open();
    answer.send(&api::OutboundPolicy::default()).await;
    let mut live = looked.await.unwrap().unwrap();
    assert!(matches!(
        live.get_and_mark_seen().protocol,
        OutboundProtocol::Invalid(_)
    ));
    for policy in [encoded(&policy_to("10.0.0.1:80")), api::OutboundPolicy::default()] {
        answer.send(&policy).await;
    }
    answer.send(&encoded(&policy_to("10.0.0.2:80"))).await;
    while let OutboundProtocol::Invalid(_) = live.changed().await.unwrap().protocol {}
    while live.get().protocol != policy_to("10.0.0.2:80").protocol {
        assert!(!matches!(
            live.changed().await.unwrap().protocol,
            OutboundProtocol::Invalid(_)
        ));
    }
}

#[tokio::test]
async fn silence_fails_a_mesh_address_and_forwards_a_foreign_one() {
    let fake = Fake::start().await;
    let (mesh, foreign) = (look_up(&fake, SERVICE), look_up(&fake, INTERNET));
    tokio::task::yield_now().await;
    tokio::time::pause();
    let error = mesh.await.unwrap().unwrap_err();
    assert_eq!(error, DiscoveryError::Timeout(SERVICE.to_owned()));
    assert_eq!(
        *foreign.await.unwrap().unwrap().get(),
        forward("fallback", at(INTERNET))
    );
}

#[tokio::test]
async fn the_streams_of_a_destination_end_with_its_last_reader() {
    let mut fake = Fake::start().await;
    let looked = look_up(&fake, INTERNET);
    let answer = fake.call("/Watch").await.open();
    answer.send(&encoded(&policy_to("10.0.0.1:80"))).await;
    drop(looked.await.unwrap().unwrap());
    answer.abandoned().await;
}

#[tokio::test]
async fn endpoints_come_and_go() {
    let mut fake = Fake::start().await;
    let mut live = discovery(&fake).endpoints("web.default:80".into());
    assert_eq!(addresses(&live.get_and_mark_seen()), None);
    let answer = fake.call("/Get").await.open();
    answer.send(&add(&["10.0.0.1:80", "10.0.0.2:80"])).await;
    assert_eq!(
        next(&mut live).await,
        (true, vec!["10.0.0.1:80".into(), "10.0.0.2:80".into()])
    );
    answer
        .send(&update_remove(&["10.0.0.1:80".parse().unwrap()]))
        .await;
    assert_eq!(next(&mut live).await, (true, vec!["10.0.0.2:80".into()]));
    answer.send(&add(&["10.0.0.3:80"])).await;
    assert_eq!(
        next(&mut live).await,
        (true, vec!["10.0.0.2:80".into(), "10.0.0.3:80".into()])
    );
    answer.send(&update_none(false)).await;
    assert_eq!(next(&mut live).await, (false, vec![]));
}

#[tokio::test]
async fn the_first_add_after_a_reconnect_replaces_the_endpoints() {
    let mut fake = Fake::start().await;
    let mut live = discovery(&fake).endpoints("web.default:80".into());
    let answer = fake.call("/Get").await.open();
    answer.send(&add(&["10.0.0.1:80", "10.0.0.2:80"])).await;
    let before = live.changed().await.unwrap();
    answer.reset().await;
    let answer = fake.call("/Get").await.open();
    assert_eq!(live.get(), before, "they stay while the stream is away");
    answer.send(&add(&["10.0.0.2:80"])).await;
    assert_eq!(next(&mut live).await, (true, vec!["10.0.0.2:80".into()]));
    answer.send(&add(&["10.0.0.4:80"])).await;
    assert_eq!(
        next(&mut live).await,
        (true, vec!["10.0.0.2:80".into(), "10.0.0.4:80".into()])
    );
}

#[tokio::test]
async fn an_update_of_nonsense_changes_no_endpoint() {
    let mut fake = Fake::start().await;
    let mut live = discovery(&fake).endpoints("web.default:80".into());
    let answer = fake.call("/Get").await.open();
    answer.send(&add(&["10.0.0.1:80"])).await;
    next(&mut live).await;
    let nowhere = add(&["10.0.0.2:0"]);
    for nonsense in [Update::default(), nowhere] {
        answer.send(&nonsense).await;
    }
    answer.send(&add(&["10.0.0.3:80"])).await;
    assert_eq!(
        next(&mut live).await,
        (true, vec!["10.0.0.1:80".into(), "10.0.0.3:80".into()])
    );
}

#[tokio::test]
async fn more_endpoints_than_the_bound_are_refused() {
    let mut fake = Fake::start().await;
    let mut live = discovery(&fake).endpoints("web.default:80".into());
    let answer = fake.call("/Get").await.open();
    let block = |net: u8, count: u32| {
        let addrs = (0..count).map(|i| format!("10.{net}.{}.{}:80", i / 256, i % 256));
        let endpoints: Vec<_> = addrs.map(|addr| at(&addr)).collect();
        update_add(&endpoints, Default::default())
    };
    answer.send(&block(1, 9_999)).await;
    assert_eq!(next(&mut live).await.1.len(), 9_999);
    answer.send(&block(2, 2)).await;
    answer.send(&block(3, 1)).await;
    assert_eq!(next(&mut live).await.1.len(), 10_000);
}

#[tokio::test]
async fn a_service_that_is_refused_has_no_endpoints() {
    let mut fake = Fake::start().await;
    let mut live = discovery(&fake).endpoints("no-service".into());
    fake.call("/Get").await.refuse(Code::InvalidArgument);
    assert_eq!(next(&mut live).await, (false, vec![]));
}

#[tokio::test]
async fn the_default_holds_for_a_port_until_the_control_plane_has_spoken() {
    let mut fake = Fake::start().await;
    let discovery = discovery(&fake);
    let default = default_inbound(DefaultPolicy::AllUnauthenticated);
    let mut live = discovery.inbound(8080);
    assert_eq!(
        **live.get_and_mark_seen(),
        default_policy::of_port(&default, 8080)
    );
    let policy = default_policy::of_port(&default_inbound(DefaultPolicy::AllAuthenticated), 8080);
    let answer = fake.call("/WatchPort").await.open();
    answer.send(&encode::inbound::server(&policy).unwrap()).await;
    assert_eq!(live.changed().await.unwrap().meta, policy.meta);
    answer.reset().await;
    let _again = fake.call("/WatchPort").await;
    assert_eq!(live.get().meta, policy.meta, "it stays while the stream is away");
}

#[tokio::test]
async fn a_first_server_that_cannot_be_read_admits_nobody_and_a_later_one_changes_nothing() {
    let mut fake = Fake::start().await;
    let mut live = discovery(&fake).inbound(8080);
    let answer = fake.call("/WatchPort").await.open();
    answer.send(&Server::default()).await;
    assert!(matches!(
        live.changed().await.unwrap().protocol,
        InboundProtocol::Invalid(_)
    ));
    let send =
        |policy| encode::inbound::server(&default_policy::of_port(&default_inbound(policy), 8080)).unwrap();
    answer.send(&send(DefaultPolicy::AllAuthenticated)).await;
    assert_eq!(&*live.changed().await.unwrap().meta.name, "all-authenticated");
    answer.send(&Server::default()).await;
    answer.send(&send(DefaultPolicy::AllUnauthenticated)).await;
    assert_eq!(&*live.changed().await.unwrap().meta.name, "all-unauthenticated");
}

#[tokio::test]
async fn everything_stays_while_the_control_plane_is_away_and_goes_on_when_it_returns() {
    let mut fake = Fake::start().await;
    let (addr, discovery) = (fake.addr, discovery(&fake));
    let mut live = discovery.endpoints("web.default:80".into());
    let answer = fake.call("/Get").await.open();
    answer.send(&add(&["10.0.0.1:80"])).await;
    let before = live.changed().await.unwrap();
    drop(fake);
    while discovery.is_connected() {
        tokio::task::yield_now().await;
    }
    assert_eq!(live.get(), before);
    let mut fake = Fake::at(addr, None).await;
    let answer = fake.call("/Get").await.open();
    answer.send(&add(&["10.0.0.2:80"])).await;
    assert_eq!(next(&mut live).await, (true, vec!["10.0.0.2:80".into()]));
}

#[test]
fn a_default_policy_admits_whom_its_name_says() {
    use outrigger_policy::authz::{ClientTls, authorize};
    use outrigger_policy::name::Identity;
    let meshed = ClientTls::Terminated(Some(Identity::parse("spiffe://root/web").unwrap()));
    let admits = |policy, client: &str, tls: &ClientTls| {
        let of_port: InboundPolicy = default_policy::of_port(&default_inbound(policy), 80);
        authorize(&of_port.authorizations, client.parse().unwrap(), tls).is_ok()
    };
    for (policy, expected) in [
        (DefaultPolicy::Deny, [false, false, false, false]),
        (DefaultPolicy::AllAuthenticated, [false, true, false, true]),
        (DefaultPolicy::AllUnauthenticated, [true, true, true, true]),
        (DefaultPolicy::ClusterAuthenticated, [false, true, false, false]),
        (DefaultPolicy::ClusterUnauthenticated, [true, true, false, false]),
        (DefaultPolicy::Audit, [true, true, true, true]),
    ] {
        let clients = [
            ("10.1.1.1", &ClientTls::None),
            ("10.1.1.1", &meshed),
            ("2001:db8::1", &ClientTls::None),
            ("192.0.2.1", &meshed),
        ];
        assert_eq!(
            clients.map(|(client, tls)| admits(policy, client, tls)),
            expected,
            "{policy:?}"
        );
    }
}

#[test]
fn ports_without_detection_and_denied_ones_are_opaque_by_default() {
    let protocol = |policy, port| default_policy::of_port(&default_inbound(policy), port).protocol;
    assert!(matches!(
        protocol(DefaultPolicy::AllUnauthenticated, 80),
        InboundProtocol::Detect { .. }
    ));
    assert_eq!(
        protocol(DefaultPolicy::AllUnauthenticated, 3306),
        InboundProtocol::Opaque
    );
    assert_eq!(protocol(DefaultPolicy::Deny, 80), InboundProtocol::Opaque);
}
