//! The functions of `linux.rs` where there is no Linux: the workspace builds, and asking says Unsupported.

use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

/// Always [`io::ErrorKind::Unsupported`]: only netfilter remembers original destinations.
pub fn original_dst(_sock: &impl AsFd, _peer: SocketAddr) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// [`io::ErrorKind::Unsupported`] for any timeout; the system's default (`None`) is what there is already.
pub fn set_user_timeout(_sock: &impl AsFd, timeout: Option<Duration>) -> io::Result<()> {
    match timeout {
        Some(_) => Err(io::ErrorKind::Unsupported.into()),
        None => Ok(()),
    }
}

/// Probes an idle peer after `idle` (whole seconds, at least one); `None`: keepalive with the system's time.
pub fn set_keepalive(sock: &impl AsFd, idle: Option<Duration>) -> io::Result<()> {
    let sock = SockRef::from(sock);
    match idle {
        Some(idle) => {
            sock.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle.max(Duration::from_secs(1))))
        }
        None => sock.set_keepalive(true),
    }
}

/// Always [`io::ErrorKind::Unsupported`]: the system's own stays.
pub fn expect_no_congestion(_sock: &impl AsFd) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// From now on closing the connection resets it (RST).
pub fn reset_on_close(sock: &impl AsFd) -> io::Result<()> {
    SockRef::from(sock).set_linger(Some(Duration::ZERO))
}
