//! Keeps the connections of a channel up: who is dialled, when again, and what each of them speaks.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use outrigger_policy::name::Identity;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{debug, error, info, warn};

use crate::config::{ControlAddr, Http2Client};
use crate::control::lines::{Lines, Turn};
use crate::control::metrics::{ChannelMetrics, Client};
use crate::control::waits::{Waits, backoff};
use crate::error::chain;
use crate::live::Live;
use crate::tls::{self, Credentials};

/// How often a PING is sent (RFC 9113 §6.7), and how long its answer may take: a peer that died without a word is
/// found, and a connection without streams is alive when it is needed.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection that lasted as long was a success: the backoff begins anew.
const HEALTHY: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("connecting to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    /// The handshake failed, or the other side is somebody else.
    #[error("control plane at {0}")]
    Tls(SocketAddr, #[source] tls::Error),
    #[error("HTTP/2 with {0}")]
    Http(SocketAddr, #[source] hyper::Error),
    #[error("{0} closed the connection before HTTP/2 began")]
    Closed(SocketAddr),
    #[error("{0} did not begin HTTP/2 in time, or allows no streams")]
    Timeout(SocketAddr),
}

/// What is needed to connect.
pub(crate) struct Keeper {
    pub(crate) client: Client,
    pub(crate) addr: ControlAddr,
    pub(crate) http2: Http2Client,
    pub(crate) credentials: Live<Credentials>,
    pub(crate) lines: Arc<Lines>,
    pub(crate) metrics: ChannelMetrics,
    /// Asks DNS again: an address does not answer.
    pub(crate) ask_again: Arc<Notify>,
}

/// How a connection ended.
enum Ended {
    /// Before it was one.
    Failed(Error),
    /// After a while, and why.
    Lost(Duration, String),
    /// It was told to.
    Left,
}

/// When to dial next, and whom rather not.
struct Attempts {
    waits: Waits,
    failed: usize,
    avoid: Option<SocketAddr>,
    not_before: Instant,
}

impl Keeper {
    /// Dials whenever a connection is needed, for ever. With the future, all connections end.
    pub(crate) async fn keep(mut self, mut addresses: watch::Receiver<Vec<SocketAddr>>) {
        if self.needs_certificate() {
            self.certified().await;
        }
        let keeper = Arc::new(self);
        let mut attempts = Attempts::new(&keeper.addr);
        let mut running = JoinSet::new();
        loop {
            let known = addresses.borrow_and_update().clone();
            keeper.lines.know(&known);
            let needed = !known.is_empty() && keeper.lines.needs_another();
            tokio::select! {
                () = sleep_until(attempts.not_before), if needed => {
                    let addr = attempts.choose(&known);
                    let mut turn = Some(keeper.lines.turn());
                    let keeper = keeper.clone();
                    running.spawn(async move { (addr, keeper.line(addr, &mut turn).await, turn) });
                }
                Some(ended) = running.join_next() => match ended {
                    Ok((addr, ended, turn)) => {
                        keeper.report(addr, &ended);
                        attempts.ended(addr, &ended, known.len());
                        drop(turn);
                    }
                    // It has been logged; no reason to spin.
                    Err(_panicked) => attempts.pause(),
                },
                Ok(()) = addresses.changed() => {}
                () = keeper.lines.changed.notified() => {}
            }
        }
    }

    /// Whether the service talks to none but the mesh: dialling it without a certificate would only be refused.
    fn needs_certificate(&self) -> bool {
        self.addr.identity.is_some() && self.client != Client::Identity
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
    fn report(&self, addr: SocketAddr, ended: &Ended) {
        let client = self.client.name();
        match ended {
            Ended::Failed(e) => {
                self.metrics.failures.inc();
                self.ask_again.notify_one();
                let error = chain(e);
                match e {
                    Error::Tls(..) => error!(client, %error, "refused the control plane"),
                    _ => warn!(client, %error, "can't reach the control plane"),
                }
            }
            Ended::Lost(_, why) => {
                self.ask_again.notify_one();
                info!(client, %addr, %why, "lost the control plane; connecting again");
            }
            Ended::Left => debug!(client, %addr, "left a connection that is no longer needed"),
        }
    }

    /// One connection, from dialling to its end. While it is up, others may dial.
    async fn line(&self, addr: SocketAddr, turn: &mut Option<Turn>) -> Ended {
        let deadline = Instant::now() + self.addr.connect.timeout;
        let Some(name) = &self.addr.identity else {
            return match timeout_at(deadline, self.dial(addr)).await {
                Ok(Ok(io)) => self.speak(addr, io, deadline, turn).await,
                Ok(Err(e)) => Ended::Failed(Error::Connect(addr, e)),
                Err(_) => Ended::Failed(Error::Connect(addr, io::ErrorKind::TimedOut.into())),
            };
        };
        let secured = async {
            let io = self.dial(addr).await.map_err(|e| Error::Connect(addr, e))?;
            // Read now: a reconnect uses the certificate of the day.
            let credentials = self.credentials.get();
            let expect = Identity::Dns(name.clone());
            tls::client::connect(&credentials, io, name, &expect, false)
                .await
                .map_err(|e| Error::Tls(addr, e))
        };
        match timeout_at(deadline, secured).await {
            Ok(Ok(tls)) => self.speak(addr, tls.stream, deadline, turn).await,
            Ok(Err(e)) => Ended::Failed(e),
            Err(_) => Ended::Failed(Error::Connect(addr, io::ErrorKind::TimedOut.into())),
        }
    }

    async fn dial(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let io = TcpStream::connect(addr).await?;
        io.set_nodelay(true)?;
        outrigger_sys::set_keepalive(&io, self.addr.connect.keepalive)?;
        outrigger_sys::set_user_timeout(&io, self.addr.connect.user_timeout)?;
        Ok(io)
    }

    /// HTTP/2 over it. It counts as up when the peer has said how many streams it allows: until its SETTINGS are
    /// there, none are.
    async fn speak<I>(&self, addr: SocketAddr, io: I, deadline: Instant, turn: &mut Option<Turn>) -> Ended
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (close, closed) = watch::channel(false);
        let polled = Arc::new(Notify::new());
        let tasks = Tasks {
            polled: polled.clone(),
            closed,
        };
        let handshake = http2::Builder::new(tasks)
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_max_send_streams(0)
            .initial_stream_window_size(self.http2.stream_window)
            .initial_connection_window_size(self.http2.connection_window)
            .handshake(TokioIo::new(io));
        let (sender, connection) = match handshake.await {
            Ok(connected) => connected,
            Err(e) => return Ended::Failed(Error::Http(addr, e)),
        };
        let mut connection = pin!(connection);
        while connection.current_max_send_streams() == 0 {
            tokio::select! {
                ended = connection.as_mut() => return Ended::Failed(match ended {
                    Ok(()) => Error::Closed(addr),
                    Err(e) => Error::Http(addr, e),
                }),
                () = polled.notified() => {}
                () = sleep_until(deadline) => return Ended::Failed(Error::Timeout(addr)),
            }
        }
        let since = Instant::now();
        debug!(client = self.client.name(), %addr, "connected to the control plane");
        let up = self.lines.up(addr, sender, connection.current_max_send_streams());
        *turn = None;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    *turn = Some(up.over());
                    let why = ended.map_or_else(|e| chain(&e), |()| "closed".to_owned());
                    return Ended::Lost(since.elapsed(), why);
                }
                () = polled.notified() => up.limit(connection.current_max_send_streams()),
                () = up.told_to_end() => {
                    close.send_replace(true);
                    return Ended::Left;
                }
            }
        }
    }
}

impl Attempts {
    fn new(addr: &ControlAddr) -> Self {
        Self {
            waits: Waits::new(backoff(&addr.connect.backoff)),
            failed: 0,
            avoid: None,
            not_before: Instant::now(),
        }
    }

    /// One of the addresses at random; the one that failed last only if there is no other.
    fn choose(&self, known: &[SocketAddr]) -> SocketAddr {
        let others: Vec<_> = known.iter().filter(|addr| Some(**addr) != self.avoid).collect();
        match others.is_empty() {
            true => known[0],
            false => *others[fastrand::usize(..others.len())],
        }
    }

    /// After the first failure another address is tried at once; then with pauses that grow.
    fn ended(&mut self, addr: SocketAddr, ended: &Ended, known: usize) {
        match ended {
            Ended::Left => return,
            Ended::Lost(lasted, _) if *lasted >= HEALTHY => {
                self.waits.reset();
                self.failed = 0;
            }
            Ended::Lost(..) | Ended::Failed(_) => {}
        }
        self.failed += 1;
        self.avoid = Some(addr);
        match self.failed == 1 && known > 1 {
            true => self.not_before = Instant::now(),
            false => self.pause(),
        }
    }

    fn pause(&mut self) {
        self.not_before = Instant::now() + self.waits.next();
    }
}

/// Runs what hyper splits off a connection, until the connection is told to end. SETTINGS are taken in there: whoever
/// wants to know them is woken each time.
#[derive(Clone)]
struct Tasks {
    polled: Arc<Notify>,
    closed: watch::Receiver<bool>,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        let Self { polled, mut closed } = self.clone();
        tokio::spawn(async move {
            let mut task = pin!(task);
            let watched = std::future::poll_fn(|cx| {
                let ended = task.as_mut().poll(cx);
                polled.notify_one();
                ended
            });
            tokio::select! {
                () = watched => {}
                Ok(_) = closed.wait_for(|closed| *closed) => {}
            }
        });
    }
}
