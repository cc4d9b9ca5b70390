//! The admin server over real sockets.

use super::*;
use crate::config::{DefaultInbound, DefaultPolicy, Networks, PortSet};
use crate::control::discovery::default_policy;
use crate::drain::{self, Drainer};
use crate::telemetry::Registry;
use crate::telemetry::labels::Target;
use crate::telemetry::log::Level;
use crate::telemetry::refusals::Refusals;
use crate::tls::testing::Ca;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_policy::authz::ClientTls;
use outrigger_policy::name::Identity;
use outrigger_policy::port::PortPolicy;
use std::io::Read as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

const NAME: &str = "web.ns.serviceaccount.identity.linkerd.cluster.local";

/// A server with one condition, which is not met.
async fn start() -> (SocketAddr, Arc<Admin>, Condition, Drainer) {
    let (admin, condition) = admin();
    let credentials = Ca::new("root").credentials(NAME);
    let (addr, admin, drainer) = serving(admin, credentials).await;
    (addr, admin, condition, drainer)
}

fn admin() -> (Admin, Condition) {
    let mut registry = Registry::new(Duration::from_secs(60));
    let family = registry.counter("request_total", "Total count of HTTP requests");
    family.handle(Target("127.0.0.1:80".parse().unwrap())).inc();
    let readiness = Readiness::new();
    let condition = readiness.condition("identity", "no certificate yet");
    let variables = [("A".to_owned(), "1".to_owned())];
    let admin = Admin {
        policy: Live::fixed(everybody()),
        registry,
        readiness,
        environment: Environment::new(variables),
        refusals: Refusals::default(),
        level: None,
        shutdown: None,
    };
    (admin, condition)
}

/// A policy that admits everybody.
fn everybody() -> PortPolicy {
    let default = DefaultInbound {
        policy: DefaultPolicy::AllUnauthenticated,
        cluster_networks: Networks::default(),
        opaque_ports: PortSet::default(),
        detect_timeout: Duration::from_secs(1),
    };
    PortPolicy::new(default_policy::of_port(&default, 4191))
}

async fn serving(admin: Admin, credentials: Credentials) -> (SocketAddr, Arc<Admin>, Drainer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let admin = Arc::new(admin);
    let (drainer, drain) = drain::channel();
    let credentials = Live::fixed(credentials);
    tokio::spawn(serve(listener, admin.clone(), credentials, drain));
    (addr, admin, drainer)
}

/// Somebody within the pod, or outside.
fn peer(local: bool) -> access::Peer {
    access::Peer {
        addr: if local { "127.0.0.1:1" } else { "192.0.2.1:1" }.parse().unwrap(),
        tls: ClientTls::None,
    }
}

/// What this server answers to a request, without a connection.
async fn page(admin: &Admin, line: &str, body: &'static str, local: bool) -> (StatusCode, String) {
    let (method, uri) = line.split_once(' ').unwrap();
    let request = Request::builder().method(method).uri(uri);
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let response = admin.answer(request, &peer(local)).await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.into()).unwrap())
}

/// The whole answer to one HTTP/1.1 request.
async fn ask(addr: SocketAddr, line: &str) -> String {
    String::from_utf8(ask_with(addr, line, "").await).unwrap()
}

/// The same with more headers, each with its line end.
async fn ask_with(addr: SocketAddr, line: &str, headers: &str) -> Vec<u8> {
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n{headers}\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_proxy_is_live_before_it_is_ready() {
    let (addr, _, condition, _drainer) = start().await;
    let live = ask(addr, "GET /live").await;
    assert!(
        live.starts_with("HTTP/1.1 200 ") && live.ends_with("\r\nlive\n"),
        "{live}"
    );
    let ready = ask(addr, "GET /ready").await;
    assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
    assert!(
        ready.ends_with("\r\nnot ready\nidentity: no certificate yet\n"),
        "{ready}"
    );
    condition.met();
    let ready = ask(addr, "GET /ready").await;
    assert!(
        ready.starts_with("HTTP/1.1 200 ") && ready.ends_with("\r\nready\n"),
        "{ready}"
    );
}

#[tokio::test]
async fn metrics_are_plain_text() {
    let (addr, _, _, _drainer) = start().await;
    let metrics = ask(addr, "GET /metrics").await;
    assert!(metrics.contains("content-type: text/plain\r\n"), "{metrics}");
    assert!(metrics.contains("\nrequest_total{target_addr="), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
}

#[tokio::test]
async fn metrics_come_as_openmetrics_and_compressed_to_who_asks() {
    let (addr, _, _, _drainer) = start().await;
    let headers = "accept: application/openmetrics-text;version=1.0.0\r\naccept-encoding: gzip\r\n";
    let answer = ask_with(addr, "GET /metrics", headers).await;
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let (head, body) = answer.split_at(at + 4);
    let head = String::from_utf8(head.to_vec()).unwrap();
    assert!(head.contains("content-encoding: gzip\r\n"), "{head}");
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{head}"
    );
    let mut text = String::new();
    flate2::read::GzDecoder::new(body)
        .read_to_string(&mut text)
        .unwrap();
    assert!(text.contains("# TYPE request counter\n"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn what_is_not_served_is_not_found() {
    let (admin, _) = admin();
    for line in ["GET /", "GET /tasks", "GET /logs.json", "PUT /proxy-log-level"] {
        let empty = (StatusCode::NOT_FOUND, String::new());
        assert_eq!(page(&admin, line, "", true).await, empty, "{line}");
    }
}

#[tokio::test]
async fn what_steers_the_proxy_is_for_those_within_the_pod() {
    let (mut admin, _) = admin();
    let (end, mut asked) = mpsc::channel(1);
    admin.shutdown = Some(end);
    for line in [
        "POST /shutdown",
        "GET /proxy-log-level",
        "GET /env.json",
        "GET /refusals",
    ] {
        let (status, body) = page(&admin, line, "", false).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{line}");
        assert_eq!(body, "Requests are only permitted from localhost.", "{line}");
    }
    tokio::task::yield_now().await;
    assert!(asked.try_recv().is_err());
    for line in ["GET /live", "GET /metrics"] {
        assert_eq!(page(&admin, line, "", false).await.0, StatusCode::OK, "{line}");
    }
}

#[tokio::test]
async fn shutdown_has_to_be_enabled_and_asked_for_with_post() {
    let (mut admin, _) = admin();
    let refused = page(&admin, "POST /shutdown", "", true).await;
    assert_eq!(refused.0, StatusCode::NOT_FOUND);
    assert_eq!(refused.1, "shutdown endpoint is not enabled\n");
    let (end, mut asked) = mpsc::channel(1);
    admin.shutdown = Some(end);
    let not_allowed = (StatusCode::METHOD_NOT_ALLOWED, String::new());
    assert_eq!(page(&admin, "GET /shutdown", "", false).await, not_allowed);
    for _ in 0..2 {
        let answer = page(&admin, "POST /shutdown", "", true).await;
        assert_eq!(answer, (StatusCode::OK, "shutdown\n".to_owned()));
    }
    asked.recv().await.unwrap();
    drop(asked);
    let (status, body) = page(&admin, "POST /shutdown", "", true).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(body, "shutdown listener dropped\n");
}

#[tokio::test]
async fn the_log_filter_is_shown_and_replaced() {
    let (mut admin, _) = admin();
    let (_kept, level) = Level::of_no_log("warn,linkerd=info");
    admin.level = Some(level);
    let path = |method: &str| format!("{method} /proxy-log-level");
    let set = page(&admin, &path("PUT"), "info,linkerd=debug\n", true).await;
    assert_eq!(set, (StatusCode::NO_CONTENT, String::new()));
    let (_, filter) = page(&admin, &path("GET"), "", true).await;
    assert!(filter.contains("outrigger=debug"), "{filter}");
    let (status, reason) = page(&admin, &path("PUT"), "linkerd=loud", true).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(reason.contains("not a log filter"), "{reason}");
    let long: &str = "a,".repeat(8 << 10).leak();
    let (status, _) = page(&admin, &path("PUT"), long, true).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(page(&admin, &path("GET"), "", true).await.1, filter);
    let request = Request::post("/proxy-log-level").body(Empty::<Bytes>::new());
    let response = admin.answer(request.unwrap(), &peer(true)).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    let allowed: Vec<_> = response.headers().get_all("allow").iter().collect();
    assert_eq!(allowed, ["GET", "PUT"]);
}

#[tokio::test]
async fn the_environment_is_json_or_nothing() {
    let (addr, _, _, _drainer) = start().await;
    let answer = ask(addr, "GET /env.json?A&B").await;
    assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n{\"A\":\"1\",\"B\":null}"), "{answer}");
    let answer = ask(addr, "GET /env.json?A=1").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let answer = ask(addr, "POST /env.json").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    let answer = ask_with(addr, "GET /env.json", "accept: text/html\r\n").await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 406 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\napplication/json"), "{answer}");
}

#[tokio::test]
async fn mesh_tls_ends_here_if_it_is_meant_for_this_proxy() {
    let ca = Ca::new("root");
    let (addr, _, _drainer) = serving(admin().0, ca.credentials(NAME)).await;
    let prometheus = ca.credentials("prometheus.ns.serviceaccount.identity.linkerd.cluster.local");
    let server = Identity::parse(NAME).unwrap();
    let dial = async |name: &str| {
        let name = outrigger_policy::name::DnsName::parse(name).unwrap();
        let tcp = TcpStream::connect(addr).await.unwrap();
        crate::tls::client::connect(&prometheus, tcp, &name, &server, false).await
    };
    let mut stream = dial("web.test").await.unwrap().stream;
    let request = b"GET /live HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("\r\n\r\nlive\n"), "{answer}");
    assert!(dial("other.test").await.is_err());
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let (addr, _, _, _drainer) = start().await;
    let answer = ask(addr, "HEAD /live").await;
    assert!(
        answer.contains("content-length: 5\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served() {
    let (addr, _, _, _drainer) = start().await;
    let io = TokioIo::new(TcpStream::connect(addr).await.unwrap());
    let (mut client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://admin/live").body(Full::<Bytes>::default());
    let response = client.send_request(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn garbage_ends_one_connection_only() {
    let (addr, _, _, _drainer) = start().await;
    for garbage in [
        &b"\x16\x03\x01"[..],
        b"PRI nonsense\r\n\r\n",
        b"\0",
        b"GET\r\n\r\n",
    ] {
        let mut tcp = TcpStream::connect(addr).await.unwrap();
        tcp.write_all(garbage).await.unwrap();
        tcp.shutdown().await.unwrap();
        // Refused or reset: what matters is that it ends.
        let _ended = tcp.read_to_end(&mut Vec::new()).await;
    }
    assert!(ask(addr, "GET /live").await.contains(" 200 "));
}

#[tokio::test]
async fn draining_ends_idle_connections() {
    let (addr, _, _, drainer) = start().await;
    let silent = TcpStream::connect(addr).await.unwrap();
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    tcp.write_all(b"GET /live HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 12];
    tcp.read_exact(&mut answer).await.unwrap();
    drainer.drain().await;
    tcp.read_to_end(&mut Vec::new()).await.unwrap();
    assert_eq!(silent.peek(&mut [0]).await.unwrap(), 0);
    assert!(TcpStream::connect(addr).await.is_err());
}
