//! Bytes of our own among those that hyper writes: what it can't write itself.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use http::Response;
use tokio::io::AsyncWrite;

use crate::http::http1::field;
use crate::http::http1::trailers::Trailers;
use crate::net::io::Io;

/// Bytes that go out before any that hyper writes from now on.
#[derive(Debug, Default)]
pub struct Own(BytesMut);

impl Own {
    /// hyper is to write bytes that begin with these. `Some`: so many of them need not be written any more. `None`: all
    /// that comes before them has been.
    pub fn poll_before(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
        trailers: &Trailers,
        next: &[u8],
    ) -> Poll<io::Result<Option<usize>>> {
        let ended = trailers.end(next, &mut self.0);
        if ended > 0 {
            return Poll::Ready(Ok(Some(ended)));
        }
        self.poll_out(cx, io).map_ok(|()| None)
    }

    /// Writes them.
    pub fn poll_out(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<io::Result<()>> {
        if self.0.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.0.is_empty() {
            let written = ready!(Pin::new(&mut *io).poll_write(cx, &self.0))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.0.advance(written);
        }
        self.0 = BytesMut::new(); // gives the buffer back
        Poll::Ready(Ok(()))
    }

    /// Adds an interim head (RFC 9112 §4).
    pub fn add(&mut self, interim: &Response<()>) {
        let status = interim.status();
        let reason = status.canonical_reason().unwrap_or_default();
        let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
        for (name, value) in interim.headers() {
            field::write(&mut head, name, value);
        }
        head.extend_from_slice(b"\r\n");
        self.0.extend_from_slice(&head);
    }
}
