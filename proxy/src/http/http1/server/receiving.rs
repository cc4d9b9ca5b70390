//! What a client says on its connection: request after request, and when it is gone.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::config::HeadLimits;
use crate::error::Kind;
use crate::http::http1::buffered::Buffered;
use crate::http::http1::content::{Content, Sender};
use crate::http::http1::head::{self, Head, Lines, Refusal};
use crate::http::http1::server::Error;
use crate::net::io::Io;

/// Bytes thrown away behind what is refused, and at the end. Closed with bytes unread, a connection is reset, and the
/// answer may be lost on its way (RFC 9112 §9.6).
const DISCARDED: usize = 1 << 20;
/// How long a connection is read to its end that is closed in the middle of a request.
const LINGER: Duration = Duration::from_secs(1);

/// A client's connection, which the task that serves it shares with whoever reads the body of its request.
#[derive(Clone, Debug)]
pub(super) struct Line(Arc<Mutex<Receiving>>);

/// What a client has said.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) buffered: Buffered,
    pub(super) limits: HeadLimits,
    pub(super) place: Place,
    /// The client has said all that it will say.
    ended: bool,
    /// For whatever is waited for at the time; there is none while nothing is missing.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Waits for the body's end.
    waiting: Option<Waker>,
    /// Bytes that were thrown away since the last head.
    discarded: usize,
}

/// Where in its requests a client is.
#[derive(Debug)]
pub(super) enum Place {
    /// In a head, or before it.
    Head(Lines),
    /// In a body that somebody reads.
    Body,
    /// In one that nobody wants any more.
    Left(Content),
    /// Behind bytes that are no request, or no body.
    Refused,
}

impl Line {
    pub(super) fn new(receiving: Receiving) -> Self {
        Self(Arc::new(Mutex::new(receiving)))
    }

    /// A lock whose holder panicked: the connection ends with its task.
    pub(super) fn receiving(&self) -> MutexGuard<'_, Receiving> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection itself, unless a body is still to come on it.
    pub(super) fn into_io(self) -> Option<Io> {
        let receiving = Arc::into_inner(self.0)?.into_inner();
        let receiving = receiving.unwrap_or_else(PoisonError::into_inner);
        let is_whole = matches!(receiving.place, Place::Head(_));
        is_whole.then(|| receiving.buffered.into_io())
    }

    /// Ends the connection so that the answer arrives: behind what the client may be saying (RFC 9112 §9.6).
    pub(super) async fn close(self) {
        let mut line = &self;
        let shut = timeout(LINGER, line.shutdown()).await;
        // Whoever reads a body reads it to its end, and nobody else does.
        poll_fn(|cx| self.receiving().poll_over(cx)).await;
        if matches!(shut, Ok(Ok(()))) && self.receiving().is_interrupted() {
            self.receiving().discarded = 0;
            let discarding = poll_fn(|cx| self.receiving().poll_discard(cx));
            // Whether it ended well or not no longer matters.
            let _ended = timeout(LINGER, discarding).await;
        }
    }
}

impl Receiving {
    pub(super) fn new(io: Io, limits: HeadLimits) -> Self {
        Self {
            buffered: Buffered::new(io),
            limits,
            place: Place::Head(Lines::head()),
            ended: false,
            alarm: None,
            waiting: None,
            discarded: 0,
        }
    }

    /// The next request's head, or why it is none; `None`: there is none.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Result<Head, Refusal>>, Error>> {
        loop {
            let Place::Head(lines) = &mut self.place else {
                return Poll::Ready(Ok(None));
            };
            match head::request(lines, &mut self.buffered.held, &self.limits) {
                Ok(None) if self.ended && lines.begun() => return Poll::Ready(Err(Error::Incomplete)),
                Ok(None) if self.ended => return Poll::Ready(Ok(None)),
                Ok(None) => {}
                Ok(Some(head)) => {
                    (*lines, self.alarm, self.discarded) = (Lines::head(), None, 0);
                    return Poll::Ready(Ok(Some(Ok(head))));
                }
                Err(refusal) => return Poll::Ready(Ok(Some(Err(self.refuse(refusal))))),
            }
            let is_waiting = lines.begun();
            match self.buffered.poll_fill(cx, 0)? {
                Poll::Ready(bytes) => self.ended = bytes == 0,
                Poll::Pending if is_waiting => {
                    let refusal = ready!(self.poll_patience(cx));
                    return Poll::Ready(Ok(Some(Err(refusal))));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// What follows is no request.
    pub(super) fn refuse(&mut self, refusal: Refusal) -> Refusal {
        (self.place, self.alarm) = (Place::Refused, None);
        refusal
    }

    /// A head, or trailers, that have begun must end in time.
    pub(super) fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        let Some(timeout) = self.limits.timeout else {
            return Poll::Pending;
        };
        ready!(self.poll_alarm(cx, timeout));
        Poll::Ready(self.refuse(Refusal {
            kind: Kind::HeadTimeout,
            why: "the client took too long for a request's head, or for trailers",
        }))
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>, time: Duration) -> Poll<()> {
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(time)));
        alarm.as_mut().poll(cx)
    }

    /// The body of the request has come to its end, or will not.
    pub(super) fn leave_body(&mut self, place: Place) {
        (self.place, self.alarm) = (place, None);
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    /// Ready when the client has gone, as far as that can be told while its request is served.
    ///
    /// One that has said all may be listening (`nc -N`), or it may have gone: that can't be told until something is
    /// written. So it gets a little time, and more with whatever it takes.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        if let Err(error) = ready!(self.poll_rest(cx)) {
            return Poll::Ready(error.into());
        }
        while !self.ended {
            if self.is_busy(cx) {
                return Poll::Pending;
            }
            match ready!(self.buffered.poll_fill(cx, 0)) {
                Ok(bytes) => self.ended = bytes == 0,
                Err(error) => return Poll::Ready(error.into()),
            }
        }
        let half_closed = self.limits.half_closed;
        if !half_closed.is_zero() {
            ready!(self.poll_alarm(cx, half_closed));
        }
        Poll::Ready(Error::Incomplete)
    }

    /// Whether nothing more is to be read while a request is served.
    fn is_busy(&mut self, cx: &Context<'_>) -> bool {
        match &mut self.place {
            // The next request waits there, or what is none.
            Place::Head(lines) => !lines.have_room(&self.buffered.held, &self.limits),
            // Who reads the body hears of the client.
            Place::Body => {
                self.wait(cx);
                true
            }
            Place::Left(_) | Place::Refused => true,
        }
    }

    /// Something was written: a client that has said all is there to take it.
    fn note_written(&mut self) {
        if self.ended
            && let Some(alarm) = &mut self.alarm
        {
            alarm.as_mut().reset(Instant::now() + self.limits.half_closed);
        }
    }

    /// Waits until nobody reads the request's body any more; whether another request may follow.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if matches!(self.place, Place::Body) {
            self.wait(cx);
            return Poll::Pending;
        }
        self.alarm = None;
        // A client that goes on sending what nobody wants is not waited for.
        let _come = self.poll_rest(cx);
        Poll::Ready(matches!(self.place, Place::Head(_)))
    }

    /// Passes by what is left of a body that nobody wants, up to a bound.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Place::Left(content) = &mut self.place {
            let taken = content.take(&mut self.buffered.held, Sender::Client(&self.limits));
            match (taken, *content) {
                (Err(_no_body), _) => self.place = Place::Refused,
                (Ok(_), Content::Over) => self.place = Place::Head(Lines::head()),
                (Ok(Some(_unwanted)), _) => {}
                (Ok(None), _) => {
                    let bytes = ready!(self.buffered.poll_fill(cx, 0))?;
                    self.ended = bytes == 0;
                    self.discarded += bytes;
                    if self.ended || self.discarded > DISCARDED {
                        self.place = Place::Refused;
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn wait(&mut self, cx: &Context<'_>) {
        if !self
            .waiting
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            self.waiting = Some(cx.waker().clone());
        }
    }

    /// Whether no request can follow the one that is answered: nobody can tell where it would begin, behind what is no body,
    /// or among what came behind a request for a tunnel that is not granted.
    pub(super) fn is_last(&self, asks_for_tunnel: bool) -> bool {
        match self.place {
            Place::Refused => true,
            Place::Head(_) => asks_for_tunnel && self.has_more(),
            Place::Body | Place::Left(_) => false,
        }
    }

    fn has_more(&self) -> bool {
        !self.buffered.held.is_empty()
    }

    /// Whether the client may be in the middle of saying something.
    fn is_interrupted(&self) -> bool {
        let between = matches!(&self.place, Place::Head(lines) if !lines.begun()) && !self.has_more();
        !self.ended && !between
    }

    /// Reads and throws away, up to the end of what there is to read.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.discarded < DISCARDED {
            match ready!(self.buffered.poll_discard(cx)) {
                Ok(bytes @ 1..) => self.discarded += bytes,
                Ok(0) | Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}

/// Writes to the client; a body may be read from it at the same time.
impl AsyncWrite for &Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut receiving = self.receiving();
        let written = ready!(Pin::new(&mut receiving.buffered.io).poll_write_vectored(cx, bufs))?;
        receiving.note_written();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.receiving().buffered.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.receiving().buffered.io).poll_shutdown(cx)
    }
}
