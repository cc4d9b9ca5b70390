//! How connections end.

use outrigger_http2::server::{self, Accepted};
use outrigger_http2::{Error, Reason, client};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::*;

async fn ended(connection: JoinHandle<Result<(), Error>>) -> Result<(), Error> {
    within(connection).await.unwrap()
}

async fn forever(accepted: Accepted) {
    let _held = accepted;
    std::future::pending::<()>().await;
}

#[tokio::test(start_paused = true)]
async fn a_graceful_shutdown_says_so_twice_and_ends_with_the_last_stream() {
    let (here, there) = tokio::io::duplex(1 << 16);
    let (stop, stopped) = oneshot::channel();
    let server = serve_until(there, server::Config::default(), stopped, echo);
    let mut raw = Raw { io: here };
    raw.write(PREFACE).await;
    raw.write(&settings(&[])).await;
    raw.send(HEADERS, END_HEADERS, 1, &request("POST", &[])).await;
    raw.next_of(HEADERS).await;
    stop.send(()).unwrap();
    let first = raw.next_of(GOAWAY).await;
    assert_eq!((first.number(0), first.number(4)), ((1 << 31) - 1, 0));
    let ping = raw.next_of(PING).await;
    // It was on its way: it is served.
    raw.send(HEADERS, END_HEADERS, 3, &request("POST", &[])).await;
    assert_eq!(raw.next_of(HEADERS).await.stream, 3);
    raw.send(PING, ACK, 0, &ping.payload).await;
    let second = raw.next_of(GOAWAY).await;
    assert_eq!((second.number(0), second.number(4)), (3, 0));
    // It comes too late.
    raw.send(HEADERS, WHOLE, 5, &request("GET", &[])).await;
    let refusal = raw.next_of(RST_STREAM).await;
    assert_eq!((refusal.stream, refusal.number(0)), (5, 7));
    raw.send(DATA, END_STREAM, 1, b"one").await;
    let answer = raw.next().await.unwrap();
    assert_eq!((answer.stream, &answer.payload[..]), (1, &b"one"[..]));
    assert!(!server.is_finished());
    raw.send(DATA, END_STREAM, 3, b"two").await;
    let answer = raw.next().await.unwrap();
    assert_eq!((answer.stream, &answer.payload[..]), (3, &b"two"[..]));
    assert_eq!(raw.next().await, None);
    ended(server).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_graceful_shutdown_lets_our_client_finish_and_opens_nothing_more() {
    let (here, there) = tokio::io::duplex(1 << 16);
    let (stop, stopped) = oneshot::channel();
    let server = serve_until(there, server::Config::default(), stopped, echo);
    let (mut opener, connection) = connect(here, &client::Config::default()).await;
    let (mut recv, out) = opener.open(&post(), false).unwrap();
    head(&mut recv).await.unwrap();
    stop.send(()).unwrap();
    all_wait().await;
    assert!(is_over(&mut opener));
    assert!(matches!(
        opener.open(&get("/"), true),
        Err(client::Unopened::Over)
    ));
    let sender = tokio::spawn(async move { send(&mut out.unwrap(), content(200_000), true).await });
    assert_eq!(read(&mut recv).await.unwrap(), content(200_000));
    within(sender).await.unwrap().unwrap();
    ended(server).await.unwrap();
    ended(connection).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_graceful_shutdown_of_an_idle_connection_ends_it() {
    let (here, there) = tokio::io::duplex(1 << 16);
    let (stop, stopped) = oneshot::channel();
    let server = serve_until(there, server::Config::default(), stopped, echo);
    let (_opener, connection) = connect(here, &client::Config::default()).await;
    stop.send(()).unwrap();
    ended(connection).await.unwrap();
    ended(server).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_abrupt_shutdown_ends_everything_at_once() {
    let (here, there) = tokio::io::duplex(1 << 16);
    let server = tokio::spawn(async move {
        let mut connection = server::handshake(there, &server::Config::default())
            .await
            .unwrap();
        let mut accepted = connection.accept().await.unwrap().unwrap();
        assert!(connection.has_streams());
        connection.abrupt_shutdown(Reason::INTERNAL_ERROR);
        assert!(connection.accept().await.is_none());
        accepted.send.send_head(&ok(), true).unwrap_err()
    });
    let (mut opener, connection) = connect(here, &client::Config::default()).await;
    let (mut recv, _) = opener.open(&get("/"), true).unwrap();
    let error = head(&mut recv).await.unwrap_err();
    // It was perhaps processed: nobody may take it for a stream that was not.
    assert!(error.is_io(), "{error:?}");
    let error = within(server).await.unwrap();
    assert!(error.is_go_away() && !error.is_remote());
    drop(ended(connection).await);
}

#[tokio::test(start_paused = true)]
async fn streams_above_the_last_one_fail_and_the_others_finish() {
    let (mut raw, mut opener, connection) = Raw::server(&[], &client::Config::default()).await;
    let (mut first, _) = opener.open(&get("/"), true).unwrap();
    let (mut second, _) = opener.open(&get("/"), true).unwrap();
    raw.send(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0, b'b', b'y', b'e'])
        .await;
    let error = head(&mut second).await.unwrap_err();
    assert!(error.is_go_away() && error.is_remote());
    assert_eq!(error.reason(), Some(Reason::NO_ERROR));
    assert!(error.to_string().contains("bye"));
    assert!(matches!(
        opener.open(&get("/"), true),
        Err(client::Unopened::Over)
    ));
    raw.send(HEADERS, END_HEADERS, 1, &response("200", &[])).await;
    assert_eq!(head(&mut first).await.unwrap().status(), 200);
    raw.send(DATA, END_STREAM, 1, b"done").await;
    assert_eq!(read(&mut first).await.unwrap(), b"done");
    assert_eq!(raw.end().await, 0);
    ended(connection).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_goaway_for_a_reason_is_how_the_connection_ends() {
    let (mut raw, mut opener, connection) = Raw::server(&[], &client::Config::default()).await;
    let (mut recv, _) = opener.open(&get("/"), true).unwrap();
    raw.send(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11]).await;
    assert_eq!(
        head(&mut recv).await.unwrap_err().reason(),
        Some(Reason::ENHANCE_YOUR_CALM)
    );
    let error = ended(connection).await.unwrap_err();
    assert!(error.is_remote());
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
}

#[tokio::test(start_paused = true)]
async fn a_last_stream_never_rises() {
    let (mut raw, mut opener, connection) = Raw::server(&[], &client::Config::default()).await;
    let _held = opener.open(&get("/"), true).unwrap();
    raw.send(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]).await;
    raw.send(GOAWAY, 0, 0, &[0, 0, 0, 3, 0, 0, 0, 0]).await;
    assert_eq!(raw.end().await, 1);
    assert_eq!(
        ended(connection).await.unwrap_err().reason(),
        Some(Reason::PROTOCOL_ERROR)
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_opener_is_gone_ends_with_its_last_stream() {
    let (mut raw, mut opener, connection) = Raw::server(&[], &client::Config::default()).await;
    let (mut recv, _) = opener.open(&get("/"), true).unwrap();
    drop(opener);
    raw.until_pong().await;
    assert!(!connection.is_finished());
    raw.send(HEADERS, WHOLE, 1, &response("200", &[])).await;
    assert_eq!(raw.end().await, 0);
    assert_eq!(head(&mut recv).await.unwrap().status(), 200);
    ended(connection).await.unwrap();
    let (mut raw, opener, connection) = Raw::server(&[], &client::Config::default()).await;
    raw.until_pong().await;
    all_wait().await;
    drop(opener);
    assert_eq!(raw.end().await, 0);
    ended(connection).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_end_amid_streams_is_told_to_all_of_them() {
    for amid_frame in [false, true] {
        let (mut raw, mut opener, connection) = Raw::server(&[], &client::Config::default()).await;
        let (mut started, out) = opener.open(&post(), false).unwrap();
        let (mut waiting, _) = opener.open(&get("/"), true).unwrap();
        raw.send(HEADERS, END_HEADERS, 1, &response("200", &[])).await;
        raw.send(DATA, 0, 1, b"half").await;
        if amid_frame {
            raw.write(&frame(DATA, 0, 1, b"cut")[..9]).await;
        }
        drop(raw);
        assert!(head(&mut waiting).await.unwrap_err().is_io());
        head(&mut started).await.unwrap();
        assert_eq!(data(&mut started).await.unwrap().unwrap().0, "half");
        assert!(data(&mut started).await.unwrap().unwrap_err().is_io());
        assert!(until_reset(&mut out.unwrap()).await.is_io());
        assert!(is_over(&mut opener));
        let ended = ended(connection).await;
        assert_eq!(ended.is_err_and(|error| error.is_io()), amid_frame);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_is_told_to_the_servers_streams() {
    let (mut raw, server) = Raw::client(server::Config::default(), |accepted| async move {
        let mut recv = accepted.recv.unwrap();
        let mut out = accepted.send;
        assert!(data(&mut recv).await.unwrap().unwrap_err().is_io());
        assert!(until_reset(&mut out).await.is_io());
    })
    .await;
    raw.send(HEADERS, END_HEADERS, 1, &request("POST", &[])).await;
    raw.until_pong().await;
    drop(raw);
    ended(server).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_dropped_ends_its_streams() {
    let (mut raw, mut opener, connection) = Raw::server(&[], &client::Config::default()).await;
    let (mut recv, out) = opener.open(&post(), false).unwrap();
    raw.until_pong().await;
    connection.abort();
    assert!(head(&mut recv).await.unwrap_err().is_io());
    assert!(
        send(&mut out.unwrap(), &b"x"[..], true)
            .await
            .unwrap_err()
            .is_io()
    );
    assert!(matches!(
        opener.open(&get("/"), true),
        Err(client::Unopened::Over)
    ));
}

#[tokio::test(start_paused = true)]
async fn pings_are_answered_until_the_connection_ends() {
    let (here, there) = tokio::io::duplex(1 << 16);
    let (mut raw, _opener, _connection) = Raw::server(&[], &client::Config::default()).await;
    raw.send(PING, 0, 0, b"12345678").await;
    let answer = raw.next_of(PING).await;
    assert_eq!((answer.flags, &answer.payload[..]), (ACK, &b"12345678"[..]));
    let server = serve(there, server::Config::default(), forever);
    let (opener, connection) = within(client::handshake(here, &client::Config::default()))
        .await
        .unwrap();
    let mut pings = connection.pings();
    let connection = tokio::spawn(connection);
    for _ in 0..3 {
        within(pings.ping()).await.unwrap();
    }
    server.abort();
    ended(connection).await.unwrap();
    assert!(within(pings.ping()).await.unwrap_err().is_io());
    drop(opener);
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_waits_fails_with_the_connection() {
    let (mut raw, _opener, connection) = {
        let (here, there) = tokio::io::duplex(1 << 16);
        let mut raw = Raw { io: here };
        raw.write(&settings(&[])).await;
        let (opener, connection) = within(client::handshake(there, &client::Config::default()))
            .await
            .unwrap();
        (raw, opener, connection)
    };
    let mut pings = connection.pings();
    let connection = tokio::spawn(connection);
    let waiting = tokio::spawn(async move { pings.ping().await });
    let mut preface = [0; 24];
    tokio::io::AsyncReadExt::read_exact(&mut raw.io, &mut preface)
        .await
        .unwrap();
    raw.next_of(PING).await;
    // Answers to other questions are no answers.
    raw.send(PING, ACK, 0, b"12345678").await;
    all_wait().await;
    assert!(!waiting.is_finished());
    drop(raw);
    assert!(within(waiting).await.unwrap().unwrap_err().is_io());
    ended(connection).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handshake_fails_with_a_peer_that_speaks_something_else() {
    for said in [
        &b""[..],
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\0\0\x04\x01\0\0\0\0",
        b"\0\0\x08\x06\0\0\0\0\0",
    ] {
        let (here, there) = tokio::io::duplex(1 << 16);
        let mut raw = Raw { io: here };
        raw.write(said).await;
        tokio::io::AsyncWriteExt::shutdown(&mut raw.io).await.unwrap();
        assert!(
            within(client::handshake(there, &client::Config::default()))
                .await
                .is_err()
        );
        let (here, there) = tokio::io::duplex(1 << 16);
        let mut raw = Raw { io: here };
        raw.write(said).await;
        tokio::io::AsyncWriteExt::shutdown(&mut raw.io).await.unwrap();
        assert!(
            within(server::handshake(there, &server::Config::default()))
                .await
                .is_err()
        );
    }
}
