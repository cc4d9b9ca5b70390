//! HTTP/1.0 and 1.1 with a client: its requests are served one after the other, by one task that reads, waits for the
//! service and writes. Between two requests a connection is a socket and little else.

mod answer;
mod receiving;
mod upload;

pub use self::upload::Upload;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use http::{Request, Response, Version};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

use crate::config::HeadLimits;
use crate::drain::Drain;
use crate::error::BoxError;
use crate::http::body::{self, Body, Track, Tracked};
use crate::http::closing::Closing;
use crate::http::http1::field;
use crate::http::http1::head::{Head, Refusal};
use crate::http::http1::send::{self, Sending, write_text};
use crate::http::http1::server::answer::{Asked, Then};
use crate::http::http1::server::receiving::{Line, Receiving};
use crate::http::http1::spare;
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

/// Interim heads wait for the one exchange that a connection has at a time.
const EXCHANGE: u32 = 0;

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
        sending: Sending::default(),
        pending: Arc::default(),
        ending: Ending {
            asked: asked_to_end,
            begun: false,
            patience: limits.drain_idle,
            alarm: None,
        },
    };
    while let Some(next) = poll_fn(|cx| connection.poll_next(cx)).await? {
        let (request, turn) = connection.turn(next);
        let interims = Interims::of(&connection.pending, EXCHANGE, request.version());
        let response = {
            let mut answering = pin!(service(request, interims));
            poll_fn(|cx| connection.poll_answer(cx, answering.as_mut())).await?
        };
        let then = connection.write_head(response, &turn)?;
        poll_fn(|cx| connection.poll_write(cx)).await?;
        match then {
            Then::Tunnel => return connection.hand_over(turn),
            Then::Close => break,
            Then::Next => {}
        }
        if !poll_fn(|cx| connection.line.receiving().poll_over(cx)).await {
            break;
        }
    }
    connection.line.close().await;
    Ok(())
}

/// A connection, and what is under way on it.
struct Connection<'a, E, T: Track> {
    line: Line,
    sending: Sending<Tracked<T>>,
    pending: Arc<Pending>,
    ending: Ending<'a, E>,
}

/// Whether the connection is to end, and how long it waits for another request then.
struct Ending<'a, E> {
    asked: Pin<&'a mut E>,
    begun: bool,
    patience: std::time::Duration,
    alarm: Option<Pin<Box<Sleep>>>,
}

/// What of a request is needed for its answer.
struct Turn {
    asked: Asked,
    /// The connection closes behind the answer.
    last: bool,
    tunnel: Option<oneshot::Sender<Io>>,
}

impl<E: Future<Output = ()>, T: Track + Unpin> Connection<'_, E, T> {
    /// The next request, or why there is none; `None`: the connection is to end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Result<Head, Refusal>>, Error>> {
        if let Poll::Ready(next) = self.line.receiving().poll_next(cx) {
            return Poll::Ready(next);
        }
        ready!(self.ending.poll(cx));
        Poll::Ready(Ok(None))
    }

    /// The request as the service is to see it.
    fn turn(&mut self, next: Result<Head, Refusal>) -> (Request<Body>, Turn) {
        let head = match next {
            Ok(head) => head,
            Err(refusal) => return refused(refusal),
        };
        let Head {
            mut request,
            framing,
            tunnel,
            persistent,
        } = head;
        let asked = Asked::of(&request, persistent);
        let tunnel = tunnel.then(oneshot::channel).map(|(hand, handed)| {
            let handover = Handover(Arc::new(Mutex::new(Some(handed))));
            request.extensions_mut().insert(handover);
            hand
        });
        let body = upload::body(&self.line, framing);
        let turn = Turn {
            asked,
            last: false,
            tunnel,
        };
        (request.map(|()| body), turn)
    }

    /// Waits for the service, and for interim answers and the client meanwhile.
    fn poll_answer<F, A>(&mut self, cx: &mut Context<'_>, answering: Pin<&mut F>) -> Poll<Result<A, Error>>
    where
        F: Future<Output = Result<A, BoxError>>,
    {
        let answered = answering.poll(cx);
        while let Some(interim) = self.pending.take(EXCHANGE) {
            write_interim(self.sending.head(), &interim);
        }
        if let Poll::Ready(answer) = answered {
            return Poll::Ready(answer.map_err(Error::Service));
        }
        if let Poll::Ready(Err(error)) = self.sending.poll(cx, &mut &self.line) {
            return Poll::Ready(Err(error.into()));
        }
        self.line.receiving().poll_gone(cx).map(Err)
    }

    /// Writes the answer's head, behind interim ones that have not been written yet.
    fn write_head(&mut self, mut response: Response<Tracked<T>>, turn: &Turn) -> Result<Then, Error> {
        let receiving = self.line.receiving();
        // Behind a request for a tunnel that was not granted, nobody can tell its bytes from another request.
        let hasty = turn.tunnel.is_some() && receiving.has_more();
        let last = turn.last || hasty || self.ending.has_begun() || receiving.is_lost();
        drop(receiving);
        let (framing, then) = answer::write(self.sending.head(), &response, turn.asked, last)?;
        spare::keep_table(std::mem::take(response.headers_mut()));
        self.sending.body(response.into_body(), framing);
        Ok(then)
    }

    /// Writes the answer, for as long as the client is there to take it.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Poll::Ready(written) = self.sending.poll(cx, &mut &self.line) {
            return Poll::Ready(written.map_err(Error::from));
        }
        self.line.receiving().poll_gone(cx).map(Err)
    }

    /// The connection is a tunnel from here on, and somebody else's.
    fn hand_over(self, turn: Turn) -> Result<(), Error> {
        let io = self.line.into_io().ok_or(Error::Tunnel)?;
        if let Some(hand) = turn.tunnel {
            let _closed_if_unwanted = hand.send(io);
        }
        Ok(())
    }
}

impl<E: Future<Output = ()>> Ending<'_, E> {
    /// Ready when the client has had enough time for one more request.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.begun {
            ready!(self.asked.as_mut().poll(cx));
            self.begun = true;
        }
        let patience = self.patience;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(patience)));
        alarm.as_mut().poll(cx)
    }

    /// Whether the connection is to end.
    fn has_begun(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.begun = self.begun || self.asked.as_mut().poll(&mut cx).is_ready();
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

/// A request that stands for bytes that are none.
fn refused(refusal: Refusal) -> (Request<Body>, Turn) {
    let mut request = Request::new(Body::Empty);
    *request.version_mut() = Version::HTTP_11;
    let asked = Asked::of(&request, false);
    request.extensions_mut().insert(refusal);
    let turn = Turn {
        asked,
        last: true,
        tunnel: None,
    };
    (request, turn)
}

/// An interim head (RFC 9112 §4).
fn write_interim(out: &mut Vec<u8>, interim: &Response<()>) {
    let status = interim.status();
    let reason = status.canonical_reason().unwrap_or_default();
    write_text(out, format_args!("HTTP/1.1 {} {reason}\r\n", status.as_str()));
    for (name, value) in interim.headers() {
        field::write(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}
