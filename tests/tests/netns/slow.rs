//! Peers that are slow, half gone, or gone without a word: what one side does, the other one learns, and nothing is left.

use outrigger_e2e::mesh::{Mesh, Meshed};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::{sockets, wait};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const PORT: u16 = 9000;
/// Bytes of no known protocol.
const HELLO: &[u8] = b"\x01hello";

/// Two pods, and the application's listener.
struct Pair {
    server: Meshed,
    client: Meshed,
    app: TcpListener,
    _mesh: Mesh,
}

impl Pair {
    fn start(env: &[(&'static str, &str)]) -> Self {
        let mesh = Mesh::start();
        let pod = |name| {
            let plan = mesh.pod(name).ports(&[PORT]);
            env.iter()
                .fold(plan, |plan, (name, value)| plan.env(name, *value))
                .meshed()
        };
        let (server, client) = (pod("server"), pod("client"));
        let app = server.listen(PORT);
        Self {
            server,
            client,
            app,
            _mesh: mesh,
        }
    }

    /// A connection through both proxies, whose first word has arrived: the client's end, and the application's.
    fn connect(&self) -> (TcpStream, TcpStream) {
        let mut client = self.client.connect(self.server.addr(PORT)).unwrap();
        client.write_all(HELLO).unwrap();
        let (mut app, _) = self.app.accept().unwrap();
        app.set_read_timeout(Some(wait::BOUND)).unwrap();
        app.set_write_timeout(Some(wait::BOUND)).unwrap();
        let mut heard = [0; HELLO.len()];
        app.read_exact(&mut heard).unwrap();
        assert_eq!(heard, HELLO);
        (client, app)
    }

    /// A connection that both proxies have made a tunnel of: the client's end, and the application's.
    fn tunnel(&self) -> (TcpStream, TcpStream) {
        let asked = b"GET / HTTP/1.1\r\nhost: app\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n";
        let agreed = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\nhello";
        let mut client = self.client.connect(self.server.addr(PORT)).unwrap();
        client.write_all(asked).unwrap();
        let (mut app, _) = self.app.accept().unwrap();
        app.set_read_timeout(Some(wait::BOUND)).unwrap();
        read_until(&mut app, b"\r\n\r\n");
        app.write_all(agreed).unwrap();
        read_until(&mut client, b"\r\n\r\nhello");
        client.write_all(HELLO).unwrap();
        read_until(&mut app, HELLO);
        (client, app)
    }

    /// Nothing is left of any connection, in the kernels or in the proxies.
    fn assert_nothing_is_left(&self) {
        sockets::until_none_is_half_ended(&[&self.client, &self.server]);
        for pod in [&self.client, &self.server] {
            wait::until("the proxy has closed all", || {
                (Metrics::of(pod).sum("outrigger_connections", &[]) == 0.0).then_some(())
            });
        }
    }
}

fn read_all(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).map(|_| all)
}

/// Reads up to these bytes.
fn read_until(stream: &mut TcpStream, end: &[u8]) {
    let mut heard = Vec::new();
    while !heard.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        heard.extend(byte);
    }
}

/// From now on closing is a reset.
fn reset(stream: TcpStream) {
    outrigger_sys::reset_on_close(&stream).unwrap();
}

#[test]
fn after_one_side_has_ended_the_other_goes_on() {
    let pair = Pair::start(&[]);
    let (mut client, mut app) = pair.connect();
    client.write_all(b"all I had").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut app).unwrap(), b"all I had");
    app.write_all(b"and the answer").unwrap();
    drop(app);
    assert_eq!(read_all(&mut client).unwrap(), b"and the answer");
    drop(client);

    let (mut client, mut app) = pair.connect();
    app.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client).unwrap(), b"");
    client.write_all(b"still here").unwrap();
    drop(client);
    assert_eq!(read_all(&mut app).unwrap(), b"still here");
    drop(app);
    pair.assert_nothing_is_left();
}

#[test]
fn a_reset_arrives_as_a_reset() {
    let pair = Pair::start(&[]);
    let (client, mut app) = pair.connect();
    reset(client);
    assert_eq!(read_all(&mut app).unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(app);
    let (mut client, app) = pair.connect();
    reset(app);
    assert_eq!(
        read_all(&mut client).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    drop(client);
    pair.assert_nothing_is_left();
}

#[test]
fn a_reset_arrives_as_a_reset_through_a_tunnel_too() {
    let pair = Pair::start(&[]);
    let (client, mut app) = pair.tunnel();
    reset(client);
    assert_eq!(read_all(&mut app).unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(app);
    let (mut client, app) = pair.tunnel();
    reset(app);
    assert_eq!(
        read_all(&mut client).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    drop(client);
    pair.assert_nothing_is_left();
}

#[test]
fn a_tunnel_ends_as_every_connection_does() {
    let pair = Pair::start(&[("LINKERD2_PROXY_TCP_HALF_CLOSED_TIMEOUT", "500ms")]);
    let (mut client, mut app) = pair.tunnel();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut app).unwrap(), b"");
    app.write_all(b"and the answer").unwrap();
    drop(app);
    assert_eq!(read_all(&mut client).unwrap(), b"and the answer");
    drop(client);

    let (mut client, mut app) = pair.tunnel();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut app).unwrap(), b"");
    // The application never ends its side.
    assert_eq!(
        read_all(&mut client).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    pair.assert_nothing_is_left();
    drop(app);
}

#[test]
fn a_connection_whose_proxy_has_died_does_not_look_complete() {
    let pair = Pair::start(&[]);
    let (mut client, mut app) = pair.connect();
    client.write_all(b"half of it").unwrap();
    let mut heard = [0; 10];
    app.read_exact(&mut heard).unwrap();
    pair.client.proxy().crash();
    assert_eq!(read_all(&mut app).unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop((client, app));
    sockets::until_none_is_half_ended(&[&pair.client, &pair.server]);
}

#[test]
fn a_half_closed_connection_that_nobody_speaks_on_is_ended() {
    let pair = Pair::start(&[("LINKERD2_PROXY_TCP_HALF_CLOSED_TIMEOUT", "500ms")]);
    let (mut client, mut app) = pair.connect();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut app).unwrap(), b"");
    // The application never ends its side.
    assert_eq!(
        read_all(&mut client).unwrap_err().kind(),
        ErrorKind::ConnectionReset
    );
    pair.assert_nothing_is_left();
    drop(app);
}

#[test]
fn peers_that_vanish_without_a_word_are_given_up_on_both_sides() {
    let pair = Pair::start(&[
        ("LINKERD2_PROXY_INBOUND_ACCEPT_KEEPALIVE", "1s"),
        ("LINKERD2_PROXY_INBOUND_ACCEPT_USER_TIMEOUT", "2s"),
        ("LINKERD2_PROXY_OUTBOUND_CONNECT_KEEPALIVE", "1s"),
        ("LINKERD2_PROXY_OUTBOUND_CONNECT_USER_TIMEOUT", "2s"),
    ]);
    let connections = [pair.connect(), pair.connect()];
    for pod in [&pair.client, &pair.server] {
        pod.sh("nft add table inet gone
            nft 'add chain inet gone in { type filter hook input priority -300; }'
            nft add rule inet gone in iifname eth0 drop");
    }
    let [idle, busy] = connections;
    // On one connection something is under way, on the other nothing.
    let (mut client, mut app) = busy;
    client.write_all(b"are you there?").unwrap();
    app.write_all(b"are you there?").unwrap();
    for (mut client, mut app) in [(client, app), idle] {
        for end in [&mut client, &mut app] {
            assert_eq!(read_all(end).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    }
    for (pod, peer) in [(&pair.client, "dst"), (&pair.server, "src")] {
        let given_up = [("peer", peer), ("errno", "ETIMEDOUT")];
        wait::until("two connections are given up", || {
            (Metrics::of(pod).sum("tcp_close_total", &given_up) >= 2.0).then_some(())
        });
    }
}

#[test]
fn readers_that_stop_hold_little_memory_and_lose_nothing() {
    /// More than the kernels of four sockets buffer.
    const BYTES: usize = 64 << 20;
    const READERS: usize = 20;
    let pair = Pair::start(&[]);
    // What is only needed once is there before anything is measured.
    drop(pair.connect());
    let memory = || [&pair.client, &pair.server].map(|pod| pod.proxy().memory());
    let before = memory();
    let written = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    let mut writers = Vec::new();
    for _ in 0..READERS {
        let (client, mut app) = pair.connect();
        clients.push(client);
        let written = written.clone();
        writers.push(thread::spawn(move || {
            let block = [7; 1 << 16];
            for _ in 0..BYTES / block.len() / READERS {
                app.write_all(&block).unwrap();
                written.fetch_add(block.len(), Ordering::Relaxed);
            }
        }));
    }
    until_still(&written);
    assert!(written.load(Ordering::Relaxed) < BYTES, "nothing has stopped");
    for (name, (before, now)) in ["client", "server"].iter().zip(before.iter().zip(memory())) {
        println!("{name}: {before} bytes, {now} with {READERS} readers that have stopped");
        assert!(
            now < before + (READERS as u64 * (512 << 10)) + (2 << 20),
            "{before} -> {now}"
        );
    }
    // Others are served meanwhile, and those that stopped lose nothing.
    let (client, mut app) = pair.connect();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut app).unwrap(), b"");
    drop((client, app));
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| thread::spawn(move || read_all(&mut client).unwrap().len()))
        .collect();
    let read: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    assert_eq!(read, written.load(Ordering::Relaxed));
    pair.assert_nothing_is_left();
}

/// Waits until a count has stopped to rise.
fn until_still(count: &AtomicUsize) {
    let (mut last, mut same) = (0, 0);
    wait::until("nothing more is taken", || {
        let now = count.load(Ordering::Relaxed);
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
        (same == 50).then_some(())
    });
}
