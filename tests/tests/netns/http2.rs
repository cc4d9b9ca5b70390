//! HTTP/2 between two proxies: many clients on one connection, and what it carries besides requests.

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBuf, SndBuf};
use outrigger_e2e::app;
use outrigger_e2e::http;
use outrigger_e2e::mesh::{Mesh, Meshed};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::wait;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Clients that stop in the middle.
const STOPPED: usize = 200;
/// Requests of the one that goes on.
const REQUESTS: usize = 100;
/// What is sent until nobody takes it: far more than all windows and buffers on the way hold.
const LARGE: usize = 1 << 30;
/// What the kernel buffers for the application and for its clients, bytes.
const BUFFER: usize = 64 << 10;
/// A write that takes this long has nobody who takes it.
const STUCK: Duration = Duration::from_millis(200);

/// An HTTP/1.1 application on port 8080: `GET /large` is answered without end, of `POST /deaf` only the head is read,
/// and everything else is answered at once.
#[derive(Clone, Debug, Default)]
struct App {
    /// Answers that nobody takes.
    stuck: Arc<AtomicUsize>,
    /// Uploads that nobody reads.
    unread: Arc<AtomicUsize>,
}

impl App {
    fn serve(server: &Meshed) -> Self {
        let (app, listener) = (Self::default(), server.listen(8080));
        small_buffers(&listener); // and those of all that it accepts
        let served = app.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let app = served.clone();
                // What goes wrong here is the client's to tell.
                thread::spawn(move || app.connection(stream));
            }
        });
        app
    }

    fn connection(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        while let Some(first) = lines.next().transpose()? {
            while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
            if first.contains("/deaf") {
                self.unread.fetch_add(1, Ordering::SeqCst);
                loop {
                    thread::park();
                }
            } else if first.contains("/large") {
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n")?;
                until_stuck(&mut stream, &self.stuck)?;
            } else {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
            }
        }
        Ok(())
    }
}

/// Keeps the kernel from taking megabytes for who has stopped: they would have to pass both proxies first.
fn small_buffers(socket: &impl AsFd) {
    setsockopt(socket, RcvBuf, &BUFFER).unwrap();
    setsockopt(socket, SndBuf, &BUFFER).unwrap();
}

/// Writes until nobody takes more, counts that, and goes on.
fn until_stuck(stream: &mut TcpStream, stuck: &AtomicUsize) -> io::Result<()> {
    stream.set_write_timeout(Some(STUCK))?;
    let mut left = LARGE;
    let mut counted = false;
    while left > 0 {
        match stream.write(&[b'.'; 16 << 10][..left.min(16 << 10)]) {
            Ok(written) => left -= written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !counted {
                    counted = true;
                    stuck.fetch_add(1, Ordering::SeqCst);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn web() -> (Mesh, Meshed, Meshed, SocketAddr, App) {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080]).meshed();
    // However long a client takes to speak on a busy machine, no connection is opened to see whether the server does.
    let client = mesh
        .pod("client")
        .env("LINKERD2_PROXY_OUTBOUND_SERVER_FIRST_AFTER", "1h")
        .meshed();
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    let app = App::serve(&server);
    (mesh, server, client, web, app)
}

/// Requests of a client that reads its answers; and all of it was one connection between the proxies.
fn assert_others_are_served(client: &Meshed, web: SocketAddr) {
    let mut stream = client.connect(web).unwrap();
    for _ in 0..REQUESTS {
        let answer = http::exchange(&mut stream, "web", "/", &[]).unwrap();
        assert_eq!((answer.status, &*answer.body), (200, "ok"));
    }
    let metrics = Metrics::of(client);
    let opened = metrics.sum("tcp_open_total", &[("peer", "dst"), ("target_port", "8080")]);
    assert_eq!(opened, 1.0, "{}", metrics.text);
}

#[test]
fn readers_that_stop_never_hold_up_others_on_their_connection() {
    let (_mesh, _server, client, web, app) = web();
    let stop = |_| {
        let mut stream = client.connect(web).unwrap();
        small_buffers(&stream);
        stream
            .write_all(b"GET /large HTTP/1.1\r\nhost: web\r\n\r\n")
            .unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
        stream
    };
    let stopped: Vec<_> = (0..STOPPED).map(stop).collect();
    wait::until("answers that nobody takes", || {
        (app.stuck.load(Ordering::SeqCst) == STOPPED).then_some(())
    });
    assert_others_are_served(&client, web);
    drop(stopped);
}

#[test]
fn uploads_that_nobody_reads_never_hold_up_others_on_their_connection() {
    let (_mesh, _server, client, web, app) = web();
    let stuck = Arc::new(AtomicUsize::new(0));
    let streams: Vec<_> = (0..STOPPED).map(|_| client.connect(web).unwrap()).collect();
    for mut stream in streams {
        small_buffers(&stream);
        let stuck = stuck.clone();
        thread::spawn(move || {
            let head = format!("POST /deaf HTTP/1.1\r\nhost: web\r\ncontent-length: {LARGE}\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            until_stuck(&mut stream, &stuck)
        });
    }
    wait::until("uploads that nobody reads", || {
        let done = (stuck.load(Ordering::SeqCst), app.unread.load(Ordering::SeqCst));
        (done == (STOPPED, STOPPED)).then_some(())
    });
    assert_others_are_served(&client, web);
}

#[test]
fn tunnels_over_http2_pass_both_proxies_and_are_refused_where_the_application_takes_none() {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8081, 9090]).meshed();
    let client = mesh.pod("client").meshed();
    mesh.service("chat", 80, &[(&server, 9090)]);
    mesh.service("web2", 80, &[(&server, 8081)]);
    let (_tunnels, _nginx) = (app::tunnels(&server, 9090), app::nginx(&server));
    let opened = app::open_tunnel(&client, "chat", "websocket");
    assert_eq!(opened, "CONNECT websocket /chat: knock, and the same bytes\n");
    let opened = app::open_tunnel(&client, "chat", "none");
    assert_eq!(opened, "CONNECT undefined undefined: knock, and the same bytes\n");
    let refused = app::open_tunnel(&client, "web2", "websocket");
    assert!(refused.starts_with("501 "), "{refused}");
    let why = Metrics::of(&server).text;
    assert!(why.contains("no_tunnel"), "{why}");
}
