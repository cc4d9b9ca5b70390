//! HTTP/1 in its details, through a pair of proxies, and what hostile peers make of it.

use outrigger_e2e::app;
use outrigger_e2e::http::{self, Echo};
use outrigger_e2e::mesh::{Mesh, Meshed};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::pod::Pod;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A meshed server with port 8080 as the service `web`, and a meshed client.
fn pair() -> (Mesh, Meshed, Meshed, SocketAddr) {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080]).meshed();
    let client = mesh.pod("client").meshed();
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    (mesh, server, client, web)
}

/// An application that answers each request with what `answer` makes of it, to the byte; nothing ends the connection.
/// What it received is kept.
fn scripted(
    pod: &Pod,
    port: u16,
    answer: impl Fn(&str) -> String + Send + Sync + 'static,
) -> Arc<Mutex<String>> {
    let listener = pod.listen(port);
    let (answer, received) = (Arc::new(answer), Arc::<Mutex<String>>::default());
    let kept = received.clone();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (answer, kept) = (answer.clone(), kept.clone());
            // What goes wrong here is the client's to tell.
            thread::spawn(move || follow(stream, &*answer, &kept));
        }
    });
    received
}

fn follow(mut stream: TcpStream, answer: &dyn Fn(&str) -> String, kept: &Mutex<String>) -> io::Result<()> {
    let mut request = String::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        request.push_str(&String::from_utf8_lossy(&buffer[..read]));
        let chunked = request.contains("transfer-encoding: chunked");
        if request.ends_with("\r\n\r\n") && (!chunked || request.contains("\r\n0\r\n")) {
            kept.lock().unwrap().push_str(&request);
            let answer = answer(&request);
            if answer.is_empty() {
                return Ok(());
            }
            stream.write_all(answer.as_bytes())?;
            request.clear();
        }
    }
}

/// Says this on a connection of its own, and everything that comes back.
fn say(pod: &Pod, to: SocketAddr, bytes: &str) -> String {
    let mut stream = pod.connect(to).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads up to a text.
fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let (mut read, mut byte) = (Vec::new(), [0]);
    while !read.ends_with(text.as_bytes()) {
        if let Err(error) = stream.read_exact(&mut byte) {
            panic!("{error} before {text:?}: {}", String::from_utf8_lossy(&read));
        }
        read.push(byte[0]);
    }
    String::from_utf8_lossy(&read).into_owned()
}

#[test]
fn a_client_that_closes_its_side_gets_its_answer() {
    let (_mesh, server, client, web) = pair();
    Echo::serve(&server, 8080);
    for request in [
        "GET / HTTP/1.1\r\nhost: web\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET /1 HTTP/1.1\r\nhost: web\r\n\r\nGET /2 HTTP/1.1\r\nhost: web\r\n\r\n",
    ] {
        let answer = app::send_all(&mut client.connect(web).unwrap(), request.as_bytes()).unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(
            answer.matches(" 200 OK\r\n").count(),
            request.matches("GET").count(),
            "{answer}"
        );
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_and_nothing_is_added() {
    let (_mesh, server, client, web) = pair();
    Echo::serve(&server, 8080);
    let request = |path: u8, more: &str| format!("GET /{path} HTTP/1.1\r\nhost: web\r\n{more}\r\n");
    let three = request(1, "") + &request(2, "") + &request(3, "connection: close\r\n");
    let answer = say(&client, web, &three);
    let paths: Vec<_> = answer.matches("GET /").collect();
    assert_eq!(paths.len(), 3, "{answer}");
    let at = |path: &str| answer.find(path).unwrap();
    assert!(
        at("GET /1 ") < at("GET /2 ") && at("GET /2 ") < at("GET /3 "),
        "{answer}"
    );
    assert!(
        !answer.contains("date:") && !answer.contains("server:"),
        "{answer}"
    );
}

#[test]
fn http10_keeps_its_connection_only_if_it_asks_to() {
    let (_mesh, server, client, web) = pair();
    Echo::serve(&server, 8080);
    let mut stream = client.connect(web).unwrap();
    for _ in 0..2 {
        stream
            .write_all(b"GET /again HTTP/1.0\r\nhost: web\r\nconnection: keep-alive\r\n\r\n")
            .unwrap();
        let head = read_until(&mut stream, "\r\n\r\n");
        assert!(
            head.starts_with("HTTP/1.0 200") && head.contains("connection: keep-alive"),
            "{head}"
        );
        // The last that the application repeats.
        read_until(&mut stream, &format!("{}\n", client.identity()));
    }
    let answer = say(&client, web, "GET / HTTP/1.0\r\nhost: web\r\n\r\n");
    assert!(answer.contains(" 200 OK\r\n"), "{answer}");
}

#[test]
fn answers_without_a_body_keep_what_their_head_says() {
    let (_mesh, server, client, web) = pair();
    scripted(&server, 8080, |request| {
        let line = request.lines().next().unwrap_or_default();
        match line.split(' ').next() {
            Some("HEAD") => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
            _ if line.contains("/204") => "HTTP/1.1 204 No Content\r\n\r\n",
            _ if line.contains("/304") => {
                "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 99\r\n\r\n"
            }
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        }
        .to_owned()
    });
    let mut stream = client.connect(web).unwrap();
    let mut ask = |line: &str| {
        stream
            .write_all(format!("{line} HTTP/1.1\r\nhost: web\r\n\r\n").as_bytes())
            .unwrap();
        read_until(&mut stream, "\r\n\r\n").to_ascii_lowercase()
    };
    let head = ask("HEAD /");
    assert!(
        head.starts_with("http/1.1 200") && head.contains("content-length: 1234\r\n"),
        "{head}"
    );
    let head = ask("GET /204");
    assert!(
        head.starts_with("http/1.1 204") && !head.contains("transfer-encoding"),
        "{head}"
    );
    let head = ask("GET /304");
    assert!(
        head.starts_with("http/1.1 304") && head.contains("etag: \"a\"\r\n"),
        "{head}"
    );
    let head = ask("GET /");
    assert!(
        head.starts_with("http/1.1 200") && head.contains("content-length: 2\r\n"),
        "{head}"
    );
    assert_eq!(read_until(&mut stream, "ok"), "ok");
}

#[test]
fn trailers_go_both_ways() {
    let (_mesh, server, client, web) = pair();
    let received = scripted(&server, 8080, |_| {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: down\r\n\r\n".to_owned()
    });
    let mut stream = client.connect(web).unwrap();
    let request = "POST / HTTP/1.1\r\nhost: web\r\nte: trailers\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
                   2\r\nhi\r\n0\r\nx-sum: up\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let answer = read_until(&mut stream, "\r\n0\r\nx-sum: down\r\n\r\n");
    assert!(answer.contains("\r\n2\r\nok"), "{answer}");
    let received = received.lock().unwrap();
    assert!(received.ends_with("0\r\nx-sum: up\r\n\r\n"), "{received}");
}

#[test]
fn a_chunked_body_of_a_get_arrives() {
    let (_mesh, server, client, web) = pair();
    let received = scripted(&server, 8080, |_| {
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned()
    });
    let mut stream = client.connect(web).unwrap();
    let request =
        "GET /_search HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n5\r\nquery\r\n0\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    read_until(&mut stream, "\r\n\r\nok");
    let received = received.lock().unwrap();
    assert!(
        received.ends_with("\r\n\r\n5\r\nquery\r\n0\r\n\r\n"),
        "{received}"
    );
}

#[test]
fn what_concerns_one_connection_stays_there() {
    let (_mesh, server, client, web) = pair();
    Echo::serve(&server, 8080);
    let headers = [
        "connection: x-secret, close",
        "x-secret: 1",
        "keep-alive: timeout=5",
        "proxy-connection: keep-alive",
        "x-kept: 2",
    ];
    let response = http::get(&client, web, "web", "/", &headers);
    assert_eq!(response.status, 200);
    let names: Vec<_> = response
        .body
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, _)| name)
        .collect();
    assert!(names.contains(&"x-kept"), "{names:?}");
    for name in ["x-secret", "keep-alive", "proxy-connection", "connection"] {
        assert!(!names.contains(&name), "{name}: {names:?}");
    }
}

#[test]
fn heads_that_are_too_large_are_refused_alike_in_both_versions() {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080, 8081]).meshed();
    let stranger = mesh.pod("stranger").unmeshed();
    let _nginx = app::nginx(&server);
    let fields: String = (0..101).map(|n| format!("header = \"x-{n}: a\"\n")).collect();
    let many = stranger.file("many", fields);
    let few = stranger.file("few", "header = \"x-1: a\"\n");
    let curl = |fields: &str, options: &str, port: u16| {
        let url = format!("http://{}/", server.addr(port));
        stranger.sh(&format!(
            "curl -sS --max-time 20 -D - -o /dev/null -K {fields} {options} {url}"
        ))
    };
    let h2 = "--http2-prior-knowledge";
    assert!(curl(&few, "", 8080).starts_with("HTTP/1.1 200"));
    assert!(curl(&few, h2, 8081).starts_with("HTTP/2 200"));
    let answer = curl(&many, "", 8080);
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let answer = curl(&many, h2, 8081);
    assert!(answer.starts_with("HTTP/2 431"), "{answer}");
    let answer = curl(&many, &format!("{h2} -H content-type:application/grpc"), 8081);
    assert!(
        answer.starts_with("HTTP/2 200") && answer.contains("grpc-status: 8"),
        "{answer}"
    );
    let errors = Metrics::of(&server).sum("inbound_http_errors_total", &[("error", "headers_too_large")]);
    assert_eq!(errors, 3.0);
}

#[test]
fn a_head_that_does_not_end_in_time_is_answered_408() {
    let mesh = Mesh::start();
    let server = mesh
        .pod("server")
        .ports(&[8080])
        .env("LINKERD2_PROXY_HTTP1_HEAD_TIMEOUT", "300ms")
        .meshed();
    let stranger = mesh.pod("stranger").unmeshed();
    let echo = Echo::serve(&server, 8080);
    let whole = "GET / HTTP/1.1\r\nhost: server\r\n\r\n";
    for half in ["GET / HTTP/1.1\r\nhost: ser", "GET / HTTP/1.1\r\n"] {
        let answer = say(&stranger, server.addr(8080), half);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        let answer = say(&stranger, server.addr(8080), &(whole.to_owned() + half));
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.contains("HTTP/1.1 408 "),
            "{answer}"
        );
    }
    assert_eq!(echo.requests(), 2);
    let errors = Metrics::of(&server).sum("inbound_http_errors_total", &[("error", "head_timeout")]);
    assert_eq!(errors, 4.0);
}

#[test]
fn no_server_answers_for_another_request_than_the_one_it_got() {
    let (_mesh, server, client, web) = pair();
    const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    scripted(&server, 8080, |request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        match path {
            "/both" => {
                "HTTP/1.1 200 OK\r\nContent-Length: 44\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                    .to_owned()
                    + POISON
            }
            "/coding" => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n".to_owned() + POISON
            }
            "/lengths" => {
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 40\r\n\r\nok".to_owned() + POISON
            }
            "/folded" => "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok".to_owned() + POISON,
            "/none" => "garbage\r\n\r\n".to_owned() + POISON,
            "/extra" => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned() + POISON,
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned() + POISON,
            "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 44\r\n\r\n".to_owned() + POISON,
            "/lf" => "HTTP/1.1 200 OK\nContent-Length: 2\n\nok".to_owned() + POISON,
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood".to_owned(),
        }
    });
    for _ in 0..3 {
        for (path, status) in [
            ("/both", 502),
            ("/coding", 502),
            ("/lengths", 502),
            ("/folded", 502),
            ("/none", 502),
            ("/extra", 200),
            ("/204", 204),
            ("/304", 304),
            ("/lf", 200),
        ] {
            let response = http::get(&client, web, "web", path, &[]);
            assert_eq!(response.status, status, "{path}: {response:?}");
            assert!(!response.body.contains("poison"), "{path}: {response:?}");
            let response = http::get(&client, web, "web", "/good", &[]);
            assert_eq!(response.body, "good", "after {path}");
        }
    }
    let errors = Metrics::of(&server).sum("inbound_http_errors_total", &[("error", "bad_answer")]);
    assert_eq!(errors, 15.0);
}

#[test]
fn an_answer_to_a_large_upload_that_is_refused_arrives() {
    let (_mesh, server, client, web) = pair();
    let echo = Echo::serve(&server, 8080);
    let mut stream = client.connect(web).unwrap();
    let head = "POST / HTTP/1.1\r\nhost: web\r\nhost: web\r\ncontent-length: 500000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..50 {
        // All of it is taken, though nobody wants it.
        stream.write_all(&[b'x'; 10_000]).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(echo.requests(), 0);
}
