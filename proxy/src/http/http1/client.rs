//! HTTP/1 to a server: hyper's client behind our link. Each connection is driven by a task of its own.

use std::future::poll_fn;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;

use crate::error::{Fault, Kind, Side};
use crate::http::body::{Body, Error};
use crate::http::http1::link::{Line, Link};
use crate::http::interim::Interims;
use crate::net::io::Io;

/// Sends requests on one HTTP/1 connection, one after another.
#[derive(Debug)]
pub struct Http1 {
    sender: http1::SendRequest<Outgoing>,
    line: Arc<Line>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The connection has ended, and nothing of the request was written: it is back.
    Unsent(hyper::Error),
    /// The exchange broke off.
    Broken(hyper::Error),
    /// What came before the answer is not taken.
    Refused(Fault),
}

/// A request's body; its trailers go past hyper.
#[derive(Debug)]
struct Outgoing {
    body: Body,
    line: Arc<Line>,
    handed: bool,
}

impl Http1 {
    /// Starts HTTP/1 on a connection.
    pub async fn on(io: Io) -> Result<Self, hyper::Error> {
        let line = Arc::<Line>::default();
        let io = TokioIo::new(Link::new(io, line.clone()));
        let (sender, connection) = http1::Builder::new().handshake(io).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "an HTTP/1 connection to a server ended");
            }
        });
        Ok(Self { sender, line })
    }

    /// Sends a request, which leaves an empty one behind, and waits for the answer; interim ones are passed on meanwhile.
    pub async fn send(
        &mut self,
        request: &mut Request<Body>,
        interims: &Interims,
    ) -> Result<Response<Incoming>, Unanswered> {
        let Self { sender, line } = self;
        line.ask();
        let mut answering = pin!(sender.try_send_request(mem::take(request).map(|body| Outgoing {
            body,
            line: line.clone(),
            handed: false,
        })));
        poll_fn(|cx| {
            let answered = answering.as_mut().poll(cx);
            if answered.is_pending() {
                line.register(cx.waker());
            }
            // Those that came with the answer came before it.
            while let Some(interim) = line.take() {
                let interim = interim.map_err(|why| Fault::because(Kind::BadAnswer, Side::Server, why));
                if let Err(fault) = interim.and_then(|interim| interims.pass(interim)) {
                    return Poll::Ready(Err(Unanswered::Refused(fault)));
                }
            }
            answered.map_err(|error| unanswered(error, request))
        })
        .await
    }

    /// Whether a request may be sent now.
    pub fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Waits until a request may be sent.
    pub async fn ready(&mut self) -> Result<(), hyper::Error> {
        self.sender.ready().await
    }
}

/// Puts the request back, if nothing of it was written.
fn unanswered(mut error: TrySendError<Request<Outgoing>>, request: &mut Request<Body>) -> Unanswered {
    match error.take_message() {
        Some(unsent) => {
            *request = unsent.map(|outgoing| outgoing.body);
            Unanswered::Unsent(error.into_error())
        }
        None => Unanswered::Broken(error.into_error()),
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Self { body, line, handed } = &mut *self;
        line.trailers.part(handed, || Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        !self.handed && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
