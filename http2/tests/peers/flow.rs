//! Flow control, and streams side by side: our client against our server, and frames by hand.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use outrigger_http2::client::{self, Opener};
use outrigger_http2::server::{self, Accepted};
use outrigger_http2::{Reason, Recv};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::task::JoinSet;

use crate::support::*;

/// Our client before our server, with so many bytes on their way at most.
async fn pair(on_way: usize, client: client::Config, server: server::Config) -> Opener {
    let (here, there) = tokio::io::duplex(on_way);
    serve(there, server, echo);
    connect(here, &client).await.0
}

/// Sends `length` bytes in pieces, and reads them back.
async fn round(opener: &mut Opener, length: usize, piece: usize) -> impl Future<Output = ()> + use<> {
    let (mut recv, out) = opener.open(&post(), false).unwrap();
    let mut out = out.unwrap();
    let sender = tokio::spawn(async move {
        let all = content(length);
        let mut pieces = all.chunks(piece).peekable();
        while let Some(piece) = pieces.next() {
            send(&mut out, piece.to_vec(), pieces.peek().is_none())
                .await
                .unwrap();
        }
    });
    async move {
        assert_eq!(head(&mut recv).await.unwrap().status(), 200);
        assert_eq!(read(&mut recv).await.unwrap(), content(length));
        sender.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_streams_share_a_connection_both_ways() {
    for on_way in [1_000, 100_000] {
        let client = client::Config {
            connection_window: 100_000,
            send_buffer: 20_000,
            ..client::Config::default()
        };
        let server = server::Config {
            max_streams: 200,
            connection_window: 65_535,
            stream_window: 20_000,
            send_buffer: 50_000,
            ..server::Config::default()
        };
        let mut opener = pair(on_way, client, server).await;
        let mut rounds = JoinSet::new();
        for _ in 0..200 {
            rounds.spawn(round(&mut opener, 100_000, 30_000).await);
        }
        while let Some(ended) = rounds.join_next().await {
            ended.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn smallest_pieces_both_ways_never_stall_the_connection() {
    let mut opener = pair(64, client::Config::default(), server::Config::default()).await;
    let mut rounds = JoinSet::new();
    for _ in 0..20 {
        rounds.spawn(round(&mut opener, 60_000, 1).await);
    }
    while let Some(ended) = rounds.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_read_one_stream_does_not_stop_the_others() {
    let mut opener = pair(10_000, client::Config::default(), server::Config::default()).await;
    let (mut slow, out) = opener.open(&post(), false).unwrap();
    let mut out = out.unwrap();
    let sender = tokio::spawn(async move { send(&mut out, content(200_000), true).await });
    head(&mut slow).await.unwrap();
    for _ in 0..3 {
        within(round(&mut opener, 300_000, 50_000).await).await;
    }
    assert!(!sender.is_finished());
    assert_eq!(read(&mut slow).await.unwrap(), content(200_000));
    sender.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_read_is_given_back_only_by_release() {
    let (mut raw, mut opener, _connection) = Raw::server(&[], &client::Config::default()).await;
    let (mut recv, _) = opener.open(&get("/"), true).unwrap();
    raw.send(HEADERS, END_HEADERS, 1, &response("200", &[])).await;
    for _ in 0..3 {
        raw.send(DATA, 0, 1, &[0; 16_384]).await;
    }
    let mut read = 0;
    while read < 3 * 16_384 {
        read += data(&mut recv).await.unwrap().unwrap().0.len();
    }
    let updates = |frames: Vec<Frame>| frames.iter().filter(|frame| frame.kind == WINDOW_UPDATE).count();
    // That of the connection is announced at its start.
    assert_eq!(updates(raw.until_pong().await), 1);
    recv.release(3 * 16_384);
    let update = raw.next_of(WINDOW_UPDATE).await;
    assert_eq!((update.stream, update.number(0)), (1, 3 * 16_384));
    // There is nothing more to release.
    recv.release(1 << 20);
    assert_eq!(updates(raw.until_pong().await), 0);
}

#[tokio::test(start_paused = true)]
async fn content_that_nobody_reads_is_given_back_to_the_connection() {
    let config = client::Config {
        connection_window: 65_535,
        ..client::Config::default()
    };
    let (mut raw, mut opener, _connection) = Raw::server(&[], &config).await;
    let mut given_back = 0;
    let mut kept = Vec::new();
    for id in (1..40).step_by(2) {
        let (recv, out) = opener.open(&post(), false).unwrap();
        raw.next_of(HEADERS).await;
        raw.send(HEADERS, END_HEADERS, id, &response("200", &[])).await;
        raw.send(DATA, 0, id, &[0; 10_000]).await;
        raw.until_pong().await;
        // It is given up by whoever reads, or by whoever sends.
        if id % 4 == 1 {
            drop((recv, out));
        } else {
            out.unwrap().reset(Reason::CANCEL);
            kept.push(recv);
        }
        // What was on its way when the stream was given up counts too.
        raw.send(DATA, END_STREAM, id, &[0; 6_000]).await;
        for frame in raw.until_pong().await {
            if frame.kind == WINDOW_UPDATE && frame.stream == 0 {
                given_back += frame.number(0);
            }
        }
    }
    assert!(given_back >= 20 * 16_000 - 65_535 / 2, "{given_back}");
}

#[tokio::test(start_paused = true)]
async fn padding_is_given_back_at_once() {
    let (mut raw, mut opener, _connection) = Raw::server(&[], &client::Config::default()).await;
    let (mut recv, _) = opener.open(&get("/"), true).unwrap();
    raw.send(HEADERS, END_HEADERS, 1, &response("200", &[])).await;
    let padded = [&[255][..], &[0; 255]].concat();
    for _ in 0..256 {
        raw.send(DATA, PADDED, 1, &padded).await;
    }
    let frames = raw.until_pong().await;
    assert!(
        frames
            .iter()
            .any(|frame| frame.kind == WINDOW_UPDATE && frame.stream == 1)
    );
    raw.send(DATA, END_STREAM, 1, b"x").await;
    head(&mut recv).await.unwrap();
    assert_eq!(read(&mut recv).await.unwrap(), b"x");
}

#[tokio::test(start_paused = true)]
async fn more_than_a_window_resets_the_stream_or_ends_the_connection() {
    let config = server::Config {
        stream_window: 1_000,
        connection_window: 65_535,
        ..server::Config::default()
    };
    let hold = |accepted: Accepted| async move {
        let _held = accepted;
        std::future::pending::<()>().await;
    };
    let (mut raw, server) = Raw::client(config, hold).await;
    raw.until_pong().await;
    raw.send(HEADERS, END_HEADERS, 1, &request("POST", &[])).await;
    raw.send(DATA, 0, 1, &[0; 1_000]).await;
    assert!(raw.until_pong().await.is_empty());
    raw.send(DATA, 0, 1, &[0; 1]).await;
    assert_eq!(raw.reset().await, (1, 3));
    for id in (3..).step_by(2).take(65) {
        raw.send(HEADERS, END_HEADERS, id, &request("POST", &[])).await;
        raw.send(DATA, 0, id, &[0; 1_000]).await;
    }
    raw.send(DATA, 0, 131, &[0; 1_000]).await;
    raw.send(HEADERS, END_HEADERS, 133, &request("POST", &[])).await;
    raw.send(DATA, 0, 133, &[0; 1_000]).await;
    assert_eq!(raw.end().await, 3);
    assert_eq!(
        within(server).await.unwrap().unwrap_err().reason(),
        Some(Reason::FLOW_CONTROL_ERROR)
    );
}

#[tokio::test(start_paused = true)]
async fn windows_that_overflow_reset_the_stream_or_end_the_connection() {
    let (mut raw, _server) = Raw::client(server::Config::default(), echo).await;
    raw.send(HEADERS, END_HEADERS, 1, &request("POST", &[])).await;
    raw.write(&number(WINDOW_UPDATE, 1, (1 << 31) - 1)).await;
    assert_eq!(raw.reset().await, (1, 3));
    raw.send(HEADERS, END_HEADERS, 3, &request("POST", &[])).await;
    raw.write(&number(WINDOW_UPDATE, 3, 0)).await;
    assert_eq!(raw.reset().await, (3, 1));
    raw.write(&number(WINDOW_UPDATE, 0, (1 << 31) - 1)).await;
    assert_eq!(raw.end().await, 3);
    let (mut raw, _server) = Raw::client(server::Config::default(), echo).await;
    raw.send(HEADERS, END_HEADERS, 1, &request("POST", &[])).await;
    raw.write(&number(WINDOW_UPDATE, 1, (1 << 31) - 1 - 65_535)).await;
    raw.write(&settings(&[(4, 65_536)])).await;
    assert_eq!(raw.end().await, 3);
    let (mut raw, _server) = Raw::client(server::Config::default(), echo).await;
    raw.write(&number(WINDOW_UPDATE, 0, 0)).await;
    assert_eq!(raw.end().await, 1);
}

/// The bytes of DATA among frames.
fn sent(frames: &[Frame]) -> usize {
    let data = frames.iter().filter(|frame| frame.kind == DATA);
    data.map(|frame| frame.payload.len()).sum()
}

#[tokio::test(start_paused = true)]
async fn a_window_may_become_negative_and_open_again() {
    let (mut raw, mut opener, _connection) = Raw::server(&[(4, 1_000)], &client::Config::default()).await;
    let (_recv, out) = opener.open(&post(), false).unwrap();
    let sender = tokio::spawn(async move { send(&mut out.unwrap(), content(2_500), true).await });
    all_wait().await;
    assert_eq!(sent(&raw.until_pong().await), 1_000);
    raw.write(&settings(&[(4, 100)])).await;
    // It is at -900 now.
    raw.write(&number(WINDOW_UPDATE, 1, 900)).await;
    all_wait().await;
    assert_eq!(sent(&raw.until_pong().await), 0);
    for (more, expected) in [(number(WINDOW_UPDATE, 1, 5), 5), (settings(&[(4, 600)]), 500)] {
        raw.write(&more).await;
        all_wait().await;
        assert_eq!(sent(&raw.until_pong().await), expected);
    }
    assert!(!sender.is_finished());
    raw.write(&settings(&[(4, 10_000)])).await;
    within(sender).await.unwrap().unwrap();
    assert_eq!(sent(&raw.until_pong().await), 2_500 - 1_505);
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_for_the_connections_window_go_on_when_it_opens() {
    let (mut raw, mut opener, _connection) = Raw::server(&[(4, 1 << 20)], &client::Config::default()).await;
    let mut senders = JoinSet::new();
    let mut held = Vec::new();
    for _ in 0..3 {
        let (recv, out) = opener.open(&post(), false).unwrap();
        held.push(recv);
        senders.spawn(async move { send(&mut out.unwrap(), content(40_000), true).await });
    }
    all_wait().await;
    assert_eq!(sent(&raw.until_pong().await), 65_535);
    raw.write(&number(WINDOW_UPDATE, 0, 120_000 - 65_535)).await;
    while let Some(ended) = within(senders.join_next()).await {
        ended.unwrap().unwrap();
    }
    assert_eq!(sent(&raw.until_pong().await), 120_000 - 65_535);
}

#[tokio::test(start_paused = true)]
async fn a_smaller_window_than_the_usual_holds_once_it_is_known() {
    let (here, there) = tokio::io::duplex(1 << 20);
    let config = server::Config {
        stream_window: 1_000,
        ..server::Config::default()
    };
    let hold = |accepted: Accepted| async move {
        let _held = accepted;
        std::future::pending::<()>().await;
    };
    serve(there, config, hold);
    let mut raw = Raw { io: here };
    raw.write(PREFACE).await;
    raw.write(&settings(&[])).await;
    for id in [1, 3] {
        raw.send(HEADERS, END_HEADERS, id, &request("POST", &[])).await;
    }
    // It may not know of the smaller one yet.
    raw.send(DATA, 0, 1, &[0; 10_000]).await;
    raw.send(SETTINGS, ACK, 0, b"").await;
    raw.send(DATA, 0, 3, &[0; 1_000]).await;
    let frames = raw.until_pong().await;
    assert!(frames.iter().all(|frame| frame.kind != RST_STREAM));
    for id in [1, 3] {
        raw.send(DATA, 0, id, b"x").await;
        assert_eq!(raw.reset().await, (id, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn frames_are_no_longer_than_the_peer_takes() {
    for (max, longest) in [(16_384, 16_384), (20_000, 20_000)] {
        let allowed = [(5, max), (4, 1 << 20)];
        let (mut raw, mut opener, _connection) = Raw::server(&allowed, &client::Config::default()).await;
        let (_recv, out) = opener.open(&post(), false).unwrap();
        let _sender = tokio::spawn(async move { send(&mut out.unwrap(), content(60_000), true).await });
        assert_eq!(raw.next_of(DATA).await.payload.len(), longest);
    }
}

/// Lets one byte through at a time, and then waits.
#[derive(Debug)]
struct Dribble {
    io: DuplexStream,
    read: bool,
    wrote: bool,
}

impl Dribble {
    fn new(io: DuplexStream) -> Self {
        Self {
            io,
            read: false,
            wrote: false,
        }
    }
}

/// Every other time, nothing happens.
fn rests(did: &mut bool, cx: &Context<'_>) -> bool {
    *did = !*did;
    if !*did {
        cx.waker().wake_by_ref();
    }
    !*did
}

impl AsyncRead for Dribble {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if rests(&mut self.read, cx) {
            return Poll::Pending;
        }
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        let read = Pin::new(&mut self.io).poll_read(cx, &mut one);
        buf.put_slice(one.filled());
        read
    }
}

impl AsyncWrite for Dribble {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if rests(&mut self.wrote, cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_write(cx, &buf[..1])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_may_come_and_go_one_at_a_time() {
    let (here, there) = tokio::io::duplex(100);
    serve(Dribble::new(there), server::Config::default(), echo);
    let config = client::Config::default();
    let (mut opener, _connection) = connect(Dribble::new(here), &config).await;
    for _ in 0..3 {
        within(round(&mut opener, 20_000, 5_000).await).await;
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_in_another_task_is_woken() {
    let mut opener = pair(1_000, client::Config::default(), server::Config::default()).await;
    let (mut recv, out) = opener.open(&post(), false).unwrap();
    // It has waited elsewhere before: only the last one to wait counts.
    let polled = poll_fn(|cx| Poll::Ready(recv.poll_head(cx).is_pending())).await;
    assert!(polled);
    let reader = tokio::spawn(async move {
        let mut recv: Recv = recv;
        head(&mut recv).await.unwrap();
        read(&mut recv).await.unwrap()
    });
    send(&mut out.unwrap(), content(300_000), true).await.unwrap();
    assert_eq!(within(reader).await.unwrap(), content(300_000));
}

/// Others may keep the rest of the window for ever.
#[tokio::test(start_paused = true)]
async fn a_peer_that_has_used_up_its_window_is_told_of_whatever_room_there_is() {
    let (mut raw, mut opener, _connection) = Raw::server(&[], &client::Config::default()).await;
    let (mut recv, _) = opener.open(&get("/"), true).unwrap();
    raw.send(HEADERS, END_HEADERS, 1, &response("200", &[])).await;
    for length in [16_384, 16_384, 16_384, 16_383] {
        raw.send(DATA, 0, 1, &vec![0; length]).await;
    }
    let mut read = 0;
    while read < 65_535 {
        read += data(&mut recv).await.unwrap().unwrap().0.len();
    }
    raw.until_pong().await;
    recv.release(100);
    let update = raw.next_of(WINDOW_UPDATE).await;
    assert_eq!((update.stream, update.number(0)), (1, 100));
}
