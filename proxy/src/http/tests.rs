//! Pools and servers against real sockets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_policy::endpoint::Http2Params;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

use crate::config::HeadLimits;
use crate::drain;
use crate::error::{BoxError, Kind};
use crate::http::body::{Body, End, Track, Tracked};
use crate::http::closing::Closing;
use crate::http::http1;
use crate::http::interim::Interims;
use crate::http::pool::{Pool, Settings, testing};
use crate::net::detect;
use crate::net::io::{Io, Meter, Socket};

/// How long a test waits for what has to happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client that closes its side has gone.
const IMPATIENT: HeadLimits = HeadLimits {
    max_bytes: 65_536,
    max_fields: 100,
    timeout: None,
    half_closed: Duration::ZERO,
    drain_idle: Duration::ZERO,
};

#[derive(Debug, Default)]
struct Bytes {
    read: AtomicUsize,
}

impl Meter for Bytes {
    fn opened(&self) {}

    fn read(&self, bytes: usize) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    fn written(&self, _bytes: usize) {}

    fn abused(&self, _reason: &'static str) {}

    fn closed(&self, _errno: Option<i32>) {}
}

fn pool(addr: SocketAddr) -> Arc<Pool> {
    let dial = testing::dial(addr, PATIENCE);
    let settings = Settings {
        idle_timeout: PATIENCE,
        ..testing::settings()
    };
    Arc::new(Pool::new(
        dial,
        settings,
        Http2Params::default(),
        testing::metrics(),
    ))
}

fn get(version: Version) -> Request<Body> {
    let builder = Request::builder().version(version).uri("http://app/");
    builder.body(Body::Empty).unwrap()
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Both ends of a connection.
async fn connection() -> (TcpStream, TcpStream) {
    let (listener, addr) = listener().await;
    let client = TcpStream::connect(addr).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

async fn read_head(stream: &mut TcpStream) {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(stream.read_u8().await.unwrap());
    }
}

/// A server that answers every head it reads, at once; each connection it accepts is told.
async fn hasty() -> (SocketAddr, mpsc::Receiver<()>) {
    let (listener, addr) = listener().await;
    let (told, accepted) = mpsc::channel(100);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            told.send(()).await.unwrap();
            tokio::spawn(async move {
                loop {
                    read_head(&mut stream).await;
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (addr, accepted)
}

#[tokio::test]
async fn a_connection_whose_upload_goes_on_after_the_answer_is_not_handed_out() {
    let (addr, mut accepted) = hasty().await;
    let pool = pool(addr);
    let (mut uploader, stream) = connection().await;
    let (forwarding, (_drainer, drain)) = (pool.clone(), drain::channel());
    let service = move |mut request: Request<Body>, interims| {
        let pool = forwarding.clone();
        async move {
            let answer = pool.send(&mut request, &interims).await;
            let answer = answer.map_err(|failed| failed.fault)?;
            Ok(answer.map(|body| Tracked::new(body, Untold)))
        }
    };
    let io = Io::plain(Socket::new(stream));
    let server = http1::server::serve(io, service, IMPATIENT, Closing::default(), drain);
    tokio::spawn(server);
    let upload = b"POST / HTTP/1.1\r\nhost: app\r\ncontent-length: 1000\r\n\r\nand so on";
    uploader.write_all(upload).await.unwrap();
    read_head(&mut uploader).await;
    let second = timeout(
        PATIENCE,
        pool.send(&mut get(Version::HTTP_11), &Interims::default()),
    )
    .await;
    assert!(second.unwrap().is_ok());
    accepted.recv().await.unwrap();
    accepted.recv().await.unwrap();
}

#[tokio::test]
async fn a_request_without_persistent_connections_leaves_those_of_others_alone() {
    let (addr, mut accepted) = hasty().await;
    let pool = pool(addr);
    for version in [Version::HTTP_11, Version::HTTP_10, Version::HTTP_11] {
        pool.send(&mut get(version), &Interims::default()).await.unwrap();
    }
    assert_eq!((accepted.try_recv(), accepted.try_recv()), (Ok(()), Ok(())));
    assert!(
        accepted.try_recv().is_err(),
        "the first connection was not used again"
    );
}

/// A listener whose queue is full: connecting to it takes for ever.
fn black_hole() -> (socket2::Socket, std::net::TcpStream, SocketAddr) {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap().as_socket().unwrap();
    (listener, std::net::TcpStream::connect(addr).unwrap(), addr)
}

// The clock stands still, but for waits that nothing else can end.
#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_one_http2_connection_share_its_failure() {
    let (_listener, _queued, addr) = black_hole();
    let (pool, begun) = (pool(addr), Instant::now());
    let send = |_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            pool.send(&mut get(Version::HTTP_2), &Interims::default())
                .await
                .map(drop)
        })
    };
    let mut waiting: Vec<_> = (0..10).map(send).collect();
    tokio::task::yield_now().await;
    waiting.swap_remove(0).abort(); // and who goes away does not end it for the others
    for request in waiting {
        let failed = request.await.unwrap().unwrap_err();
        assert_eq!((failed.fault.kind, failed.unsent), (Kind::ConnectTimeout, true));
    }
    assert!(begun.elapsed() < 2 * PATIENCE);
}

#[tokio::test]
async fn a_request_that_goes_away_while_its_connection_opens_leaves_it_to_the_next() {
    let (addr, mut accepted) = hasty().await;
    let pool = pool(addr);
    let mut leaving = get(Version::HTTP_11);
    let interims = Interims::default();
    let mut leaving = Box::pin(pool.send(&mut leaving, &interims));
    assert!(futures_util::FutureExt::now_or_never(&mut leaving).is_none());
    drop(leaving);
    accepted.recv().await.unwrap();
    while pool.idle() == 0 {
        tokio::task::yield_now().await;
    }
    pool.send(&mut get(Version::HTTP_11), &Interims::default())
        .await
        .unwrap();
    assert!(accepted.try_recv().is_err(), "a second connection was opened");
}

/// An HTTP/2 server, each of whose connections says GOAWAY when asked; requests to `/hang` are not answered.
async fn restless() -> (SocketAddr, Arc<Notify>) {
    let (listener, addr) = listener().await;
    let go_away = Arc::new(Notify::new());
    let asked = go_away.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let asked = asked.clone();
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| async move {
                    if request.uri().path() == "/hang" {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, Infallible>(Response::new(Body::Empty))
                });
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let mut serving = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
                tokio::select! {
                    _ = serving.as_mut() => return,
                    () = asked.notified() => serving.as_mut().graceful_shutdown(),
                }
                let _ended = serving.await;
            });
        }
    });
    (addr, go_away)
}

#[tokio::test]
async fn after_goaway_requests_take_a_fresh_connection() {
    let (addr, go_away) = restless().await;
    let pool = pool(addr);
    let hanging = pool.clone();
    tokio::spawn(async move {
        let mut request = get(Version::HTTP_2);
        *request.uri_mut() = "http://app/hang".parse().unwrap();
        hanging.send(&mut request, &Interims::default()).await.map(drop)
    });
    for _ in 0..20 {
        pool.send(&mut get(Version::HTTP_2), &Interims::default())
            .await
            .unwrap();
        go_away.notify_waiters();
        // Some of these meet the connection before, some while, some after it is told to go away.
        for _ in 0..5 {
            pool.send(&mut get(Version::HTTP_2), &Interims::default())
                .await
                .unwrap();
        }
    }
}

struct Untold;

impl Track for Untold {
    fn first_frame(&mut self) {}

    fn trailers(&mut self, _trailers: &HeaderMap) {}

    fn finish(self, _end: End<'_>) {}
}

fn empty() -> Result<Response<Tracked<Untold>>, BoxError> {
    Ok(Response::new(Tracked::new(Body::Empty, Untold)))
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_ends_its_request() {
    let (mut client, stream) = connection().await;
    let (_drainer, drain) = drain::channel();
    let begun = Arc::new(Notify::new());
    let begins = begun.clone();
    let service = move |_request: Request<Body>, _interims| {
        begins.notify_one();
        async {
            std::future::pending::<()>().await;
            empty()
        }
    };
    let io = Io::plain(Socket::new(stream));
    let served = tokio::spawn(http1::server::serve(
        io,
        service,
        IMPATIENT,
        Closing::default(),
        drain,
    ));
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    begun.notified().await;
    drop(client);
    assert!(timeout(PATIENCE, served).await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn a_request_that_came_before_the_drain_is_answered() {
    for _ in 0..20 {
        let (mut client, stream) = connection().await;
        let (drainer, drain) = drain::channel();
        let mut io = Io::plain(Socket::new(stream));
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        detect::preface(&mut io, PATIENCE).await.unwrap();
        let draining = tokio::spawn(drainer.drain());
        tokio::task::yield_now().await;
        let service = |_request: Request<Body>, _interims| async { empty() };
        http1::server::serve(io, service, IMPATIENT, Closing::default(), drain)
            .await
            .unwrap();
        read_head(&mut client).await;
        draining.await.unwrap();
    }
}

#[tokio::test]
async fn bytes_that_are_put_back_are_counted_once() {
    let (mut client, stream) = connection().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut io = Io::plain(Socket::new(stream));
    detect::preface(&mut io, PATIENCE).await.unwrap();
    let late = Arc::<Bytes>::default();
    let mut io = io.metered(late.clone());
    detect::preface(&mut io, PATIENCE).await.unwrap();
    io.read_exact(&mut [0; 18]).await.unwrap();
    assert_eq!(late.read.load(Ordering::Relaxed), 18);
}
