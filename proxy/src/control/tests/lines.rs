//! Several addresses, and peers that limit their streams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_proto::destination::destination_client::DestinationClient;
use outrigger_proto::destination::{DestinationProfile, GetDestination};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tonic::{Status, Streaming};

use crate::config::Backoff;
use crate::control::channel::Channel;
use crate::control::keeper::Keeper;
use crate::control::lines::Lines;
use crate::control::metrics::Client;
use crate::control::testing::{Answer, Fake, HTTP2, address, metrics};
use crate::live::Live;
use crate::tls::testing::Ca;

/// A channel to whatever addresses the sender says. After the pause of a second failure it would wait for an hour.
fn channel(addresses: &[SocketAddr]) -> (Channel, watch::Sender<Vec<SocketAddr>>) {
    let (known, taken) = watch::channel(addresses.to_vec());
    let mut addr = address(addresses[0], None);
    let hour = Duration::from_secs(3600);
    addr.connect.backoff = Backoff {
        min: hour,
        max: hour,
        jitter: 0.0,
    };
    let metrics = metrics().channel(Client::Destination);
    let keeper = Keeper {
        client: Client::Destination,
        addr,
        http2: HTTP2,
        credentials: Live::fixed(Ca::new("unused").credentials("web.test")),
        lines: Lines::new(metrics.clone()),
        metrics,
        ask_again: Arc::new(Notify::new()),
    };
    let channel = Channel::keep(keeper, taken, &Handle::current(), std::future::pending()).unwrap();
    (channel, known)
}

async fn watch(channel: Channel) -> Result<Streaming<DestinationProfile>, Status> {
    let mut client = DestinationClient::new(channel);
    let answer = client.get_profile(GetDestination::default()).await?;
    Ok(answer.into_inner())
}

/// Opens a watch; what it is answered with comes from the fake.
async fn opened(channel: &Channel, fake: &mut Fake) -> (Streaming<DestinationProfile>, Answer) {
    let watched = tokio::spawn(watch(channel.clone()));
    let answer = fake.call("/GetProfile").await.open();
    (watched.await.unwrap().unwrap(), answer)
}

#[tokio::test]
async fn after_the_first_failure_another_address_is_tried_at_once() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = closed.local_addr().unwrap();
    drop(closed);
    for _ in 0..8 {
        let mut fake = Fake::start().await;
        let (channel, _known) = channel(&[dead, fake.addr]);
        opened(&channel, &mut fake).await;
    }
}

#[tokio::test]
async fn a_channel_moves_when_its_address_leaves() {
    let (mut old, mut new) = (Fake::start().await, Fake::start().await);
    let (channel, known) = channel(&[old.addr]);
    let (mut watched, _answer) = opened(&channel, &mut old).await;
    known.send_replace(vec![new.addr]);
    watched.message().await.unwrap_err();
    opened(&channel, &mut new).await;
}

#[tokio::test]
async fn a_channel_stays_while_its_new_addresses_refuse_it() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = closed.local_addr().unwrap();
    drop(closed);
    let mut old = Fake::start().await;
    let (channel, known) = channel(&[old.addr]);
    let _first = opened(&channel, &mut old).await;
    known.send_replace(vec![dead]);
    opened(&channel, &mut old).await;
    known.send_replace(Vec::new());
    opened(&channel, &mut old).await;
}

#[tokio::test]
async fn streams_beyond_the_peers_limit_open_more_connections() {
    let mut fake = Fake::limited(2).await;
    let (channel, _known) = channel(&[fake.addr]);
    let mut open = Vec::new();
    for _ in 0..7 {
        open.push(opened(&channel, &mut fake).await);
    }
    for (_, answer) in open.drain(..) {
        answer.end(tonic::Code::Ok).await;
    }
}

#[tokio::test]
async fn a_stream_for_which_there_is_no_room_waits_for_another_to_end() {
    let mut fake = Fake::limited(1).await;
    let (channel, _known) = channel(&[fake.addr]);
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(opened(&channel, &mut fake).await);
    }
    let waiting = tokio::spawn(watch(channel));
    drop(open.pop());
    let _answer = fake.call("/GetProfile").await.open();
    waiting.await.unwrap().unwrap();
}
