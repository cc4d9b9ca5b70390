//! The connection to the control plane: who answers, and what happens when nobody does.

use outrigger_policy::name::{DnsName, Identity};
use outrigger_proto::destination::destination_client::DestinationClient;
use outrigger_proto::destination::{DestinationProfile, GetDestination};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tonic::Status;

use crate::control::channel::Channel;
use crate::control::metrics::{ChannelMetrics, Client};
use crate::control::testing::{Fake, HTTP2, address, metrics, open};
use crate::live::Live;
use crate::tls::testing::Ca;
use crate::tls::{self, Credentials};

const CONTROLLER: &str = "linkerd-destination.linkerd.serviceaccount.identity.linkerd.cluster.local";
const WEB: &str = "web.default.serviceaccount.identity.linkerd.cluster.local";

/// Asks for a profile and takes its first message.
async fn ask(channel: Channel) -> Result<Option<DestinationProfile>, Status> {
    let mut client = DestinationClient::new(channel);
    let answer = client.get_profile(GetDestination::default()).await?;
    answer.into_inner().message().await
}

fn profile(name: &str) -> DestinationProfile {
    DestinationProfile {
        fully_qualified_name: name.to_owned(),
        ..DestinationProfile::default()
    }
}

/// A channel by mutual TLS, and what it counts.
fn mesh_channel(ca: &Ca, fake: &Fake) -> (Channel, ChannelMetrics) {
    let metrics = metrics().channel(Client::Destination);
    let (addr, credentials) = (
        address(fake.addr, Some(CONTROLLER)),
        Live::fixed(ca.credentials(WEB)),
    );
    let channel = Channel::open(
        Client::Destination,
        &addr,
        &HTTP2,
        credentials,
        metrics.clone(),
        &Handle::current(),
    );
    (channel.unwrap(), metrics)
}

/// Waits until a condition holds; the test's own limit is the harness's.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_controller_with_the_right_name_is_spoken_to_by_tls() {
    let ca = Ca::new("ca");
    let mut fake = Fake::at("127.0.0.1:0".parse().unwrap(), Some(ca.credentials(CONTROLLER))).await;
    let (channel, metrics) = mesh_channel(&ca, &fake);
    let asked = tokio::spawn(ask(channel));
    fake.call("/GetProfile").await.reply(&profile("web")).await;
    assert_eq!(asked.await.unwrap().unwrap(), Some(profile("web")));
    assert_eq!(metrics.failures.value(), 0);
}

#[tokio::test]
async fn the_control_plane_is_called_with_a_certificate_or_not_at_all() {
    let ca = Ca::new("ca");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (id, name) = (Identity::parse(WEB).unwrap(), DnsName::parse(WEB).unwrap());
    let (publisher, credentials) = Live::new(Credentials::anchors_only(&ca.anchors(), id, name).unwrap());
    let addr = address(listener.local_addr().unwrap(), Some(CONTROLLER));
    let _channel = open(&addr, credentials);
    tokio::task::yield_now().await;
    publisher.set(ca.credentials(WEB));
    let (io, _) = listener.accept().await.unwrap();
    let accepted = tls::server::accept(&ca.credentials(CONTROLLER), io, false).await;
    assert_eq!(accepted.unwrap().client, Some(Identity::parse(WEB).unwrap()));
}

#[tokio::test]
async fn a_controller_of_another_authority_is_refused_and_tried_again() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let fake = Fake::at(
        "127.0.0.1:0".parse().unwrap(),
        Some(other.credentials(CONTROLLER)),
    )
    .await;
    let (channel, metrics) = mesh_channel(&ca, &fake);
    until(|| metrics.failures.value() > 2).await;
    assert!(!channel.is_connected());
}

#[tokio::test]
async fn a_controller_with_another_name_is_refused() {
    let ca = Ca::new("ca");
    let fake = Fake::at("127.0.0.1:0".parse().unwrap(), Some(ca.credentials(WEB))).await;
    let (channel, metrics) = mesh_channel(&ca, &fake);
    until(|| metrics.failures.value() > 2).await;
    assert!(!channel.is_connected());
}

#[tokio::test]
async fn a_request_waits_for_a_controller_that_comes_later() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let channel = open(&address(addr, None), Live::fixed(Ca::new("ca").credentials(WEB)));
    let asked = tokio::spawn(ask(channel));
    let mut fake = Fake::at(addr, None).await;
    fake.call("/GetProfile").await.reply(&profile("web")).await;
    assert_eq!(asked.await.unwrap().unwrap(), Some(profile("web")));
}

#[tokio::test]
async fn the_return_of_a_controller_is_noticed() {
    let mut fake = Fake::start().await;
    let (addr, channel) = (fake.addr, fake.channel());
    let first = tokio::spawn(ask(channel.clone()));
    let _unanswered = fake.call("/GetProfile").await;
    drop(fake);
    first.await.unwrap().unwrap_err();
    let mut fake = Fake::at(addr, None).await;
    let second = tokio::spawn(ask(channel));
    fake.call("/GetProfile").await.reply(&profile("web")).await;
    assert_eq!(second.await.unwrap().unwrap(), Some(profile("web")));
}

#[tokio::test]
async fn garbage_instead_of_http_2_is_no_connection_for_long() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = address(listener.local_addr().unwrap(), None);
    let channel = open(&addr, Live::fixed(Ca::new("ca").credentials(WEB)));
    for _ in 0..3 {
        let (mut io, _) = listener.accept().await.unwrap();
        io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    }
    drop(channel);
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_found_by_pings() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = address(listener.local_addr().unwrap(), None);
    let channel = open(&addr, Live::fixed(Ca::new("ca").credentials(WEB)));
    let asked = tokio::spawn(ask(channel.clone()));
    let (mut silent, _) = listener.accept().await.unwrap();
    // SETTINGS without any, and not a word after it.
    silent.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
    until(|| channel.is_connected()).await;
    // Only timers are left to do something: time jumps from one to the next.
    tokio::time::pause();
    asked.await.unwrap().unwrap_err();
    let (_again, _) = listener.accept().await.unwrap();
}

#[tokio::test]
async fn the_connection_closes_with_the_last_channel() {
    let mut fake = Fake::start().await;
    let channel = fake.channel();
    let asked = tokio::spawn(ask(channel.clone()));
    let answer = fake.call("/GetProfile").await.open();
    drop(channel);
    asked.abort();
    answer.abandoned().await;
}
