//! Connections to one address: an idle stack for HTTP/1, one shared connection for HTTP/2.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Shared;
use http::{Request, Response, Version};
use outrigger_policy::endpoint::Http2Params;
use tokio::sync::{Semaphore, oneshot};

use crate::config;
use crate::error::{self, Fault, Kind, Side};
use crate::http::body::Body;
use crate::http::client::{self, Http1, Http2, Windows};
use crate::http::http1::answer;
use crate::http::http1::head::refusal_in;
use crate::net::header::Session;
use crate::tls::dial::Dial;

/// HTTP/1 connections of one pool that are opened to the end even if their request has gone meanwhile.
const FINISHED_DIALS: usize = 16;

/// Connections to one address.
#[derive(Debug)]
pub struct Pool {
    dial: Dial,
    settings: Settings,
    params: Http2Params,
    /// The connection last used is on top: the others get old and are closed.
    idle: Mutex<Idle>,
    http2: Mutex<Current>,
    /// A permit for each HTTP/1 connection that is opened to the end in any case.
    dials: Arc<Semaphore>,
}

/// How a pool behaves.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// HTTP/1 connections kept without a request.
    pub max_idle: usize,
    /// How long an HTTP/1 connection is kept without a request.
    pub idle_timeout: Duration,
    /// HTTP/2 flow control.
    pub windows: Windows,
    /// A multiple of the budgets of HTTP/2 frames.
    pub flood_scale: u32,
}

/// The HTTP/2 connection.
#[derive(Debug, Default)]
enum Current {
    #[default]
    None,
    /// One is being opened, by a task of its own: whoever waits gets what comes of it.
    Opening(Shared<oneshot::Receiver<Opened>>),
    Open(Http2),
}

/// What came of opening an HTTP/2 connection, for all who waited.
type Opened = Result<Http2, Arc<Fault>>;

#[derive(Debug, Default)]
struct Idle {
    /// Oldest first, each with the round in which it became idle.
    stack: Vec<(Http1, u64)>,
    /// How often the sweep has looked: a clock that costs a request nothing.
    round: u64,
    /// Whether a task is under way that closes what gets old.
    sweeping: bool,
}

/// An HTTP/1 connection in use; it goes back to its pool with [`Lease::give_back`], or is closed when dropped.
#[derive(Debug)]
pub struct Lease {
    sender: Http1,
    pool: Arc<Pool>,
}

/// HTTP/2 connections that may end under one request before it fails; more is not bad luck.
const MAX_GOODBYES: u32 = 3;

/// A request that failed.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub fault: Fault,
    /// Nothing of it was written and it is back where it came from: sending it elsewhere is safe.
    pub unsent: bool,
}

impl Settings {
    /// As they are configured.
    pub fn new(pool: &config::Pool, http2: &config::Http2Client) -> Self {
        Self {
            max_idle: pool.max_idle,
            idle_timeout: pool.idle_timeout,
            windows: Windows::from(http2),
            flood_scale: http2.flood_scale,
        }
    }
}

impl Pool {
    /// A pool without connections; they are opened when requests need them.
    pub fn new(dial: Dial, settings: Settings, params: Http2Params) -> Self {
        Self {
            dial,
            settings,
            params,
            idle: Mutex::default(),
            http2: Mutex::default(),
            dials: Arc::new(Semaphore::new(FINISHED_DIALS)),
        }
    }

    /// How the address is dialled.
    pub fn dial(&self) -> &Dial {
        &self.dial
    }

    /// Sends a request by the version it has, and leaves an empty one behind. The answer's body carries the connection
    /// back into the pool.
    pub async fn send(self: &Arc<Self>, request: &mut Request<Body>) -> Result<Response<Body>, Failed> {
        match request.version() {
            Version::HTTP_2 => self.send_http2(request).await,
            _ => self.send_http1(request).await,
        }
    }

    /// Takes a connection in that somebody else has opened; its task has to have run before a request comes.
    pub fn adopt_http1(self: &Arc<Self>, sender: Http1) {
        self.keep(sender);
    }

    /// The same for HTTP/2; it is the one in use from now on.
    pub fn adopt_http2(&self, sender: Http2) {
        *lock(&self.http2) = Current::Open(sender);
    }

    async fn send_http1(self: &Arc<Self>, request: &mut Request<Body>) -> Result<Response<Body>, Failed> {
        // HTTP/1.0 has no persistent connections to speak of (RFC 9112 §9.3).
        let reusable = request.version() == Version::HTTP_11;
        loop {
            let idle = if reusable { self.checkout() } else { None };
            let reused = idle.is_some();
            let mut sender = match idle {
                Some(sender) => sender,
                None => Box::pin(self.open_http1())
                    .await
                    .map_err(|fault| Failed { fault, unsent: true })?,
            };
            match sender.try_send_request(mem::take(request)).await {
                Ok(mut response) => {
                    answer::check(&mut response).map_err(|fault| Failed { fault, unsent: false })?;
                    let lease = reusable.then(|| Lease {
                        sender,
                        pool: self.clone(),
                    });
                    return Ok(response.map(|body| leased(body, lease)));
                }
                Err(mut error) => match error.take_message() {
                    // The server closed an idle connection as we took it: the next one, or a fresh one.
                    Some(unsent) if reused => *request = unsent,
                    unsent => return Err(failed(error.into_error(), unsent, request)),
                },
            }
        }
    }

    async fn send_http2(self: &Arc<Self>, request: &mut Request<Body>) -> Result<Response<Body>, Failed> {
        let mut goodbyes = 0;
        loop {
            let sender = match self.current() {
                Some(sender) => Ok(sender),
                None => Box::pin(self.opened_http2()).await,
            };
            let mut sender = sender.map_err(|fault| Failed { fault, unsent: true })?;
            match sender.try_send_request(mem::take(request)).await {
                Ok(response) => return Ok(response.map(Body::from)),
                Err(mut error) => match error.take_message() {
                    // The server said goodbye (GOAWAY, RFC 9113 §6.8) before it took the request: a fresh connection.
                    Some(unsent) if sender.is_closed() && goodbyes < MAX_GOODBYES => {
                        *request = unsent;
                        goodbyes += 1;
                    }
                    unsent => return Err(failed(error.into_error(), unsent, request)),
                },
            }
        }
    }

    /// The HTTP/2 connection, if there is one.
    fn current(&self) -> Option<Http2> {
        match &*lock(&self.http2) {
            Current::Open(sender) if !sender.is_closed() => Some(sender.clone()),
            _ => None,
        }
    }

    /// A new HTTP/2 connection, or the one that another request has asked for meanwhile. Its failure is shared too:
    /// nobody waits for more than one attempt.
    async fn opened_http2(self: &Arc<Self>) -> Result<Http2, Fault> {
        let opening = {
            let mut http2 = lock(&self.http2);
            match &*http2 {
                Current::Open(sender) if !sender.is_closed() => return Ok(sender.clone()),
                // One that is over has left its task without an outcome.
                Current::Opening(opening) if opening.peek().is_none() => opening.clone(),
                _ => {
                    let opening = self.open_http2();
                    *http2 = Current::Opening(opening.clone());
                    opening
                }
            }
        };
        match opening.await {
            Ok(Ok(sender)) => Ok(sender),
            Ok(Err(fault)) => Err(told_again(&fault)),
            Err(_gone) => Err(Fault::new(Kind::Internal, Side::Proxy)),
        }
    }

    fn open_http2(self: &Arc<Self>) -> Shared<oneshot::Receiver<Opened>> {
        let (outcome, opening) = oneshot::channel();
        let pool = self.clone();
        tokio::spawn(async move {
            let opened = pool.connect_http2().await.map_err(Arc::new);
            *lock(&pool.http2) = match &opened {
                Ok(sender) => Current::Open(sender.clone()),
                Err(_) => Current::None,
            };
            let _nobody_waits = outcome.send(opened);
        });
        opening.shared()
    }

    async fn connect_http2(&self) -> Result<Http2, Fault> {
        let io = self.dial.connect(Some(Session::Http2)).await?;
        client::http2(io, self.settings.windows, self.settings.flood_scale, &self.params)
            .await
            .map_err(|error| Fault::because(Kind::Connect, Side::Server, error))
    }

    /// A new HTTP/1 connection. If its request goes away meanwhile, the next one finds it in the pool; only a few
    /// such at a time, so that requests which come and go do not open connections without end.
    async fn open_http1(self: &Arc<Self>) -> Result<Http1, Fault> {
        let Ok(permit) = self.dials.clone().try_acquire_owned() else {
            return self.connect_http1().await;
        };
        let (outcome, opened) = oneshot::channel();
        let pool = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(Ok(unwanted)) = outcome.send(pool.connect_http1().await) {
                pool.put_back(unwanted);
            }
        });
        opened
            .await
            .unwrap_or_else(|_gone| Err(Fault::new(Kind::Internal, Side::Proxy)))
    }

    async fn connect_http1(&self) -> Result<Http1, Fault> {
        let io = self.dial.connect(Some(Session::Http1)).await?;
        client::http1(io)
            .await
            .map_err(|error| Fault::because(Kind::Connect, Side::Server, error))
    }

    /// The idle connection used last, if one is still open.
    fn checkout(&self) -> Option<Http1> {
        let mut idle = lock(&self.idle);
        while let Some((sender, _)) = idle.stack.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    /// Keeps a connection whose answer has ended. Its request may not have, if the server answered early: then it is
    /// of use only when that has ended too.
    fn put_back(self: &Arc<Self>, mut sender: Http1) {
        if sender.is_ready() {
            return self.keep(sender);
        }
        if sender.is_closed() {
            return;
        }
        let pool = self.clone();
        tokio::spawn(async move {
            let ready = tokio::time::timeout(pool.settings.idle_timeout, sender.ready()).await;
            if let Ok(Ok(())) = ready {
                pool.keep(sender);
            }
        });
    }

    /// How many HTTP/1 connections are idle.
    #[cfg(test)]
    pub(in crate::http) fn idle(&self) -> usize {
        lock(&self.idle).stack.len()
    }

    fn keep(self: &Arc<Self>, sender: Http1) {
        let mut idle = lock(&self.idle);
        if idle.stack.len() >= self.settings.max_idle {
            return;
        }
        let round = idle.round;
        idle.stack.push((sender, round));
        if !idle.sweeping {
            idle.sweeping = true;
            tokio::spawn(sweep(Arc::downgrade(self), self.settings.idle_timeout));
        }
    }
}

impl Lease {
    /// Puts the connection back: the answer has been read to its end.
    pub fn give_back(self) {
        self.pool.clone().put_back(self.sender);
    }
}

/// Closes connections that nobody has used for the idle timeout, or for half as long again at most, until none is idle.
async fn sweep(pool: Weak<Pool>, timeout: Duration) {
    loop {
        tokio::time::sleep(timeout / ROUNDS).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = lock(&pool.idle);
        idle.round += 1;
        let oldest = idle.round.saturating_sub(u64::from(ROUNDS));
        let fresh = idle.stack.partition_point(|(_, round)| *round < oldest);
        idle.stack.drain(..fresh);
        if idle.stack.is_empty() {
            idle.stack = Vec::new();
            idle.sweeping = false;
            return;
        }
    }
}

/// How often the sweep looks within the idle timeout.
const ROUNDS: u32 = 2;

fn leased(body: hyper::body::Incoming, lease: Option<Lease>) -> Body {
    use http_body::Body as _;
    match lease {
        Some(lease) if body.is_end_stream() => {
            lease.give_back();
            Body::Incoming(body, None)
        }
        lease => Body::Incoming(body, lease),
    }
}

/// The same fault for another request, its cause as text.
fn told_again(fault: &Fault) -> Fault {
    Fault {
        kind: fault.kind,
        side: fault.side,
        source: fault.source.as_deref().map(|cause| error::chain(cause).into()),
    }
}

/// Puts the request back, if nothing of it was written.
fn failed(error: hyper::Error, unsent: Option<Request<Body>>, request: &mut Request<Body>) -> Failed {
    // A body that was refused as it came from the client broke the exchange off, not the server.
    let fault = match refusal_in(&error) {
        Some(refusal) => refusal.fault(),
        None if error.is_parse() => Fault::because(Kind::BadAnswer, Side::Server, error),
        None => Fault::because(Kind::Reset, Side::Server, error),
    };
    match unsent {
        Some(unsent) => {
            *request = unsent;
            Failed { fault, unsent: true }
        }
        None => Failed { fault, unsent: false },
    }
}

/// A lock whose holder panicked is as good as any: what it guards is replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod testing {
    use std::net::SocketAddr;

    use super::*;
    use crate::net::connect::Options;
    use crate::net::io::testing::Unmetered;

    /// A pool of plain connections to an address.
    pub(crate) fn pool(addr: SocketAddr) -> Arc<Pool> {
        let options = Options {
            timeout: Duration::from_secs(1),
            keepalive: None,
            user_timeout: None,
        };
        let dial = Dial {
            addr,
            options,
            peer: None,
            meter: Arc::new(Unmetered),
        };
        let windows = Windows {
            stream: 65_535,
            connection: 1_048_576,
        };
        let settings = Settings {
            max_idle: 10,
            idle_timeout: Duration::from_secs(3),
            windows,
            flood_scale: 1,
        };
        Arc::new(Pool::new(dial, settings, Http2Params::default()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use hyper::server::conn::{http1, http2};
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::net::TcpListener;

    use super::testing::pool;
    use super::*;

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
        let response = pool.send(&mut get(version)).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
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

    #[tokio::test]
    async fn a_connection_whose_answer_was_not_read_is_never_used_again() {
        let (addr, connections) = serve(Version::HTTP_11, None).await;
        let pool = pool(addr);
        drop(pool.send(&mut get(Version::HTTP_11)).await.unwrap());
        hello(&pool, Version::HTTP_11).await;
        assert_eq!(connections.load(Ordering::SeqCst), 2);
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
        let failed = pool(addr).send(&mut get(Version::HTTP_11)).await.unwrap_err();
        assert_eq!(failed.fault.kind, Kind::Connect);
        assert!(failed.unsent);
    }
}
