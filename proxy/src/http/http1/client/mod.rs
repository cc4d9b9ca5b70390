//! HTTP/1 to a server. Whoever waits for an answer drives the connection: its request goes out and its answer comes in
//! within one task, with no channel and no wake-up in between. At rest a connection is a socket and little else.

pub mod head;
mod reading;
mod relay;
mod request;
#[cfg(test)]
mod tests;

pub use self::reading::Reading;
pub use self::relay::Relayed;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::unconstrained;

use crate::error::{Fault, Kind, Side};
use crate::http::body::{self, Body};
use crate::http::http1::buffered::Buffered;
use crate::http::http1::client::head::Head;
use crate::http::http1::content::Content;
use crate::http::http1::head::refusal_in;
use crate::http::http1::send::{self, Sending};
use crate::http::interim::Interims;
use crate::net::io::Io;

/// A connection to a server, which has nothing to do.
#[derive(Debug)]
pub struct Http1(Box<Connection>);

/// A connection, and what is under way on it.
#[derive(Debug)]
struct Connection {
    line: Buffered,
    /// Up to where in what is held the end of a head has been looked for.
    searched: usize,
    sending: Sending<Body>,
}

/// Where a connection goes when its exchange has ended, if it may be used again.
pub trait Home: Send + Sync + std::fmt::Debug {
    /// Takes it in.
    fn give_back(self: Arc<Self>, connection: Http1);
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The connection had ended, and nothing of the request was written: it is whole.
    Unsent,
    /// The exchange broke off.
    Broken(Error),
    /// What came before the answer is not taken, or the answer is not.
    Refused(Fault),
}

/// What breaks an exchange off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection did.
    #[error("the connection broke off")]
    Connection(#[from] io::Error),
    /// The server closed it too early.
    #[error("connection closed before message completed")]
    Incomplete,
    /// What came is no HTTP.
    #[error("{0}")]
    Malformed(&'static str),
    /// The request's body did.
    #[error("the request's body broke off")]
    Request(#[source] Box<body::Error>),
    /// The request's body has another length than its head says. To send it would be to say where another request begins
    /// (RFC 9112 §11.2).
    #[error("the request's body is not as long as its Content-Length")]
    Length,
}

/// The connection of an exchange that has turned it into a tunnel: an extension of the answer.
#[derive(Clone, Debug)]
pub struct Switched(Arc<Mutex<Option<Io>>>);

impl Http1 {
    /// Speaks HTTP/1 on a connection.
    pub fn on(io: Io) -> Self {
        Self(Box::new(Connection {
            line: Buffered::new(io),
            searched: 0,
            sending: Sending::default(),
        }))
    }

    /// Sends a request, whose body it takes, and waits for the answer; interim ones are passed on meanwhile. When the
    /// answer has been read to its end, the connection goes `home`, or is closed if there is none.
    pub async fn send(
        mut self,
        request: &mut Request<Body>,
        interims: &Interims,
        home: Option<Arc<dyn Home>>,
    ) -> Result<Response<Body>, Unanswered> {
        if self.has_ended() {
            return Err(Unanswered::Unsent);
        }
        let connection = &mut *self.0;
        request::send(&mut connection.sending, request).map_err(Unanswered::Broken)?;
        let head = poll_fn(|cx| connection.poll_answer(cx, request, interims)).await?;
        self.answered(request.method(), head, home)
    }

    /// Ready when the server has closed the connection, or said what nobody had asked for. Wakes when it does.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut byte = [0];
        let read = Pin::new(&mut self.0.line.io).poll_read(cx, &mut ReadBuf::new(&mut byte));
        read.map(|_closed_or_broken_or_unasked| ())
    }

    /// Whether that is so now, however much the task has done in its turn.
    fn has_ended(&mut self) -> bool {
        let ended = pin!(unconstrained(poll_fn(|cx| self.poll_ended(cx))));
        ended.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Tells the server that this is an end and no accident (RFC 8446 §6.1); if that can't be done at once, it isn't.
    pub fn close(mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let _told = Pin::new(&mut self.0.line.io).poll_shutdown(&mut cx);
    }

    fn answered(
        self,
        method: &Method,
        head: Head,
        home: Option<Arc<dyn Home>>,
    ) -> Result<Response<Body>, Unanswered> {
        head.check().map_err(Unanswered::Broken)?;
        let status = head.response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS || (method == Method::CONNECT && status.is_success()) {
            let mut response = head.response.map(|()| Body::Empty);
            response.extensions_mut().insert(self.switched()?);
            return Ok(response);
        }
        let content = Content::of(method, &head);
        let home = home.filter(|_| head.is_persistent());
        let body = Reading::new(self, content, home).into_body();
        Ok(head.response.map(|()| body))
    }

    /// The connection itself; what has been read behind the answer is put back in front.
    fn switched(self) -> Result<Switched, Unanswered> {
        let Connection { line, sending, .. } = *self.0;
        if !sending.is_complete() {
            let why = "the server changed protocols before it had the request";
            return Err(Unanswered::Broken(Error::Malformed(why)));
        }
        Ok(Switched(Arc::new(Mutex::new(Some(line.into_io())))))
    }
}

impl Connection {
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Request<Body>,
        interims: &Interims,
    ) -> Poll<Result<Head, Unanswered>> {
        if let Poll::Ready(Err(error)) = self.sending.poll_patiently(cx, &mut self.line.io) {
            return Poll::Ready(Err(self.unsent(request, error.into())));
        }
        loop {
            let head = ready!(self.poll_head(cx, request.headers_mut()));
            let head = head.map_err(|error| self.unsent(request, error))?;
            let status = head.response.status();
            if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Ok(head));
            }
            self.sending.touch();
            interims.pass(head.response).map_err(Unanswered::Refused)?;
        }
    }

    /// Puts the body back, if the server has got nothing.
    fn unsent(&mut self, request: &mut Request<Body>, error: Error) -> Unanswered {
        match (error, self.sending.untouched()) {
            (Error::Connection(_), Some(body)) => {
                *request.body_mut() = body;
                Unanswered::Unsent
            }
            // A server that takes no more of a request may have said why; if it has not, this is why.
            (error, _) => Unanswered::Broken(self.sending.broken().map_or(error, Error::Connection)),
        }
    }

    /// `spare` are the fields of the request, which has been sent when there is an answer.
    fn poll_head(&mut self, cx: &mut Context<'_>, spare: &mut HeaderMap) -> Poll<Result<Head, Error>> {
        loop {
            if let Some(head) = head::take(&mut self.line.held, self.searched, spare)? {
                self.searched = 0;
                return Poll::Ready(Ok(head));
            }
            self.searched = self.line.held.len();
            if ready!(self.line.poll_fill(cx, 0))? == 0 {
                return Poll::Ready(Err(Error::Incomplete));
            }
        }
    }
}

impl Switched {
    /// The connection; it is there once.
    pub fn take(&self) -> Option<Io> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl From<send::Error> for Error {
    fn from(error: send::Error) -> Self {
        match error {
            send::Error::Connection(error) => Self::Connection(error),
            send::Error::Body(error) => Self::Request(error),
            send::Error::Length => Self::Length,
        }
    }
}

impl From<Unanswered> for Fault {
    fn from(why: Unanswered) -> Self {
        match why {
            Unanswered::Unsent => Self::because(Kind::Reset, Side::Server, "the connection had ended"),
            Unanswered::Refused(fault) => fault,
            Unanswered::Broken(error) => error.into(),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        // A body that was refused as it came from the client broke the exchange off, not the server.
        match (refusal_in(&error), &error) {
            (Some(refusal), _) => refusal.fault(),
            (None, Error::Malformed(_)) => Self::because(Kind::BadAnswer, Side::Server, error),
            (None, Error::Request(_) | Error::Length) => Self::because(Kind::Reset, Side::Client, error),
            (None, Error::Connection(_) | Error::Incomplete) => {
                Self::because(Kind::Reset, Side::Server, error)
            }
        }
    }
}
