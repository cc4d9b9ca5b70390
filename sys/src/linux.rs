//! Socket options of Linux: original destination, TCP user timeout and keepalive.

use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

/// Where the client at `peer` wanted to go before netfilter redirected the connection here
/// (`SO_ORIGINAL_DST`, `IP6T_SO_ORIGINAL_DST`).
///
/// # Errors
/// [`io::ErrorKind::NotFound`] (ENOENT) when connection tracking does not know the connection, or knows none at all because
/// no NAT rule exists in this namespace; a connection that is tracked but was not redirected answers its own local address.
pub fn original_dst(sock: &impl AsFd, peer: SocketAddr) -> io::Result<SocketAddr> {
    let sock = SockRef::from(sock);
    let original = match peer {
        SocketAddr::V4(_) => sock.original_dst_v4(),
        // A dual-stack listener shows IPv4 peers as ::ffff:a.b.c.d; only the IPv4 table knows those.
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => sock.original_dst_v4(),
        SocketAddr::V6(_) => sock.original_dst_v6(),
    };
    original
        .map_err(unknown_option_is_not_found)?
        .as_socket()
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// How long sent data may stay unacknowledged before the kernel closes the connection (RFC 5482, `TCP_USER_TIMEOUT`,
/// millisecond resolution); `None` restores the system's default.
pub fn set_user_timeout(sock: &impl AsFd, timeout: Option<Duration>) -> io::Result<()> {
    SockRef::from(sock).set_tcp_user_timeout(timeout)
}

/// The kernel's own time between probes (tcp(7)).
const PROBE_INTERVAL: Duration = Duration::from_secs(75);

/// Probes a peer that has been idle for so long (whole seconds, at least one), and again after as long a time, at most
/// the kernel's 75 s; `None`: keepalive with the system's times.
///
/// Without the second the kernel would look at `TCP_USER_TIMEOUT` 75 s after the first probe at the earliest.
pub fn set_keepalive(sock: &impl AsFd, idle: Option<Duration>) -> io::Result<()> {
    let sock = SockRef::from(sock);
    match idle {
        Some(idle) => {
            // TCP_KEEPIDLE and TCP_KEEPINTVL count in seconds and refuse zero.
            let idle = idle.max(Duration::from_secs(1));
            let interval = idle.min(PROBE_INTERVAL);
            sock.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(interval))
        }
        None => sock.set_keepalive(true),
    }
}

/// A congestion control without pacing (Reno, which every kernel has and everybody may use), for a connection or a listener
/// within one network namespace: nothing is congested there, and BBR, where that is the node's choice, starts timers for
/// what it holds back.
///
/// # Errors
/// Those of setsockopt(2): the system's own stays.
pub fn expect_no_congestion(sock: &impl AsFd) -> io::Result<()> {
    SockRef::from(sock).set_tcp_congestion(b"reno")
}

/// From now on closing the connection resets it (RST): the peer can't take what it has got for all there was.
pub fn reset_on_close(sock: &impl AsFd) -> io::Result<()> {
    SockRef::from(sock).set_linger(Some(Duration::ZERO))
}

/// Without any NAT rule the kernel does not even know the option and says ENOPROTOOPT: to a caller that is the same answer.
fn unknown_option_is_not_found(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) if code == nix::errno::Errno::ENOPROTOOPT as i32 => {
            io::Error::new(io::ErrorKind::NotFound, error)
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns;
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;
    use std::thread;

    #[test]
    fn a_redirected_connection_tells_its_first_destination() {
        in_own_namespace(|| {
            for (tool, listen, target) in [
                ("iptables-nft", "127.0.0.1:4140", "127.0.0.9:80"),
                ("ip6tables-nft", "[::1]:4140", "[::1]:80"),
                ("iptables-nft", "[::]:4141", "127.0.0.9:81"),
            ] {
                let listener = TcpListener::bind(listen).unwrap();
                let target: SocketAddr = target.parse().unwrap();
                let to = listener.local_addr().unwrap().port();
                run(&format!(
                    "{tool} -t nat -A OUTPUT -p tcp --dport {} -j REDIRECT --to-ports {to}",
                    target.port()
                ));
                let _client = TcpStream::connect(target).unwrap();
                let (accepted, peer) = listener.accept().unwrap();
                assert_eq!(original_dst(&accepted, peer).unwrap(), target);
            }
        });
    }

    #[test]
    fn a_connection_nobody_tracks_has_no_original_destination() {
        in_own_namespace(|| {
            for listen in ["127.0.0.1:0", "[::1]:0"] {
                let listener = TcpListener::bind(listen).unwrap();
                let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                let (accepted, peer) = listener.accept().unwrap();
                assert_eq!(
                    original_dst(&accepted, peer).unwrap_err().kind(),
                    io::ErrorKind::NotFound
                );
            }
        });
    }

    #[test]
    fn timeouts_are_set_and_taken_back() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        set_user_timeout(&client, Some(Duration::from_secs(30))).unwrap();
        set_keepalive(&client, Some(Duration::from_millis(10))).unwrap();
        let sock = SockRef::from(&client);
        assert_eq!(sock.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
        assert!(sock.keepalive().unwrap());
        assert_eq!(sock.tcp_keepalive_time().unwrap(), Duration::from_secs(1));
        assert_eq!(sock.tcp_keepalive_interval().unwrap(), Duration::from_secs(1));
        set_user_timeout(&client, None).unwrap();
        assert_eq!(sock.tcp_user_timeout().unwrap(), None);
    }

    #[test]
    fn keepalive_is_on_without_a_time_of_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!SockRef::from(&client).keepalive().unwrap());
        set_keepalive(&client, None).unwrap();
        assert!(SockRef::from(&client).keepalive().unwrap());
        set_keepalive(&client, Some(Duration::from_secs(200))).unwrap();
        let interval = SockRef::from(&client).tcp_keepalive_interval().unwrap();
        assert_eq!(interval, PROBE_INTERVAL);
    }

    #[test]
    fn a_reset_is_no_end() {
        use std::io::Read;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        reset_on_close(&client).unwrap();
        drop(client);
        let read = accepted.read(&mut [0]).unwrap_err();
        assert_eq!(read.kind(), io::ErrorKind::ConnectionReset);
    }

    fn in_own_namespace(test: impl FnOnce() + Send + 'static) {
        let thread = thread::spawn(|| {
            netns::isolate().expect("run the tests as root");
            run("ip link set lo up");
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    fn run(line: &str) {
        let status = Command::new("sh").args(["-c", line]).status().unwrap();
        assert!(status.success(), "{line}");
    }
}
