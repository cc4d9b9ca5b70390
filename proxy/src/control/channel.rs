//! `Channel`: the one tower `Service` of the proxy, an HTTP/2 connection to a service of the control plane.
//!
//! A task keeps one connection up for as long as somebody holds the channel; requests wait for it, up to a bound.
//! On this host it is plaintext; elsewhere mutual TLS, and the other side has to prove the configured name. PINGs
//! (RFC 9113 §6.7) while streams are open find a peer that died without a word.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, Parts, PathAndQuery, Scheme, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use outrigger_policy::name::Identity;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tonic::body::Body;
use tower::Service;
use tracing::{debug, error, info, warn};

use crate::config::{ControlAddr, Host, HostPort, Http2Client};
use crate::control::metrics::ChannelMetrics;
use crate::control::waits::{Waits, backoff};
use crate::error::chain;
use crate::live::Live;
use crate::tls::{self, Credentials};

/// How long a request waits for a connection.
const CONNECTION_WAIT: Duration = Duration::from_secs(30);

/// How often a PING is sent while streams are open, and how long its answer may take.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that lasted as long was a success: the backoff begins anew.
const HEALTHY: Duration = Duration::from_secs(10);

/// How long the resolver may take.
const LOOKUP: Duration = Duration::from_secs(10);

/// Addresses tried per attempt to connect.
const MAX_ADDRESSES: usize = 8;

/// A service of the control plane. A clone shares the connection; it closes with the last one.
#[derive(Clone, Debug)]
pub struct Channel {
    authority: Authority,
    link: watch::Receiver<Link>,
    _driver: Arc<Driver>,
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configured address is no URI authority.
    #[error("{0} can't be an authority: {1}")]
    Authority(String, #[source] http::uri::InvalidUri),
    /// There was no connection in time.
    #[error("no connection to {0} within {CONNECTION_WAIT:?}")]
    NoConnection(Authority),
    /// The name has no address, or can't be looked up.
    #[error("looking up {0}")]
    Lookup(HostPort, #[source] io::Error),
    /// Connecting failed.
    #[error("connecting to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    /// The handshake failed, or the other side is somebody else.
    #[error("control plane at {0}")]
    Tls(SocketAddr, #[source] tls::Error),
    /// The connection failed under the request.
    #[error("request to the control plane")]
    Http(#[source] hyper::Error),
}

/// The name of the one channel that is needed to get a certificate, and so has to do without.
pub(crate) const IDENTITY: &str = "identity";

/// The state of the connection.
#[derive(Clone, Debug)]
enum Link {
    Down,
    Up(SendRequest<Body>),
}

/// Ends the task when the last channel is gone.
#[derive(Debug)]
struct Driver(AbortHandle);

/// What the task needs to connect.
struct Target {
    name: &'static str,
    addr: ControlAddr,
    http2: Http2Client,
    credentials: Live<Credentials>,
    /// Whether the service talks to none but the mesh: dialling it earlier would only be refused.
    needs_certificate: bool,
    metrics: ChannelMetrics,
}

type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

impl Channel {
    /// Starts to keep a connection up, on this runtime. `name` is for people: `destination`.
    pub(crate) fn open(
        name: &'static str,
        addr: &ControlAddr,
        http2: &Http2Client,
        credentials: Live<Credentials>,
        metrics: ChannelMetrics,
        runtime: &Handle,
    ) -> Result<Self, Error> {
        let authority = addr.addr.to_string();
        let authority = authority.parse().map_err(|e| Error::Authority(authority, e))?;
        let (down, link) = watch::channel(Link::Down);
        let target = Target {
            name,
            addr: addr.clone(),
            http2: *http2,
            credentials,
            needs_certificate: addr.identity.is_some() && name != IDENTITY,
            metrics,
        };
        let driver = runtime.spawn(target.keep_connected(down));
        Ok(Self {
            authority,
            link,
            _driver: Arc::new(Driver(driver.abort_handle())),
        })
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        matches!(&*self.link.borrow(), Link::Up(_))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    /// Always ready: a request waits in its future, where it has a bound.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let (authority, mut link) = (self.authority.clone(), self.link.clone());
        Box::pin(async move {
            *request.uri_mut() = with_origin(request.uri(), &authority);
            let up = link.wait_for(|link| matches!(link, Link::Up(_)));
            let sender = match timeout(CONNECTION_WAIT, up).await {
                Ok(Ok(link)) => match &*link {
                    Link::Up(sender) => Some(sender.clone()),
                    Link::Down => None,
                },
                Ok(Err(_)) | Err(_) => None,
            };
            let mut sender = sender.ok_or(Error::NoConnection(authority))?;
            sender.send_request(request).await.map_err(Error::Http)
        })
    }
}

impl Target {
    /// Connects, and connects again whenever the connection ends. Never returns.
    async fn keep_connected(mut self, link: watch::Sender<Link>) {
        let mut waits = Waits::new(backoff(&self.addr.connect.backoff));
        if self.needs_certificate {
            self.certified().await;
        }
        loop {
            match self.connect().await {
                Ok((sender, connection)) => {
                    debug!(client = self.name, "connected to the control plane");
                    let since = Instant::now();
                    let up = Up::new(&link, sender, &self.metrics);
                    let ended = connection.await;
                    drop(up);
                    if since.elapsed() >= HEALTHY {
                        waits.reset();
                    }
                    let why = ended.map_or_else(|e| chain(&e), |()| "closed".to_owned());
                    info!(client = self.name, %why, "lost the control plane; connecting again");
                }
                Err(e) => {
                    self.metrics.failures.inc();
                    self.report(&e);
                }
            }
            tokio::time::sleep(waits.next()).await;
        }
    }

    /// Waits for the first certificate.
    async fn certified(&mut self) {
        while !self.credentials.get_and_mark_seen().is_certified() {
            if self.credentials.changed().await.is_err() {
                return;
            }
        }
    }

    /// A peer that can't prove who it is needs a person; one that is away will come back.
    fn report(&self, e: &Error) {
        let error = chain(e);
        match e {
            Error::Tls(..) => error!(client = self.name, %error, "refused the control plane"),
            _ => warn!(client = self.name, %error, "can't reach the control plane"),
        }
    }

    async fn connect(&self) -> Result<(SendRequest<Body>, Connection), Error> {
        let mut addresses = lookup(&self.addr.addr).await?;
        fastrand::shuffle(&mut addresses);
        addresses.truncate(MAX_ADDRESSES);
        let nothing = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let mut failed = Error::Lookup(self.addr.addr.clone(), nothing);
        for addr in addresses {
            match timeout(self.addr.connect.timeout, self.connect_to(addr)).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(e)) => failed = e,
                Err(_) => failed = Error::Connect(addr, io::ErrorKind::TimedOut.into()),
            }
        }
        Err(failed)
    }

    async fn connect_to(&self, addr: SocketAddr) -> Result<(SendRequest<Body>, Connection), Error> {
        let io = self.dial(addr).await.map_err(|e| Error::Connect(addr, e))?;
        let Some(name) = &self.addr.identity else {
            return self.speak(io).await;
        };
        // Read now: a reconnect uses the certificate of the day.
        let credentials = self.credentials.get();
        let expect = Identity::Dns(name.clone());
        let tls = tls::client::connect(&credentials, io, name, &expect, false)
            .await
            .map_err(|e| Error::Tls(addr, e))?;
        self.speak(tls.stream).await
    }

    async fn dial(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let io = TcpStream::connect(addr).await?;
        io.set_nodelay(true)?;
        outrigger_sys::set_keepalive(&io, self.addr.connect.keepalive)?;
        outrigger_sys::set_user_timeout(&io, self.addr.connect.user_timeout)?;
        Ok(io)
    }

    async fn speak<I>(&self, io: I) -> Result<(SendRequest<Body>, Connection), Error>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(self.http2.stream_window)
            .initial_connection_window_size(self.http2.connection_window)
            .handshake(TokioIo::new(io))
            .await
            .map_err(Error::Http)?;
        Ok((sender, Box::pin(connection)))
    }
}

/// The connection is announced for as long as this lives, also when the task is aborted.
struct Up<'a>(&'a watch::Sender<Link>, &'a ChannelMetrics);

impl<'a> Up<'a> {
    fn new(link: &'a watch::Sender<Link>, sender: SendRequest<Body>, metrics: &'a ChannelMetrics) -> Self {
        link.send_replace(Link::Up(sender));
        metrics.connected.set(1);
        Self(link, metrics)
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.0.send_replace(Link::Down);
        self.1.connected.set(0);
    }
}

/// The addresses of a name. `localhost` needs no resolver.
async fn lookup(addr: &HostPort) -> Result<Vec<SocketAddr>, Error> {
    match &addr.host {
        Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, addr.port)]),
        Host::Name { .. } if addr.is_loopback() => {
            Ok(vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), addr.port)])
        }
        Host::Name { .. } => {
            let found = timeout(LOOKUP, lookup_host(addr.to_string())).await;
            let found = found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            Ok(found.map_err(|e| Error::Lookup(addr.clone(), e))?.collect())
        }
    }
}

/// The URI that is sent: scheme `http` under TLS too, as the control plane expects, and the configured authority.
fn with_origin(uri: &Uri, authority: &Authority) -> Uri {
    let mut parts = Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority.clone());
    parts.path_and_query = Some(
        uri.path_and_query()
            .cloned()
            .unwrap_or_else(|| PathAndQuery::from_static("/")),
    );
    Uri::from_parts(parts).expect("scheme, authority and path are all there")
}
