//! Interim answers, `Expect: 100-continue` and trailers that nobody has announced, in both versions of HTTP, through one
//! proxy and through two.

use outrigger_e2e::app;
use outrigger_e2e::mesh::{Mesh, Meshed};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::pod::Pod;
use outrigger_e2e::process::Process;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;

/// The application, and both ways to it: for a client in the mesh, and for one that is not.
struct Ways {
    _mesh: Mesh,
    server: Meshed,
    client: Meshed,
    stranger: Pod,
    services: [SocketAddr; 2],
    _informer: Process,
}

impl Ways {
    fn new() -> Self {
        let mesh = Mesh::start();
        let server = mesh.pod("server").ports(&[8080, 8081]).meshed();
        let client = mesh.pod("client").meshed();
        let stranger = mesh.pod("stranger").unmeshed();
        let services =
            [("web1", 8080), ("web2", 8081)].map(|(name, port)| mesh.service(name, 80, &[(&server, port)]));
        let informer = app::informer(&server);
        Self {
            _mesh: mesh,
            server,
            client,
            stranger,
            services,
            _informer: informer,
        }
    }

    /// Asks in both versions, from within the mesh and from outside; what the client saw has to be this.
    fn all_see(&self, path: &str, body: &str, expected: &[&str]) {
        for version in [1, 2] {
            let service = self.services[usize::from(version) - 1].to_string();
            let direct = self.server.addr(8079 + u16::from(version)).to_string();
            for (pod, host) in [(&*self.client, service), (&self.stranger, direct)] {
                let seen = app::ask_informer(pod, version, &host, path, body);
                assert_eq!(
                    seen,
                    expected,
                    "HTTP/{version} from {} to {path}, {body}",
                    pod.name()
                );
            }
        }
    }
}

#[test]
fn early_hints_arrive_before_the_answer_without_what_is_not_for_the_client() {
    let ways = Ways::new();
    let answer = "200 GET of 0 bytes, expecting undefined, trailers {} {}";
    let hints = [
        "103 </a.css>; rel=preload yes",
        "103 </b.css>; rel=preload",
        answer,
    ];
    ways.all_see("/hints", "none", &hints);
}

#[test]
fn the_application_decides_whether_a_body_that_waits_is_sent() {
    let ways = Ways::new();
    let up = |version: u8| if version == 1 { r#"{"x-sum":"up"}"# } else { "{}" };
    ways.all_see("/refused", "wait", &["417 no {}"]);
    ways.all_see("/early", "wait", &["200 early {}"]);
    for version in [1, 2] {
        let host = ways.services[usize::from(version) - 1].to_string();
        let answer = format!(
            "200 POST of 5 bytes, expecting 100-continue, trailers {} {{}}",
            up(version)
        );
        let seen = app::ask_informer(&ways.client, version, &host, "/", "wait");
        assert_eq!(seen, ["100", &answer]);
        // Nobody says 100 Continue: the client sends the body when it has waited long enough.
        let seen = app::ask_informer(&ways.client, version, &host, "/silent", "wait");
        assert_eq!(seen, [answer]);
    }
}

#[test]
fn curl_waits_for_100_continue_and_sends_on() {
    let ways = Ways::new();
    let upload = ways.client.file("upload", "x".repeat(2 << 20));
    let answer = ways.client.sh(&format!(
        "curl -sS -i --max-time 20 --expect100-timeout 60 -H 'expect: 100-continue' --data-binary @{upload} http://{}/",
        ways.services[0]
    ));
    assert!(
        answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{answer}"
    );
    assert!(answer.contains("POST of 2097152 bytes"), "{answer}");
    let hints = ways.client.sh(&format!(
        "curl -sS -i --max-time 20 --http2-prior-knowledge http://{}/hints",
        ways.services[1]
    ));
    assert_eq!(hints.matches("HTTP/2 103").count(), 2, "{hints}");
    let old = ways.client.sh(&format!(
        "curl -sS -i --max-time 20 --http1.0 http://{}/hints",
        ways.services[0]
    ));
    assert!(
        old.starts_with("HTTP/1.0 200 OK\r\n") || old.starts_with("HTTP/1.1 200 OK\r\n"),
        "{old}"
    );
}

#[test]
fn trailers_pass_unannounced_but_not_those_that_would_be_taken_for_a_head() {
    let ways = Ways::new();
    let host = ways.services[0].to_string();
    let seen = app::ask_informer(&ways.client, 1, &host, "/trailers", "send");
    let answer = r#"200 POST of 5 bytes, expecting undefined, trailers {"x-sum":"up"} {"x-sum":"down"}"#;
    assert_eq!(seen, [answer]);
    let direct = ways.server.addr(8080).to_string();
    let seen = app::ask_informer(&ways.stranger, 1, &direct, "/trailers", "send");
    assert_eq!(seen, [answer]);
}

#[test]
fn a_server_that_sends_interim_answers_without_end_fails_that_request_and_no_other() {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080]).meshed();
    let client = mesh.pod("client").meshed();
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    let listener = server.listen(8080);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // How a connection ends is the proxy's affair.
            thread::spawn(move || -> std::io::Result<()> {
                let mut request = [0; 4096];
                let read = stream.read(&mut request)?;
                if request[..read].starts_with(b"GET /flood") {
                    loop {
                        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")?;
                    }
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            });
        }
    });
    let get = |path: &str| client.sh(&format!("curl -sS -i --max-time 20 http://{web}{path}"));
    let answer = get("/flood");
    assert!(answer.contains("HTTP/1.1 502 Bad Gateway\r\n"), "{answer}");
    assert!(answer.matches(" 103 ").count() <= 256);
    assert!(get("/").starts_with("HTTP/1.1 200 OK\r\n"));
    let errors = Metrics::of(&server).sum("inbound_http_errors_total", &[("error", "bad_answer")]);
    assert_eq!(errors, 1.0);
}
