//! A connection, with what has been read from it and not been taken yet.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use crate::net::io::Io;
use crate::net::scratch;

/// Bytes of a body, from which on they are read where they stay; others are copied there.
const DIRECT: u64 = 4 << 10;
/// Bytes that are read at a time.
const MOST: usize = 64 << 10;

/// A connection as HTTP/1 reads it. At rest it has no buffer.
#[derive(Debug)]
pub struct Buffered {
    /// The connection.
    pub io: Io,
    /// What has been read and not been taken.
    pub held: Bytes,
}

impl Buffered {
    /// Nothing has been read yet.
    pub fn new(io: Io) -> Self {
        Self {
            io,
            held: Bytes::new(),
        }
    }

    /// Reads more, of which so much is expected; 0: the peer has said all.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, expected: u64) -> Poll<io::Result<usize>> {
        if expected < DIRECT || !self.held.is_empty() {
            return scratch::with(|scratch| {
                let mut buf = ReadBuf::new(scratch);
                ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
                join(&mut self.held, buf.filled());
                Poll::Ready(Ok(buf.filled().len()))
            });
        }
        ready!(self.io.poll_readable(cx)); // No buffer for nothing.
        let room = usize::try_from(expected).unwrap_or(usize::MAX).min(MOST);
        let mut read = BytesMut::with_capacity(room);
        let bytes = ready!(pin!(self.io.read_buf(&mut read)).poll(cx))?;
        // A buffer that is mostly empty is not passed on: who keeps a part of it keeps all of it.
        self.held = match bytes < room / 2 {
            true => Bytes::copy_from_slice(&read),
            false => read.freeze(),
        };
        Poll::Ready(Ok(bytes))
    }

    /// Reads more and throws it away, with whatever was held; as many bytes.
    pub fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.held = Bytes::new();
        scratch::with(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
            Poll::Ready(Ok(buf.filled().len()))
        })
    }

    /// The connection itself; what has been read is put back in front.
    pub fn into_io(self) -> Io {
        let Self { mut io, held } = self;
        io.unread(BytesMut::from(held));
        io
    }
}

fn join(held: &mut Bytes, more: &[u8]) {
    if held.is_empty() {
        *held = scratch::keep(more);
        return;
    }
    let held_alone = std::mem::take(held).try_into_mut();
    let mut joined = held_alone.unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    joined.extend_from_slice(more);
    *held = joined.freeze();
}
