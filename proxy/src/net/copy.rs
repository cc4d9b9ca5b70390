//! Copies bytes between two connections until both directions have ended.
//!
//! Reads go into the [`scratch`] buffer; only what the other side does not take at once is kept with the connection. An
//! idle connection so holds no buffer at all.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use crate::net::scratch;

/// Reads made for one direction before other tasks get their turn.
const READS_PER_TURN: usize = 8;

/// Copies both ways. The end of one direction is passed on as a half-close; the other may go on for as long as it
/// likes, but not be silent for longer than `half_closed`.
///
/// # Errors
/// What broke one side. The caller then has to cut both: to be closed would look like an end to the other one.
/// [`io::ErrorKind::TimedOut`] after `half_closed`.
pub async fn both_ways<A, B>(a: &mut A, b: &mut B, half_closed: Option<Duration>) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut forth, mut back) = (Direction::default(), Direction::default());
    let mut patience = Patience {
        limit: half_closed,
        end: None,
    };
    let mut broken = None;
    poll_fn(|cx| {
        let there = forth.poll(cx, a, b, &mut broken)?;
        let here = back.poll(cx, b, a, &mut broken)?;
        match (there, here) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(broken.take().map_or(Ok(()), Err)),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            (Poll::Ready(()), Poll::Pending) => patience.poll(cx, &mut back),
            (Poll::Pending, Poll::Ready(())) => patience.poll(cx, &mut forth),
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
    /// Bytes have passed since somebody asked.
    moved: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum State {
    #[default]
    Copying,
    /// The reader has ended; the writer is being shut down.
    Closing,
    Done,
}

/// What broke a direction.
#[derive(Debug)]
enum Broken {
    /// The side that was read from: nobody can write to it either.
    Reader(io::Error),
    /// The side that was written to. What it had sent before is still to be read.
    Writer(io::Error),
}

/// How long the direction that is left may be silent.
#[derive(Debug)]
struct Patience {
    limit: Option<Duration>,
    /// There is none as long as both directions are open.
    end: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn poll(&mut self, cx: &mut Context<'_>, left: &mut Direction) -> Poll<io::Result<()>> {
        let Some(limit) = self.limit else {
            return Poll::Pending;
        };
        let end = self.end.get_or_insert_with(|| Box::pin(sleep(limit)));
        if std::mem::take(&mut left.moved) {
            end.as_mut().reset(Instant::now() + limit);
        }
        ready!(end.as_mut().poll(cx));
        let text = format!("one side had ended, and the other was silent for {limit:?}");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }
}

impl Direction {
    /// Ready when this direction has ended, `broken` being what its writer said if it broke.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        broken: &mut Option<io::Error>,
    ) -> io::Result<Poll<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        match self.advance(cx, from, to) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(Broken::Writer(error))) => *broken = broken.take().or(Some(error)),
            Poll::Ready(Err(Broken::Reader(error))) => return Err(broken.take().unwrap_or(error)),
        }
        self.rest = BytesMut::new();
        self.state = State::Done;
        Ok(Poll::Ready(()))
    }

    fn advance<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut turns = READS_PER_TURN;
        while self.state == State::Copying {
            ready!(self.poll_rest(cx, to)).map_err(Broken::Writer)?;
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
                    let _flushing = Pin::new(to).poll_flush(cx).map_err(Broken::Writer)?;
                    return Poll::Pending;
                }
            }
        }
        if self.state == State::Closing {
            ready!(Pin::new(to).poll_shutdown(cx)).map_err(Broken::Writer)?;
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
            self.moved = true;
        }
        if self.rest.capacity() > 0 {
            self.rest = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, and writes what the other side takes of it. `false`: the reader has ended.
    fn poll_read<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<Result<bool, Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        scratch::with(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(cx, &mut buf)).map_err(Broken::Reader)?;
            let mut read = buf.filled();
            if read.is_empty() {
                return Poll::Ready(Ok(false));
            }
            self.moved = true;
            while !read.is_empty() {
                match Pin::new(&mut *to).poll_write(cx, read).map_err(Broken::Writer)? {
                    Poll::Ready(0) => {
                        let nothing = io::ErrorKind::WriteZero.into();
                        return Poll::Ready(Err(Broken::Writer(nothing)));
                    }
                    Poll::Ready(n) => read = &read[n..],
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
        let copying = tokio::spawn(async move { both_ways(&mut a, &mut b, None).await });
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

    #[tokio::test(start_paused = true)]
    async fn a_half_closed_connection_ends_when_its_other_half_is_silent_for_too_long() {
        let ((mut left, mut a), (mut b, mut right)) = (duplex(16), duplex(16));
        let limit = Duration::from_secs(10);
        let copying = tokio::spawn(async move { both_ways(&mut a, &mut b, Some(limit)).await });
        left.shutdown().await.unwrap();
        // It may go on for longer than the limit as long as it speaks.
        for _ in 0..3 {
            sleep(limit * 2 / 3).await;
            right.write_all(b"!").await.unwrap();
            assert_eq!(left.read_u8().await.unwrap(), b'!');
        }
        let error = copying.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn what_a_side_has_said_is_passed_on_although_it_takes_nothing_more() {
        let mut client = Side::new(vec![Ok(b"more")], None);
        let mut server = Side::new(
            vec![Ok(b"last "), Ok(b"words"), Ok(b"")],
            Some(io::ErrorKind::BrokenPipe),
        );
        let error = both_ways(&mut client, &mut server, None).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(client.heard, b"last words");
    }

    #[tokio::test]
    async fn a_side_that_can_not_be_read_ends_both_directions() {
        let reset = io::ErrorKind::ConnectionReset;
        let mut client = Side::new(vec![Err(reset.into())], None);
        let mut server = Side::new(Vec::new(), None);
        let error = both_ways(&mut client, &mut server, None).await.unwrap_err();
        assert_eq!(error.kind(), reset);
    }

    /// One side of a connection: what it says, and whether it can be written to. When it has said all, it is silent.
    #[derive(Debug)]
    struct Side {
        says: std::vec::IntoIter<io::Result<&'static [u8]>>,
        deaf: Option<io::ErrorKind>,
        heard: Vec<u8>,
    }

    impl Side {
        fn new(says: Vec<io::Result<&'static [u8]>>, deaf: Option<io::ErrorKind>) -> Self {
            Self {
                says: says.into_iter(),
                deaf,
                heard: Vec::new(),
            }
        }
    }

    impl AsyncRead for Side {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match self.says.next() {
                Some(said) => Poll::Ready(said.map(|said| buf.put_slice(said))),
                None => Poll::Pending,
            }
        }
    }

    impl AsyncWrite for Side {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            if let Some(kind) = self.deaf {
                return Poll::Ready(Err(kind.into()));
            }
            self.heard.extend_from_slice(buf);
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn an_idle_direction_holds_no_buffer() {
        assert!(size_of::<Direction>() <= 40);
        assert_eq!(Direction::default().rest.capacity(), 0);
    }
}
