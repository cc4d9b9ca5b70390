//! What is done with a stream: reading, sending, resetting.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response};

use crate::error::{Error, Reason};
use crate::frame::{self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEAD, HEADERS};
use crate::hpack::Encoder;
use crate::message;
use crate::state::{ALIVE, Shared, State};
use crate::stream::{Stream, register};

/// What comes on a stream. When it and the stream's [`Send`] are dropped before the end, the stream is reset: with CANCEL,
/// or with NO_ERROR where all of an answer was sent (RFC 9113 §8.1).
#[derive(Debug)]
pub struct Recv {
    shared: Arc<Shared>,
    id: u32,
    /// All was read, or it has failed: the connection does not know it any more.
    over: bool,
}

/// What goes on a stream.
#[derive(Debug)]
pub struct Send {
    shared: Arc<Shared>,
    id: u32,
}

/// Asks the peer whether it is there (RFC 9113 §6.7).
#[derive(Debug)]
pub struct Pings(pub(crate) Arc<Shared>);

const GONE: &str = "the stream has ended";

impl Recv {
    pub(crate) fn new(shared: Arc<Shared>, id: u32, over: bool) -> Self {
        Self { shared, id, over }
    }

    /// The stream's number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether all was read.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The next head of the answer: those with an interim status come before the last one (RFC 9110 §15.2).
    ///
    /// # Errors
    /// The stream failed before it came.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Error>> {
        let mut state = self.shared.lock();
        let Some(stream) = state.streams.get_mut(&self.id) else {
            return Poll::Ready(Err(Error::misuse(GONE)));
        };
        if let Some(head) = stream.heads.pop() {
            let over = stream.heads.is_empty() && !stream.expects_head && !stream.remote_open;
            if over && stream.pieces.is_empty() && stream.trailers.is_none() {
                self.over = true;
                state.let_go_of_recv(self.id);
            }
            return Poll::Ready(Ok(head));
        }
        if let Some(error) = &stream.failed {
            return Poll::Ready(Err(error.clone()));
        }
        register(&mut stream.reader, cx);
        Poll::Pending
    }

    /// The next piece of content, and whether nothing comes behind it. What was read before the last piece is to be given
    /// back to the peer by [`Self::release`].
    ///
    /// # Errors
    /// The stream ended before the message did.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<(Bytes, bool), Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let mut state = self.shared.lock();
        let Some(stream) = state.streams.get_mut(&self.id) else {
            return Poll::Ready(None);
        };
        if let Some(data) = stream.pieces.pop() {
            let ended = stream.pieces.is_empty() && stream.is_complete();
            if ended {
                self.over = true;
                state.let_go_of_recv(self.id);
            }
            return Poll::Ready(Some(Ok((data, ended))));
        }
        if !stream.remote_open {
            return Poll::Ready(None);
        }
        if let Some(error) = &stream.failed {
            return Poll::Ready(Some(Err(error.clone())));
        }
        register(&mut stream.reader, cx);
        Poll::Pending
    }

    /// What comes behind all content; `None`: nothing.
    ///
    /// # Errors
    /// The stream ended before the message did.
    pub fn poll_trailers(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<HeaderMap, Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let mut state = self.shared.lock();
        let Some(stream) = state.streams.get_mut(&self.id) else {
            return Poll::Ready(None);
        };
        if !stream.remote_open {
            return Poll::Ready(stream.trailers.take().map(|trailers| Ok(*trailers)));
        }
        if let Some(error) = &stream.failed {
            return Poll::Ready(Some(Err(error.clone())));
        }
        register(&mut stream.reader, cx);
        Poll::Pending
    }

    /// The peer may send so many bytes in the place of those that were read (RFC 9113 §5.2).
    pub fn release(&mut self, bytes: usize) {
        if self.over {
            return;
        }
        let mut state = self.shared.lock();
        if let Some(stream) = state.streams.get_mut(&self.id) {
            let bytes = bytes.min(stream.outstanding);
            stream.outstanding -= bytes;
            state.give_back(bytes);
            state.give_back_on(self.id, bytes);
        }
    }

    /// Whether the head of the request, which we sent, has begun to leave.
    pub fn has_left(&self) -> bool {
        let state = self.shared.lock();
        state
            .streams
            .get(&self.id)
            .is_none_or(|stream| state.out.has_left(stream.head_at))
    }
}

impl Drop for Recv {
    fn drop(&mut self) {
        if !self.over {
            self.shared.lock().let_go_of_recv(self.id);
        }
    }
}

impl Send {
    pub(crate) fn new(shared: Arc<Shared>, id: u32) -> Self {
        Self { shared, id }
    }

    /// The stream's number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Sends the head of an answer; `ended`: there is nothing behind it.
    ///
    /// # Errors
    /// The stream has ended.
    pub fn send_head<B>(&mut self, head: &Response<B>, ended: bool) -> Result<(), Error> {
        let mut state = self.shared.lock();
        state.sendable(self.id)?;
        state.put_block(self.id, ended, |encoder, out| {
            message::put_response(head, encoder, out)
        });
        if ended {
            state.sent_all(self.id);
        }
        Ok(())
    }

    /// Sends as much of `data` as the windows allow, and is ready when all of it was taken; `last`: nothing comes behind it.
    ///
    /// # Errors
    /// The stream has ended.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        last: bool,
    ) -> Poll<Result<(), Error>> {
        let mut state = self.shared.lock();
        loop {
            let room = state.room();
            let max_frame = state.peer.max_frame;
            let stream = state.sendable(self.id)?;
            if data.is_empty() && !last {
                return Poll::Ready(Ok(()));
            }
            let room = usize::try_from(room.min(stream.send_window)).unwrap_or(0);
            if room == 0 && !data.is_empty() {
                register(&mut stream.writer, cx);
                if stream.send_window > 0 && !stream.queued {
                    stream.queued = true;
                    state.wait_for_room(self.id);
                }
                return Poll::Pending;
            }
            let piece = data.split_to(data.len().min(room).min(max_frame));
            stream.send_window -= piece.len() as i64;
            let ends = last && data.is_empty();
            state.put_data(self.id, piece, ends);
            if ends {
                state.sent_all(self.id);
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Sends what comes behind all content, which ends the message.
    ///
    /// # Errors
    /// The stream has ended.
    pub fn send_trailers(&mut self, trailers: &HeaderMap) -> Result<(), Error> {
        let mut state = self.shared.lock();
        state.sendable(self.id)?;
        state.put_block(self.id, true, |encoder, out| {
            message::put_trailers(trailers, encoder, out)
        });
        state.sent_all(self.id);
        Ok(())
    }

    /// Ends the stream with RST_STREAM (RFC 9113 §6.4), unless it has ended.
    pub fn reset(&mut self, reason: Reason) {
        self.shared.lock().reset(self.id, reason);
    }

    /// Ready when the stream ends before all was sent.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let mut state = self.shared.lock();
        let Some(stream) = state.streams.get_mut(&self.id) else {
            return Poll::Ready(Error::misuse(GONE));
        };
        if let Some(error) = &stream.failed {
            return Poll::Ready(error.clone());
        }
        register(&mut stream.writer, cx);
        Poll::Pending
    }
}

impl Drop for Send {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(stream) = state.streams.get_mut(&self.id) {
            stream.send_held = false;
            state.let_go(self.id);
        }
    }
}

impl Pings {
    /// Sends a PING and waits for its answer.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn ping(&mut self) -> Result<(), Error> {
        let mut asked = false;
        poll_fn(|cx| {
            let mut state = self.0.lock();
            if let Some(error) = &state.broken {
                return Poll::Ready(Err(error.clone()));
            }
            if !asked {
                (asked, state.ping.sent) = (true, true);
                state.put(|out| frame::put_ping(out, 0, ALIVE));
            } else if !state.ping.sent {
                return Poll::Ready(Ok(()));
            }
            register(&mut state.ping.waker, cx);
            Poll::Pending
        })
        .await
    }
}

impl State {
    /// A stream that something may be sent on.
    fn sendable(&mut self, id: u32) -> Result<&mut Stream, Error> {
        let stream = self.streams.get_mut(&id).ok_or_else(|| Error::misuse(GONE))?;
        match &stream.failed {
            Some(error) => Err(error.clone()),
            None if stream.local_open => Ok(stream),
            None => Err(Error::misuse(GONE)),
        }
    }

    /// All has been sent on a stream.
    pub(crate) fn sent_all(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.local_open = false;
            self.settle(id);
        }
    }

    fn put_data(&mut self, id: u32, piece: Bytes, ends: bool) {
        self.send_window -= piece.len() as i64;
        let flags = if ends { END_STREAM } else { 0 };
        self.put(|out| frame::put_head(out, piece.len(), DATA, flags, id));
        if !piece.is_empty() {
            self.out.payload(piece);
        }
    }

    /// Writes a header block: HEADERS, and CONTINUATIONs where the peer takes no frame as large (RFC 9113 §6.10).
    pub(crate) fn put_block(&mut self, id: u32, ends: bool, write: impl FnOnce(&mut Encoder, &mut BytesMut)) {
        let max_frame = self.peer.max_frame;
        let (encoder, out) = (&mut self.encoder, self.out.frames());
        let start = out.len();
        let flags = if ends { END_STREAM } else { 0 };
        frame::put_head(out, 0, HEADERS, flags | END_HEADERS, id);
        write(encoder, out);
        let length = out.len() - start - HEAD;
        if length <= max_frame {
            out[start..start + HEAD].copy_from_slice(&frame::head(length, HEADERS, flags | END_HEADERS, id));
        } else {
            let block = out.split_off(start + HEAD);
            out.truncate(start);
            put_pieces(out, &block, max_frame, flags, id);
        }
        self.out.noted(start);
        self.wake();
    }

    fn let_go_of_recv(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.recv_held = false;
        stream.reader = None;
        stream.pieces = crate::stream::Pieces::default();
        stream.trailers = None;
        let outstanding = std::mem::take(&mut stream.outstanding);
        self.give_back(outstanding);
        self.let_go(id);
    }

    /// Nobody holds the stream any more, perhaps: then it ends.
    fn let_go(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.recv_held || stream.send_held {
            return;
        }
        if stream.is_closed() {
            self.settle(id);
            return;
        }
        let answered = self.role == crate::state::Role::Server && !stream.local_open;
        self.reset(
            id,
            if answered {
                Reason::NO_ERROR
            } else {
                Reason::CANCEL
            },
        );
    }
}

fn put_pieces(out: &mut BytesMut, block: &[u8], max_frame: usize, flags: u8, id: u32) {
    let count = block.chunks(max_frame).len();
    for (at, piece) in block.chunks(max_frame).enumerate() {
        let last = if at + 1 == count { END_HEADERS } else { 0 };
        let (kind, flags) = if at == 0 {
            (HEADERS, flags)
        } else {
            (CONTINUATION, 0)
        };
        frame::put_head(out, piece.len(), kind, flags | last, id);
        out.extend_from_slice(piece);
    }
}
