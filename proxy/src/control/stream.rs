//! A watch that survives reconnects: one stream of the control plane, opened again when it ends.

use std::fmt::Display;
use std::future::Future;
use std::ops::ControlFlow;
use std::time::Duration;

use outrigger_policy::backoff::Backoff;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Code, Response, Status, Streaming};
use tracing::{debug, warn};

use crate::config::StreamTimeouts;
use crate::control::metrics::StreamMetrics;
use crate::control::waits::Waits;

/// Largest message taken from the control plane, in bytes: 10,000 endpoints with long labels fit.
pub(crate) const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// A kind of stream: its name, and the codes after which opening it again is pointless.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) terminal: &'static [Code],
}

/// `Destination.Get`: the endpoints of a service.
pub(crate) const ENDPOINTS: Kind = Kind {
    name: "destination_get",
    terminal: &[Code::InvalidArgument, Code::FailedPrecondition],
};

/// `Destination.GetProfile`.
pub(crate) const PROFILE: Kind = Kind {
    name: "destination_get_profile",
    terminal: &[Code::InvalidArgument, Code::FailedPrecondition],
};

/// `OutboundPolicies.Watch`.
pub(crate) const OUTBOUND: Kind = Kind {
    name: "outbound_watch",
    terminal: &[
        Code::InvalidArgument,
        Code::FailedPrecondition,
        Code::NotFound,
        Code::Unimplemented,
    ],
};

/// `InboundServerPolicies.WatchPort`.
pub(crate) const INBOUND: Kind = Kind {
    name: "inbound_watch_port",
    terminal: &[Code::InvalidArgument, Code::FailedPrecondition],
};

/// How streams of a kind are kept up.
#[derive(Clone, Debug)]
pub(crate) struct Upkeep {
    pub(crate) kind: Kind,
    pub(crate) backoff: Backoff,
    /// All unset for a controller on this host.
    pub(crate) timeouts: StreamTimeouts,
    pub(crate) metrics: StreamMetrics,
}

/// A message, and whether it is the first of its stream: what came before belongs to an older stream.
#[derive(Debug)]
pub(crate) struct Update<M> {
    pub(crate) message: M,
    pub(crate) first: bool,
}

/// Follows a stream until the control plane ends it for good, with one of the kind's terminal codes.
///
/// Whatever else ends it, `Ok` included, leads to another attempt after a backoff that begins anew with each message
/// that could be used. A message that `apply` refuses is counted, and logged once per run of them: the stream stays,
/// and so does what the last good message said. Dropping the future ends the stream.
pub(crate) async fn follow<M, F, E: Display>(
    upkeep: &Upkeep,
    mut open: impl FnMut() -> F,
    mut apply: impl FnMut(Update<M>) -> Result<(), E>,
) -> Status
where
    F: Future<Output = Result<Response<Streaming<M>>, Status>>,
{
    let mut waits = Waits::new(upkeep.backoff);
    let mut refused_before = false;
    loop {
        let mut take = |update| match apply(update) {
            Ok(()) => {
                waits.reset();
                refused_before = false;
            }
            Err(error) => {
                upkeep.metrics.undecodable.inc();
                if !std::mem::replace(&mut refused_before, true) {
                    warn!(stream = upkeep.kind.name, %error, "refused a message of the control plane; what was known before stays in force");
                }
            }
        };
        match run(upkeep, &mut open, &mut take).await {
            ControlFlow::Break(status) => return status,
            ControlFlow::Continue(why) => {
                debug!(stream = upkeep.kind.name, code = ?why.code(), message = why.message(), "stream ended; opening it again");
            }
        }
        upkeep.metrics.reopened.inc();
        sleep(waits.next()).await;
    }
}

/// One stream from its opening to its end; breaks on a terminal code.
async fn run<M, F>(
    upkeep: &Upkeep,
    open: &mut impl FnMut() -> F,
    take: &mut impl FnMut(Update<M>),
) -> ControlFlow<Status, Status>
where
    F: Future<Output = Result<Response<Streaming<M>>, Status>>,
{
    let StreamTimeouts {
        initial,
        idle,
        lifetime,
    } = upkeep.timeouts;
    let end = lifetime.map(|lifetime| Instant::now() + lifetime);
    let mut first = true;
    let opened = bounded(initial, async {
        let mut stream = open().await?.into_inner();
        let message = stream.message().await?;
        Ok((stream, message))
    });
    let mut next = until(end, opened).await;
    loop {
        match next {
            Ok((mut stream, Some(message))) => {
                take(Update { message, first });
                first = false;
                let message = until(end, bounded(idle, stream.message())).await;
                next = message.map(|message| (stream, message));
            }
            Ok((_, None)) => return ControlFlow::Continue(Status::ok("the stream ended")),
            Err(status) if upkeep.kind.terminal.contains(&status.code()) => {
                return ControlFlow::Break(status);
            }
            Err(status) => return ControlFlow::Continue(status),
        }
    }
}

async fn bounded<T>(
    limit: Option<Duration>,
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match limit {
        Some(limit) => timeout(limit, answer).await.unwrap_or_else(|_| Err(expired())),
        None => answer.await,
    }
}

async fn until<T>(
    end: Option<Instant>,
    answer: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match end {
        Some(end) => timeout_at(end, answer).await.unwrap_or_else(|_| Err(expired())),
        None => answer.await,
    }
}

fn expired() -> Status {
    Status::deadline_exceeded("the control plane was silent for too long, or the stream's lifetime is over")
}
