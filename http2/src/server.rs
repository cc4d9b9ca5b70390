//! The server's side of a connection.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::Driver;
use crate::error::{Error, Reason};
use crate::frame::MIN_MAX_FRAME_SIZE;
use crate::handles::{Pings, Recv, Send};
use crate::settings::Ours;
use crate::state::{Limits, Role, State};

/// What a client is allowed.
#[derive(Clone, Debug)]
pub struct Config {
    /// Streams at a time (RFC 9113 §5.1.2).
    pub max_streams: u32,
    /// Bytes that may come on a stream before they are read (RFC 9113 §6.9.2).
    pub stream_window: u32,
    /// The same of all streams.
    pub connection_window: u32,
    /// The longest frame, bytes (RFC 9113 §4.2).
    pub max_frame_size: u32,
    /// The largest list of fields, bytes with 32 more for each (RFC 9113 §10.5.1). Larger ones are answered with 431.
    pub max_header_list_size: u32,
    /// Bytes of DATA that wait to be written.
    pub send_buffer: usize,
    /// Streams that we have reset and remember: what still comes for them is nobody's fault.
    pub remembered_resets: usize,
    /// Streams that may be reset before anybody has looked at them (CVE-2023-44487).
    pub early_resets: usize,
    /// Streams that the client may make us reset over the connection's life (CVE-2025-8671).
    pub made_resets: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_streams: 100,
            stream_window: 65_535,
            connection_window: 1 << 20,
            max_frame_size: MIN_MAX_FRAME_SIZE,
            max_header_list_size: 16 << 10,
            send_buffer: crate::SEND_BUFFER,
            remembered_resets: 1_000,
            early_resets: 1_000,
            made_resets: 1_024,
        }
    }
}

/// A connection that a client has opened.
#[derive(Debug)]
pub struct Connection<T> {
    driver: Driver<T>,
    ended: bool,
}

/// A request that has come.
#[derive(Debug)]
pub struct Accepted {
    /// Its head.
    pub request: Request<()>,
    /// Where the rest of it comes; `None`: there is none.
    pub recv: Option<Recv>,
    /// Where the answer goes.
    pub send: Send,
}

/// Waits for the client's preface (RFC 9113 §3.4).
///
/// # Errors
/// The client sent something else, or went.
pub async fn handshake<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    config: &Config,
) -> Result<Connection<T>, Error> {
    let limits = Limits {
        ours: Ours {
            max_streams: Some(config.max_streams),
            initial_window: config.stream_window,
            max_frame: config.max_frame_size,
            max_header_list: config.max_header_list_size,
        },
        connection_window: config.connection_window,
        send_buffer: config.send_buffer,
        remembered_resets: config.remembered_resets,
        made_resets: Some(config.made_resets),
        early_resets: config.early_resets,
    };
    let mut driver = Driver::new(io, State::new(Role::Server, limits));
    poll_fn(|cx| match driver.poll(cx) {
        Poll::Pending if driver.has_preface() => Poll::Ready(Ok(())),
        Poll::Ready(Ok(())) => Poll::Ready(Err(Error::misuse("the client closed the connection"))),
        other => other,
    })
    .await?;
    Ok(Connection { driver, ended: false })
}

impl<T: AsyncRead + AsyncWrite + Unpin> Connection<T> {
    /// The next request. Between two of them, the connection is driven; `None` is its end.
    ///
    /// # Errors
    /// The connection failed, or the client broke the protocol.
    pub async fn accept(&mut self) -> Option<Result<Accepted, Error>> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Accepted, Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        // All that has come with one read is taken before more is read.
        if let Some(accepted) = self.next() {
            return Poll::Ready(Some(Ok(accepted)));
        }
        let polled = self.driver.poll(cx);
        if let Some(accepted) = self.next() {
            return Poll::Ready(Some(Ok(accepted)));
        }
        let ended = ready!(polled);
        self.ended = true;
        Poll::Ready(ended.err().map(Err))
    }

    fn next(&mut self) -> Option<Accepted> {
        let mut state = self.driver.shared.lock();
        let Some((id, request)) = state.arrived.pop_front() else {
            state.early_resets = 0;
            return None;
        };
        let stream = state.streams.get_mut(&id)?;
        let shared = || self.driver.shared.clone();
        Some(Accepted {
            request,
            recv: stream.recv_held.then(|| Recv::new(shared(), id, false)),
            send: Send::new(shared(), id),
        })
    }

    /// Asks the client whether it is there.
    pub fn pings(&self) -> Pings {
        Pings(self.driver.shared.clone())
    }

    /// Whether a stream is open.
    pub fn has_streams(&self) -> bool {
        self.driver.shared.lock().open > 0
    }

    /// Lets no more streams in, in two steps (RFC 9113 §6.8), and ends with the last one.
    pub fn graceful_shutdown(&mut self) {
        self.driver.shared.lock().say_goodbye();
    }

    /// Ends at once.
    pub fn abrupt_shutdown(&mut self, reason: Reason) {
        self.driver.end(reason);
    }
}
