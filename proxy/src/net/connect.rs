//! Opening TCP connections.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::config;
use crate::error::{Fault, Kind, Side};
use crate::net::io::Socket;

/// How connections are opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// For TCP, TLS handshake and transport header together.
    pub timeout: Duration,
    /// Keepalive idle time; keepalive is on even when unset.
    pub keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT`.
    pub user_timeout: Option<Duration>,
}

impl From<&config::Connect> for Options {
    fn from(connect: &config::Connect) -> Self {
        Self {
            timeout: connect.timeout,
            keepalive: connect.keepalive,
            user_timeout: connect.user_timeout,
        }
    }
}

/// Connects.
pub async fn tcp(addr: SocketAddr, options: &Options) -> io::Result<Socket> {
    let tcp = TcpStream::connect(addr).await?;
    tcp.set_nodelay(true)?;
    outrigger_sys::set_keepalive(&tcp, options.keepalive)?;
    outrigger_sys::set_user_timeout(&tcp, options.user_timeout)?;
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
