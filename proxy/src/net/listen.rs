//! Accepting: one loop per listener, one task per connection.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::config::Accept;
use crate::drain::Drain;

/// A connection as it was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub tcp: TcpStream,
    /// Who connected (an IPv4-mapped IPv6 address is shown as IPv4).
    pub peer: SocketAddr,
    /// Where they meant to connect, before redirection.
    pub original_dst: SocketAddr,
}

/// Where the original destination of a connection is learnt from.
#[derive(Clone, Debug)]
pub enum OriginalDst {
    /// The kernel's connection tracking (`SO_ORIGINAL_DST`).
    Kernel,
    /// The local address of the connection: without redirection the destination is where it arrived.
    Local,
    /// One address for all, for tests without redirection.
    Fixed(SocketAddr),
}

impl OriginalDst {
    fn of(&self, tcp: &TcpStream) -> io::Result<SocketAddr> {
        match self {
            Self::Kernel => outrigger_sys::original_dst(tcp),
            Self::Local => tcp.local_addr(),
            Self::Fixed(addr) => Ok(*addr),
        }
    }
}

/// The listen queue where the configuration names none: what the kernel allows.
const BACKLOG: u32 = 4096;

/// How long nothing is accepted after the system could not give a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Binds a listening socket.
pub fn bind(addr: SocketAddr, options: &Accept) -> io::Result<TcpListener> {
    let socket = RawSocket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        // `[::]` takes IPv4 too, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    let backlog = options.backlog.unwrap_or(BACKLOG);
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// Accepts until draining starts, and spawns `serve` for each connection.
pub async fn accept_loop<F, S>(
    listener: TcpListener,
    options: Accept,
    original_dst: OriginalDst,
    mut drain: Drain,
    serve: S,
) where
    S: Fn(Accepted) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.started() => return,
            accepted = listener.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_connection(&error) => continue,
            Err(error) => {
                tracing::error!(%error, "can't accept: raise the limits of open files and of memory");
                // Accepting again at once would only spin.
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        match prepare(tcp, peer, &options, &original_dst) {
            Ok(accepted) => drop(tokio::spawn(serve(accepted))),
            Err(error) => tracing::warn!(%error, "dropped a connection that can't be served"),
        }
    }
}

fn prepare(
    tcp: TcpStream,
    peer: SocketAddr,
    options: &Accept,
    original_dst: &OriginalDst,
) -> io::Result<Accepted> {
    tcp.set_nodelay(true)?;
    outrigger_sys::set_keepalive(&tcp, options.keepalive)?;
    outrigger_sys::set_user_timeout(&tcp, options.user_timeout)?;
    let original_dst = canonical(original_dst.of(&tcp)?);
    Ok(Accepted {
        tcp,
        peer: canonical(peer),
        original_dst,
    })
}

/// An IPv4-mapped IPv6 address as IPv4.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// Whether an error of `accept` is that of one connection, which it has taken from the queue: the next may be fine.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
