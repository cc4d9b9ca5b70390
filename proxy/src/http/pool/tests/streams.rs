//! Streams and the connections that have room for them; both directions of one stream.

use std::any::Any;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::Response;
use http_body_util::BodyExt;
use outrigger_policy::endpoint::Http2Params;
use tokio::task::JoinHandle;

use super::frames::{self, CANCEL, DATA, Frame, RST_STREAM, Server};
use crate::error::Kind;
use crate::http::body::Body;
use crate::http::interim::Interims;
use crate::http::pool::testing::{dial, metrics, settings};
use crate::http::pool::{Failed, Pool, Settings};

const PATIENCE: Duration = Duration::from_secs(5);

fn get(pool: &Arc<Pool>) -> JoinHandle<Result<Response<Body>, Failed>> {
    let pool = pool.clone();
    tokio::spawn(async move { pool.send(&mut frames::request("GET"), &Interims::default()).await })
}

fn pool_of(max_connections: usize, addr: std::net::SocketAddr) -> Arc<Pool> {
    let settings = Settings {
        max_connections,
        ..settings()
    };
    Arc::new(Pool::new(
        dial(addr, PATIENCE),
        settings,
        Http2Params::default(),
        metrics(),
    ))
}

#[tokio::test]
async fn streams_beyond_the_servers_limit_open_another_connection() {
    let (listener, addr) = frames::listen().await;
    let pool = pool_of(3, addr);
    let requests: Vec<_> = (0..6).map(|_| get(&pool)).collect();
    let mut servers = Vec::new();
    for _ in 0..3 {
        let mut server = frames::accept(&listener, 2).await;
        let streams = server.heads(2).await;
        servers.push((server, streams));
    }
    // All is full: one more waits for whoever is answered first.
    let waiting = get(&pool);
    let (server, streams) = &mut servers[1];
    server.answer(streams[0]).await;
    let another = server.head().await;
    server.answer(another).await;
    assert!(waiting.await.unwrap().is_ok());
    for (server, streams) in &mut servers {
        server.answer(streams[0]).await;
        server.answer(streams[1]).await;
    }
    for request in requests {
        request.await.unwrap().unwrap();
    }
    assert_eq!(pool.connections(), 3);
}

#[tokio::test]
async fn room_that_the_server_makes_is_used() {
    let (listener, addr) = frames::listen().await;
    let pool = pool_of(1, addr);
    let requests = [get(&pool), get(&pool)];
    let mut server = frames::accept(&listener, 1).await;
    let first = server.head().await;
    server.allow(2).await;
    let second = server.head().await;
    server.answer(first).await;
    server.answer(second).await;
    for request in requests {
        request.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn room_for_two_that_is_made_at_once_is_used_by_two() {
    let (listener, addr) = frames::listen().await;
    let settings = Settings {
        max_connections: 1,
        ..settings()
    };
    let (dial, metrics) = (dial(addr, PATIENCE), metrics());
    let pool = Arc::new(Pool::new(dial, settings, Http2Params::default(), metrics.clone()));
    let requests = [get(&pool), get(&pool)];
    let mut server = frames::accept(&listener, 2).await;
    for stream in server.heads(2).await {
        server.begin(stream).await;
    }
    let [first, second] = requests.map(async |request| request.await.unwrap().unwrap());
    let answers = (first.await, second.await);
    let waiting = [get(&pool), get(&pool)];
    while metrics.waited.value() < 2 {
        tokio::task::yield_now().await;
    }
    drop(answers);
    tokio::spawn(async move {
        while let Some(frame) = server.next().await {
            if frame.kind == frames::HEADERS {
                server.answer(frame.stream).await;
            }
        }
    });
    for request in waiting {
        request.await.unwrap().unwrap();
    }
}

// The clock stands still, but for waits that nothing else can end.
#[tokio::test(start_paused = true)]
async fn a_request_that_finds_no_room_fails_in_time() {
    let (listener, addr) = frames::listen().await;
    let pool = pool_of(1, addr);
    let hanging = get(&pool);
    let mut server = frames::accept(&listener, 1).await;
    server.head().await;
    let failed = get(&pool).await.unwrap().unwrap_err();
    assert_eq!((failed.fault.kind, failed.unsent), (Kind::FailFast, true));
    hanging.abort();
}

#[tokio::test]
async fn who_has_waited_long_enough_opens_no_other_connection() {
    let (listener, addr) = frames::listen().await;
    let settings = Settings {
        fail_fast: Duration::ZERO,
        ..settings()
    };
    let (dial, params) = (dial(addr, PATIENCE), Http2Params::default());
    let pool = Arc::new(Pool::new(dial, settings, params, metrics()));
    let request = get(&pool);
    let _server = frames::accept(&listener, 0).await;
    let failed = request.await.unwrap().unwrap_err();
    assert_eq!((failed.fault.kind, failed.unsent), (Kind::FailFast, true));
    assert_eq!(pool.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_gets_no_request() {
    let (listener, addr) = frames::listen().await;
    let pool = pool_of(1, addr);
    let request = get(&pool);
    let (_silent, _) = listener.accept().await.unwrap();
    let failed = request.await.unwrap().unwrap_err();
    assert_eq!((failed.fault.kind, failed.unsent), (Kind::ConnectTimeout, true));
}

#[tokio::test]
async fn a_request_that_is_not_wanted_any_more_is_cancelled() {
    let (listener, addr) = frames::listen().await;
    let pool = pool_of(1, addr);
    let request = get(&pool);
    let mut server = frames::accept(&listener, 1).await;
    let stream = server.head().await;
    request.abort();
    let reset = server.next().await.unwrap();
    assert_eq!((reset.stream, reset.code()), (stream, CANCEL));
    // And its place is free.
    let another = get(&pool);
    let stream = server.head().await;
    server.answer(stream).await;
    another.await.unwrap().unwrap();
}

/// A request whose body is what `upload` sends, once its answer has begun.
async fn answered(
    pool: &Arc<Pool>,
    listener: &tokio::net::TcpListener,
) -> (Server, u32, Response<Body>, Upload) {
    let (body, upload) = Upload::new().await;
    let pool = pool.clone();
    let mut request = frames::request("POST").map(|_| body);
    let sending = tokio::spawn(async move { pool.send(&mut request, &Interims::default()).await });
    let mut server = frames::accept(listener, 1).await;
    let stream = server.head().await;
    server.begin(stream).await;
    (server, stream, sending.await.unwrap().unwrap(), upload)
}

#[tokio::test]
async fn a_request_goes_on_while_nobody_reads_the_answer() {
    let (listener, addr) = frames::listen().await;
    let (mut server, stream, answer, mut upload) = answered(&pool_of(1, addr), &listener).await;
    for part in [&b"one"[..], b"two"] {
        upload.send(part, false);
        assert_eq!(server.next().await.unwrap().payload, part);
    }
    upload.send(b"", true);
    assert!(server.next().await.unwrap().ends_stream());
    server.end(stream, b"done").await;
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "done");
}

#[tokio::test]
async fn a_request_goes_on_after_its_answer_has_ended() {
    let (listener, addr) = frames::listen().await;
    let pool = pool_of(1, addr);
    let (mut server, stream, answer, mut upload) = answered(&pool, &listener).await;
    server.end(stream, b"early").await;
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "early");
    // It still has its place among the streams.
    let mut waiting = pin!(get(&pool));
    upload.send(b"late", true);
    let late = server.next().await.unwrap();
    assert_eq!(
        (late.kind, &late.payload[..], late.ends_stream()),
        (DATA, &b"late"[..], true)
    );
    let another = server.head().await;
    assert!(waiting.as_mut().now_or_never().is_none());
    server.answer(another).await;
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_answer_that_nobody_wants_any_more_ends_its_request() {
    let (listener, addr) = frames::listen().await;
    let (mut server, stream, answer, mut upload) = answered(&pool_of(1, addr), &listener).await;
    upload.send(b"and so on", false);
    assert_eq!(server.next().await.unwrap().payload, b"and so on");
    drop(answer);
    let reset = server.next().await.unwrap();
    assert_eq!((reset.stream, reset.code()), (stream, CANCEL));
}

#[tokio::test]
async fn a_request_that_breaks_off_is_cancelled_and_the_clients_doing() {
    let (listener, addr) = frames::listen().await;
    let pool = pool_of(1, addr);
    let (body, mut upload) = Upload::new().await;
    let mut request = frames::request("POST").map(|_| body);
    let sending = tokio::spawn(async move { pool.send(&mut request, &Interims::default()).await });
    let mut server = frames::accept(&listener, 1).await;
    server.head().await;
    upload.reset();
    let failed = sending.await.unwrap().unwrap_err();
    assert_eq!(failed.fault.side, crate::error::Side::Client);
    let Some(Frame { kind: RST_STREAM, .. }) = server.next().await else {
        panic!("the stream is reset");
    };
}

/// The client's side of a request's body.
struct Upload {
    stream: ::h2::SendStream<Bytes>,
    _open: Box<dyn Any + Send>,
}

impl Upload {
    async fn new() -> (Body, Self) {
        let (body, stream, open) = super::unbegun().await;
        (body, Self { stream, _open: open })
    }

    fn send(&mut self, data: &'static [u8], last: bool) {
        self.stream.send_data(Bytes::from_static(data), last).unwrap();
    }

    fn reset(&mut self) {
        self.stream.send_reset(::h2::Reason::CANCEL);
    }
}

#[tokio::test]
async fn interim_answers_that_make_no_sense_end_their_stream_and_no_other() {
    let (listener, addr) = frames::listen().await;
    let pool = pool_of(1, addr);
    let mut server = None;
    for (status, times) in [("103", 257), ("101", 1)] {
        let request = get(&pool);
        if server.is_none() {
            server = Some(frames::accept(&listener, 100).await);
        }
        let server = server.as_mut().unwrap();
        let stream = server.head().await;
        for _ in 0..times {
            server.inform(stream, status).await;
        }
        let failed = request.await.unwrap().unwrap_err();
        assert_eq!((failed.fault.kind, failed.unsent), (Kind::BadAnswer, false));
        let Frame {
            kind, stream: reset, ..
        } = server.next().await.unwrap();
        assert_eq!((kind, reset), (RST_STREAM, stream));
    }
    let request = get(&pool);
    let mut server = server.unwrap();
    let stream = server.head().await;
    server.inform(stream, "100").await;
    server.answer(stream).await;
    assert!(request.await.unwrap().is_ok());
}
