//! The gRPC servers: one listener per API, each with its limits, its TLS and its services.

pub mod destination;
mod follow;
pub mod identity;
pub mod policy;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;

use crate::ending::Ending;

/// Connections per listener; more wait to be accepted. A proxy has one to each API.
const MAX_CONNECTIONS: usize = 4096;

/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection on which nothing is asked for between two looks is closed; the client comes back when it wants to.
const IDLE_LOOK: Duration = Duration::from_secs(150);

/// Peers that went away without a word are found by HTTP/2 pings (RFC 9113 §6.7).
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long answers under way may take when the process ends; watches never end by themselves.
const GRACE: Duration = Duration::from_secs(1);

/// After a failed accept (no file descriptors left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// One API on one address.
#[derive(Debug)]
pub struct Listener {
    /// The API, as it stands in logs and metrics.
    pub name: &'static str,
    /// Where.
    pub socket: TcpListener,
    /// `None`: plaintext, for loopback addresses only.
    pub tls: Option<Arc<ServerConfig>>,
    /// The services.
    pub routes: Routes,
    /// How many streams a client may have open at once on one connection.
    pub max_streams: u32,
}

/// What all listeners count.
#[derive(Clone, Debug, Default)]
pub struct ServeMetrics {
    streams: Family<Api, Gauge>,
    connections: Family<Api, Gauge>,
    handshakes_failed: Family<Api, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Api {
    api: &'static str,
}

/// What a connection needs of its listener.
#[derive(Clone)]
struct Host {
    name: &'static str,
    tls: Option<TlsAcceptor>,
    routes: Routes,
    max_streams: u32,
    ending: Ending,
    streams: Gauge,
    connections: Gauge,
    handshakes_failed: Counter,
}

impl Listener {
    /// Serves until the end begins and the connections have ended.
    pub async fn serve(self, mut ending: Ending, metrics: ServeMetrics) {
        let host = self.host(ending.clone(), &metrics);
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accept = async {
                let slot = slots.clone().acquire_owned().await;
                (slot, self.socket.accept().await)
            };
            tokio::select! {
                (slot, accepted) = accept => match accepted {
                    Ok((tcp, peer)) => {
                        let host = host.clone();
                        connections.spawn(async move {
                            host.connection(tcp, peer).await;
                            drop(slot);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(api = self.name, %error, "accepting a connection failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = connections.join_next() => report_panic(self.name, ended),
                () = ending.begun() => break,
            }
        }
        drop(self.socket);
        while let Some(ended) = connections.join_next().await {
            report_panic(host.name, ended);
        }
    }

    fn host(&self, ending: Ending, metrics: &ServeMetrics) -> Host {
        let api = Api { api: self.name };
        Host {
            name: self.name,
            tls: self.tls.clone().map(TlsAcceptor::from),
            routes: self.routes.clone(),
            max_streams: self.max_streams,
            ending,
            streams: metrics.streams.get_or_create_owned(&api),
            connections: metrics.connections.get_or_create_owned(&api),
            handshakes_failed: metrics.handshakes_failed.get_or_create_owned(&api),
        }
    }
}

impl Host {
    async fn connection(self, tcp: TcpStream, peer: SocketAddr) {
        let _open = Counted::new(&self.connections);
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(api = self.name, %peer, %error, "TCP_NODELAY");
        }
        let Some(tls) = self.tls.clone() else {
            return self.http2(tcp, peer).await;
        };
        let mut ending = self.ending.clone();
        let handshake = tokio::select! {
            handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(tcp)) => handshake,
            () = ending.begun() => return,
        };
        match handshake {
            Ok(Ok(io)) => self.http2(io, peer).await,
            Ok(Err(error)) => {
                self.handshakes_failed.inc();
                tracing::info!(api = self.name, %peer, %error, "TLS handshake failed");
            }
            Err(_) => {
                self.handshakes_failed.inc();
                tracing::info!(api = self.name, %peer, "no TLS handshake within {HANDSHAKE_TIMEOUT:?}");
            }
        }
    }

    async fn http2(self, io: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr) {
        // Dropped at the end of this function, however it ends: that is what ends the streams' tasks.
        let (_alive, connection) = watch::channel(());
        let streams = Streams {
            connection,
            open: Arc::default(),
            begun: Arc::default(),
            gauge: self.streams.clone(),
        };
        let serving = http2::Builder::new(streams.clone())
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.max_streams)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(TokioIo::new(io), TowerToHyperService::new(self.routes));
        let mut serving = std::pin::pin!(serving);
        let mut ending = self.ending;
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(api = self.name, %peer, %error, "connection ended");
                }
                return;
            }
            () = streams.idle() => tracing::debug!(api = self.name, %peer, "closing an idle connection"),
            () = ending.begun() => {}
        }
        serving.as_mut().graceful_shutdown();
        if tokio::time::timeout(GRACE, serving).await.is_err() {
            tracing::debug!(api = self.name, %peer, "streams cut");
        }
    }
}

/// Runs the streams of one connection, and lets none of them outlive it.
#[derive(Clone)]
struct Streams {
    connection: watch::Receiver<()>,
    open: Arc<AtomicUsize>,
    begun: Arc<AtomicU64>,
    gauge: Gauge,
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        let counted = Counted::new(&self.gauge);
        let open = Open(self.open.clone());
        let mut connection = self.connection.clone();
        tokio::spawn(async move {
            let _until_the_end = (counted, open);
            tokio::select! {
                _ = stream => {}
                _ = connection.changed() => {}
            }
        });
    }
}

impl Streams {
    /// Waits until the connection carried nothing from one look to the next.
    async fn idle(&self) {
        let mut seen = None;
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            if self.open.load(Ordering::Relaxed) == 0 && seen == Some(begun) {
                return;
            }
            seen = Some(begun);
            tokio::time::sleep(IDLE_LOOK).await;
        }
    }
}

struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl ServeMetrics {
    /// Registers what the listeners count.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "grpc_open_streams",
            "Calls and watches under way",
            metrics.streams.clone(),
        );
        registry.register(
            "grpc_open_connections",
            "Connections of clients",
            metrics.connections.clone(),
        );
        registry.register(
            "tls_handshakes_failed",
            "TLS handshakes that failed or took too long",
            metrics.handshakes_failed.clone(),
        );
        metrics
    }
}

fn report_panic(api: &'static str, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(api, %error, "a connection's task failed");
    }
}
