//! Pools against real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::error::Kind;
use crate::http::body::Body;
use crate::http::interim::Interims;
use crate::http::pool::Pool;
use crate::http::pool::testing::pool;

/// Serves `hello` to every request; counts connections. Closes each after `requests`, if given.
async fn serve(version: Version, requests: Option<usize>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let left = Arc::new(AtomicUsize::new(requests.unwrap_or(usize::MAX)));
            let hello = service_fn(move |_| {
                let close = left.fetch_sub(1, Ordering::SeqCst) == 1;
                let mut response = Response::new(Full::new(Bytes::from_static(b"hello")));
                if close && version == Version::HTTP_11 {
                    response
                        .headers_mut()
                        .insert("connection", http::HeaderValue::from_static("close"));
                }
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            let io = TokioIo::new(tcp);
            if version == Version::HTTP_2 {
                tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(io, hello));
            } else {
                tokio::spawn(http1::Builder::new().serve_connection(io, hello));
            }
        }
    });
    (addr, connections)
}

fn get(version: Version) -> Request<Body> {
    Request::get("http://h/")
        .version(version)
        .header("host", "h")
        .body(Body::Empty)
        .unwrap()
}

async fn hello(pool: &Arc<Pool>, version: Version) {
    let response = pool.send(&mut get(version), &Interims::default()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
}

/// A server that answers the first request on a connection and takes the second, as if it had not seen it go, and then
/// ends the connection, or cuts it.
async fn forgetful(cut: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 1_024];
                let _first = tcp.read(&mut head).await.unwrap();
                tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
                    .await
                    .unwrap();
                let _second = tcp.read(&mut head).await.unwrap();
                if cut {
                    outrigger_sys::reset_on_close(&tcp).unwrap();
                }
            });
        }
    });
    addr
}

#[tokio::test]
async fn a_request_whose_connection_breaks_off_without_an_answer_is_not_sent_again() {
    for (method, cut) in [("GET", false), ("DELETE", false), ("GET", true), ("DELETE", true)] {
        let pool = pool(forgetful(cut).await);
        hello(&pool, Version::HTTP_11).await;
        assert_eq!(pool.idle(), 1);
        let mut request = get(Version::HTTP_11);
        *request.method_mut() = method.parse().unwrap();
        let failed = pool.send(&mut request, &Interims::default()).await.unwrap_err();
        assert_eq!(
            (failed.fault.kind, failed.unsent),
            (Kind::Reset, false),
            "{failed:?}"
        );
        assert_eq!(pool.idle(), 0);
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_is_sent_whatever_the_method() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let echo = service_fn(async |request: Request<hyper::body::Incoming>| {
                let body = request.into_body().collect().await?.to_bytes();
                Ok::<_, hyper::Error>(Response::new(Full::new(body)))
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(tcp), echo));
        }
    });
    let pool = pool(addr);
    for method in ["GET", "DELETE", "POST"] {
        let (body, mut upload, _open) = super::unbegun().await;
        upload.send_data(Bytes::from_static(b"query"), true).unwrap();
        let mut request = get(Version::HTTP_11).map(|_| body);
        *request.method_mut() = method.parse().unwrap();
        let response = pool.send(&mut request, &Interims::default()).await.unwrap();
        let echoed = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(echoed, "query", "{method}");
    }
}

#[tokio::test]
async fn an_http1_connection_is_used_again_once_its_answer_has_been_read() {
    let (addr, connections) = serve(Version::HTTP_11, None).await;
    let pool = pool(addr);
    for _ in 0..5 {
        hello(&pool, Version::HTTP_11).await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

/// A server that says this on each connection as soon as it is asked for something, and leaves it open, or closes it when
/// told to; how many there have been.
async fn say(answer: &'static [u8], close: Option<Arc<Notify>>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = connections.clone();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut tcp, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let _request = tcp.read(&mut [0; 1_024]).await.unwrap();
            tcp.write_all(answer).await.unwrap();
            match &close {
                Some(close) => close.notified().await,
                None => open.push(tcp),
            }
        }
    });
    (addr, connections)
}

#[tokio::test]
async fn a_connection_whose_answer_was_not_read_is_never_used_again() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello";
    let (addr, connections) = say(half, None).await;
    let pool = pool(addr);
    for sent in 1..=2 {
        let answer = pool.send(&mut get(Version::HTTP_11), &Interims::default()).await;
        drop(answer.unwrap());
        assert_eq!(
            (connections.load(Ordering::SeqCst), pool.idle()),
            (sent, 0),
            "of a connection each"
        );
    }
}

#[tokio::test]
async fn an_idle_connection_that_its_server_closes_does_not_wait_for_the_next_request() {
    let close = Arc::new(Notify::new());
    let (addr, _) = say(b"HTTP/1.1 204 No Content\r\n\r\n", Some(close.clone())).await;
    let pool = pool(addr);
    let answer = pool.send(&mut get(Version::HTTP_11), &Interims::default()).await;
    assert_eq!((answer.unwrap().status().as_u16(), pool.idle()), (204, 1));
    close.notify_one();
    tokio::time::timeout(Duration::from_secs(10), async {
        while pool.idle() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is gone long before the idle timeout");
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_fails_no_request() {
    let (addr, connections) = serve(Version::HTTP_11, Some(1)).await;
    let pool = pool(addr);
    for _ in 0..20 {
        hello(&pool, Version::HTTP_11).await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 20);
}

#[tokio::test]
async fn many_http2_requests_at_once_open_one_connection() {
    let (addr, connections) = serve(Version::HTTP_2, None).await;
    let pool = pool(addr);
    futures_util::future::join_all((0..50).map(|_| hello(&pool, Version::HTTP_2))).await;
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_request_that_found_no_server_comes_back_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let failed = pool(addr)
        .send(&mut get(Version::HTTP_11), &Interims::default())
        .await
        .unwrap_err();
    assert_eq!(failed.fault.kind, Kind::Connect);
    assert!(failed.unsent);
}
