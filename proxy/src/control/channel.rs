//! `Channel`: the one tower `Service` of the proxy, connections of HTTP/2 to a service of the control plane.
//!
//! A task keeps a connection up for as long as somebody holds the channel, to one of the service's addresses, and opens
//! more where the peer limits its streams. Requests wait for room, up to a bound. On this host it is plaintext;
//! elsewhere mutual TLS, and the other side has to prove the configured name.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Parts, PathAndQuery, Scheme, Uri};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tonic::body::Body;
use tower::Service;

use crate::config::{ControlAddr, Http2Client};
use crate::control::dns::{self, Names};
use crate::control::keeper::Keeper;
use crate::control::lines::{Lines, Slot};
use crate::control::metrics::{ChannelMetrics, Client};
use crate::control::requests::{Asked, Requests};
use crate::live::Live;
use crate::tls::Credentials;

/// How long a request waits for a connection with room.
const SLOT_WAIT: Duration = Duration::from_secs(30);

/// A service of the control plane. A clone shares the connections; they close with the last one.
#[derive(Clone, Debug)]
pub struct Channel {
    authority: Authority,
    lines: Arc<Lines>,
    requests: Requests,
    _driver: Arc<Driver>,
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configured address is no URI authority.
    #[error("{0} can't be an authority: {1}")]
    Authority(String, #[source] http::uri::InvalidUri),
    /// There was no connection in time.
    #[error("no connection to {0} within {SLOT_WAIT:?}")]
    NoConnection(Authority),
    /// The peer allows no more streams, on any of the connections.
    #[error("no room for one more stream to {0} within {SLOT_WAIT:?}")]
    NoRoom(Authority),
    /// The connection failed under the request.
    #[error("request to the control plane")]
    Http(#[source] hyper::Error),
}

/// The body of a response. Its stream counts against the peer's limit for as long as it is held.
pub struct ResponseBody {
    body: Incoming,
    asked: Asked,
    _slot: Slot,
}

/// Ends the task when the last channel is gone.
#[derive(Debug)]
struct Driver(AbortHandle);

impl Channel {
    /// Starts to keep a connection up, on this runtime.
    pub(crate) fn open(
        client: Client,
        addr: &ControlAddr,
        http2: &Http2Client,
        credentials: Live<Credentials>,
        metrics: ChannelMetrics,
        runtime: &Handle,
    ) -> Result<Self, Error> {
        let (known, addresses) = watch::channel(Vec::new());
        let names = Names::new(addr, metrics.dns.clone());
        let keeper = Keeper {
            client,
            addr: addr.clone(),
            http2: *http2,
            credentials,
            lines: Lines::new(metrics.clone()),
            metrics,
            ask_again: Arc::new(Notify::new()),
        };
        let ask_again = keeper.ask_again.clone();
        Self::keep(keeper, addresses, runtime, async move {
            names.follow(dns::system, &known, &ask_again).await;
        })
    }

    /// With addresses that are found out by `resolve`, which never ends.
    pub(crate) fn keep(
        keeper: Keeper,
        addresses: watch::Receiver<Vec<std::net::SocketAddr>>,
        runtime: &Handle,
        resolve: impl Future<Output = ()> + Send + 'static,
    ) -> Result<Self, Error> {
        let authority = keeper.addr.addr.to_string();
        let authority = authority.parse().map_err(|e| Error::Authority(authority, e))?;
        let lines = keeper.lines.clone();
        let requests = keeper.metrics.requests.to(&keeper.addr);
        let driver = runtime.spawn(async move {
            tokio::join!(resolve, keeper.keep(addresses));
        });
        Ok(Self {
            authority,
            lines,
            requests,
            _driver: Arc::new(Driver(driver.abort_handle())),
        })
    }

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.lines.is_up()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<ResponseBody>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    /// Always ready: a request waits in its future, where it has a bound.
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let (authority, lines) = (self.authority.clone(), self.lines.clone());
        let mut asked = self.requests.ask();
        Box::pin(async move {
            *request.uri_mut() = with_origin(request.uri(), &authority);
            let Ok(mut slot) = timeout(SLOT_WAIT, lines.slot()).await else {
                return Err(match lines.is_up() {
                    true => Error::NoRoom(authority),
                    false => Error::NoConnection(authority),
                });
            };
            let response = slot.sender.send_request(request).await.map_err(Error::Http)?;
            asked.head(response.status(), response.headers());
            Ok(response.map(|body| ResponseBody {
                body,
                asked,
                _slot: slot,
            }))
        })
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.asked.frame(frame.trailers_ref()),
            Poll::Ready(None) => self.asked.frame(None),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.body.fmt(f)
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
