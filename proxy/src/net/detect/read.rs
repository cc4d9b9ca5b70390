//! Reading first bytes until they decide; they stay to be read again.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::net::detect::http::{self, Preface};
use crate::net::detect::tls::{self, Hello};
use crate::net::io::{Io, Socket};

/// What the first bytes said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen<T> {
    /// This.
    Decided(T),
    /// Too little came in time.
    TimedOut,
    /// The client went before it said anything.
    Ended,
}

/// A connection that takes back what was read from it.
pub trait Unread: AsyncRead + Unpin {
    /// Puts bytes that were read back in front.
    fn unread(&mut self, bytes: BytesMut);
}

impl Unread for Socket {
    fn unread(&mut self, bytes: BytesMut) {
        Self::unread(self, bytes);
    }
}

impl Unread for Io {
    fn unread(&mut self, bytes: BytesMut) {
        Self::unread(self, bytes);
    }
}

/// Bytes asked for at a time; a request's head mostly fits, a post-quantum ClientHello too.
const READ: usize = 2048;

/// Reads a ClientHello.
pub async fn client_hello(socket: &mut Socket, within: Duration) -> std::io::Result<Seen<Hello>> {
    let decide = |bytes: &[u8]| match tls::client_hello(bytes) {
        Hello::NeedMore => None,
        hello => Some(hello),
    };
    first_bytes(socket, within, decide).await
}

/// Reads the beginning of a request.
pub async fn preface(io: &mut Io, within: Duration) -> std::io::Result<Seen<Preface>> {
    let decide = |bytes: &[u8]| match http::preface(bytes) {
        Preface::NeedMore => None,
        preface => Some(preface),
    };
    first_bytes(io, within, decide).await
}

async fn first_bytes<T>(
    from: &mut impl Unread,
    within: Duration,
    decide: impl Fn(&[u8]) -> Option<T>,
) -> std::io::Result<Seen<T>> {
    let mut read = BytesMut::new();
    let said = timeout(within, read_until(from, &mut read, decide)).await;
    let seen = match said {
        Ok(Ok(Some(decided))) => Ok(Seen::Decided(decided)),
        Ok(Ok(None)) if read.is_empty() => Ok(Seen::Ended),
        Ok(Ok(None)) | Err(_) => Ok(Seen::TimedOut),
        Ok(Err(error)) => Err(error),
    };
    from.unread(read);
    seen
}

/// Reads until `decide` has decided. `None`: the peer has ended before. May be dropped and called again.
pub(in crate::net::detect) async fn read_until<R: AsyncRead + Unpin, T>(
    from: &mut R,
    read: &mut BytesMut,
    decide: impl Fn(&[u8]) -> Option<T>,
) -> std::io::Result<Option<T>> {
    loop {
        read.reserve(READ);
        let n = from.read_buf(read).await?;
        if let Some(decided) = decide(read) {
            return Ok(Some(decided));
        }
        if n == 0 {
            return Ok(None);
        }
    }
}
