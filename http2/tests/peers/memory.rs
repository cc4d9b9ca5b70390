//! What a peer may make us keep.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use outrigger_http2::client::{self, Unopened};
use outrigger_http2::server;
use tokio::io::{AsyncWriteExt, DuplexStream};

use crate::support::*;

/// Writes as much as is taken; how much that was.
async fn taken(io: &mut DuplexStream, bytes: &[u8]) -> usize {
    let mut count = 0;
    while count < bytes.len() {
        let bound = std::time::Duration::from_millis(10);
        let Ok(written) = tokio::time::timeout(bound, io.write(&bytes[count..])).await else {
            break;
        };
        count += written.unwrap();
    }
    count
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_asks_and_never_reads_is_not_read_from() {
    // Whole frames are on their way, so that nothing of them is left over after a read.
    let (mut here, there) = tokio::io::duplex(17 * 500);
    here.write_all(PREFACE).await.unwrap();
    here.write_all(&settings(&[])).await.unwrap();
    let mut server = server::handshake(there, &server::Config::default())
        .await
        .unwrap();
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(100_000);
    let asker = tokio::spawn(async move {
        let count = taken(&mut here, &pings).await;
        (here, count)
    });
    // However often the server is asked to look, it reads nothing more.
    let server = tokio::spawn(async move {
        let mut again = tokio::time::interval(std::time::Duration::from_millis(1));
        loop {
            tokio::select! {
                accepted = server.accept() => assert!(accepted.is_none()),
                _ = again.tick() => {}
            }
        }
    });
    let (here, count) = asker.await.unwrap();
    assert!(count > 256 << 10, "{count}");
    assert!(count < 320 << 10, "{count}");
    assert!(!server.is_finished());
    // Once it reads, everything goes on.
    let mut raw = Raw { io: here };
    let mut answers = 0;
    while answers < count / 17 - 1 {
        raw.next_of(PING).await;
        answers += 1;
    }
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_at_last_is_read_from_again() {
    // There is room for fewer answers than wait at most, or for more.
    for on_way in [17 * 500, 17 * 50_000] {
        let (mut here, there) = tokio::io::duplex(on_way);
        here.write_all(PREFACE).await.unwrap();
        here.write_all(&settings(&[])).await.unwrap();
        let _server = serve(there, server::Config::default(), echo);
        let pings = frame(PING, 0, 0, &[7; 8]).repeat(150_000);
        let count = taken(&mut here, &pings).await;
        assert!(count < pings.len(), "{on_way}");
        let (read, mut write) = tokio::io::split(here);
        let mut read = tokio::io::AsyncReadExt::take(read, pings.len() as u64);
        let rest = tokio::spawn(async move { write.write_all(&pings[count..]).await.map(|()| write) });
        within(tokio::io::copy(&mut read, &mut tokio::io::sink()))
            .await
            .unwrap();
        within(rest).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn no_streams_are_opened_to_a_server_that_does_not_read() {
    let (here, there) = tokio::io::duplex(4 << 10);
    let mut raw = Raw { io: here };
    raw.write(&settings(&[])).await;
    let (mut opener, connection) = client::handshake(there, &client::Config::default())
        .await
        .unwrap();
    let mut connection = Box::pin(connection);
    let mut request = get("/");
    request
        .headers_mut()
        .insert("x", http::HeaderValue::try_from("%".repeat(1_000)).unwrap());
    let mut held = Vec::new();
    loop {
        assert!(poll_fn(|cx| Poll::Ready(connection.as_mut().poll(cx).is_pending())).await);
        request
            .headers_mut()
            .insert("x-n", http::HeaderValue::from(held.len()));
        match opener.open(&request, true) {
            Ok(opened) => held.push(opened),
            Err(Unopened::Full) => break,
            Err(other) => panic!("{other}"),
        }
        assert!(held.len() < 10_000);
    }
    assert!(!connection.has_room_again());
    // Giving them up costs no more than that either, and once the server reads, there is room again.
    held.clear();
    let connection = tokio::spawn(connection);
    let mut preface = [0; 24];
    tokio::io::AsyncReadExt::read_exact(&mut raw.io, &mut preface)
        .await
        .unwrap();
    raw.until_pong().await;
    opener.open(&request, true).unwrap();
    connection.abort();
}

#[tokio::test(start_paused = true)]
async fn smallest_frames_that_nobody_reads_are_joined() {
    let (mut raw, mut opener, _connection) = Raw::server(&[], &client::Config::default()).await;
    let (mut recv, _) = opener.open(&get("/"), true).unwrap();
    raw.send(HEADERS, END_HEADERS, 1, &response("200", &[])).await;
    let all = content(60_000);
    let small: Vec<u8> = all.iter().flat_map(|byte| frame(DATA, 0, 1, &[*byte])).collect();
    for piece in small.chunks(100_000) {
        raw.write(piece).await;
        raw.until_pong().await;
    }
    raw.send(DATA, END_STREAM, 1, b"").await;
    head(&mut recv).await.unwrap();
    let (mut pieces, mut read) = (0, Vec::new());
    while let Some(piece) = data(&mut recv).await {
        read.extend_from_slice(&piece.unwrap().0);
        pieces += 1;
    }
    assert_eq!(read, all);
    assert!(pieces < 5, "{pieces}");
}

#[tokio::test(start_paused = true)]
async fn answers_wait_for_a_client_that_does_not_read_them() {
    let (here, there) = tokio::io::duplex(4 << 10);
    let config = server::Config {
        send_buffer: 10_000,
        ..server::Config::default()
    };
    let _server = serve(there, config, |accepted| async move {
        let mut out = accepted.send;
        out.send_head(&ok(), false).unwrap();
        let mut taken = 0;
        // Nobody reads: it waits, with no more than the buffer taken.
        let all = async {
            loop {
                send_one(&mut out).await;
                taken += 1_000;
            }
        };
        let bound = std::time::Duration::from_secs(1);
        assert!(tokio::time::timeout(bound, all).await.is_err());
        assert!((8_000..=20_000).contains(&taken), "{taken}");
        out.send_trailers(&http::HeaderMap::new()).unwrap();
    });
    let mut raw = Raw { io: here };
    raw.write(PREFACE).await;
    raw.write(&settings(&[])).await;
    raw.send(HEADERS, WHOLE, 1, &request("GET", &[])).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    // The last of it is the trailers.
    while raw.next_of(HEADERS).await.flags & END_STREAM == 0 {}
}

async fn send_one(out: &mut outrigger_http2::Send) {
    let mut data = bytes::Bytes::from(vec![0; 1_000]);
    poll_fn(|cx| out.poll_send(cx, &mut data, false)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_found_no_room_for_a_stream_is_told_when_there_is_some() {
    let (here, mut there) = tokio::io::duplex(1 << 20);
    there.write_all(&settings(&[])).await.unwrap();
    let (mut opener, mut connection) = client::handshake(here, &client::Config::default()).await.unwrap();
    let mut large = get("/");
    large
        .headers_mut()
        .insert("x", "v".repeat(3_000).parse().unwrap());
    let mut streams = Vec::new();
    let full = loop {
        match opener.open(&large, true) {
            Ok(stream) => streams.push(stream),
            Err(full) => break full,
        }
        large
            .headers_mut()
            .insert("x", "w".repeat(3_000 + streams.len()).parse().unwrap());
    };
    assert!(matches!(full, Unopened::Full));
    assert!(!connection.has_room_again());
    let driven = poll_fn(|cx| Poll::Ready(Pin::new(&mut connection).poll(cx))).await;
    assert!(driven.is_pending());
    assert!(connection.has_room_again() && !connection.has_room_again());
    assert!(opener.open(&large, true).is_ok());
}
