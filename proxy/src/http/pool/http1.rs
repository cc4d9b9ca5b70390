//! HTTP/1 connections: a stack of idle ones.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response, Version};
use tokio::sync::{Semaphore, oneshot};

use crate::error::{Fault, Kind, Side};
use crate::http::body::Body;
use crate::http::http1::client::{Home, Http1, Unanswered};
use crate::http::interim::Interims;
use crate::http::pool::failed::Failed;
use crate::http::pool::settings::Settings;
use crate::net::header::Session;
use crate::tls::dial::Dial;

/// Connections of one pool that are opened to the end even if their request has gone meanwhile.
const FINISHED_DIALS: usize = 16;

/// HTTP/1 connections to one address.
#[derive(Debug)]
pub(in crate::http) struct Connections {
    dial: Arc<Dial>,
    settings: Settings,
    /// The connection last used is on top: the others get old and are closed.
    idle: Mutex<Idle>,
    /// A permit for each connection that is opened to the end in any case.
    dials: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Idle {
    /// Oldest first, each with the round in which it became idle.
    stack: Vec<(Http1, u64)>,
    /// How often the sweep has looked: a clock that costs a request nothing.
    round: u64,
    /// Wakes the task that closes what gets old and drops what has ended, while there is one.
    sweep: Option<Waker>,
}

impl Connections {
    /// None yet; they are opened when requests need them.
    pub(in crate::http) fn new(dial: Arc<Dial>, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            dial,
            settings,
            idle: Mutex::default(),
            dials: Arc::new(Semaphore::new(FINISHED_DIALS)),
        })
    }

    /// Takes a connection in that somebody else has opened.
    pub(in crate::http) fn adopt(self: &Arc<Self>, connection: Http1) {
        self.keep(connection);
    }

    /// Sends a request, and leaves an empty one behind.
    pub(in crate::http) async fn send(
        self: &Arc<Self>,
        request: &mut Request<Body>,
        interims: &Interims,
    ) -> Result<Response<Body>, Failed> {
        // HTTP/1.0 has no persistent connections to speak of (RFC 9112 §9.3).
        let reusable = request.version() == Version::HTTP_11;
        let home = || reusable.then(|| self.clone() as Arc<dyn Home>);
        while reusable && let Some(idle) = self.checkout() {
            match idle.send(request, interims, home()).await {
                Ok(response) => return Ok(response),
                // The server closed an idle connection as we took it: the next one, or a fresh one.
                Err(Unanswered::Unsent) => {}
                Err(why) => return Err(Failed::sent(why.into())),
            }
        }
        let fresh = Box::pin(self.open()).await.map_err(Failed::unsent)?;
        match fresh.send(request, interims, home()).await {
            Ok(response) => Ok(response),
            Err(Unanswered::Unsent) => Err(Failed::unsent(Unanswered::Unsent.into())),
            Err(why) => Err(Failed::sent(why.into())),
        }
    }

    /// A new connection. If its request goes away meanwhile, the next one finds it in the pool; only a few
    /// such at a time, so that requests which come and go do not open connections without end.
    async fn open(self: &Arc<Self>) -> Result<Http1, Fault> {
        let Ok(permit) = self.dials.clone().try_acquire_owned() else {
            return self.connect().await;
        };
        let (outcome, opened) = oneshot::channel();
        let pool = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(Ok(unwanted)) = outcome.send(pool.connect().await) {
                pool.keep(unwanted);
            }
        });
        opened
            .await
            .unwrap_or_else(|_gone| Err(Fault::new(Kind::Internal, Side::Proxy)))
    }

    async fn connect(&self) -> Result<Http1, Fault> {
        self.dial.connect(Some(Session::Http1)).await.map(Http1::on)
    }

    /// The idle connection used last. Whether it is still open, it finds out.
    fn checkout(&self) -> Option<Http1> {
        lock(&self.idle).stack.pop().map(|(connection, _)| connection)
    }

    /// How many connections are idle.
    #[cfg(test)]
    pub(in crate::http) fn idle(&self) -> usize {
        lock(&self.idle).stack.len()
    }

    fn keep(self: &Arc<Self>, mut connection: Http1) {
        let mut idle = lock(&self.idle);
        if idle.stack.len() >= self.settings.max_idle {
            return connection.close();
        }
        if let Some(sweep) = &idle.sweep
            && connection.poll_ended(&mut Context::from_waker(sweep)).is_ready()
        {
            return;
        }
        let round = idle.round;
        idle.stack.push((connection, round));
        if idle.sweep.is_none() {
            idle.sweep = Some(Waker::noop().clone());
            tokio::spawn(sweep(Arc::downgrade(self), self.settings.idle_timeout));
        }
    }
}

impl Home for Connections {
    fn give_back(self: Arc<Self>, connection: Http1) {
        self.keep(connection);
    }
}

impl Idle {
    /// Drops connections that their servers have ended, and wakes the task when that happens to another.
    fn drop_ended(&mut self, cx: &mut Context<'_>) {
        self.sweep = Some(cx.waker().clone());
        self.stack
            .retain_mut(|(connection, _)| connection.poll_ended(cx).is_pending());
    }

    /// Closes connections that nobody has used for this many rounds, the present one among them.
    fn close_old(&mut self, rounds: u32) {
        self.round += 1;
        let oldest = self.round.saturating_sub(u64::from(rounds));
        let fresh = self.stack.partition_point(|(_, round)| *round < oldest);
        for (old, _) in self.stack.drain(..fresh) {
            old.close();
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        for (connection, _) in self.stack.drain(..) {
            connection.close();
        }
    }
}

/// Drops connections that end, and closes those that nobody has used for the idle timeout, or for half as long again at
/// most, until none is idle.
async fn sweep(pool: Weak<Connections>, timeout: Duration) {
    loop {
        let mut round = pin!(tokio::time::sleep(timeout / ROUNDS));
        let next = poll_fn(|cx| {
            let Some(pool) = pool.upgrade() else {
                return Poll::Ready(());
            };
            lock(&pool.idle).drop_ended(cx);
            round.as_mut().poll(cx)
        });
        next.await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = lock(&pool.idle);
        idle.close_old(ROUNDS);
        if idle.stack.is_empty() {
            idle.stack = Vec::new();
            idle.sweep = None;
            return;
        }
    }
}

/// How often the sweep looks within the idle timeout.
const ROUNDS: u32 = 2;

/// A lock whose holder panicked is as good as any: what it guards is replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
