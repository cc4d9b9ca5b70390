//! Accepting: one loop per listener, one task per connection.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::config::Accept;
use crate::drain::Drain;
use crate::net::io::Socket;
use crate::room::{Place, Room};

/// A connection as it was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub socket: Socket,
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
    fn of(&self, tcp: &TcpStream, peer: SocketAddr) -> io::Result<SocketAddr> {
        match self {
            Self::Kernel => outrigger_sys::original_dst(tcp, peer),
            Self::Local => tcp.local_addr(),
            Self::Fixed(addr) => Ok(*addr),
        }
    }
}

/// The listen queue where the configuration names none: what the kernel allows.
const BACKLOG: u32 = 4096;

/// How long nothing is accepted after the system could not give a connection.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the log says that connections have to wait.
const REPEAT: Duration = Duration::from_secs(60);

/// Binds a listening socket. What it accepts has these options too.
pub fn bind(addr: SocketAddr, options: &Accept) -> io::Result<TcpListener> {
    let socket = RawSocket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        // `[::]` takes IPv4 too, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Connections get these from the listener (tcp(7)), which saves each of them three system calls.
    socket.set_tcp_nodelay(true)?;
    outrigger_sys::set_keepalive(&socket, options.keepalive)?;
    outrigger_sys::set_user_timeout(&socket, options.user_timeout)?;
    expect_no_congestion(&socket, addr);
    socket.bind(&addr.into())?;
    let backlog = options.backlog.unwrap_or(BACKLOG);
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// To the application and from it nothing is congested, whatever the node has chosen for its network.
pub fn expect_no_congestion(socket: &impl AsFd, addr: SocketAddr) {
    if addr.ip().is_loopback()
        && let Err(error) = outrigger_sys::expect_no_congestion(socket)
    {
        tracing::debug!(%error, "the node's congestion control stays, on the loopback interface too");
    }
}

/// Accepts until draining starts, and spawns `serve` for each connection. Without room, connections wait in the queue
/// of the kernel.
pub async fn accept_loop<F, S>(
    listener: TcpListener,
    room: Arc<Room>,
    original_dst: OriginalDst,
    mut drain: Drain,
    serve: S,
) where
    S: Fn(Accepted) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let (mut full, mut starved) = (Seldom::default(), Seldom::default());
    let serve = |accepted: io::Result<(TcpStream, SocketAddr)>| {
        let (tcp, peer) = accepted?;
        match prepare(tcp, peer, room.admit(), &original_dst) {
            Ok(accepted) => drop(tokio::spawn(serve(accepted))),
            Err(error) => tracing::warn!(%error, "dropped a connection that can't be served"),
        }
        Ok::<_, io::Error>(())
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.started() => break,
            accepted = accept(&listener, &room, &mut full) => accepted,
        };
        match serve(accepted) {
            Err(error) if !is_of_connection(&error) => {
                room.starve();
                starved.say(
                    || tracing::error!(%error, "can't accept: raise the limits of open files and of memory"),
                );
                // Accepting again at once would only spin.
                tokio::time::sleep(PAUSE).await;
            }
            Ok(()) | Err(_) => {}
        }
    }
    // To those that the kernel has taken in already, closing the listener would be a reset.
    let Ok(listener) = listener.into_std() else {
        return;
    };
    for _ in 0..BACKLOG {
        let accepted = listener.accept().and_then(unblocked);
        if serve(accepted).is_err() {
            return;
        }
    }
}

fn unblocked((tcp, peer): (std::net::TcpStream, SocketAddr)) -> io::Result<(TcpStream, SocketAddr)> {
    tcp.set_nonblocking(true)?;
    Ok((TcpStream::from_std(tcp)?, peer))
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Room>,
    full: &mut Seldom,
) -> io::Result<(TcpStream, SocketAddr)> {
    let limit = room.limit();
    let on_full = || tracing::warn!(limit, "no room for more connections: they wait to be accepted");
    room.vacancy(|| full.say(on_full)).await;
    listener.accept().await
}

/// Says something at most once a minute.
#[derive(Debug, Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn say(&mut self, what: impl FnOnce()) {
        if self.0.is_none_or(|last| last.elapsed() >= REPEAT) {
            self.0 = Some(Instant::now());
            what();
        }
    }
}

fn prepare(
    tcp: TcpStream,
    peer: SocketAddr,
    place: Place,
    original_dst: &OriginalDst,
) -> io::Result<Accepted> {
    let original_dst = canonical(original_dst.of(&tcp, peer)?);
    Ok(Accepted {
        socket: Socket::new(tcp).in_place(Some(place)),
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

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn what_is_accepted_has_the_options_of_its_listener() {
        let options = Accept {
            keepalive: Some(Duration::from_secs(7)),
            user_timeout: Some(Duration::from_secs(9)),
            backlog: None,
        };
        let listener = bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(7));
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(9)));
        assert!(socket.tcp_congestion().unwrap().starts_with(b"reno"));
    }
}
