//! What drives a connection: bytes that come become frames, frames that wait become bytes.

use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::error::{By, Error, Fatal, Reason};
use crate::frame::{self, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEAD, HEADERS, Head, PREFACE};
use crate::frame::{PING, PRIORITIZED, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE};
use crate::hpack::Decoder;
use crate::message::Incoming;
use crate::outgoing::Batch;
use crate::receive::{Block, depends_on};
use crate::state::{Role, Shared, State};
use crate::stream::register;

/// What is read at a time, bytes.
const READ: usize = 16 << 10;
/// Payloads up to this many bytes are copied: else they would keep all that was read with them, and the next read would
/// need a buffer of its own.
const COPIED: usize = 2048;
/// When so much waits that flow control does not bound, nothing more is read: a peer that asks and does not read the
/// answers waits for itself. Bytes.
const UNREAD: usize = 256 << 10;
/// CONTINUATIONs of one header block (CVE-2024-27316). Each may be as long as a frame may be.
const CONTINUATIONS: usize = 32;

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

/// Bytes that have come, and what makes frames of them.
#[derive(Debug)]
struct Reader {
    bytes: BytesMut,
    frames: Frames,
}

#[derive(Debug)]
struct Frames {
    decoder: Decoder,
    /// Of the preface, what is still to come.
    preface: &'static [u8],
    /// Whether a frame has come.
    begun: bool,
    /// A header block of which more is to come.
    partial: Option<Partial>,
    /// How many fields the last block had: the next has as many, about.
    fields: usize,
    max_frame: usize,
    max_header_list: usize,
}

#[derive(Debug)]
struct Partial {
    block: Block,
    bytes: BytesMut,
    continuations: usize,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    pub(crate) fn new(io: T, state: State) -> Self {
        let ours = &state.limits.ours;
        let frames = Frames {
            decoder: Decoder::new(4096),
            preface: if state.role == Role::Server { PREFACE } else { &[] },
            begun: false,
            partial: None,
            fields: 0,
            max_frame: ours.max_frame as usize,
            max_header_list: ours.max_header_list as usize,
        };
        Self {
            io,
            shared: Shared::new(state),
            reader: Reader {
                bytes: BytesMut::new(),
                frames,
            },
            batch: Batch::default(),
            flushed: true,
            closing: Closing::No,
        }
    }

    /// Whether the peer has said what it allows.
    pub(crate) fn has_begun(&self) -> bool {
        self.reader.frames.begun
    }

    /// Whether all of the client's preface has come.
    pub(crate) fn has_preface(&self) -> bool {
        self.reader.frames.preface.is_empty()
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
        if state.role == Role::Client {
            state.put(|out| frame::put_go_away(out, 0, Reason::NO_ERROR, ""));
        }
        let error = io::Error::from(io::ErrorKind::BrokenPipe);
        state.break_off(&error.into());
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
        let last = match state.role {
            Role::Server => state.highest,
            Role::Client => 0,
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
                Ok(0) if self.reader.bytes.is_empty() => return Poll::Ready(Ok(Read::All)),
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

impl Reader {
    /// Takes in all frames that have come whole.
    fn frames(&mut self, state: &mut State) -> Result<(), Fatal> {
        let (bytes, frames) = (&mut self.bytes, &mut self.frames);
        frames.preface(bytes)?;
        if !frames.preface.is_empty() {
            return Ok(());
        }
        while let Some(head) = Head::parse(bytes) {
            if head.length > frames.max_frame {
                return Err(Reason::FRAME_SIZE_ERROR.into());
            }
            frames.expected(head)?;
            let length = HEAD + head.length;
            let Some(frame) = bytes.get(HEAD..length) else {
                bytes.reserve(length - bytes.len());
                break;
            };
            if head.kind == DATA && head.length > COPIED {
                bytes.advance(HEAD);
                let payload = bytes.split_to(head.length).freeze();
                let content = payload.slice_ref(frame::unpadded(head, &payload)?);
                state.on_data(head, content)?;
            } else {
                frames.frame(head, frame, state)?;
                bytes.advance(length);
            }
        }
        Ok(())
    }
}

impl Frames {
    /// Takes off what has come of the preface (RFC 9113 §3.4).
    fn preface(&mut self, bytes: &mut BytesMut) -> Result<(), Fatal> {
        let count = self.preface.len().min(bytes.len());
        let (expected, rest) = self.preface.split_at(count);
        if bytes[..count] != *expected {
            return Err(Reason::PROTOCOL_ERROR.into());
        }
        bytes.advance(count);
        self.preface = rest;
        Ok(())
    }

    /// Whether such a frame may come now: SETTINGS first (RFC 9113 §3.4), and nothing within a header block (§6.10).
    fn expected(&mut self, head: Head) -> Result<(), Fatal> {
        let settings = head.kind == SETTINGS && !head.has(frame::ACK);
        let in_place = match &self.partial {
            Some(partial) => head.kind == CONTINUATION && head.stream == partial.block.stream,
            None => head.kind != CONTINUATION && (self.begun || settings),
        };
        if !in_place {
            return Err(Reason::PROTOCOL_ERROR.into());
        }
        let on_stream = match head.kind {
            DATA | HEADERS | RST_STREAM | CONTINUATION | PRIORITY => Some(true),
            SETTINGS | PING | GOAWAY => Some(false),
            _ => None,
        };
        if on_stream.is_some_and(|on_stream| on_stream != (head.stream != 0)) {
            return Err(Reason::PROTOCOL_ERROR.into());
        }
        Ok(())
    }

    fn frame(&mut self, head: Head, payload: &[u8], state: &mut State) -> Result<(), Fatal> {
        let id = head.stream;
        match head.kind {
            DATA => state.on_data(head, Bytes::copy_from_slice(frame::unpadded(head, payload)?)),
            HEADERS => self.headers(head, payload, state),
            CONTINUATION => self.continuation(head, payload, state),
            RST_STREAM => state.on_reset(id, payload),
            SETTINGS => {
                state.on_settings(head.flags, payload)?;
                self.begun = true;
                Ok(())
            }
            PING => state.on_ping(head.flags, payload),
            GOAWAY => state.on_go_away(payload),
            WINDOW_UPDATE => state.on_window_update(id, payload),
            PRIORITY => state.on_priority(id, payload),
            // We allow none, and a client may send none at all (RFC 9113 §8.4).
            PUSH_PROMISE => Err(Reason::PROTOCOL_ERROR.into()),
            // Extensions mean nothing to us (RFC 9113 §5.5).
            _ => Ok(()),
        }
    }

    fn headers(&mut self, head: Head, payload: &[u8], state: &mut State) -> Result<(), Fatal> {
        let mut fragment = frame::unpadded(head, payload)?;
        let mut priority = None;
        if head.has(PRIORITIZED) {
            let (first, rest) = fragment
                .split_at_checked(5)
                .ok_or(Fatal(Reason::FRAME_SIZE_ERROR, ""))?;
            (priority, fragment) = (depends_on(first), rest);
        }
        let block = Block {
            stream: head.stream,
            ends_stream: head.has(END_STREAM),
            depends_on: priority,
        };
        if head.has(END_HEADERS) {
            return self.block(&block, fragment, state);
        }
        self.partial = Some(Partial {
            block,
            bytes: BytesMut::from(fragment),
            continuations: 0,
        });
        Ok(())
    }

    fn continuation(&mut self, head: Head, payload: &[u8], state: &mut State) -> Result<(), Fatal> {
        let Some(partial) = &mut self.partial else {
            return Ok(());
        };
        partial.continuations += 1;
        if partial.continuations > CONTINUATIONS {
            return Err(Fatal(Reason::ENHANCE_YOUR_CALM, "too_many_continuations"));
        }
        // Compressed, it takes no more room than what we allow does otherwise.
        if partial.bytes.len() + payload.len() > self.max_header_list + READ {
            return Err(Fatal(Reason::ENHANCE_YOUR_CALM, TOO_LARGE));
        }
        partial.bytes.extend_from_slice(payload);
        if !head.has(END_HEADERS) {
            return Ok(());
        }
        match self.partial.take() {
            Some(partial) => self.block(&partial.block, &partial.bytes, state),
            None => Ok(()),
        }
    }

    /// A header block that has come whole. It is decoded whatever becomes of it: what follows builds on it (RFC 9113 §4.3).
    fn block(&mut self, block: &Block, bytes: &[u8], state: &mut State) -> Result<(), Fatal> {
        let mut fields = Incoming::new(self.max_header_list, self.fields);
        let decoded = self.decoder.decode(bytes, |field, size| fields.take(field, size));
        decoded.map_err(|_| Fatal::from(Reason::COMPRESSION_ERROR))?;
        if fields.beyond() > BOMB * self.max_header_list {
            return Err(Fatal(Reason::ENHANCE_YOUR_CALM, TOO_LARGE));
        }
        self.fields = fields.len().min(MANY);
        state.on_headers(block, fields)
    }
}

/// So many times more than what is allowed is no list of fields that somebody means.
const BOMB: usize = 3;
const TOO_LARGE: &str = "header_list_way_too_large";
/// Room is made for no more fields than these before they have come.
const MANY: usize = 24;
