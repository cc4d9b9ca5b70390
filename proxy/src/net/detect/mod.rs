//! Detection: what a connection speaks, from as many first bytes as it takes.

pub mod http;
pub mod tls;

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use crate::net::detect::http::Preface;
use crate::net::detect::tls::Hello;
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

/// Bytes asked for at first; a request's head mostly fits, a post-quantum ClientHello too.
const FIRST_READ: usize = 2048;

/// Reads a ClientHello, which stays to be read.
pub async fn client_hello(socket: &mut Socket, within: Duration) -> std::io::Result<Seen<Hello>> {
    let mut buf = BytesMut::new();
    let seen = read_until(socket, &mut buf, within, |bytes| match tls::client_hello(bytes) {
        Hello::NeedMore => None,
        hello => Some(hello),
    })
    .await?;
    socket.unread(buf);
    Ok(seen)
}

/// Reads the beginning of a request, which stays to be read.
pub async fn preface(io: &mut Io, within: Duration) -> std::io::Result<Seen<Preface>> {
    let mut buf = BytesMut::new();
    let seen = read_until(io, &mut buf, within, |bytes| match http::preface(bytes) {
        Preface::NeedMore => None,
        preface => Some(preface),
    })
    .await?;
    io.unread(buf);
    Ok(seen)
}

/// Reads until `decide` has decided, the time is up, or the peer has ended. What it ended on is decided as it is.
async fn read_until<R: AsyncRead + Unpin, T>(
    from: &mut R,
    buf: &mut BytesMut,
    within: Duration,
    decide: impl Fn(&[u8]) -> Option<T>,
) -> std::io::Result<Seen<T>> {
    let reading = async {
        loop {
            buf.reserve(FIRST_READ);
            let n = from.read_buf(buf).await?;
            if let Some(decided) = decide(buf) {
                return Ok(Seen::Decided(decided));
            }
            if n == 0 {
                return Ok(if buf.is_empty() {
                    Seen::Ended
                } else {
                    Seen::TimedOut
                });
            }
        }
    };
    match timeout(within, reading).await {
        Ok(result) => result,
        Err(_elapsed) => Ok(Seen::TimedOut),
    }
}
