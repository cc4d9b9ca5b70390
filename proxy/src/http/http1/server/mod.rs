//! HTTP/1.0 and 1.1 with a client: its requests are served one after the other, by one task that reads, waits for the
//! service and writes. Between two requests a connection is a socket and little else.

mod answer;
mod exchange;
mod receiving;
mod upload;

#[cfg(test)]
mod tests;

pub use self::upload::Upload;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

use crate::config::HeadLimits;
use crate::drain::Drain;
use crate::error::BoxError;
use crate::http::body::{self, Body, Track, Tracked};
use crate::http::closing::Closing;
use crate::http::http1::head::{Head, Refusal};
use crate::http::http1::send;
use crate::http::http1::server::exchange::Then;
use crate::http::http1::server::receiving::{Line, Receiving};
use crate::http::interim::{Interims, Pending};
use crate::http::rarely::rarely;
use crate::net::io::Io;

/// What ends a connection in the middle of an exchange.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection broke off.
    #[error("the connection broke off")]
    Connection(#[from] io::Error),
    /// The client closed it too early.
    #[error("the client closed the connection before its exchange was over")]
    Incomplete,
    /// What came is no body.
    #[error("the body of the request is none")]
    Refused(#[from] Refusal),
    /// There is no answer.
    #[error("the request was given up")]
    Service(#[source] BoxError),
    /// The answer's body broke off.
    #[error("the answer's body broke off")]
    Answer(#[source] Box<body::Error>),
    /// The answer's body has another length than its head says.
    #[error("the answer's body is not as long as its Content-Length")]
    Length,
    /// The service turned the connection into a tunnel too early.
    #[error("the connection became a tunnel before the request had come whole")]
    Tunnel,
}

/// The connection of a request that asks for a tunnel, once the answer has made one of it: an extension of the request.
#[derive(Clone, Debug)]
pub struct Handover(Arc<Mutex<Option<oneshot::Receiver<Io>>>>);

/// Serves until the client goes, an error, or the drain's end.
///
/// During a drain every answer says that its connection closes. One without a request stays open for a while: to close it
/// at once would fail a request that is on its way, of which the client can't tell whether it was processed (RFC 9112
/// §9.3.1).
///
/// A request that stands for refused bytes carries the [`Refusal`] as an extension.
pub async fn serve<S, F, T>(
    io: Io,
    service: S,
    limits: HeadLimits,
    closing: Closing,
    mut drain: Drain,
) -> Result<(), Error>
where
    S: Fn(Request<Body>, Interims) -> F,
    F: Future<Output = Result<Response<Tracked<T>>, BoxError>>,
    T: Track + Unpin,
{
    let asked_to_end = pin!(rarely(closing.or_drain(&mut drain)));
    let mut connection = Connection {
        line: Line::new(Receiving::new(io, limits)),
        pending: Arc::default(),
        ending: Ending {
            asked: asked_to_end,
            begun: false,
            patience: limits.drain_idle,
            alarm: None,
        },
    };
    while let Some(next) = poll_fn(|cx| connection.poll_next(cx)).await? {
        // In a box of its own, which a connection at rest does not have.
        match Box::pin(exchange::serve(&mut connection, next, &service)).await? {
            Then::Next => {}
            Then::Close => break,
            Then::Tunnel(hand) => return connection.hand_over(hand),
        }
    }
    connection.line.close().await;
    Ok(())
}

/// A connection.
struct Connection<'a, E> {
    line: Line,
    /// Interim heads that wait to be written.
    pending: Arc<Pending>,
    ending: Ending<'a, E>,
}

/// Whether the connection is to end, and how long it waits for another request then.
struct Ending<'a, E> {
    asked: Pin<&'a mut E>,
    begun: bool,
    patience: Duration,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<E: Future<Output = ()>> Connection<'_, E> {
    /// The next request, or why there is none; `None`: the connection is to end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Result<Head, Refusal>>, Error>> {
        if let Poll::Ready(next) = self.line.receiving().poll_next(cx) {
            return Poll::Ready(next);
        }
        ready!(self.ending.poll(cx));
        Poll::Ready(Ok(None))
    }

    /// The connection is a tunnel from here on, and somebody else's.
    fn hand_over(self, hand: Option<oneshot::Sender<Io>>) -> Result<(), Error> {
        let io = self.line.into_io().ok_or(Error::Tunnel)?;
        if let Some(hand) = hand {
            let _closed_if_unwanted = hand.send(io);
        }
        Ok(())
    }
}

impl<E: Future<Output = ()>> Ending<'_, E> {
    /// Ready when the client has had enough time for one more request.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.has_begun(cx) {
            return Poll::Pending;
        }
        let patience = self.patience;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(patience)));
        alarm.as_mut().poll(cx)
    }

    /// Whether the connection is to end.
    fn has_begun(&mut self, cx: &mut Context<'_>) -> bool {
        self.begun = self.begun || self.asked.as_mut().poll(cx).is_ready();
        self.begun
    }
}

impl Handover {
    /// What the connection comes through; it is there once.
    pub fn take(&self) -> Option<oneshot::Receiver<Io>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl From<send::Error> for Error {
    fn from(error: send::Error) -> Self {
        match error {
            send::Error::Connection(error) => Self::Connection(error),
            send::Error::Body(error) => Self::Answer(error),
            send::Error::Length => Self::Length,
        }
    }
}
