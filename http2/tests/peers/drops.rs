//! What happens to a stream when those who hold it let go, and when either side resets it.

use outrigger_http2::server::{self, Accepted};
use outrigger_http2::{Reason, client};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn a_client_that_lets_go_cancels() {
    let (mut raw, mut opener, _connection) = Raw::server(&[], &client::Config::default()).await;
    drop(opener.open(&get("/"), true).unwrap());
    assert_eq!(raw.reset().await, (1, 8));
    let (recv, out) = opener.open(&post(), false).unwrap();
    drop(recv);
    // It still sends.
    let mut out = out.unwrap();
    send(&mut out, &b"x"[..], false).await.unwrap();
    assert_eq!(raw.next_of(DATA).await.payload, b"x");
    drop(out);
    assert_eq!(raw.reset().await, (3, 8));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_complete_is_let_go_in_silence() {
    let (mut raw, mut opener, _connection) = Raw::server(&[], &client::Config::default()).await;
    let held = opener.open(&get("/"), true).unwrap();
    raw.send(HEADERS, END_HEADERS, 1, &response("200", &[])).await;
    raw.send(DATA, END_STREAM, 1, b"unread").await;
    raw.until_pong().await;
    drop(held);
    assert_eq!(raw.until_pong().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_complete_answer_stays_readable_behind_a_reset() {
    let (mut raw, mut opener, _connection) = Raw::server(&[], &client::Config::default()).await;
    let (mut recv, out) = opener.open(&post(), false).unwrap();
    raw.send(HEADERS, END_HEADERS, 1, &response("413", &[])).await;
    raw.send(DATA, 0, 1, b"too ").await;
    raw.send(DATA, 0, 1, b"large").await;
    raw.send(HEADERS, WHOLE, 1, &block(&[("x", "y")])).await;
    raw.write(&number(RST_STREAM, 1, 0)).await;
    raw.until_pong().await;
    let error = send(&mut out.unwrap(), &b"x"[..], true).await.unwrap_err();
    assert_eq!(
        (error.reason(), error.is_remote()),
        (Some(Reason::NO_ERROR), true)
    );
    assert_eq!(head(&mut recv).await.unwrap().status(), 413);
    assert_eq!(read(&mut recv).await.unwrap(), b"too large");
    assert_eq!(trailers(&mut recv).await.unwrap().unwrap()["x"], "y");
}

#[tokio::test(start_paused = true)]
async fn what_came_before_a_reset_is_read_before_it_is_told() {
    let (mut raw, mut opener, _connection) = Raw::server(&[], &client::Config::default()).await;
    let (mut recv, _) = opener.open(&get("/"), true).unwrap();
    raw.send(HEADERS, END_HEADERS, 1, &response("200", &[])).await;
    raw.send(DATA, 0, 1, b"half").await;
    raw.write(&number(RST_STREAM, 1, 2)).await;
    raw.until_pong().await;
    head(&mut recv).await.unwrap();
    assert_eq!(data(&mut recv).await.unwrap().unwrap(), ("half".into(), false));
    assert_eq!(
        data(&mut recv).await.unwrap().unwrap_err().reason(),
        Some(Reason::INTERNAL_ERROR)
    );
    assert_eq!(
        trailers(&mut recv).await.unwrap().unwrap_err().reason(),
        Some(Reason::INTERNAL_ERROR)
    );
}

#[tokio::test(start_paused = true)]
async fn our_own_reset_is_told_to_the_peer_and_to_whoever_reads() {
    let (mut raw, mut opener, _connection) = Raw::server(&[], &client::Config::default()).await;
    let (mut recv, out) = opener.open(&post(), false).unwrap();
    let mut out = out.unwrap();
    out.reset(Reason::INTERNAL_ERROR);
    assert_eq!(raw.reset().await, (1, 2));
    let error = head(&mut recv).await.unwrap_err();
    assert!(error.is_reset() && !error.is_remote());
    assert!(!until_reset(&mut out).await.is_remote());
    // Once is enough.
    out.reset(Reason::CANCEL);
    drop((recv, out));
    // What the server still sends for it is nobody's fault.
    raw.send(HEADERS, END_HEADERS, 1, &response("200", &[])).await;
    raw.send(DATA, END_STREAM, 1, b"late").await;
    assert_eq!(raw.until_pong().await, []);
}

#[tokio::test(start_paused = true)]
async fn whether_a_request_has_left_is_known() {
    let (here, there) = tokio::io::duplex(64);
    let mut raw = Raw { io: here };
    raw.write(&settings(&[])).await;
    let mut preface = tokio::spawn(async move {
        let (opener, connection) = client::handshake(there, &client::Config::default())
            .await
            .unwrap();
        (opener, tokio::spawn(connection))
    });
    // Both ends have room for less than what is said first.
    all_wait().await;
    let mut bytes = [0; 64];
    let read = async {
        loop {
            tokio::select! {
                ready = &mut preface => return ready.unwrap(),
                read = tokio::io::AsyncReadExt::read(&mut raw.io, &mut bytes) => drop(read.unwrap()),
            }
        }
    };
    let (mut opener, _connection) = within(read).await;
    all_wait().await;
    while tokio::time::timeout(
        std::time::Duration::from_millis(1),
        tokio::io::AsyncReadExt::read(&mut raw.io, &mut bytes),
    )
    .await
    .is_ok()
    {}
    let mut large = get("/");
    large
        .headers_mut()
        .insert("x", http::HeaderValue::try_from("%".repeat(200)).unwrap());
    let (first, _) = opener.open(&large, true).unwrap();
    assert!(!first.has_left());
    all_wait().await;
    assert!(first.has_left(), "a part of it has");
    let (second, _) = opener.open(&large, true).unwrap();
    all_wait().await;
    assert!(!second.has_left());
    while !second.has_left() {
        within(tokio::io::AsyncReadExt::read(&mut raw.io, &mut bytes))
            .await
            .unwrap();
        all_wait().await;
    }
}

/// A server that answers everything without reading it.
async fn answer(accepted: Accepted) {
    let mut out = accepted.send;
    out.send_head(&ok(), false).unwrap();
    send(&mut out, &b"enough"[..], true).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_answered_wants_no_more_and_nothing_is_wrong() {
    let (mut raw, _server) = Raw::client(server::Config::default(), answer).await;
    raw.send(HEADERS, END_HEADERS, 1, &request("POST", &[])).await;
    let data = raw.next_of(DATA).await;
    assert_eq!((&data.payload[..], data.flags), (&b"enough"[..], END_STREAM));
    assert_eq!(raw.reset().await, (1, 0));
    // What was on its way is taken as if nothing were.
    raw.send(DATA, 0, 1, b"late").await;
    raw.send(HEADERS, WHOLE, 1, &block(&[("x", "y")])).await;
    raw.write(&number(WINDOW_UPDATE, 1, 5)).await;
    raw.write(&number(RST_STREAM, 1, 8)).await;
    assert_eq!(raw.until_pong().await, []);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_lets_go_of_an_answer_cancels() {
    let (mut raw, _server) = Raw::client(server::Config::default(), |accepted| async move {
        let mut out = accepted.send;
        drop(accepted.recv);
        out.send_head(&ok(), false).unwrap();
        send(&mut out, &b"half"[..], false).await.unwrap();
    })
    .await;
    raw.send(HEADERS, END_HEADERS, 1, &request("POST", &[])).await;
    raw.next_of(DATA).await;
    assert_eq!(raw.reset().await, (1, 8));
}

#[tokio::test(start_paused = true)]
async fn streams_above_the_limit_are_refused_and_those_below_are_served() {
    let config = server::Config {
        max_streams: 2,
        ..server::Config::default()
    };
    let (mut raw, _server) = Raw::client(config, echo).await;
    for id in [1, 3, 5] {
        raw.send(HEADERS, END_HEADERS, id, &request("POST", &[])).await;
    }
    assert_eq!(raw.reset().await, (5, 7));
    raw.send(DATA, END_STREAM, 5, b"late").await;
    raw.send(DATA, END_STREAM, 1, b"one").await;
    raw.send(DATA, END_STREAM, 3, b"two").await;
    for id in [1, 3] {
        assert_eq!(raw.next_of(DATA).await.stream, id);
    }
    raw.send(HEADERS, WHOLE, 7, &request("GET", &[])).await;
    assert_eq!(raw.next_of(HEADERS).await.stream, 7);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_has_come_whole_stays_whole_when_its_stream_is_reset() {
    let (mut raw, mut opener, _connection) = Raw::server(&[], &client::Config::default()).await;
    let (mut recv, out) = opener.open(&post(), false).unwrap();
    raw.send(HEADERS, END_HEADERS, 1, &response("200", &[])).await;
    raw.send(DATA, END_STREAM, 1, b"enough").await;
    head(&mut recv).await.unwrap();
    raw.until_pong().await;
    out.unwrap().reset(Reason::CANCEL);
    assert_eq!(read(&mut recv).await.unwrap(), b"enough");
}
