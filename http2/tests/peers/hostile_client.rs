//! Clients that break the protocol, before our server.

use outrigger_http2::Reason;
use outrigger_http2::server::{self, Accepted, Config};

use crate::support::*;

async fn forever(accepted: Accepted) {
    let _held = accepted;
    std::future::pending::<()>().await;
}

/// The code of the GOAWAY that these bytes bring about, and what the server says of it.
async fn ends_with(bytes: &[u8]) -> u32 {
    let (mut raw, server) = Raw::client(Config::default(), echo).await;
    raw.until_pong().await;
    raw.write(bytes).await;
    let code = raw.end().await;
    let error = within(server).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::from(code)));
    assert!(error.is_go_away() && !error.is_remote());
    code
}

#[tokio::test(start_paused = true)]
async fn frames_of_sizes_that_they_cannot_have_end_the_connection() {
    let open = frame(HEADERS, END_HEADERS, 1, &request("POST", &[]));
    for wrong in [
        frame(SETTINGS, 0, 0, &[0; 5]),
        frame(SETTINGS, ACK, 0, &[0; 6]),
        frame(PING, 0, 0, &[0; 7]),
        frame(PING, ACK, 0, &[0; 9]),
        frame(GOAWAY, 0, 0, &[0; 7]),
        frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
        frame(WINDOW_UPDATE, 0, 1, &[0; 5]),
        frame(RST_STREAM, 0, 1, &[0; 3]),
        frame(HEADERS, END_HEADERS | PRIORITIZED, 3, &[0; 4]),
        frame(DATA, 0, 1, &[0; 16_385]),
        frame(0xff, 0, 0, &[0; 16_385]),
    ] {
        assert_eq!(
            ends_with(&[&open[..], &wrong].concat()).await,
            6,
            "{:?}",
            &wrong[..9]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn frames_where_they_have_no_place_end_the_connection() {
    let open = frame(HEADERS, END_HEADERS, 3, &request("POST", &[]));
    let begun = frame(HEADERS, 0, 5, &request("POST", &[]));
    let on_nothing = [
        frame(DATA, 0, 0, b"x"),
        frame(HEADERS, WHOLE, 0, &request("GET", &[])),
        frame(RST_STREAM, 0, 0, &[0; 4]),
        frame(CONTINUATION, END_HEADERS, 0, b""),
        frame(PRIORITY, 0, 0, &[0; 5]),
        frame(SETTINGS, 0, 3, b""),
        frame(PING, 0, 3, &[0; 8]),
        frame(GOAWAY, 0, 3, &[0; 8]),
    ];
    let idle = [
        frame(DATA, 0, 5, b"x"),
        frame(DATA, 0, 2, b"x"),
        number(RST_STREAM, 5, 8),
        number(WINDOW_UPDATE, 5, 1),
        frame(HEADERS, WHOLE, 2, &request("GET", &[])),
        frame(CONTINUATION, END_HEADERS, 3, b""),
        frame(PUSH_PROMISE, END_HEADERS, 3, &[0, 0, 0, 2]),
    ];
    let amid_block = [
        [&begun[..], &frame(PING, 0, 0, &[0; 8])].concat(),
        [&begun[..], &frame(CONTINUATION, END_HEADERS, 3, b"")].concat(),
        [&begun[..], &frame(0xff, 0, 0, b"")].concat(),
        [&begun[..], &frame(DATA, 0, 3, b"")].concat(),
    ];
    let padding = [
        frame(DATA, PADDED, 3, &[1]),
        frame(DATA, PADDED, 3, b""),
        frame(HEADERS, PADDED, 5, &[9, 9]),
    ];
    for wrong in on_nothing.iter().chain(&idle).chain(&amid_block).chain(&padding) {
        assert_eq!(ends_with(&[&open[..], wrong].concat()).await, 1, "{wrong:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn settings_that_cannot_be_end_the_connection() {
    for (entry, code) in [
        ((2, 2), 1),
        ((4, 1 << 31), 3),
        ((5, 16_383), 1),
        ((5, 1 << 24), 1),
        ((8, 2), 1),
    ] {
        assert_eq!(ends_with(&settings(&[entry])).await, code, "{entry:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_frame_is_settings() {
    for first in [
        frame(PING, 0, 0, &[0; 8]),
        frame(SETTINGS, ACK, 0, b""),
        frame(0xff, 0, 0, b""),
    ] {
        let (here, there) = tokio::io::duplex(1 << 16);
        let server = serve(there, Config::default(), echo);
        let mut raw = Raw { io: here };
        raw.write(PREFACE).await;
        raw.write(&first).await;
        assert_eq!(raw.end().await, 1);
        assert!(within(server).await.unwrap().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn frames_on_streams_that_have_ended_are_that_streams_fault() {
    let (mut raw, _server) = Raw::client(Config::default(), forever).await;
    raw.send(HEADERS, WHOLE, 1, &request("POST", &[])).await;
    raw.send(DATA, 0, 1, b"more").await;
    assert_eq!(raw.reset().await, (1, 5));
    raw.send(HEADERS, WHOLE, 3, &request("POST", &[])).await;
    raw.send(HEADERS, WHOLE, 3, &block(&[("x", "y")])).await;
    assert_eq!(raw.reset().await, (3, 5));
    // Numbers only rise.
    raw.send(HEADERS, WHOLE, 7, &request("GET", &[])).await;
    raw.send(HEADERS, WHOLE, 5, &request("GET", &[])).await;
    assert_eq!(raw.end().await, 5);
}

#[tokio::test(start_paused = true)]
async fn priorities_mean_nothing_unless_they_are_broken() {
    let (mut raw, _server) = Raw::client(Config::default(), echo).await;
    raw.send(PRIORITY, 0, 9, &[0, 0, 0, 1, 5]).await;
    raw.send(HEADERS, END_HEADERS, 1, &request("POST", &[])).await;
    raw.next_of(HEADERS).await;
    raw.send(PRIORITY, 0, 1, &[0x80, 0, 0, 1, 5]).await;
    assert_eq!(raw.reset().await, (1, 1));
    let itself = [&[0, 0, 0, 3, 5][..], &request("GET", &[])].concat();
    raw.send(HEADERS, WHOLE | PRIORITIZED, 3, &itself).await;
    assert_eq!(raw.reset().await, (3, 1));
    raw.send(HEADERS, END_HEADERS, 5, &request("POST", &[])).await;
    raw.send(PRIORITY, 0, 5, &[0; 4]).await;
    assert_eq!(raw.reset().await, (5, 6));
}

#[tokio::test(start_paused = true)]
async fn what_extensions_bring_is_ignored() {
    let (mut raw, _server) = Raw::client(Config::default(), echo).await;
    raw.until_pong().await;
    raw.send(0xff, 0xff, 9, b"what?").await;
    raw.write(&settings(&[(0xffff, 1)])).await;
    raw.send(HEADERS, WHOLE | 0xc2, 1, &request("GET", &[])).await;
    assert_eq!(raw.next_of(HEADERS).await.stream, 1);
}

#[tokio::test(start_paused = true)]
async fn header_blocks_without_end_end_the_connection() {
    let begun = frame(HEADERS, 0, 1, &request("GET", &[]));
    let empty = frame(CONTINUATION, 0, 1, b"").repeat(33);
    assert_eq!(ends_with(&[&begun[..], &empty].concat()).await, 11);
    let large = frame(CONTINUATION, 0, 1, &[0; 16_000]).repeat(3);
    assert_eq!(ends_with(&[&begun[..], &large].concat()).await, 11);
}

/// One field of 3,000 bytes that the table keeps, so many times.
fn unfolding(times: usize) -> Vec<u8> {
    let mut bomb = vec![0x40, 1, b'x', 127, 0xb9, 0x16];
    bomb.extend([b'v'; 3_000]);
    bomb.extend(vec![0x80 | 62; times]);
    [request("GET", &[]), bomb].concat()
}

#[tokio::test(start_paused = true)]
async fn a_small_block_that_unfolds_to_megabytes_ends_the_connection() {
    let (mut raw, _server) = Raw::client(Config::default(), echo).await;
    raw.send(HEADERS, WHOLE, 1, &unfolding(10_000)).await;
    let goodbye = raw.next_of(GOAWAY).await;
    assert_eq!(goodbye.number(4), 11);
    assert_eq!(&goodbye.payload[8..], b"header_list_way_too_large");
}

#[tokio::test(start_paused = true)]
async fn a_small_block_that_unfolds_is_answered_431() {
    let (mut raw, _server) = Raw::client(Config::default(), echo).await;
    raw.send(HEADERS, WHOLE, 1, &unfolding(12)).await;
    let answer = raw.next_of(HEADERS).await;
    assert_eq!(answer.flags, WHOLE);
    // What follows builds on the table.
    raw.send(
        HEADERS,
        WHOLE,
        3,
        &[request("GET", &[]), vec![0x80 | 62]].concat(),
    )
    .await;
    assert_eq!(raw.next_of(HEADERS).await.stream, 3);
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_reset_before_anybody_saw_them_have_a_limit() {
    let config = Config {
        early_resets: 50,
        ..Config::default()
    };
    let (mut raw, server) = Raw::client(config, forever).await;
    let mut flood = Vec::new();
    for id in (1..=101).step_by(2) {
        flood.extend(frame(HEADERS, WHOLE, id, &request("GET", &[])));
        flood.extend(number(RST_STREAM, id, 8));
    }
    raw.write(&flood).await;
    assert_eq!(raw.end().await, 11);
    assert!(within(server).await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn streams_that_a_client_makes_us_reset_have_a_limit() {
    let config = Config {
        made_resets: 50,
        ..Config::default()
    };
    let (mut raw, _server) = Raw::client(config, forever).await;
    for id in (1..=101).step_by(2) {
        raw.send(HEADERS, WHOLE, id, &request("GET", &[])).await;
        raw.write(&number(WINDOW_UPDATE, id, 0)).await;
    }
    assert_eq!(raw.end().await, 11);
}

#[tokio::test(start_paused = true)]
async fn one_request_more_than_there_may_be_is_refused_however_the_others_were_reset() {
    let (mut raw, _server) = Raw::client(Config::default(), forever).await;
    for id in (1..=399).step_by(2) {
        raw.send(HEADERS, WHOLE, id, &request("GET", &[])).await;
        raw.until_pong().await;
        raw.write(&number(RST_STREAM, id, 8)).await;
    }
    for id in (401..=601).step_by(2) {
        raw.send(HEADERS, WHOLE, id, &request("GET", &[])).await;
    }
    assert_eq!(raw.reset().await, (601, 7));
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_reset_is_refused_though_somebody_holds_the_stream() {
    let (mut raw, _server) = Raw::client(Config::default(), forever).await;
    raw.send(HEADERS, END_HEADERS, 1, &request("POST", &[])).await;
    raw.until_pong().await;
    raw.write(&number(RST_STREAM, 1, 8)).await;
    raw.send(DATA, 0, 1, b"late").await;
    assert_eq!(raw.reset().await, (1, 5));
}

/// Bytes that look like frames, somewhat.
fn garbage(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..20) {
        let mut payload = vec![0; random.usize(0..40)];
        random.fill(&mut payload);
        let kind = random.u8(0..11);
        if kind == HEADERS && random.bool() {
            payload = request("POST", &[]);
            let at = random.usize(0..payload.len());
            payload[at] ^= random.u8(0..4);
        }
        bytes.extend(frame(kind, random.u8(..) & 0x2d, random.u32(0..8), &payload));
    }
    if random.bool() {
        let at = random.usize(0..bytes.len());
        bytes[at] = random.u8(..);
    }
    bytes
}

#[tokio::test(start_paused = true)]
async fn garbage_harms_nobody() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..3_000 {
        let (here, there) = tokio::io::duplex(1 << 20);
        let server = tokio::spawn(async move {
            let mut connection = server::handshake(there, &Config::default()).await?;
            while let Some(accepted) = connection.accept().await {
                tokio::spawn(garbled_echo(accepted?));
            }
            Ok::<_, outrigger_http2::Error>(())
        });
        let mut raw = Raw { io: here };
        raw.write(PREFACE).await;
        raw.write(&settings(&[])).await;
        raw.write(&garbage(&mut random)).await;
        tokio::io::AsyncWriteExt::shutdown(&mut raw.io).await.unwrap();
        drop(within(server).await.expect("it does not panic"));
        while raw.next().await.is_some() {}
    }
}

/// Answers what it can.
async fn garbled_echo(accepted: Accepted) {
    let mut out = accepted.send;
    if out.send_head(&ok(), false).is_err() {
        return;
    }
    if let Some(mut recv) = accepted.recv {
        drop(read(&mut recv).await);
    }
    drop(send(&mut out, &b"x"[..], true).await);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_there_is_not_reset() {
    let (mut raw, _server) = Raw::client(Config::default(), echo).await;
    raw.send(PRIORITY, 0, 5, &[0, 0, 0, 5, 1]).await;
    assert_eq!(raw.next_of(GOAWAY).await.number(4), 1);
}
