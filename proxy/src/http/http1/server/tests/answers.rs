//! Answers to the byte: how they are framed, and whether another may follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use crate::drain;
use crate::http::body::testing::Frames;
use crate::http::body::{Body, End, Track, Tracked};
use crate::http::closing::Closing;
use crate::http::http1::server::tests::Untold;
use crate::http::http1::server::{Error, serve};
use crate::http::http1::tests::LIMITS;
use crate::net::io::Io;

/// What a client gets that says this and waits for the end, and how its connection has ended.
async fn heard(said: &str, answer: impl Fn() -> Response<Body>) -> (String, Result<(), Error>) {
    let (mut client, near) = duplex(64 << 10);
    let (_drainer, drain) = drain::channel();
    let service = move |_request: Request<Body>, _interims| {
        let answer = answer();
        async move { Ok(answer.map(|body| Tracked::new(body, Untold))) }
    };
    let closing = Closing::default();
    let served = serve(Io::pipe(near), service, LIMITS, closing, drain);
    let client = async {
        client.write_all(said.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.unwrap();
        heard
    };
    let (ended, heard) = tokio::join!(served, client);
    (heard, ended)
}

/// The same of answers that end well.
async fn hears(said: &str, answer: impl Fn() -> Response<Body>) -> String {
    let (heard, ended) = heard(said, answer).await;
    ended.unwrap();
    heard
}

fn answer(status: u16, fields: &[(&'static str, &'static str)], body: Body) -> Response<Body> {
    let answer = Response::builder().status(status);
    let answer = fields
        .iter()
        .fold(answer, |answer, (name, value)| answer.header(*name, *value));
    answer.body(body).unwrap()
}

fn frames() -> Body {
    let data = ["hello", "", "world"].map(Bytes::from);
    Body::Frames(Frames::new(data, None))
}

const GET: &str = "GET / HTTP/1.1\r\n\r\n";
const OLD: &str = "GET / HTTP/1.0\r\n\r\n";
const OLD_KEPT: &str = "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n";

#[tokio::test]
async fn an_answer_is_as_long_as_it_is_known_to_be() {
    let ok = || answer(200, &[], Body::Full("ok".into()));
    let full = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    assert_eq!(hears(&GET.repeat(2), ok).await, full.repeat(2));
    let empty = hears(GET, || answer(200, &[], Body::Empty)).await;
    assert_eq!(empty, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    let chunked = hears(GET, || answer(200, &[("transfer-encoding", "gzip")], frames())).await;
    let chunks = "5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n";
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(chunked, [head, chunks].concat());
    let lengths = [("content-length", "10"), ("content-length", "10")];
    let told = hears(GET, || answer(200, &lengths, frames())).await;
    assert_eq!(told, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhelloworld");
}

#[tokio::test]
async fn http10_has_no_chunks_and_keeps_what_it_asks_to_be_kept() {
    let ok = || answer(200, &[], Body::Full("ok".into()));
    let closed = "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    assert_eq!(hears(&OLD.repeat(2), ok).await, closed);
    let kept = "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive\r\n\r\nok";
    assert_eq!(hears(&OLD_KEPT.repeat(2), ok).await, kept.repeat(2));
    let until_closed = "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nhelloworld";
    let unknown = || answer(200, &[], frames());
    assert_eq!(hears(&OLD_KEPT.repeat(2), unknown).await, until_closed);
}

#[tokio::test]
async fn answers_without_content_have_none() {
    const HEAD: &str = "HEAD / HTTP/1.1\r\n\r\n";
    let announced = [("content-length", "10")];
    for (said, status, fields, expected) in [
        (HEAD, 200, &announced[..], "200 OK\r\ncontent-length: 10\r\n\r\n"),
        (HEAD, 200, &[], "200 OK\r\n\r\n"),
        (HEAD, 304, &announced, "304 Not Modified\r\n\r\n"),
        (GET, 204, &announced, "204 No Content\r\n\r\n"),
        (GET, 304, &announced, "304 Not Modified\r\n\r\n"),
        (GET, 304, &[("etag", "a")], "304 Not Modified\r\netag: a\r\n\r\n"),
    ] {
        let expected = ["HTTP/1.1 ", expected].concat();
        let bare = || answer(status, fields, Body::Empty);
        assert_eq!(hears(&said.repeat(2), bare).await, expected.repeat(2));
        // Nor do they if somebody gives them some.
        let full = || answer(status, fields, Body::Full("smuggled".into()));
        assert_eq!(hears(&said.repeat(2), full).await, expected.repeat(2));
    }
}

#[tokio::test]
async fn whoever_says_close_is_the_last() {
    let ok = || answer(200, &[], Body::Full("ok".into()));
    let asked = "GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    assert_eq!(hears(&asked.repeat(2), ok).await, last);
    let says = || answer(200, &[("connection", "close")], Body::Full("ok".into()));
    assert_eq!(hears(&GET.repeat(2), says).await, last);
}

#[tokio::test]
async fn an_answer_that_is_longer_or_shorter_than_it_says_is_never_taken_for_two() {
    for (length, whole) in [("3", ""), ("11", "helloworld")] {
        let wrong = || answer(200, &[("content-length", length)], frames());
        let (heard, ended) = heard(&GET.repeat(2), wrong).await;
        assert!(matches!(ended, Err(Error::Length)), "{ended:?}");
        let content = heard
            .split_once("\r\n\r\n")
            .map_or("", |(_head, content)| content);
        assert!(whole.starts_with(content), "{heard}");
    }
    for lengths in [["5", "10"], ["10", "x"]] {
        let fields = lengths.map(|length| ("content-length", length));
        let (heard, ended) = heard(GET, || answer(200, &fields, frames())).await;
        assert!(matches!(ended, Err(Error::Length)), "{ended:?}");
        assert_eq!(heard, "");
    }
}

#[tokio::test]
async fn a_reason_is_passed_on_and_a_status_without_one_has_none() {
    let nothing = || {
        let mut nothing = answer(404, &[], Body::Empty);
        let reason = hyper::ext::ReasonPhrase::from_static(b"Nothing here");
        nothing.extensions_mut().insert(reason);
        nothing
    };
    assert!(
        hears(GET, nothing)
            .await
            .starts_with("HTTP/1.1 404 Nothing here\r\n")
    );
    let odd = || answer(599, &[], Body::Empty);
    assert!(hears(GET, odd).await.starts_with("HTTP/1.1 599 \r\n"));
}

#[tokio::test]
async fn what_is_left_of_a_body_that_nobody_wants_is_no_request() {
    let ok = || answer(200, &[], Body::Full("ok".into()));
    let smuggled = "GET /smuggled HTTP/1.1\r\n\r\n";
    let whole = format!(
        "POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    );
    let heard = hears(&[&whole, GET].concat(), ok).await;
    assert_eq!(heard.matches("200 OK").count(), 2, "{heard}");
    let chunks = format!("{:x}\r\n{smuggled}\r\n0\r\nx: y\r\n\r\n", smuggled.len());
    let chunked = ["POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", &chunks].concat();
    let heard = hears(&[&chunked, GET].concat(), ok).await;
    assert_eq!(heard.matches("200 OK").count(), 2, "{heard}");
    let cut = format!("POST / HTTP/1.1\r\ncontent-length: 1000\r\n\r\n{smuggled}");
    let heard = hears(&cut, ok).await;
    assert_eq!(heard.matches("200 OK").count(), 1, "{heard}");
}

#[tokio::test]
async fn a_tunnel_that_nobody_has_asked_for_is_an_end() {
    let switched = || answer(101, &[("connection", "upgrade"), ("upgrade", "x")], Body::Empty);
    let heard = hears(&GET.repeat(2), switched).await;
    let head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n";
    assert_eq!(heard, head);
}

/// Knows when an answer is over.
struct Noted(Arc<AtomicBool>);

impl Track for Noted {
    fn first_frame(&mut self) {}

    fn trailers(&mut self, _trailers: &HeaderMap) {}

    fn finish(self, _end: End<'_>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_small_answer_is_counted_before_the_client_has_it() {
    for bytes in ["", "ok"] {
        let (mut client, near) = duplex(8);
        let (_drainer, drain) = drain::channel();
        let over = Arc::<AtomicBool>::default();
        let noted = over.clone();
        let service = move |_request: Request<Body>, _interims| {
            let body = match bytes {
                "" => Body::Empty,
                bytes => Body::Full(bytes.into()),
            };
            let body = Tracked::new(body, Noted(noted.clone()));
            async move { Ok(Response::new(body)) }
        };
        tokio::spawn(serve(Io::pipe(near), service, LIMITS, Closing::default(), drain));
        client.write_all(GET.as_bytes()).await.unwrap();
        client.read_u8().await.unwrap();
        assert!(over.load(Ordering::Relaxed), "{bytes:?}");
    }
}
