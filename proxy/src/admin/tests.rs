//! The admin server over real sockets.

use super::*;
use crate::drain::{self, Drainer};
use crate::telemetry::labels::Target;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A server with one condition, which is not met.
async fn start() -> (SocketAddr, Arc<Admin>, Condition, Drainer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut registry = Registry::new(Duration::from_secs(60));
    let family = registry.counter("request_total", "Total count of HTTP requests");
    family.handle(Target(addr)).inc();
    let readiness = Readiness::new();
    let condition = readiness.condition("identity", "no certificate yet");
    let admin = Arc::new(Admin { registry, readiness });
    let (drainer, drain) = drain::channel();
    tokio::spawn(serve(listener, admin.clone(), drain));
    (addr, admin, condition, drainer)
}

/// The whole answer to one HTTP/1.1 request.
async fn ask(addr: SocketAddr, line: &str) -> String {
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.unwrap();
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
async fn what_is_not_served_yet_is_not_found() {
    let (addr, _, _, _drainer) = start().await;
    for line in ["POST /shutdown", "GET /proxy-log-level", "GET /env.json", "GET /"] {
        let answer = ask(addr, line).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{line}: {answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{line}: {answer}");
    }
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
