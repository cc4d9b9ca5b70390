//! What a server has not processed is sent again, and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryFutureExt;
use futures_util::future::join_all;
use http::Request;
use outrigger_http2::Reason;
use outrigger_policy::endpoint::Http2Params;
use tokio::io::duplex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Duration;

use super::frames::{self, DATA, REFUSED_STREAM, Server};
use crate::error::{Kind, Side};
use crate::http::body::Body;
use crate::http::h2::reason;
use crate::http::interim::Interims;
use crate::http::pool::metrics::PoolMetrics;
use crate::http::pool::testing::{dial, metrics, settings};
use crate::http::pool::{Failed, Pool};
use crate::net::io::Io;

fn counted(addr: SocketAddr) -> (Arc<Pool>, PoolMetrics) {
    let metrics = metrics();
    let dial = dial(addr, Duration::from_secs(5));
    let pool = Pool::new(dial, settings(), Http2Params::default(), metrics.clone());
    (Arc::new(pool), metrics)
}

/// Sends a request that has a task of its own, and says with which status it was answered.
fn send(pool: &Arc<Pool>, mut request: Request<Body>) -> JoinHandle<Result<u16, Failed>> {
    let pool = pool.clone();
    tokio::spawn(async move {
        pool.send(&mut request, &Interims::default())
            .map_ok(|answer| answer.status().as_u16())
            .await
    })
}

/// Takes the requests that come, so many in all, on as many connections as it takes, and answers them.
fn answer(listener: TcpListener, requests: usize) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut server = frames::accept(&listener, 100).await;
        for _ in 0..requests {
            let stream = server.head().await;
            server.answer(stream).await;
        }
        while server.next().await.is_some() {}
    })
}

async fn all_answered(requests: Vec<JoinHandle<Result<u16, Failed>>>) {
    for answered in join_all(requests).await {
        assert_eq!(answered.unwrap().unwrap(), 200);
    }
}

#[tokio::test]
async fn streams_above_the_last_of_a_goodbye_are_sent_on_another_connection() {
    let (listener, addr) = frames::listen().await;
    let (pool, metrics) = counted(addr);
    let methods = ["GET", "POST", "DELETE", "PUT", "GET"];
    let requests = methods.map(|method| send(&pool, frames::request(method))).into();
    let mut server = frames::accept(&listener, 100).await;
    let streams = server.heads(methods.len()).await;
    server.go_away(streams[1]).await;
    server.answer(streams[0]).await;
    server.answer(streams[1]).await;
    answer(listener, 3);
    all_answered(requests).await;
    assert_eq!(metrics.resent.value(), 3);
}

#[tokio::test]
async fn after_a_goodbye_requests_take_another_connection_while_the_first_finishes() {
    let (listener, addr) = frames::listen().await;
    let (pool, metrics) = counted(addr);
    let first = send(&pool, frames::request("GET"));
    let mut server = frames::accept(&listener, 100).await;
    let stream = server.head().await;
    server.go_away(stream).await;
    let answering = answer(listener, 1);
    all_answered(vec![send(&pool, frames::request("GET"))]).await;
    server.answer(stream).await;
    all_answered(vec![first]).await;
    assert_eq!(metrics.waited.value(), 0);
    drop(pool);
    answering.await.unwrap(); // and an unused pool closes its connections
}

#[tokio::test]
async fn a_refused_stream_is_sent_on_another_connection() {
    let (listener, addr) = frames::listen().await;
    let (pool, metrics) = counted(addr);
    let request = send(&pool, frames::request("POST"));
    let mut server = frames::accept(&listener, 100).await;
    let stream = server.head().await;
    server.reset(stream, REFUSED_STREAM).await;
    answer(listener, 1);
    all_answered(vec![request]).await;
    assert_eq!(metrics.resent.value(), 1);
}

#[tokio::test]
async fn a_server_that_refuses_everything_gets_a_request_three_times() {
    let (listener, addr) = frames::listen().await;
    let (pool, metrics) = counted(addr);
    let refusing = tokio::spawn(async move {
        let mut servers = Vec::new();
        for connection in [0, 1, 0] {
            if servers.len() == connection {
                servers.push(frames::accept(&listener, 100).await);
            }
            let stream = servers[connection].head().await;
            servers[connection].reset(stream, REFUSED_STREAM).await;
        }
    });
    let failed = send(&pool, frames::request("GET")).await.unwrap().unwrap_err();
    assert!(failed.unsent);
    assert_eq!(
        (failed.fault.kind, failed.fault.side),
        (Kind::Reset, Side::Server)
    );
    assert_eq!(reason::of(&failed.fault), Some(Reason::REFUSED_STREAM));
    assert_eq!(metrics.resent.value(), 2);
    refusing.await.unwrap();
}

#[tokio::test]
async fn any_other_reset_may_come_after_the_request_was_processed() {
    let (listener, addr) = frames::listen().await;
    let (pool, _) = counted(addr);
    let request = send(&pool, frames::request("GET"));
    let mut server = frames::accept(&listener, 100).await;
    let stream = server.head().await;
    server.reset(stream, frames::CANCEL).await;
    let failed = request.await.unwrap().unwrap_err();
    assert!(!failed.unsent);
    assert_eq!(reason::of(&failed.fault), Some(Reason::CANCEL));
}

#[tokio::test]
async fn a_request_whose_body_was_sent_is_not_sent_again() {
    let (listener, addr) = frames::listen().await;
    let (pool, metrics) = counted(addr);
    let request = send(
        &pool,
        frames::request("POST").map(|_| Body::Full(Bytes::from_static(b"once"))),
    );
    let mut server = frames::accept(&listener, 100).await;
    let stream = server.head().await;
    let body = server.next().await.unwrap();
    assert_eq!((body.kind, body.ends_stream()), (DATA, true));
    server.reset(stream, REFUSED_STREAM).await;
    let failed = request.await.unwrap().unwrap_err();
    assert!(!failed.unsent);
    // But the client may send it again, and is told so.
    assert_eq!(reason::of(&failed.fault), Some(Reason::REFUSED_STREAM));
    assert_eq!(metrics.resent.value(), 0);
}

#[tokio::test]
async fn a_request_whose_body_has_not_begun_is_sent_again_with_it() {
    let (listener, addr) = frames::listen().await;
    let (pool, metrics) = counted(addr);
    let (body, mut upload, _open) = super::unbegun().await;
    let request = send(&pool, frames::request("POST").map(|_| body));
    let mut server = frames::accept(&listener, 100).await;
    let stream = server.head().await;
    server.go_away(0).await;
    let mut another = frames::accept(&listener, 100).await;
    let again = another.head().await;
    upload.send_data(Bytes::from_static(b"late"), true).unwrap();
    assert_eq!(another.next().await.unwrap().payload, b"late");
    another.answer(again).await;
    all_answered(vec![request]).await;
    assert_eq!((stream, metrics.resent.value()), (1, 1));
}

#[tokio::test]
async fn a_connection_that_ended_before_it_was_written_to_fails_no_request() {
    let (listener, addr) = frames::listen().await;
    let (pool, metrics) = counted(addr);
    let (near, far) = duplex(1 << 16);
    let (adopted, server) = tokio::join!(pool.adopt_http2(Io::pipe(near)), Server::on(far, 100));
    adopted.unwrap();
    let mut server = server;
    let first = send(&pool, frames::request("GET"));
    let stream = server.head().await;
    server.answer(stream).await;
    all_answered(vec![first]).await;
    drop(server);
    answer(listener, 1);
    // The connection's task has not run since: the pool still takes it for open.
    let mut second = frames::request("POST");
    assert_eq!(
        pool.send(&mut second, &Interims::default())
            .await
            .unwrap()
            .status(),
        200
    );
    assert_eq!(metrics.resent.value(), 1);
}

#[tokio::test]
async fn a_connection_that_ends_after_it_was_written_to_fails_its_requests() {
    let (listener, addr) = frames::listen().await;
    let (pool, metrics) = counted(addr);
    let request = send(&pool, frames::request("GET"));
    let mut server = frames::accept(&listener, 100).await;
    server.head().await;
    drop(server);
    let failed = request.await.unwrap().unwrap_err();
    assert!(!failed.unsent);
    assert_eq!(metrics.resent.value(), 0);
}

#[tokio::test]
async fn a_request_that_http2_can_not_carry_is_refused_and_harms_no_connection() {
    let (listener, addr) = frames::listen().await;
    let (pool, _) = counted(addr);
    answer(listener, 2);
    all_answered(vec![send(&pool, frames::request("GET"))]).await;
    let mut wrong = frames::request("GET");
    *wrong.uri_mut() = "/no-authority".parse().unwrap();
    let failed = pool.send(&mut wrong, &Interims::default()).await.unwrap_err();
    assert_eq!(
        (failed.fault.kind, failed.fault.side),
        (Kind::BadRequest, Side::Client)
    );
    all_answered(vec![send(&pool, frames::request("GET"))]).await;
}
