//! HTTP/1 connections: a stack of idle ones.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, Version};
use http_body::Body as _;
use tokio::sync::{Semaphore, oneshot};

use crate::error::{Fault, Kind, Side};
use crate::http::body::Body;
use crate::http::http1::answer;
use crate::http::http1::client::{Http1, Unanswered};
use crate::http::http1::head::refusal_in;
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
    /// Whether a task is under way that closes what gets old.
    sweeping: bool,
}

/// An HTTP/1 connection in use; it goes back to its pool with [`Lease::give_back`], or is closed when dropped.
#[derive(Debug)]
pub struct Lease {
    sender: Http1,
    pool: Arc<Connections>,
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
    pub(in crate::http) fn adopt(self: &Arc<Self>, sender: Http1) {
        self.keep(sender);
    }

    /// Sends a request, and leaves an empty one behind.
    pub(in crate::http) async fn send(
        self: &Arc<Self>,
        request: &mut Request<Body>,
        interims: &Interims,
    ) -> Result<Response<Body>, Failed> {
        // HTTP/1.0 has no persistent connections to speak of (RFC 9112 §9.3).
        let reusable = request.version() == Version::HTTP_11;
        if reusable {
            frame(request);
        }
        loop {
            let idle = if reusable { self.checkout() } else { None };
            let reused = idle.is_some();
            let mut sender = match idle {
                Some(sender) => sender,
                None => Box::pin(self.open()).await.map_err(Failed::unsent)?,
            };
            match sender.send(request, interims).await {
                Ok(mut response) => {
                    answer::check(&mut response).map_err(Failed::sent)?;
                    let lease = reusable.then(|| Lease {
                        sender,
                        pool: self.clone(),
                    });
                    return Ok(response.map(|body| leased(body, lease)));
                }
                // The server closed an idle connection as we took it: the next one, or a fresh one.
                Err(Unanswered::Unsent(_)) if reused => {}
                Err(Unanswered::Unsent(error)) => return Err(Failed::unsent(fault(error))),
                Err(Unanswered::Broken(error)) => return Err(Failed::sent(fault(error))),
                Err(Unanswered::Refused(fault)) => return Err(Failed::sent(fault)),
            }
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
                pool.put_back(unwanted);
            }
        });
        opened
            .await
            .unwrap_or_else(|_gone| Err(Fault::new(Kind::Internal, Side::Proxy)))
    }

    async fn connect(&self) -> Result<Http1, Fault> {
        let io = self.dial.connect(Some(Session::Http1)).await?;
        Http1::on(io)
            .await
            .map_err(|error| Fault::because(Kind::Connect, Side::Server, error))
    }

    /// The idle connection used last, if one is still open.
    fn checkout(&self) -> Option<Http1> {
        let mut idle = lock(&self.idle);
        idle.drop_ended();
        idle.stack.pop().map(|(sender, _)| sender)
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

    /// How many connections are idle.
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

impl Idle {
    /// Drops connections from the top that have ended.
    fn drop_ended(&mut self) {
        while self.stack.last().is_some_and(|(sender, _)| !sender.is_ready()) {
            self.stack.pop();
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
async fn sweep(pool: Weak<Connections>, timeout: Duration) {
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

/// A body whose length nobody has said is chunked (RFC 9112 §6.3), such as one that came over HTTP/2. hyper would take a
/// GET or HEAD for one that has none.
fn frame(request: &mut Request<Body>) {
    let chunked = HeaderValue::from_static("chunked");
    if request.method() != Method::CONNECT
        && !request.body().is_end_stream()
        && !request.headers().contains_key(CONTENT_LENGTH)
    {
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
}

fn leased(body: hyper::body::Incoming, lease: Option<Lease>) -> Body {
    match lease {
        Some(lease) if body.is_end_stream() => {
            lease.give_back();
            Body::Incoming(body, None)
        }
        lease => Body::Incoming(body, lease),
    }
}

fn fault(error: hyper::Error) -> Fault {
    // A body that was refused as it came from the client broke the exchange off, not the server.
    match refusal_in(&error) {
        Some(refusal) => refusal.fault(),
        None if error.is_parse() => Fault::because(Kind::BadAnswer, Side::Server, error),
        None => Fault::because(Kind::Reset, Side::Server, error),
    }
}

/// A lock whose holder panicked is as good as any: what it guards is replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
