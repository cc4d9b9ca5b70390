//! HTTP/2 connections: one, or a few where the server limits its streams (RFC 9113 §5.1.2).

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Shared;
use http::{Request, Response};
use outrigger_policy::endpoint::Http2Params;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::{Fault, Kind, Side};
use crate::http::body::{self, Body};
use crate::http::h2::backlog::Share;
use crate::http::h2::client::{self, Connection, Driver, End, Lifetime, Stream, Unanswered, Unopened};
use crate::http::h2::guard::Guarded;
use crate::http::h2::head;
use crate::http::http1::head::refusal_in;
use crate::http::interim::Interims;
use crate::http::pool::failed::{Failed, told_again};
use crate::http::pool::metrics::PoolMetrics;
use crate::http::pool::settings::Settings;
use crate::net::header::Session;
use crate::net::io::Io;
use crate::tls::dial::Dial;

/// Times that a request is sent to a server which refuses it: one that sheds load is not to get more of it.
const MAX_REFUSALS: u32 = 3;
/// Connections that may end under one request before it fails. There are servers that end each after some requests,
/// however many more they have let in. All but those go on to the next one, and who is among the first there is chance:
/// with half of them each time, 64 in a row do not happen.
const MAX_GOODBYES: u32 = 64;

/// HTTP/2 connections to one address.
#[derive(Debug)]
pub(in crate::http) struct Connections {
    dial: Arc<Dial>,
    settings: Settings,
    params: Http2Params,
    metrics: PoolMetrics,
    state: Mutex<State>,
    /// Told when there is room for a stream that there was not before.
    freed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that take new streams, oldest first.
    open: VecDeque<(Id, Connection)>,
    next: Id,
    /// One is being opened, by a task of its own: whoever waits gets what comes of it.
    opening: Option<Shared<oneshot::Receiver<Opened>>>,
}

/// The number of a connection within its pool.
type Id = u64;

/// What came of opening a connection, for all who waited.
type Opened = Result<(), Arc<Fault>>;

impl Connections {
    /// None yet; they are opened when requests need them.
    pub(in crate::http) fn new(
        dial: Arc<Dial>,
        settings: Settings,
        params: Http2Params,
        metrics: PoolMetrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            dial,
            settings,
            params,
            metrics,
            state: Mutex::default(),
            freed: Arc::default(),
        })
    }

    /// Sends a request. One that the server did not process is sent again, on another connection if there can be one,
    /// unless its body is gone.
    pub(in crate::http) async fn send(
        self: &Arc<Self>,
        request: &mut Request<Body>,
        interims: &Interims,
    ) -> Result<Response<Body>, Failed> {
        head::fit(request.headers_mut());
        let (mut refusals, mut goodbyes) = (0, 0);
        let mut refused = None;
        loop {
            let (id, stream) = match self.open(request, refused)? {
                Some(opened) => opened,
                None => Box::pin(self.wait(request, refused)).await?,
            };
            let error = match stream.answer(request.body_mut(), interims).await {
                Ok(response) => return Ok(response),
                Err(Unanswered::Stream(error)) => return Err(Failed::sent(reset(Side::Server, error))),
                Err(Unanswered::Request(error)) => return Err(Failed::sent(broken_off(error))),
                Err(Unanswered::Refused(fault)) => return Err(Failed::sent(fault)),
                Err(Unanswered::Unprocessed(error)) => error,
            };
            let tries = if error.is_reset() {
                &mut refusals
            } else {
                &mut goodbyes
            };
            *tries += 1;
            if refusals == MAX_REFUSALS || goodbyes == MAX_GOODBYES {
                return Err(Failed::unsent(reset(Side::Server, error)));
            }
            tracing::debug!(%error, "a server did not process a request, which is sent again");
            self.metrics.resent.inc();
            refused = Some(id);
        }
    }

    /// Takes a connection in that somebody else has opened.
    pub(in crate::http) async fn adopt(self: &Arc<Self>, io: Io) -> Result<(), Fault> {
        let (connection, driver) = self.handshake(io).await?;
        self.add(connection, driver);
        Ok(())
    }

    /// Opens a stream on the oldest connection that has room, so that younger ones fall idle and end; only not on the
    /// one that has `refused` the request.
    fn open(&self, request: &Request<Body>, refused: Option<Id>) -> Result<Option<(Id, Stream)>, Failed> {
        let mut state = lock(&self.state);
        let mut at = 0;
        while let Some((id, connection)) = state.open.get_mut(at) {
            if Some(*id) == refused {
                at += 1;
                continue;
            }
            match connection.open(request) {
                Ok(stream) => return Ok(Some((*id, stream))),
                Err(Unopened::Full) => at += 1,
                Err(Unopened::Over) => drop(state.open.remove(at)),
                Err(Unopened::NoTunnel) => {
                    return Err(Failed::unsent(Fault::new(Kind::NoTunnel, Side::Server)));
                }
                Err(Unopened::Malformed(error)) => {
                    let fault = Fault::because(Kind::BadRequest, Side::Client, error);
                    return Err(Failed::sent(fault));
                }
            }
        }
        Ok(None)
    }

    /// Waits for a stream: for a new connection while there may be one more, and for room on those that there are. After
    /// the deadline no other connection is opened, however fast a server ends each that it has taken.
    async fn wait(
        self: &Arc<Self>,
        request: &Request<Body>,
        mut refused: Option<Id>,
    ) -> Result<(Id, Stream), Failed> {
        let deadline = Instant::now() + self.settings.fail_fast;
        let mut counted = false;
        let (mut may_open, mut tried) = (true, false);
        loop {
            let mut freed = pin!(self.freed.notified());
            freed.as_mut().enable();
            let opened = self.open(request, refused);
            if !matches!(opened, Ok(None)) {
                // Where there was room for this one there may be more, and only one was told.
                self.freed.notify_one();
            }
            if let Some(opened) = opened? {
                return Ok(opened);
            }
            let late = tried && Instant::now() >= deadline;
            let opening = if may_open && !late { self.opening() } else { None };
            match opening {
                Some(opening) => {
                    tried = true;
                    let opened = tokio::select! {
                        opened = opening => opened,
                        () = freed => continue,
                    };
                    let Err(fault) = opened_or_gone(opened) else {
                        continue;
                    };
                    if self.is_empty() {
                        return Err(Failed::unsent(fault));
                    }
                    may_open = false;
                }
                // There is no other than the one that has refused it.
                None if refused.is_some() => refused = None,
                None => {
                    if !std::mem::replace(&mut counted, true) {
                        self.metrics.waited.inc();
                    }
                    tokio::select! {
                        () = freed => {}
                        () = sleep_until(deadline) => return Err(Failed::unsent(no_room())),
                    }
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        lock(&self.state).open.is_empty()
    }

    /// The connection that is being opened: another one, unless there are enough.
    fn opening(self: &Arc<Self>) -> Option<Shared<oneshot::Receiver<Opened>>> {
        let mut state = lock(&self.state);
        // One that is over has left its task without an outcome.
        if let Some(opening) = state.opening.as_ref().filter(|opening| opening.peek().is_none()) {
            return Some(opening.clone());
        }
        if state.open.len() >= self.settings.max_connections {
            return None;
        }
        let (outcome, opening) = oneshot::channel();
        let opening = opening.shared();
        state.opening = Some(opening.clone());
        let pool = self.clone();
        tokio::spawn(async move {
            let opened = pool.connect().await;
            lock(&pool.state).opening = None;
            let opened = opened.map(|(connection, driver)| pool.add(connection, driver));
            let _nobody_waits = outcome.send(opened.map_err(Arc::new));
        });
        Some(opening)
    }

    async fn connect(&self) -> Result<(Connection, Driver), Fault> {
        let io = self.dial.connect(Some(Session::Http2)).await?;
        self.handshake(io).await
    }

    async fn handshake(&self, io: Io) -> Result<(Connection, Driver), Fault> {
        let windows = client::windows(self.settings.windows, &self.params);
        let share = Share::of_server(&self.settings.backlog, windows.spare(client::STREAMS));
        let io = Guarded::to_server(io, self.settings.flood_scale, share.clone());
        let connecting = client::connect(io, share, windows, &self.params, self.freed.clone());
        match timeout(self.dial.options.timeout, connecting).await {
            Ok(connected) => connected.map_err(|error| Fault::because(Kind::Connect, Side::Server, error)),
            Err(_elapsed) => {
                let text = "the server sent no SETTINGS: does it speak HTTP/2?";
                Err(Fault::because(Kind::ConnectTimeout, Side::Server, text))
            }
        }
    }

    /// Puts a connection into service.
    fn add(self: &Arc<Self>, connection: Connection, driver: Driver) {
        let mut state = lock(&self.state);
        let id = state.next;
        state.next += 1;
        state.open.push_back((id, connection));
        drop(state);
        self.freed.notify_waiters();
        let lifetime = vary(self.settings.lifetime);
        tokio::spawn(drive(
            driver,
            lifetime,
            id,
            Arc::downgrade(self),
            self.metrics.clone(),
        ));
    }

    /// No more streams for this one. Those that it has keep it up.
    fn retire(&self, id: Id) {
        lock(&self.state).open.retain(|(other, _)| *other != id);
        // Who waits for room here has to look elsewhere.
        self.freed.notify_waiters();
    }

    /// How many connections take new streams.
    #[cfg(test)]
    pub(in crate::http) fn len(&self) -> usize {
        lock(&self.state).open.len()
    }
}

/// Drives a connection to its end, and takes it out of service when it is time.
async fn drive(driver: Driver, lifetime: Lifetime, id: Id, pool: Weak<Connections>, metrics: PoolMetrics) {
    let retire = || {
        if let Some(pool) = pool.upgrade() {
            pool.retire(id);
        }
    };
    metrics.open.inc();
    let end = driver.run(lifetime, |end| {
        metrics.ended(&end);
        retire();
    });
    let end = end.await;
    retire();
    metrics.open.dec();
    metrics.ended(&end);
    if let End::Failed(error) = end {
        tracing::debug!(%error, "an HTTP/2 connection to a server failed");
    }
}

/// Connections that were opened together do not end together: up to a tenth older or younger.
fn vary(lifetime: Lifetime) -> Lifetime {
    let share = 0.9 + 0.2 * fastrand::f64();
    let age = lifetime.age.as_secs_f64() * share;
    Lifetime {
        age: Duration::try_from_secs_f64(age).unwrap_or(lifetime.age),
        ..lifetime
    }
}

/// What came of opening a connection.
fn opened_or_gone(opened: Result<Opened, oneshot::error::RecvError>) -> Result<(), Fault> {
    match opened {
        Ok(Ok(())) => Ok(()),
        Ok(Err(fault)) => Err(told_again(&fault)),
        Err(_gone) => Err(Fault::new(Kind::Internal, Side::Proxy)),
    }
}

/// The request's own body broke off, or was refused as it came.
fn broken_off(error: body::Error) -> Fault {
    match refusal_in(&error) {
        Some(refusal) => refusal.fault(),
        None => reset(Side::Client, error),
    }
}

fn reset(side: Side, error: impl Into<crate::error::BoxError>) -> Fault {
    Fault::because(Kind::Reset, side, error)
}

fn no_room() -> Fault {
    let text = "every HTTP/2 connection has as many streams as the server allows, or was ended by it (LINKERD2_PROXY_HTTP2_MAX_CONNECTIONS_PER_ENDPOINT)";
    Fault::because(Kind::FailFast, Side::Server, text)
}

/// A lock whose holder panicked is as good as any: what it guards is replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
