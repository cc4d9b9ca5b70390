//! Between a client's connection and hyper: passes on what the gate lets through, and waits for what is missing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::config::HeadLimits;
use crate::error::Kind;
use crate::http::http1::gate::Gate;
use crate::http::http1::head::Refusal;
use crate::http::http1::ledger::{EXCHANGE, Ledger};
use crate::http::http1::own::Own;
use crate::net::io::Io;

/// What hyper reads in place of a head that is refused: a request that stands for it.
const REFUSED: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
/// Bytes kept of what comes behind a request for a tunnel before that is answered.
const HASTY: usize = 16 << 10;
/// Bytes thrown away behind what is refused, and at the end. Closed with bytes unread, a connection is reset, and the
/// answer may be lost on its way (RFC 9112 §9.6).
const DISCARDED: usize = 1 << 20;
/// How long a connection is read to its end that is closed in the middle of a request.
const LINGER: Duration = Duration::from_secs(1);

/// A client's connection as hyper is to see it.
///
/// hyper's buffer is read into directly. Only what is incomplete is copied: a head, or trailers, up to the limit.
#[derive(Debug)]
pub struct Guard {
    io: Io,
    gate: Gate,
    ledger: Arc<Ledger>,
    own: Own,
    /// Bytes that hyper has not been given, and how many of them it may have.
    held: BytesMut,
    approved: usize,
    state: State,
    /// hyper is given a request that stands for a refused head.
    refused: bool,
    /// For whatever is waited for at the time; there is none while nothing is missing.
    alarm: Option<Pin<Box<Sleep>>>,
    /// All that was written has been flushed.
    flushed: bool,
    discarded: usize,
    head_timeout: Option<Duration>,
    half_closed: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// A head was refused: hyper is given a last request, and the rest is thrown away.
    Refused,
    /// A body was refused: hyper is given an error.
    Broken(Refusal),
    /// The client has said all that it will say.
    Ended,
    /// Our side has said all: the client's is read to the end.
    Lingering,
}

impl Guard {
    /// Guards a connection.
    pub fn new(io: Io, limits: HeadLimits, ledger: Arc<Ledger>) -> Self {
        Self {
            io,
            gate: Gate::new(limits),
            ledger,
            own: Own::default(),
            held: BytesMut::new(),
            approved: 0,
            state: State::Open,
            refused: false,
            alarm: None,
            flushed: true,
            discarded: 0,
            head_timeout: limits.timeout,
            half_closed: limits.half_closed,
        }
    }

    /// Waits until the client may have said something, or gone, after everything so far was read.
    pub async fn readable(&self) {
        self.io.readable().await;
    }

    /// The connection itself, for a tunnel; what hyper has not been given is put back in front.
    pub fn into_io(mut self) -> Io {
        self.io.unread(self.held);
        self.io
    }

    /// Requests that hyper has been given, the one that stands for a refusal among them.
    fn requests(&self) -> u64 {
        self.gate.heads() + u64::from(self.refused)
    }

    /// Gives hyper what it may have of the bytes held.
    fn deliver(&mut self, buf: &mut ReadBuf<'_>) {
        let here = self.approved.min(buf.remaining());
        buf.put_slice(&self.held[..here]);
        self.held.advance(here);
        self.approved -= here;
        if self.held.is_empty() {
            self.held = BytesMut::new(); // gives the buffer back
        }
    }

    /// Looks at what was read into `buf` behind `before`, and leaves there what hyper may have.
    fn take_in(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        if !self.held.is_empty() {
            self.held.extend_from_slice(&buf.filled()[before..]);
            buf.set_filled(before);
            return self.look();
        }
        let read = &mut buf.filled_mut()[before..];
        let passed = self.gate.pass(read);
        self.held.extend_from_slice(&read[passed.bytes..]);
        buf.set_filled(before + passed.bytes);
        if passed.bytes > 0 {
            self.alarm = None;
        }
        self.judge(passed.refused);
    }

    /// Looks at the bytes held, none of which has been approved.
    fn look(&mut self) {
        let passed = self.gate.pass(&mut self.held);
        self.approved = passed.bytes;
        if passed.bytes > 0 {
            self.alarm = None;
        }
        self.judge(passed.refused);
    }

    fn judge(&mut self, refused: Option<Refusal>) {
        if let Some(refusal) = refused {
            return self.refuse(refusal);
        }
        if self.gate.is_at_crossroads() && self.held.len() > self.approved {
            self.ledger.note_haste(self.requests());
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.alarm = None;
        self.held.truncate(self.approved);
        if self.gate.is_between() {
            (self.state, self.refused) = (State::Refused, true);
            self.ledger.refuse(self.requests(), refusal);
            self.held.extend_from_slice(REFUSED);
            self.approved += REFUSED.len();
        } else {
            self.state = State::Broken(refusal);
        }
    }

    /// Behind a request for a tunnel, sees whether it has been answered.
    fn pass_crossroads(&mut self) {
        if let Some(tunnel) = self.ledger.decided(self.requests()) {
            self.gate.decide(tunnel);
            self.look();
        }
    }

    /// Nothing can be read now. A head that has begun must end in time.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(timeout) = self.head_timeout.filter(|_| self.gate.is_waiting()) else {
            return Poll::Pending;
        };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(alarm.as_mut().poll(cx));
        self.refuse(Refusal {
            kind: Kind::HeadTimeout,
            why: "the client took too long for a request's head, or for trailers",
        });
        Poll::Ready(())
    }

    /// The client has said all. If it waits for an answer it may be listening (`nc -N`), or it may have gone: that can't
    /// be told until something is written. So it gets a little time, and more with whatever it takes.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle = self.flushed && self.ledger.ended() >= self.requests();
        let whole = self.gate.is_between() || self.gate.is_at_crossroads();
        if idle || !whole || self.half_closed.is_zero() {
            return Poll::Ready(());
        }
        let half_closed = self.half_closed;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep(half_closed)));
        alarm.as_mut().poll(cx)
    }

    /// Reads and throws away; ready at the end of what there is to read.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
        while self.discarded < DISCARDED {
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => self.discarded += buf.filled().len(),
                // Whether it ended well or not no longer matters.
                _ => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Whether the client may be in the middle of saying something.
    fn is_interrupting(&self) -> bool {
        let between = self.gate.is_between() && self.held.is_empty();
        match self.state {
            State::Open => !between && !self.gate.is_tunnel(),
            State::Refused | State::Broken(_) => true,
            State::Ended | State::Lingering => false,
        }
    }
}

impl AsyncRead for Guard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let guard = &mut *self;
        let before = buf.filled().len();
        loop {
            if guard.approved > 0 {
                guard.deliver(buf);
                return Poll::Ready(Ok(()));
            }
            if guard.gate.is_at_crossroads() {
                guard.pass_crossroads();
                if guard.approved > 0 {
                    continue;
                }
            }
            match guard.state {
                State::Open if guard.gate.is_at_crossroads() && guard.held.len() >= HASTY => {
                    return Poll::Pending;
                }
                State::Open => {}
                State::Refused => {
                    ready!(guard.poll_discard(cx));
                    guard.state = State::Ended;
                }
                State::Broken(refusal) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal)));
                }
                State::Ended | State::Lingering => return guard.poll_ended(cx).map(Ok),
            }
            match Pin::new(&mut guard.io).poll_read(cx, buf) {
                Poll::Pending => {
                    if guard.gate.is_between() && guard.held.is_empty() {
                        guard.ledger.note_taken(guard.requests());
                    }
                    ready!(guard.poll_patience(cx));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if buf.filled().len() == before => {
                    guard.state = State::Ended;
                    guard.alarm = None;
                }
                Poll::Ready(Ok(())) => {
                    guard.take_in(buf, before);
                    if buf.filled().len() > before {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl Guard {
    /// Something was written: a client that has said all is there to take it.
    fn note_written(&mut self, written: &Poll<io::Result<usize>>) {
        self.flushed = false;
        if self.state == State::Ended
            && matches!(written, Poll::Ready(Ok(_)))
            && let Some(alarm) = &mut self.alarm
        {
            alarm.as_mut().reset(Instant::now() + self.half_closed);
        }
    }

    /// hyper has written all that it had: what it can't write has its place here.
    fn add(&mut self, cx: &mut Context<'_>) {
        let mut awaited = self.ledger.trailers.flushed();
        while let Some(interim) = self.ledger.pending.take(EXCHANGE) {
            self.own.add(&interim);
            self.flushed = false;
            awaited = true;
        }
        if awaited {
            // hyper does not ask again by itself.
            cx.waker().wake_by_ref();
        }
    }
}

impl AsyncWrite for Guard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let guard = &mut *self;
        let before = guard
            .own
            .poll_before(cx, &mut guard.io, &guard.ledger.trailers, buf);
        let written = match ready!(before)? {
            Some(written) => Poll::Ready(Ok(written)),
            None => Pin::new(&mut guard.io).poll_write(cx, buf),
        };
        guard.note_written(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let guard = &mut *self;
        let next = bufs.first().map_or(&[][..], |buf| buf);
        let before = guard
            .own
            .poll_before(cx, &mut guard.io, &guard.ledger.trailers, next);
        let written = match ready!(before)? {
            Some(written) => Poll::Ready(Ok(written)),
            None => Pin::new(&mut guard.io).poll_write_vectored(cx, bufs),
        };
        guard.note_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = &mut *self;
        guard.add(cx);
        ready!(guard.own.poll_out(cx, &mut guard.io))?;
        ready!(Pin::new(&mut guard.io).poll_flush(cx))?;
        if !self.flushed && self.state == State::Ended {
            // It may have been the last that the client waited for; hyper does not ask again by itself.
            cx.waker().wake_by_ref();
        }
        self.flushed = true;
        self.ledger.note_written();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let guard = &mut *self;
        if guard.state != State::Lingering {
            ready!(Pin::new(&mut guard.io).poll_shutdown(cx))?;
            if !guard.is_interrupting() {
                return Poll::Ready(Ok(()));
            }
            guard.state = State::Lingering;
            guard.alarm = Some(Box::pin(sleep(LINGER)));
        }
        if guard.poll_discard(cx).is_ready() || guard.discarded >= DISCARDED {
            return Poll::Ready(Ok(()));
        }
        match &mut guard.alarm {
            Some(alarm) => alarm.as_mut().poll(cx).map(Ok),
            None => Poll::Ready(Ok(())),
        }
    }
}
