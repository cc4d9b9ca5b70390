//! One exchange with a client: its request to the service, and the answer back.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::{Request, Response, Version};
use tokio::sync::oneshot;

use crate::error::BoxError;
use crate::http::body::{Body, Track, Tracked};
use crate::http::http1::field;
use crate::http::http1::head::{Head, Refusal};
use crate::http::http1::send::{Framing, Sending, write_text};
use crate::http::http1::server::answer::{self, Asked};
use crate::http::http1::server::receiving::Line;
use crate::http::http1::server::{Connection, Error, Handover, upload};
use crate::http::http1::spare;
use crate::http::interim::{Interims, Pending};
use crate::net::io::Io;

/// Interim heads wait for the one exchange that a connection has at a time.
const EXCHANGE: u32 = 0;

/// What becomes of the connection behind an exchange.
pub(super) enum Then {
    /// Another request.
    Next,
    /// It ends.
    Close,
    /// It is a tunnel, and goes to whoever has asked for it.
    Tunnel(Option<oneshot::Sender<Io>>),
}

/// What of a request is needed for its answer.
struct Turn {
    asked: Asked,
    tunnel: Option<oneshot::Sender<Io>>,
}

/// An answer on its way.
struct Answering<'a, T: Track> {
    line: &'a Line,
    pending: &'a Pending,
    sending: Sending<Tracked<T>>,
    /// That the connection ends is to say that the answer does.
    ends_by_closing: bool,
}

/// Serves a request, or answers for bytes that are none.
pub(super) async fn serve<E, S, F, T>(
    connection: &mut Connection<'_, E>,
    next: Result<Head, Refusal>,
    service: &S,
) -> Result<Then, Error>
where
    E: Future<Output = ()>,
    S: Fn(Request<Body>, Interims) -> F,
    F: Future<Output = Result<Response<Tracked<T>>, BoxError>>,
    T: Track + Unpin,
{
    let Connection {
        line,
        pending,
        ending,
    } = connection;
    let (request, turn) = turn(line, next);
    let interims = Interims::of(pending, EXCHANGE, request.version());
    let mut answering = Answering {
        line,
        pending,
        sending: Sending::default(),
        ends_by_closing: false,
    };
    let response = {
        let mut service = pin!(service(request, interims));
        poll_fn(|cx| answering.poll_answer(cx, service.as_mut())).await?
    };
    let is_ending = poll_fn(|cx| Poll::Ready(ending.has_begun(cx))).await;
    let then = answering.write_head(response, &turn, is_ending)?;
    poll_fn(|cx| answering.poll_written(cx)).await?;
    match then {
        answer::Then::Tunnel => return Ok(Then::Tunnel(turn.tunnel)),
        answer::Then::Close => return Ok(Then::Close),
        answer::Then::Next => {}
    }
    match poll_fn(|cx| line.receiving().poll_over(cx)).await {
        true => Ok(Then::Next),
        false => Ok(Then::Close),
    }
}

/// The request as the service is to see it.
fn turn(line: &Line, next: Result<Head, Refusal>) -> (Request<Body>, Turn) {
    let Head {
        mut request,
        framing,
        tunnel,
        persistent,
    } = match next {
        Ok(head) => head,
        Err(refusal) => return refused(refusal),
    };
    let tunnel = tunnel.then(oneshot::channel).map(|(hand, handed)| {
        let handover = Handover(Arc::new(Mutex::new(Some(handed))));
        request.extensions_mut().insert(handover);
        hand
    });
    let turn = Turn {
        asked: Asked::of(&request, persistent),
        tunnel,
    };
    (request.map(|()| upload::body(line, framing)), turn)
}

/// A request that stands for bytes that are none. None can follow it.
fn refused(refusal: Refusal) -> (Request<Body>, Turn) {
    let mut request = Request::new(Body::Empty);
    *request.version_mut() = Version::HTTP_11;
    let asked = Asked::of(&request, false);
    request.extensions_mut().insert(refusal);
    let turn = Turn { asked, tunnel: None };
    (request, turn)
}

impl<T: Track + Unpin> Answering<'_, T> {
    /// Waits for the service, and for interim answers and the client meanwhile.
    fn poll_answer<F, A>(&mut self, cx: &mut Context<'_>, service: Pin<&mut F>) -> Poll<Result<A, Error>>
    where
        F: Future<Output = Result<A, BoxError>>,
    {
        let answered = service.poll(cx);
        while let Some(interim) = self.pending.take(EXCHANGE) {
            write_interim(self.sending.head(), &interim);
        }
        match answered {
            Poll::Ready(answer) => Poll::Ready(answer.map_err(Error::Service)),
            Poll::Pending => match self.sending.poll(cx, &mut self.line) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                _ => self.line.receiving().poll_gone(cx).map(Err),
            },
        }
    }

    /// Writes the answer's head, behind interim ones that have not been written yet.
    fn write_head(
        &mut self,
        mut response: Response<Tracked<T>>,
        turn: &Turn,
        is_ending: bool,
    ) -> Result<answer::Then, Error> {
        let last = is_ending || self.line.receiving().is_last(turn.tunnel.is_some());
        let (framing, then) = answer::write(self.sending.head(), &response, turn.asked, last)?;
        spare::keep_table(std::mem::take(response.headers_mut()));
        // One that has nothing to say is over, and known to be, before the client can see that.
        if framing != Framing::Empty {
            self.sending.body(response.into_body(), framing);
        }
        self.ends_by_closing = framing == Framing::Close;
        Ok(then)
    }

    /// Writes the answer, for as long as the client is there to take it.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.sending.poll(cx, &mut self.line) {
            Poll::Ready(written) => Poll::Ready(written.map_err(Error::from)),
            Poll::Pending => self.line.receiving().poll_gone(cx).map(Err),
        }
    }
}

impl<T: Track> Drop for Answering<'_, T> {
    fn drop(&mut self) {
        if self.ends_by_closing && !self.sending.is_complete() {
            self.line.receiving().buffered.io.cut();
        }
    }
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
