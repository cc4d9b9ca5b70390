//! Between hyper's client and a server: takes interim heads out of what comes, and adds trailers to what goes.

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use futures_util::task::AtomicWaker;
use http::Response;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::http::http1::front::{self, Front};
use crate::http::http1::own::Own;
use crate::http::http1::trailers::Trailers;
use crate::net::io::Io;

/// Bytes by which the room grows for a head that has not come whole.
const MORE: usize = 1_024;

/// A connection to a server as hyper is to see it.
#[derive(Debug)]
pub struct Link {
    io: Io,
    line: Arc<Line>,
    own: Own,
    /// The next byte from the server is of an interim head, or of the answer.
    before_answer: bool,
    /// What has come of a head that is not whole, or behind an interim one.
    held: BytesMut,
}

/// What a connection tells those who send requests on it.
#[derive(Debug, Default)]
pub struct Line {
    /// A request begins.
    asked: AtomicBool,
    /// An interim head that nobody has taken. The server is not read before somebody has.
    interim: Mutex<Option<Interim>>,
    there_is: AtomicBool,
    /// Who waits for the answer, and who reads it.
    waiting: AtomicWaker,
    reading: AtomicWaker,
    /// Those of the request.
    pub trailers: Trailers,
}

/// A head, or why what came can't be one.
pub type Interim = Result<Response<()>, &'static str>;

impl Line {
    /// A request is about to be sent.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Release);
    }

    /// Wakes with the next interim head.
    pub fn register(&self, waker: &Waker) {
        self.waiting.register(waker);
    }

    /// The interim head that has come, if one has.
    pub fn take(&self) -> Option<Interim> {
        if !self.is_full() {
            return None;
        }
        let interim = self.lock().take();
        self.there_is.store(false, Ordering::Release);
        self.reading.wake();
        interim
    }

    fn put(&self, interim: Interim) {
        *self.lock() = Some(interim);
        self.there_is.store(true, Ordering::Release);
        self.waiting.wake();
    }

    fn is_full(&self) -> bool {
        self.there_is.load(Ordering::Acquire)
    }

    fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_full() {
            self.reading.register(cx.waker());
        }
        if self.is_full() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// A lock whose holder panicked: what it guards is replaced whole.
    fn lock(&self) -> MutexGuard<'_, Option<Interim>> {
        self.interim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// A fresh connection.
    pub fn new(io: Io, line: Arc<Line>) -> Self {
        Self {
            io,
            line,
            own: Own::default(),
            before_answer: false,
            held: BytesMut::new(),
        }
    }

    /// The connection itself, for a tunnel; what hyper has not been given is put back in front.
    pub fn into_io(mut self) -> Io {
        self.io.unread(self.held);
        self.io
    }

    /// Takes interim heads from the front of what is held, as they are wanted. `true`: the answer begins there.
    fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            ready!(self.line.poll_taken(cx));
            match front::of(&self.held) {
                Ok(Front::Answer) => return Poll::Ready(true),
                Ok(Front::Unknown) => return Poll::Ready(false),
                Ok(Front::Interim(head, end)) => {
                    self.held.advance(end);
                    self.line.put(Ok(head));
                }
                // Whoever takes it gives the exchange up, and with it the connection.
                Err(why) => self.line.put(Err(why)),
            }
        }
    }

    /// Reads up to the answer. Most come whole, and without a copy.
    fn poll_answer(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
            let read = &buf.filled()[before..];
            if read.is_empty() || matches!(front::of(read), Ok(Front::Answer)) {
                self.before_answer = false;
                return Poll::Ready(Ok(()));
            }
            self.held.extend_from_slice(read);
            buf.set_filled(before);
        }
        while !ready!(self.poll_look(cx)) {
            let before = self.held.len();
            self.held.reserve(MORE);
            ready!(pin!(self.io.read_buf(&mut self.held)).poll(cx))?;
            if self.held.len() == before {
                break; // The server has said all: hyper is to see that it was too little.
            }
        }
        self.before_answer = false;
        Poll::Ready(Ok(()))
    }

    /// Gives hyper what it may have of what is held.
    fn deliver(&mut self, buf: &mut ReadBuf<'_>) {
        let here = self.held.len().min(buf.remaining());
        buf.put_slice(&self.held[..here]);
        self.held.advance(here);
        if self.held.is_empty() {
            self.held = BytesMut::new(); // gives the buffer back
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let link = &mut *self;
        if link.line.asked.load(Ordering::Acquire) {
            link.line.asked.store(false, Ordering::Release);
            link.before_answer = true;
        }
        let before = buf.filled().len();
        if link.before_answer {
            ready!(link.poll_answer(cx, buf))?;
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
        if !link.held.is_empty() {
            link.deliver(buf);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut link.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Link {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { io, line, own, .. } = &mut *self;
        match ready!(own.poll_before(cx, io, &line.trailers, buf))? {
            Some(written) => Poll::Ready(Ok(written)),
            None => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { io, line, own, .. } = &mut *self;
        let next = bufs.first().map_or(&[][..], |buf| buf);
        match ready!(own.poll_before(cx, io, &line.trailers, next))? {
            Some(written) => Poll::Ready(Ok(written)),
            None => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, line, own, .. } = &mut *self;
        if line.trailers.flushed() {
            // hyper does not ask the body again by itself.
            cx.waker().wake_by_ref();
        }
        ready!(own.poll_out(cx, io))?;
        Pin::new(io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, own, .. } = &mut *self;
        ready!(own.poll_out(cx, io))?;
        Pin::new(io).poll_shutdown(cx)
    }
}
