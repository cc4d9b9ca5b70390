//! Drain in full: what is under way finishes, whoever asks is told, and what can't finish is cut and counted.

use outrigger_e2e::http::{self, Echo, GATE};
use outrigger_e2e::mesh::{Mesh, Meshed};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::pod::Pod;
use outrigger_e2e::{app, wait};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;

/// Two pods with proxies, and a service on port 80 for the server's 8080.
fn pair(env: &[(&'static str, &str)]) -> (Mesh, Meshed, Meshed, SocketAddr) {
    let mesh = Mesh::start();
    let pod = |name| {
        let plan = mesh.pod(name).ports(&[8080, 9000]);
        env.iter()
            .fold(plan, |plan, (name, value)| plan.env(name, *value))
            .meshed()
    };
    let (server, client) = (pod("server"), pod("client"));
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    (mesh, server, client, web)
}

/// A connection through both proxies that is not HTTP, and was used.
fn opaque(server: &Meshed, client: &Meshed) -> TcpStream {
    app::pipe(server, 9000, "");
    let mut stream = client.connect(server.addr(9000)).unwrap();
    let mut echoed = [0; 5];
    stream.write_all(b"\x01open").unwrap();
    stream.read_exact(&mut echoed).unwrap();
    stream
}

fn admin(pod: &Pod, path: &str) -> u16 {
    let addr = (Ipv4Addr::LOCALHOST, 4191).into();
    http::get(pod, addr, "localhost", path, &["connection: close"]).status
}

/// Sends SIGTERM and waits until the proxy has begun to drain.
fn terminate(pod: &Meshed) {
    pod.proxy().terminate();
    pod.proxy().until_logged("Draining");
}

#[test]
fn a_second_signal_ends_the_drain_at_once_and_until_then_the_admin_port_answers() {
    let (_mesh, server, client, _web) = pair(&[]);
    let mut stream = opaque(&server, &client);
    terminate(&client);
    assert_eq!(
        ["/live", "/ready", "/metrics"].map(|path| admin(&client, path)),
        [200, 503, 200]
    );
    client.proxy().terminate();
    assert_eq!(client.proxy().ended().code(), Some(128 + 15));
    let log = client.proxy().log();
    for text in ["received SIGTERM again", "connections are cut", "outbound=1"] {
        assert!(log.contains(text), "{text} in {log}");
    }
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn what_the_grace_period_leaves_is_cut_and_counted() {
    for ending in ["client", "server"] {
        let (_mesh, server, client, _web) = pair(&[("LINKERD2_PROXY_SHUTDOWN_GRACE_PERIOD", "300ms")]);
        let mut stream = opaque(&server, &client);
        let (ending, count) = match ending {
            "client" => (&client, "outbound=1"),
            _ => (&server, "inbound=1"),
        };
        ending.proxy().terminate();
        assert_eq!(ending.proxy().ended().code(), Some(0));
        let log = ending.proxy().log();
        assert!(
            log.contains("connections are cut") && log.contains(count),
            "{log}"
        );
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn an_answer_during_the_drain_says_that_its_connection_closes() {
    for ending in ["client", "server"] {
        let (mesh, server, client, web) = pair(&[]);
        let echo = Echo::serve(&server, 8080);
        // The server's proxy speaks HTTP/1.1 with clients outside the mesh.
        let (ending, pod, addr) = match ending {
            "client" => (&client, client.pod(), web),
            _ => (&server, mesh.node().outside().clone(), server.addr(8080)),
        };
        let mut stream = pod.connect(addr).unwrap();
        let before = http::exchange(&mut stream, "web", "/", &[]).unwrap();
        assert_eq!(before.header("connection"), "");
        let request = thread::spawn(move || (http::exchange(&mut stream, "web", GATE, &[]).unwrap(), stream));
        wait::until("the request is in flight", || (echo.waiting() == 1).then_some(()));
        terminate(ending);
        echo.open_gate();
        let (response, mut stream) = request.join().unwrap();
        assert_eq!((response.status, response.header("connection")), (200, "close"));
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        assert_eq!(ending.proxy().ended().code(), Some(0));
    }
}

#[test]
fn an_http2_client_is_told_which_stream_was_the_last() {
    let (mesh, server, client, _web) = pair(&[]);
    mesh.service("web2", 80, &[(&server, 8081)]);
    let nginx = app::nginx(&server);
    // Line by line, to see what has come so far.
    let argv = ["stdbuf", "-oL", "nghttp", "-v", "http://web2/"];
    let mut request = nginx.while_stopped(|_| {
        let mut request = client.start("nghttp", "root", &argv, &[]);
        wait::until("the request is in flight", || {
            (Metrics::of(&client).sum("request_total", &[("direction", "outbound")]) == 1.0).then_some(())
        });
        terminate(&client);
        let log = request.log_file().to_owned();
        request.until("it has heard of the end twice", || {
            let seen = fs::read_to_string(&log).unwrap();
            (seen.matches("recv GOAWAY frame").count() == 2).then_some(())
        });
        request
    });
    assert_eq!(request.ended().code(), Some(0));
    assert_eq!(client.proxy().ended().code(), Some(0));
    let seen = request.log();
    assert!(seen.contains(":status: 200"), "{seen}");
    // First that there will be an end, then which stream was the last (RFC 9113 §6.8): 13 is nghttp's first.
    let received = seen.lines().skip_while(|line| !line.contains("recv GOAWAY"));
    let last: Vec<_> = received.filter(|line| line.contains("last_stream_id=")).collect();
    assert!(
        last[0].contains("last_stream_id=2147483647, error_code=NO_ERROR"),
        "{seen}"
    );
    assert!(
        last[1].contains("last_stream_id=13, error_code=NO_ERROR"),
        "{seen}"
    );
}

#[test]
fn connections_that_the_kernel_has_taken_in_are_served_before_the_end() {
    const CLIENTS: usize = 20;
    let (mesh, server, client, web) = pair(&[]);
    Echo::serve(&server, 8080);
    let outside = mesh.node().outside();
    for (ending, pod, addr) in [(&client, &*client, web), (&server, outside, server.addr(8080))] {
        // It learns of the signal and of the connections at the same time.
        let mut streams = ending.proxy().while_stopped(|proxy| {
            let ask = |_| {
                let mut stream = pod.connect(addr).unwrap();
                stream.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n").unwrap();
                stream
            };
            let streams: Vec<_> = (0..CLIENTS).map(ask).collect();
            proxy.terminate();
            streams
        });
        for stream in &mut streams {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer:?}");
        }
        assert_eq!(ending.proxy().ended().code(), Some(0));
    }
}
