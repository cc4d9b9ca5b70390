//! Copies bytes between two connections until both directions have ended.
//!
//! Reads go into a buffer that all connections of a thread share; only what the other side does not take at once is
//! kept with the connection. An idle connection so holds no buffer at all.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes taken from a socket at a time.
const SCRATCH: usize = 64 * 1024;
/// Reads made for one direction before other tasks get their turn.
const READS_PER_TURN: usize = 8;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Copies both ways. The end of one direction is passed on as a half-close; any error ends both.
pub async fn both_ways<A, B>(a: &mut A, b: &mut B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut forth, mut back) = (Direction::default(), Direction::default());
    poll_fn(|cx| {
        let there = forth.poll(cx, a, b)?;
        let here = back.poll(cx, b, a)?;
        if there.is_ready() && here.is_ready() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await
}

/// One direction of a copy.
#[derive(Debug, Default)]
struct Direction {
    /// Read, and not yet taken by the other side.
    rest: BytesMut,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum State {
    #[default]
    Copying,
    /// The reader has ended; the writer is being shut down.
    Closing,
    Done,
}

impl Direction {
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut turns = READS_PER_TURN;
        while self.state == State::Copying {
            ready!(self.poll_rest(cx, to))?;
            if turns == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            turns -= 1;
            match self.poll_read(cx, from, to) {
                Poll::Ready(result) => {
                    if !result? {
                        self.state = State::Closing;
                    }
                }
                Poll::Pending => {
                    // Nothing more to say for now: what a TLS stream has buffered goes out.
                    let _flushing = Pin::new(to).poll_flush(cx)?;
                    return Poll::Pending;
                }
            }
        }
        if self.state == State::Closing {
            ready!(Pin::new(to).poll_shutdown(cx))?;
            self.state = State::Done;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what an earlier turn could not.
    fn poll_rest<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<io::Result<()>> {
        while !self.rest.is_empty() {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.rest.advance(n);
        }
        if self.rest.capacity() > 0 {
            self.rest = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, and writes what the other side takes of it. `false`: the reader has ended.
    fn poll_read<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<bool>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        BUFFER.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(cx, &mut buf))?;
            let mut read = buf.filled();
            if read.is_empty() {
                return Poll::Ready(Ok(false));
            }
            while !read.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, read) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(n)) => read = &read[n..],
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        self.rest.extend_from_slice(read);
                        break;
                    }
                }
            }
            Poll::Ready(Ok(true))
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn bytes_cross_and_the_end_of_one_direction_leaves_the_other_open() {
        let ((mut left, mut a), (mut b, mut right)) = (duplex(16), duplex(16));
        let copying = tokio::spawn(async move { both_ways(&mut a, &mut b).await });
        let sent = vec![7u8; 200_000];
        let (writer, expected) = (sent.clone(), sent);
        let writing = tokio::spawn(async move {
            left.write_all(&writer).await.unwrap();
            left.shutdown().await.unwrap();
            let mut answer = String::new();
            left.read_to_string(&mut answer).await.unwrap();
            answer
        });
        let mut seen = Vec::new();
        right.read_to_end(&mut seen).await.unwrap();
        assert_eq!(seen, expected);
        right.write_all(b"still here").await.unwrap();
        drop(right);
        assert_eq!(writing.await.unwrap(), "still here");
        copying.await.unwrap().unwrap();
    }

    #[test]
    fn an_idle_direction_holds_no_buffer() {
        assert!(size_of::<Direction>() <= 40);
        assert_eq!(Direction::default().rest.capacity(), 0);
    }
}
