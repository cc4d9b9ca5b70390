//! Each API stream, ending in each way.

use std::time::Duration;

use outrigger_policy::backoff::Backoff;
use outrigger_proto::destination::destination_client::DestinationClient;
use outrigger_proto::destination::{GetDestination, NoEndpoints, Update as Message, update};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::config::StreamTimeouts;
use crate::control::channel::Channel;
use crate::control::stream::{ENDPOINTS, INBOUND, Kind, OUTBOUND, PROFILE, Update, Upkeep, follow};
use crate::control::testing::{Call, Fake, metrics};

const KINDS: [Kind; 4] = [ENDPOINTS, PROFILE, OUTBOUND, INBOUND];

/// How a stream can end.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Status(Code),
    Reset,
    Garbage,
    Silence,
}

fn upkeep(kind: Kind) -> Upkeep {
    Upkeep {
        kind,
        backoff: Backoff::try_new(Duration::from_millis(1), Duration::from_millis(5), 0.0).unwrap(),
        timeouts: StreamTimeouts::default(),
        metrics: metrics().stream(kind.name),
    }
}

/// Follows a stream; what `apply` is shown comes out of the queue. An update without content is refused.
fn followed(upkeep: Upkeep, channel: Channel) -> (JoinHandle<Status>, mpsc::Receiver<bool>) {
    let (shown, taken) = mpsc::channel(16);
    let task = tokio::spawn(async move {
        let client = DestinationClient::new(channel);
        let open = || {
            let mut client = client.clone();
            async move { client.get(GetDestination::default()).await }
        };
        let apply = |update: Update<Message>| {
            shown.try_send(update.first).unwrap();
            update.message.update.map(|_| ()).ok_or("empty")
        };
        follow(&upkeep, open, apply).await
    });
    (task, taken)
}

fn message() -> Message {
    let update = Some(update::Update::NoEndpoints(NoEndpoints { exists: true }));
    Message { update }
}

async fn end(call: Call, ending: Ending, after_a_message: bool) {
    if let (Ending::Status(code), false) = (ending, after_a_message) {
        return call.refuse(code);
    }
    let answer = call.open();
    if after_a_message {
        answer.send(&message()).await;
    }
    match ending {
        Ending::Status(code) => answer.end(code).await,
        Ending::Reset => answer.reset().await,
        Ending::Garbage => answer.send_bytes(b"\xff\xff\xff").await,
        Ending::Silence => answer.abandoned().await,
    }
}

#[tokio::test]
async fn a_stream_ends_for_good_on_its_terminal_codes_only() {
    let codes = (0..=16).map(|code| Ending::Status(Code::from_i32(code)));
    let endings: Vec<_> = codes.chain([Ending::Reset, Ending::Garbage]).collect();
    let mut fake = Fake::start().await;
    let channel = fake.channel();
    for (kind, after) in KINDS.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        for &ending in &endings {
            let (mut task, _shown) = followed(upkeep(kind), channel.clone());
            end(fake.call("/Get").await, ending, after).await;
            let over = tokio::select! {
                status = &mut task => Some(status.unwrap().code()),
                _again = fake.call("/Get") => None,
            };
            task.abort();
            let terminal = matches!(ending, Ending::Status(code) if kind.terminal.contains(&code));
            assert_eq!(
                over.is_some(),
                terminal,
                "{} {ending:?} after a message: {after}",
                kind.name
            );
        }
    }
}

#[tokio::test]
async fn a_silent_stream_is_opened_again_when_its_timeout_says_so() {
    let mut fake = Fake::start().await;
    let ms = Duration::from_millis(30);
    let timeouts = [
        (
            false,
            StreamTimeouts {
                lifetime: Some(ms),
                ..StreamTimeouts::default()
            },
        ),
        (
            false,
            StreamTimeouts {
                initial: Some(ms),
                ..StreamTimeouts::default()
            },
        ),
        (
            true,
            StreamTimeouts {
                idle: Some(ms),
                ..StreamTimeouts::default()
            },
        ),
        (
            true,
            StreamTimeouts {
                lifetime: Some(ms),
                ..StreamTimeouts::default()
            },
        ),
    ];
    for (after, timeouts) in timeouts {
        let upkeep = Upkeep {
            timeouts,
            ..upkeep(OUTBOUND)
        };
        let (task, _shown) = followed(upkeep, fake.channel());
        end(fake.call("/Get").await, Ending::Silence, after).await;
        let _again = fake.call("/Get").await;
        task.abort();
    }
}

#[tokio::test]
async fn a_message_that_is_refused_is_counted_and_the_stream_stays() {
    let mut fake = Fake::start().await;
    let upkeep = upkeep(ENDPOINTS);
    let counts = upkeep.metrics.clone();
    let (_task, mut shown) = followed(upkeep, fake.channel());
    let answer = fake.call("/Get").await.open();
    for message in [Message::default(), Message::default(), message()] {
        answer.send(&message).await;
    }
    assert_eq!(
        (shown.recv().await, shown.recv().await, shown.recv().await),
        (Some(true), Some(false), Some(false))
    );
    assert_eq!((counts.undecodable.value(), counts.reopened.value()), (2, 0));
}

#[tokio::test]
async fn the_first_message_of_each_stream_is_marked() {
    let mut fake = Fake::start().await;
    let (_task, mut shown) = followed(upkeep(ENDPOINTS), fake.channel());
    for _ in 0..2 {
        let answer = fake.call("/Get").await.open();
        answer.send(&message()).await;
        answer.send(&message()).await;
        assert_eq!(
            (shown.recv().await, shown.recv().await),
            (Some(true), Some(false))
        );
        answer.end(Code::Ok).await;
    }
}
