//! Opening TCP connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::config;
use crate::error::{Fault, Kind, Side};
use crate::net::io::Socket;
use crate::net::listen::expect_no_congestion;
use crate::room::Room;

/// How connections are opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// For TCP, TLS handshake and transport header together.
    pub timeout: Duration,
    /// For how long a plain connection that timed out is tried again; zero: once is enough.
    pub patience: Duration,
    /// Keepalive idle time; keepalive is on even when unset.
    pub keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT`.
    pub user_timeout: Option<Duration>,
    /// Where they have to find a place.
    pub room: Arc<Room>,
}

impl Options {
    /// Connections as they are configured, with room for as many as `room` has; tried once.
    pub fn new(connect: &config::Connect, room: Arc<Room>) -> Self {
        Self {
            timeout: connect.timeout,
            patience: Duration::ZERO,
            keepalive: connect.keepalive,
            user_timeout: connect.user_timeout,
            room,
        }
    }
}

/// Connects, if there is room.
pub async fn tcp(addr: SocketAddr, options: &Options) -> Result<Socket, Fault> {
    let Some(place) = options.room.enter() else {
        let text = format!(
            "{} connections are open, the most there may be",
            options.room.limit()
        );
        return Err(Fault::because(Kind::Overloaded, Side::Proxy, text));
    };
    let socket = open(addr, options)
        .await
        .map_err(|error| Fault::because(Kind::Connect, Side::Server, error))?;
    Ok(socket.in_place(Some(place)))
}

async fn open(addr: SocketAddr, options: &Options) -> io::Result<Socket> {
    let tcp = TcpStream::connect(addr).await?;
    tcp.set_nodelay(true)?;
    outrigger_sys::set_keepalive(&tcp, options.keepalive)?;
    outrigger_sys::set_user_timeout(&tcp, options.user_timeout)?;
    expect_no_congestion(&tcp, addr);
    Ok(Socket::new(tcp))
}

/// Runs the steps of a connection under its timeout.
pub async fn in_time<T>(
    options: &Options,
    steps: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(options.timeout, steps).await {
        Ok(result) => result,
        Err(_elapsed) => {
            let source = format!("connect timed out after {:?}", options.timeout);
            Err(Fault::because(Kind::ConnectTimeout, Side::Server, source))
        }
    }
}
