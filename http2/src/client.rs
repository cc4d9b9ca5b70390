//! The client's side of a connection.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::Driver;
use crate::error::Error;
use crate::frame::{MAX_STREAM, MIN_MAX_FRAME_SIZE};
use crate::handles::{Pings, Recv, Send};
use crate::message::{self, Protocol};
use crate::settings::Ours;
use crate::state::{Limits, Role, Shared, State};
use crate::stream::Stream;

/// What a server is allowed.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes that may come on a stream before they are read (RFC 9113 §6.9.2).
    pub stream_window: u32,
    /// The same of all streams.
    pub connection_window: u32,
    /// The longest frame, bytes (RFC 9113 §4.2).
    pub max_frame_size: u32,
    /// The largest list of fields, bytes with 32 more for each (RFC 9113 §10.5.1). A stream with a larger one is reset.
    pub max_header_list_size: u32,
    /// Bytes of DATA that wait to be written.
    pub send_buffer: usize,
    /// Streams that we have reset and remember: what still comes for them is nobody's fault.
    pub remembered_resets: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            stream_window: 65_535,
            connection_window: 1 << 20,
            max_frame_size: MIN_MAX_FRAME_SIZE,
            max_header_list_size: 16 << 10,
            send_buffer: crate::SEND_BUFFER,
            remembered_resets: 1_000,
        }
    }
}

/// Opens streams. Once it is dropped, the connection ends with the last of them.
#[derive(Debug)]
pub struct Opener(Arc<Shared>);

/// Drives a connection: a future that ends with it.
#[derive(Debug)]
pub struct Connection<T>(Driver<T>);

/// Why no stream was opened.
#[derive(Debug, thiserror::Error)]
pub enum Unopened {
    /// The server allows no more of them now, or does not read what was sent on those that there are.
    #[error("the server takes no more streams now")]
    Full,
    /// The connection takes none any more: the server said goodbye, or it has ended, or all numbers are used up.
    #[error("the connection takes no more streams")]
    Over,
    /// The request asks for a tunnel for a protocol, and the server takes none (RFC 8441 §3).
    #[error("the server takes no extended CONNECT")]
    NoTunnel,
    /// The request makes no sense in HTTP/2.
    #[error("the request makes no sense in HTTP/2")]
    Malformed(#[source] Error),
}

const SILENT: &str = "the server closed the connection before it said anything";

/// What may wait, of what the server does not read, before no more streams are opened; bytes.
const UNREAD: usize = 64 << 10;

/// Starts HTTP/2 with prior knowledge (RFC 9113 §3.3), and waits until the server has said what it allows.
///
/// # Errors
/// The server sent something else, or went.
pub async fn handshake<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    config: &Config,
) -> Result<(Opener, Connection<T>), Error> {
    let limits = Limits {
        ours: Ours {
            max_streams: None,
            initial_window: config.stream_window,
            max_frame: config.max_frame_size,
            max_header_list: config.max_header_list_size,
        },
        connection_window: config.connection_window,
        send_buffer: config.send_buffer,
        remembered_resets: config.remembered_resets,
        // What a server still sends on streams that were given up is as good as an error: it lies in the nature of things.
        made_resets: None,
        early_resets: 0,
    };
    let mut driver = Driver::new(io, State::new(Role::Client, limits));
    poll_fn(|cx| match driver.poll(cx) {
        Poll::Pending if driver.has_begun() => Poll::Ready(Ok(())),
        Poll::Ready(Ok(())) => Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, SILENT).into())),
        other => other,
    })
    .await?;
    Ok((Opener(driver.shared.clone()), Connection(driver)))
}

impl Opener {
    /// Opens a stream with a request's head; `ended`: there is nothing behind it, and nothing to send it with.
    ///
    /// # Errors
    /// There is no stream. The request is as it was.
    pub fn open<B>(&mut self, request: &Request<B>, ended: bool) -> Result<(Recv, Option<Send>), Unopened> {
        let mut locked = self.0.lock();
        let state = &mut *locked;
        if state.broken.is_some() || state.goodbye.is_some() || state.highest >= MAX_STREAM - 1 {
            return Err(Unopened::Over);
        }
        if request.extensions().get::<Protocol>().is_some() && !state.peer.connect_protocol {
            return Err(Unopened::NoTunnel);
        }
        let limit = state.peer.max_streams.map_or(usize::MAX, |limit| limit as usize);
        if state.out.unbounded() > UNREAD {
            state.full = true;
            return Err(Unopened::Full);
        }
        if state.open >= limit {
            return Err(Unopened::Full);
        }
        let id = if state.highest == 0 { 1 } else { state.highest + 2 };
        let head_at = state.out.position();
        message::check(request).map_err(Unopened::Malformed)?;
        state.put_block(id, ended, |encoder, out| {
            message::put_request(request, encoder, out)
        });
        state.highest = id;
        let mut stream = Stream::new(state.peer.initial_window, state.recv_initial);
        stream.expects_head = true;
        stream.headless = request.method() == Method::HEAD;
        stream.local_open = !ended;
        stream.send_held = !ended;
        stream.head_at = head_at;
        state.streams.insert(id, stream);
        state.open += 1;
        drop(locked);
        let send = (!ended).then(|| Send::new(self.0.clone(), id));
        Ok((Recv::new(self.0.clone(), id, false), send))
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.opener = false;
        state.wake();
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// Streams that the server allows at a time.
    pub fn max_streams(&self) -> usize {
        let state = self.0.shared.lock();
        state.peer.max_streams.map_or(usize::MAX, |limit| limit as usize)
    }

    /// Whether the server has read what kept streams from being opened, since this was last asked.
    pub fn has_room_again(&self) -> bool {
        let mut state = self.0.shared.lock();
        let again = state.full && state.out.unbounded() <= UNREAD;
        state.full &= !again;
        again
    }

    /// Asks the server whether it is there.
    pub fn pings(&self) -> Pings {
        Pings(self.0.shared.clone())
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Connection<T> {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}
