//! How long HTTP/2 connections last. The clock stands still, but for waits that nothing else can end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use http::Response;
use http_body_util::BodyExt;
use outrigger_policy::endpoint::Http2Params;
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::advance;

use super::frames::{self, GOAWAY, Server};
use crate::http::body::Body;
use crate::http::interim::Interims;
use crate::http::pool::metrics::PoolMetrics;
use crate::http::pool::testing::{dial, metrics, settings};
use crate::http::pool::{Failed, Pool};
use crate::net::io::Io;

/// A pool with one connection, to a server at the other end of a pipe.
async fn piped(params: Http2Params) -> (Arc<Pool>, Server<DuplexStream>, PoolMetrics) {
    let metrics = metrics();
    let dial = dial(([127, 0, 0, 1], 1).into(), Duration::from_secs(1));
    let pool = Arc::new(Pool::new(dial, settings(), params, metrics.clone()));
    let (near, far) = duplex(1 << 16);
    let (adopted, server) = tokio::join!(pool.adopt_http2(Io::pipe(near)), Server::on(far, 100));
    adopted.unwrap();
    (pool, server, metrics)
}

fn get(pool: &Arc<Pool>) -> JoinHandle<Result<Response<Body>, Failed>> {
    let pool = pool.clone();
    tokio::spawn(async move { pool.send(&mut frames::request("GET"), &Interims::default()).await })
}

async fn answered(pool: &Arc<Pool>, server: &mut Server<DuplexStream>) {
    let request = get(pool);
    let stream = server.head().await;
    server.answer(stream).await;
    request.await.unwrap().unwrap();
}

async fn pass(time: Duration) {
    // In steps, so that every timer that is set on the way is met.
    for _ in 0..time.as_secs() / 10 {
        advance(Duration::from_secs(10)).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_when_nothing_was_sent_for_a_while() {
    let (pool, mut server, metrics) = piped(Http2Params::default()).await;
    for _ in 0..5 {
        pass(Duration::from_secs(60)).await;
        answered(&pool, &mut server).await;
    }
    assert_eq!((pool.connections(), metrics.open.value()), (1, 1));
    assert_eq!(server.next().await.unwrap().kind, GOAWAY);
    assert!(server.next().await.is_none());
    assert_eq!(pool.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_takes_no_new_streams_and_ends_with_its_last() {
    let (pool, mut server, metrics) = piped(Http2Params::default()).await;
    let long = get(&pool);
    let stream = server.head().await;
    server.begin(stream).await;
    let long = long.await.unwrap().unwrap();
    pass(Duration::from_secs(2 * 3600)).await;
    assert_eq!((pool.connections(), metrics.open.value()), (0, 1));
    assert!(get(&pool).await.unwrap().is_err(), "there is no other server");
    assert!(server.next().now_or_never().is_none());
    server.end(stream, b"at last").await;
    assert_eq!(long.into_body().collect().await.unwrap().to_bytes(), "at last");
    assert_eq!(server.next().await.unwrap().kind, GOAWAY);
    assert!(server.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_a_ping_unanswered_is_given_up() {
    let params = Http2Params {
        keep_alive: Some((Duration::from_secs(10), Duration::from_secs(5))),
        ..Http2Params::default()
    };
    let (pool, mut server, _) = piped(params).await;
    let request = get(&pool);
    server.head().await;
    server.polite = false;
    let gone = tokio::spawn(async move { while server.next().await.is_some() {} });
    let failed = request.await.unwrap().unwrap_err();
    assert!(!failed.unsent);
    gone.await.unwrap();
    assert_eq!(pool.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_may_take_its_time() {
    let params = Http2Params {
        keep_alive: Some((Duration::from_secs(10), Duration::from_secs(5))),
        ..Http2Params::default()
    };
    let (pool, mut server, _) = piped(params).await;
    let request = get(&pool);
    let stream = server.head().await;
    let serving = tokio::spawn(async move {
        let long = tokio::time::sleep(Duration::from_secs(1000));
        tokio::select! {
            frame = server.next() => panic!("{frame:?}"),
            () = long => server.answer(stream).await,
        }
        server
    });
    request.await.unwrap().unwrap();
    drop(serving.await.unwrap());
}
