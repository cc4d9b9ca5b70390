//! What drives a connection: bytes that come become frames, frames that wait become bytes.

use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::error::{By, Error, Fatal, Reason};
use crate::frame;
use crate::outgoing::Batch;
use crate::reader::{READ, Reader};
use crate::state::{Ending, Role, Shared, State};
use crate::stream::register;

/// When so much waits that flow control does not bound, nothing more is read: a peer that asks and does not read the
/// answers waits for itself. Bytes.
const UNREAD: usize = 256 << 10;

/// A connection's bytes.
#[derive(Debug)]
pub(crate) struct Driver<T> {
    io: T,
    pub(crate) shared: Arc<Shared>,
    reader: Reader,
    /// What is being written.
    batch: Batch,
    flushed: bool,
    closing: Closing,
}

#[derive(Debug)]
enum Closing {
    No,
    /// What waits is still written; then it is over, for this reason if any.
    Writing(Option<Error>),
    /// The same, but a peer that reads nothing is not waited for: it is not owed more than a try.
    Parting(Option<Error>),
    Done,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    pub(crate) fn new(io: T, state: State) -> Self {
        let reader = Reader::new(state.role, &state.limits.ours);
        Self {
            io,
            shared: Shared::new(state),
            reader,
            batch: Batch::default(),
            flushed: true,
            closing: Closing::No,
        }
    }

    /// Whether the peer has said what it allows.
    pub(crate) fn has_begun(&self) -> bool {
        self.reader.has_begun()
    }

    /// Whether all of the client's preface has come.
    pub(crate) fn has_preface(&self) -> bool {
        self.reader.has_preface()
    }

    /// Reads and writes all that may be. Ready when the connection has ended.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            let mut full = false;
            if matches!(self.closing, Closing::No) {
                match self.poll_read(cx) {
                    Poll::Pending => {}
                    Poll::Ready(Ok(Read::Full)) => full = true,
                    Poll::Ready(Ok(Read::All)) => self.close(Ok(())),
                    Poll::Ready(Err(ended)) => self.close(Err(ended)),
                }
            }
            let written = match self.poll_write(cx) {
                Poll::Pending if matches!(self.closing, Closing::Parting(_)) => Ok(()),
                written => ready!(written),
            };
            if let Err(error) = written {
                let ended = match mem::replace(&mut self.closing, Closing::Done) {
                    // The peer went before the last words: why it ended is known.
                    Closing::Writing(why) | Closing::Parting(why) => why,
                    Closing::No | Closing::Done => Some(error.into()),
                };
                if let Some(error) = &ended {
                    self.shared.lock().break_off(error);
                }
                return Poll::Ready(ended.map_or(Ok(()), Err));
            }
            match &mut self.closing {
                Closing::Writing(why) | Closing::Parting(why) => {
                    let why = why.take();
                    // Whoever has gone misses no goodbye.
                    let _as_far_as_it_goes = Pin::new(&mut self.io).poll_shutdown(cx);
                    self.closing = Closing::Done;
                    return Poll::Ready(why.map_or(Ok(()), Err));
                }
                Closing::No if self.shared.lock().is_over() => self.say_goodbye(),
                Closing::No if full => {}
                Closing::No | Closing::Done => return Poll::Pending,
            }
        }
    }

    /// The last thing that is said on a connection that has nothing left to do.
    fn say_goodbye(&mut self) {
        let mut state = self.shared.lock();
        let why = state.goodbye.take().map(|(_, error)| error);
        let error = io::Error::from(io::ErrorKind::BrokenPipe);
        state.break_off(&error.into());
        if state.role == Role::Client {
            state.put(|out| frame::put_go_away(out, 0, Reason::NO_ERROR, ""));
        }
        self.closing = Closing::Writing(why.filter(|error| error.reason() != Some(Reason::NO_ERROR)));
    }

    /// Reading has ended: with the peer's last byte, or with an error.
    fn close(&mut self, ended: Result<(), Ended>) {
        match ended {
            Ok(()) => {
                let error = io::Error::new(io::ErrorKind::BrokenPipe, "the peer closed the connection");
                self.shared.lock().break_off(&error.into());
                // It may still read.
                self.closing = Closing::Writing(None);
            }
            Err(Ended::Io(error)) => {
                let error = Error::from(error);
                self.shared.lock().break_off(&error);
                self.closing = Closing::Parting(Some(error));
            }
            Err(Ended::Fatal(Fatal(reason, text))) => {
                let error = self.part(reason, text);
                self.closing = Closing::Parting(Some(error));
            }
        }
    }

    /// Ends the connection at once.
    pub(crate) fn end(&mut self, reason: Reason) {
        self.part(reason, "");
        self.closing = Closing::Parting(None);
    }

    fn part(&mut self, reason: Reason, text: &'static str) -> Error {
        let error = Error::go_away(reason, text.as_bytes(), By::Us);
        let mut state = self.shared.lock();
        let last = match (state.role, state.ending) {
            (Role::Client, _) => 0,
            // What was said never grows (RFC 9113 §6.8).
            (Role::Server, Ending::After(last)) => last,
            (Role::Server, _) => state.highest,
        };
        state.put(|out| frame::put_go_away(out, last, reason, text));
        state.break_off(&error);
        error
    }

    /// Takes in all that has come.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Read, Ended>> {
        loop {
            let mut state = self.shared.lock();
            if !self.reader.bytes.is_empty() {
                state.driven = true;
                self.reader.frames(&mut state).map_err(Ended::Fatal)?;
            }
            if state.out.unbounded() > UNREAD {
                return Poll::Ready(Ok(Read::Full));
            }
            drop(state);
            self.reader.bytes.reserve(READ);
            let read = pin!(self.io.read_buf(&mut self.reader.bytes)).poll(cx);
            match ready!(read) {
                Ok(0) if self.reader.is_between() => return Poll::Ready(Ok(Read::All)),
                Ok(0) => return Poll::Ready(Err(Ended::Io(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(Ended::Io(error))),
            }
        }
    }

    /// Writes all that waits, and sees to it that it leaves.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.batch.is_empty() {
                let mut state = self.shared.lock();
                if state.out.is_empty() {
                    // From now on, it wakes this task.
                    register(&mut state.task, cx);
                    state.driven = false;
                    break;
                }
                state.out.take(&mut self.batch);
                self.flushed = false;
            }
            let io = &mut self.io;
            let written = self.batch.with_parts(|parts| match parts {
                [part] => Pin::new(io).poll_write(cx, part),
                parts => Pin::new(io).poll_write_vectored(cx, parts),
            });
            let count = ready!(written)?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.batch.advance(count);
            let mut state = self.shared.lock();
            if self.batch.is_empty() {
                state.out.all_written();
                state.room_again();
            } else {
                state.out.some_written(count);
            }
        }
        if !self.flushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        let error = io::Error::new(io::ErrorKind::BrokenPipe, "the connection is not driven any more");
        self.shared.lock().break_off(&error.into());
    }
}

/// What reading has come to.
#[derive(Debug)]
enum Read {
    /// The peer has said all that it had to say.
    All,
    /// So much waits to be written that nothing more is read before some of it has left.
    Full,
}

/// Why nothing more is read.
#[derive(Debug)]
enum Ended {
    Io(io::Error),
    Fatal(Fatal),
}
