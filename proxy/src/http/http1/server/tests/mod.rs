//! Whole connections over a pipe: what the service is given, and what the client gets.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::config::HeadLimits;
use crate::drain::{self, Drainer};
use crate::error::{BoxError, Kind};
use crate::http::body::{Body, End, Track, Tracked};
use crate::http::closing::Closing;
use crate::http::headers;
use crate::http::http1::head::{self, Refusal};
use crate::http::http1::server::{self, Handover};
use crate::http::http1::tests::LIMITS;
use crate::http::respond::{self, Asked};
use crate::net::io::{Io, Socket};

mod answers;

/// What a test's service counts for nothing.
struct Untold;

impl Track for Untold {
    fn first_frame(&mut self) {}

    fn trailers(&mut self, _trailers: &http::HeaderMap) {}

    fn finish(self, _end: End<'_>) {}
}

/// A client's end of a connection that is served, and the requests that the service was given.
struct Served<C = DuplexStream> {
    client: C,
    seen: Arc<Mutex<Vec<String>>>,
    gate: Arc<Notify>,
    server: JoinHandle<Result<(), server::Error>>,
    drainer: Drainer,
}

/// Serves a pipe. `/wait` is answered when the gate opens, `/early` before its body is read, `/tunnel` with 101, `/no` with 403.
fn serve(limits: HeadLimits) -> Served {
    let (client, server) = duplex(64 << 10);
    serving(client, Io::pipe(server), limits)
}

/// Serves a TCP connection in the same way.
async fn serve_tcp() -> Served<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let server = listener.accept().await.unwrap().0;
    serving(client, Io::plain(Socket::new(server)), LIMITS)
}

fn serving<C>(client: C, io: Io, limits: HeadLimits) -> Served<C> {
    let (drainer, drain) = drain::channel();
    let (seen, gate) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Notify>::default());
    let (seeing, waiting) = (seen.clone(), gate.clone());
    let service = move |request, _interims| answer(request, seeing.clone(), waiting.clone());
    let server = tokio::spawn(server::serve(io, service, limits, Closing::default(), drain));
    Served {
        client,
        seen,
        gate,
        server,
        drainer,
    }
}

async fn answer(
    mut request: Request<Body>,
    seen: Arc<Mutex<Vec<String>>>,
    gate: Arc<Notify>,
) -> Result<Response<Tracked<Untold>>, BoxError> {
    if let Some(refusal) = request.extensions().get::<Refusal>() {
        let asked = Asked {
            version: Version::HTTP_11,
            grpc: false,
            informational: true,
        };
        let response = respond::to_fault(&refusal.fault(), "", asked);
        return Ok(response.map(|body| Tracked::new(body, Untold)));
    }
    let path = request.uri().path().to_owned();
    let line = format!("{} {path}", request.method());
    let at = {
        let mut seen = seen.lock().unwrap();
        seen.push(line);
        seen.len() - 1
    };
    let mut response = Response::new(Tracked::new(Body::Full("ok".into()), Untold));
    match &*path {
        "/early" => return Ok(response),
        "/wait" => gate.notified().await,
        "/tunnel" => {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let handover = request.extensions_mut().remove::<Handover>().unwrap();
            tokio::spawn(async move {
                let mut tunnel = handover.take().unwrap().await.unwrap();
                let mut said = String::new();
                tunnel.read_to_string(&mut said).await.unwrap();
                seen.lock().unwrap().push(said);
                tunnel.shutdown().await.unwrap();
            });
            response = response.map(|_| Tracked::new(Body::Empty, Untold));
            return Ok(response);
        }
        "/no" => *response.status_mut() = StatusCode::FORBIDDEN,
        _ if request.method() == Method::CONNECT => *response.status_mut() = StatusCode::FORBIDDEN,
        _ => {}
    }
    match request.into_body().collect().await {
        Ok(body) => {
            let trailers = body.trailers().map_or(0, http::HeaderMap::len);
            let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
            seen.lock().unwrap()[at] += &format!(" {text:?} {trailers}");
        }
        Err(error) => {
            let refusal = head::refusal_in(&error);
            seen.lock().unwrap()[at] += &format!(" {:?}", refusal.map(|refusal| refusal.kind));
        }
    }
    Ok(response)
}

impl<C: AsyncRead + AsyncWrite + Unpin> Served<C> {
    async fn say(&mut self, bytes: &str) {
        self.client.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// What the client gets until the server closes.
    async fn rest(&mut self) -> String {
        let mut answers = String::new();
        self.client.read_to_string(&mut answers).await.unwrap();
        answers
    }

    async fn until(&mut self, text: &str) -> String {
        let mut got = Vec::new();
        while !got.ends_with(text.as_bytes()) {
            got.push(self.client.read_u8().await.unwrap());
        }
        String::from_utf8(got).unwrap()
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// The status codes of the answers, in order.
fn statuses(answers: &str) -> Vec<&str> {
    let lines = answers.match_indices("HTTP/1.");
    lines.map(|(at, _)| &answers[at + 9..at + 12]).collect()
}

#[tokio::test]
async fn pipelined_requests_before_a_refused_one_are_answered_in_order() {
    let mut served = serve(LIMITS);
    served
        .say("POST /a HTTP/1.1\r\ncontent-length: 2\r\n\r\nhiGET /b HTTP/1.1\r\n\r\nGET /c HTTP/1.1\nx: y\n\nGET /d HTTP/1.1\r\n\r\n")
        .await;
    let answers = served.rest().await;
    assert_eq!(statuses(&answers), ["200", "200", "400"], "{answers}");
    assert!(answers.contains("a line ends without CR") && answers.contains("connection: close"));
    assert_eq!(served.seen(), ["POST /a \"hi\" 0", "GET /b \"\" 0"]);
}

#[tokio::test]
async fn a_request_in_single_bytes_is_the_same_request() {
    let mut served = serve(LIMITS);
    let request = "\r\nPOST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\nte: trailers\r\n\r\n2;x\r\nhi\r\n0\r\nt: 1\r\n\r\n";
    for at in 0..request.len() {
        served.say(&request[at..=at]).await;
        tokio::task::yield_now().await;
    }
    served.until("\r\n\r\nok").await;
    assert_eq!(served.seen(), ["POST /a \"hi\" 1"]);
}

#[tokio::test]
async fn a_body_that_is_refused_is_never_a_whole_one() {
    let mut served = serve(LIMITS);
    served
        .say(
            "POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhiXX0\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
        )
        .await;
    served.rest().await;
    assert_eq!(served.seen(), ["POST /a Some(Framing)"]);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_end_is_answered_408_and_an_idle_connection_stays() {
    let mut served = serve(LIMITS);
    served.say("GET /a HTTP/1.1\r\n\r\n").await;
    served.until("\r\n\r\nok").await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    served.say("GET /b HTTP/1.1\r\nhost: a\r\n").await;
    let answers = served.rest().await;
    assert_eq!(statuses(&answers), ["408"], "{answers}");
    assert_eq!(served.seen(), ["GET /a \"\" 0"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_a_head_may_take_any_time() {
    let mut served = serve(HeadLimits {
        timeout: None,
        ..LIMITS
    });
    served.say("GET /a HTTP/1.1\r\n").await;
    tokio::time::sleep(Duration::from_secs(86_400)).await;
    served.say("\r\n").await;
    served.until("\r\n\r\nok").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_said_all_gets_its_answers_and_then_the_end() {
    let mut served = serve(LIMITS);
    served
        .say("GET /wait HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n")
        .await;
    served.client.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    served.gate.notify_one();
    let begun = tokio::time::Instant::now();
    assert_eq!(statuses(&served.rest().await), ["200", "200"]);
    assert_eq!(
        begun.elapsed(),
        Duration::ZERO,
        "nobody waits for what nobody says"
    );
    served.server.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_gone_is_not_waited_for() {
    let mut served = serve(LIMITS);
    served.say("GET /wait HTTP/1.1\r\n\r\n").await;
    served.client.shutdown().await.unwrap();
    assert_eq!(served.rest().await, "");
    assert!(
        served.server.await.unwrap().is_err(),
        "the request was broken off"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_that_leaves_leaves_nothing_behind() {
    let mut served = serve(LIMITS);
    served.say("GET /a HTTP/1.1\r\n\r\n").await;
    served.until("\r\n\r\nok").await;
    let begun = tokio::time::Instant::now();
    served.client.shutdown().await.unwrap();
    served.server.await.unwrap().unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn bytes_behind_an_upgrade_belong_to_the_tunnel_or_to_nobody() {
    let mut served = serve(LIMITS);
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
    served
        .say(&(ask("/tunnel") + "GET /smuggled HTTP/1.1\r\n\r\n"))
        .await;
    served.client.shutdown().await.unwrap();
    assert_eq!(statuses(&served.rest().await), ["101"]);
    assert_eq!(served.seen(), ["GET /tunnel", "GET /smuggled HTTP/1.1\r\n\r\n"]);

    let mut served = serve(LIMITS);
    served.say(&(ask("/no") + "GET /smuggled HTTP/1.1\r\n\r\n")).await;
    let answers = served.rest().await;
    assert_eq!(statuses(&answers), ["403"], "{answers}");
    assert_eq!(served.seen(), ["GET /no \"\" 0"]);
}

#[tokio::test]
async fn a_connection_whose_upgrade_was_not_granted_serves_the_next_request() {
    let mut served = serve(LIMITS);
    served
        .say("GET /no HTTP/1.1\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n")
        .await;
    served.until("\r\n\r\nok").await;
    served.say("GET /b HTTP/1.1\r\n\r\n").await;
    served.until("\r\n\r\nok").await;
    served.say("CONNECT a:80 HTTP/1.1\r\n\r\n").await;
    assert!(
        served.rest().await.contains("connection: close"),
        "after a CONNECT nobody can tell"
    );
}

#[tokio::test]
async fn an_answer_before_the_body_has_come_arrives_whole() {
    let mut served = serve(LIMITS);
    served
        .say("POST /early HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n")
        .await;
    let answer = served.until("\r\n\r\nok").await;
    assert_eq!(statuses(&answer), ["200"]);
    // The client goes on for a while, and is not reset.
    for _ in 0..10 {
        served.say(&"GET / HTTP/1.1\r\n\r\n".repeat(1_000)).await;
    }
    served.client.shutdown().await.unwrap();
    assert_eq!(served.rest().await, "");
    assert_eq!(served.seen(), ["POST /early"]);
}

#[test]
fn limits_count_each_crumb_of_a_cookie() {
    let request = |crumbs: usize, size: usize| {
        let mut request = Request::get("http://a/")
            .version(Version::HTTP_2)
            .body(())
            .unwrap();
        for _ in 0..crumbs {
            let crumb = http::HeaderValue::from_str(&"x".repeat(size)).unwrap();
            request.headers_mut().append("cookie", crumb);
        }
        headers::check_limits(&request, &LIMITS).map_err(|fault| fault.kind)
    };
    assert_eq!(request(5, 10), Ok(()));
    assert_eq!(request(6, 10), Err(Kind::HeadersTooLarge));
    assert_eq!(request(5, 200), Err(Kind::HeadersTooLarge));
}

#[tokio::test(start_paused = true)]
async fn during_a_drain_an_idle_connection_takes_one_more_request_and_says_that_it_was_the_last() {
    let mut served = serve(LIMITS);
    served.say("GET /a HTTP/1.1\r\n\r\n").await;
    let before = served.until("\r\n\r\nok").await;
    assert!(!before.contains("connection: close"), "{before}");
    let draining = tokio::spawn(served.drainer.drain());
    tokio::time::sleep(LIMITS.drain_idle / 2).await;
    served.client.write_all(b"GET /b HTTP/1.1\r\n\r\n").await.unwrap();
    let mut last = String::new();
    served.client.read_to_string(&mut last).await.unwrap();
    assert!(last.starts_with("HTTP/1.1 200 OK\r\n"), "{last}");
    assert!(last.contains("connection: close\r\n"), "{last}");
    served.server.await.unwrap().unwrap();
    draining.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn during_a_drain_a_connection_that_stays_idle_is_closed_and_one_that_waits_is_not() {
    let mut idle = serve(LIMITS);
    idle.say("GET /a HTTP/1.1\r\n\r\n").await;
    idle.until("\r\n\r\nok").await;
    let begun = tokio::time::Instant::now();
    idle.drainer.drain().await;
    assert_eq!(begun.elapsed(), LIMITS.drain_idle);
    idle.server.await.unwrap().unwrap();

    let mut waiting = serve(LIMITS);
    waiting.say("GET /wait HTTP/1.1\r\n\r\n").await;
    tokio::task::yield_now().await;
    let draining = tokio::spawn(waiting.drainer.drain());
    tokio::time::sleep(LIMITS.drain_idle * 5).await;
    assert!(!draining.is_finished());
    waiting.gate.notify_one();
    let mut last = String::new();
    waiting.client.read_to_string(&mut last).await.unwrap();
    assert!(last.contains("connection: close\r\n"), "{last}");
    draining.await.unwrap();
}

/// Longer than a connection keeps its buffers for nothing.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_connection_that_has_rested_goes_on_where_it_stopped() {
    let mut served = serve_tcp().await;
    for request in [
        "GET /a HTTP/1.1\r\n\r\n",
        "POST /b HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi",
        "POST /c HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "GET /d HTTP/1.1\r\n\r\nGET /e HTTP/1.1\r\n\r\n",
    ] {
        served.say(request).await;
        served.until("\r\n\r\nok").await;
        tokio::time::sleep(LONG).await;
    }
    served.client.shutdown().await.unwrap();
    assert_eq!(statuses(&served.rest().await), ["200"], "of /e");
    let seen = [
        "GET /a",
        "POST /b \"hi\" 0",
        "POST /c \"hi\" 0",
        "GET /d",
        "GET /e",
    ];
    let begun = |(seen, line): (&String, &str)| seen.starts_with(line);
    assert!(served.seen().iter().zip(seen).all(begun), "{:?}", served.seen());
    served.server.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_drain_takes_one_more_request_from_a_connection_at_rest() {
    let mut served = serve_tcp().await;
    served.say("GET /a HTTP/1.1\r\n\r\n").await;
    served.until("\r\n\r\nok").await;
    tokio::time::sleep(LONG).await;
    let draining = tokio::spawn(served.drainer.drain());
    tokio::task::yield_now().await;
    served.client.write_all(b"GET /b HTTP/1.1\r\n\r\n").await.unwrap();
    let mut last = String::new();
    served.client.read_to_string(&mut last).await.unwrap();
    assert!(last.contains("connection: close\r\n"), "{last}");
    draining.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_does_not_rest_while_anything_is_under_way() {
    let mut served = serve_tcp().await;
    for slow in [
        "GET /wait HTTP/1.1\r\n\r\n",
        "POST /a HTTP/1.1\r\ncontent-length: 2\r\n\r\nh",
    ] {
        served.say(slow).await;
        tokio::time::sleep(LONG).await;
        served.gate.notify_one();
        if slow.starts_with("POST") {
            served.say("i").await;
        }
        served.until("\r\n\r\nok").await;
    }
    assert_eq!(served.seen(), ["GET /wait \"\" 0", "POST /a \"hi\" 0"]);
}
