//! One stream: what has come on it, what may go, and who waits for either (RFC 9113 §5.1).

use std::collections::VecDeque;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Response};

use crate::error::Error;

/// A piece of content that waits behind others is copied to the one before it if it has fewer bytes than this, so that
/// many small frames cost no more memory than what they bring.
const SMALL: usize = 1024;

/// A stream that somebody holds, or that has not ended.
#[derive(Debug)]
pub(crate) struct Stream {
    /// What we may send, and what the peer may; bytes. A setting can make them negative (RFC 9113 §6.9.2).
    pub(crate) send_window: i64,
    pub(crate) recv_window: i64,
    /// Bytes that were read, and that the peer has not been told of.
    pub(crate) credit: u32,
    /// Bytes that have come and whose reader has not made room for as many more.
    pub(crate) outstanding: usize,
    /// Whether we may still send, and whether the peer may.
    pub(crate) local_open: bool,
    pub(crate) remote_open: bool,
    /// Why it ended before both had sent everything.
    pub(crate) failed: Option<Error>,
    /// Whether it is one of those that the limit of streams counts.
    pub(crate) counted: bool,
    /// Whether the head of the answer has not come.
    pub(crate) expects_head: bool,
    /// Bytes of content that are to come, if its length was said.
    pub(crate) left: Option<u64>,
    /// Whether the answer to a HEAD request comes on it, whose length is not its own.
    pub(crate) headless: bool,
    /// Heads of answers, in their order.
    pub(crate) heads: Fifo<Response<()>>,
    pub(crate) pieces: Pieces,
    pub(crate) trailers: Option<Box<HeaderMap>>,
    /// Whether somebody may still read or send.
    pub(crate) recv_held: bool,
    pub(crate) send_held: bool,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// Whether it is in the queue for room on the connection.
    pub(crate) queued: bool,
    /// Where among all that is sent its head lies.
    pub(crate) head_at: u64,
}

/// A queue that mostly holds one thing, which takes no memory of its own.
#[derive(Debug)]
pub(crate) struct Fifo<T> {
    first: Option<T>,
    rest: VecDeque<T>,
}

/// Content that nobody has read.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    whole: Fifo<Bytes>,
    /// Small pieces behind those, joined.
    last: BytesMut,
}

impl Stream {
    pub(crate) fn new(send_window: i64, recv_window: i64) -> Self {
        Self {
            send_window,
            recv_window,
            credit: 0,
            outstanding: 0,
            local_open: true,
            remote_open: true,
            failed: None,
            counted: true,
            expects_head: false,
            left: None,
            headless: false,
            heads: Fifo::default(),
            pieces: Pieces::default(),
            trailers: None,
            recv_held: true,
            send_held: true,
            reader: None,
            writer: None,
            queued: false,
            head_at: 0,
        }
    }

    /// Whether nothing more can happen on it.
    pub(crate) fn is_closed(&self) -> bool {
        self.failed.is_some() || !(self.local_open || self.remote_open)
    }

    /// Whether a reader who has taken all that there is has taken everything.
    pub(crate) fn is_complete(&self) -> bool {
        !self.remote_open && self.trailers.is_none()
    }

    pub(crate) fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    pub(crate) fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }

    /// It ends early: whoever waits is told.
    pub(crate) fn fail(&mut self, error: Error) {
        self.failed = Some(error);
        self.wake_reader();
        self.wake_writer();
    }
}

impl<T> Default for Fifo<T> {
    fn default() -> Self {
        Self {
            first: None,
            rest: VecDeque::new(),
        }
    }
}

impl<T> Fifo<T> {
    pub(crate) fn push(&mut self, item: T) {
        if self.first.is_none() {
            self.first = Some(item);
        } else {
            self.rest.push_back(item);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let first = self.first.take()?;
        self.first = self.rest.pop_front();
        Some(first)
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

impl Pieces {
    pub(crate) fn push(&mut self, piece: Bytes) {
        if self.whole.is_empty() {
            self.whole.push(piece);
        } else if piece.len() < SMALL {
            self.last.extend_from_slice(&piece);
        } else {
            self.shift();
            self.whole.push(piece);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let first = self.whole.pop()?;
        if self.whole.is_empty() {
            self.shift();
        }
        Some(first)
    }

    /// Closes the piece that small ones are joined in.
    fn shift(&mut self) {
        if !self.last.is_empty() {
            self.whole.push(self.last.split().freeze());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.whole.is_empty()
    }
}

/// Has `waker` told, unless it is already.
pub(crate) fn register(waker: &mut Option<Waker>, cx: &Context<'_>) {
    if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *waker = Some(cx.waker().clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_as_they_went_in_however_small() {
        let mut pieces = Pieces::default();
        let (mut sent, mut read) = (Vec::new(), Vec::new());
        for n in 0..1_000usize {
            let piece = vec![n as u8; [1, 5_000, 3, 4, 1_024][n % 5]];
            sent.extend_from_slice(&piece);
            pieces.push(piece.into());
            if n % 7 == 0 {
                read.extend_from_slice(&pieces.pop().unwrap());
            }
        }
        while let Some(piece) = pieces.pop() {
            read.extend_from_slice(&piece);
        }
        assert!(pieces.is_empty());
        assert_eq!(read, sent);
    }

    #[test]
    fn small_pieces_that_wait_become_one() {
        let mut pieces = Pieces::default();
        for _ in 0..10_000 {
            pieces.push(Bytes::from_static(b"x"));
        }
        assert_eq!(pieces.pop().unwrap().len(), 1);
        assert_eq!(pieces.pop().unwrap().len(), 9_999);
        assert!(pieces.pop().is_none());
    }
}
