//! Exchanges to the byte, with a server that does what real ones seldom do.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::http::body::testing::Frames;

/// Connections that have come home.
#[derive(Debug)]
struct Homes(mpsc::Sender<Http1>);

impl Home for Homes {
    fn give_back(self: Arc<Self>, connection: Http1) {
        self.0.try_send(connection).unwrap();
    }
}

type Answered = Result<Response<Body>, Unanswered>;

/// An exchange under way: the server's end, what comes of it, and where the connection comes home.
struct Exchange {
    server: DuplexStream,
    answer: JoinHandle<Answered>,
    home: mpsc::Receiver<Http1>,
}

fn exchange(mut request: Request<Body>, room: usize) -> Exchange {
    let (near, server) = duplex(room);
    let (homes, home) = mpsc::channel(1);
    let connection = Http1::on(Io::pipe(near));
    let home_of = Arc::new(Homes(homes));
    let answer = tokio::spawn(async move {
        connection
            .send(&mut request, &Interims::default(), Some(home_of))
            .await
    });
    Exchange { server, answer, home }
}

fn request(method: &str, body: Body) -> Request<Body> {
    let request = Request::builder().method(method).uri("/a?b");
    request.version(Version::HTTP_11).body(body).unwrap()
}

async fn hears(from: &mut DuplexStream, bytes: &str) {
    let mut heard = vec![0; bytes.len()];
    from.read_exact(&mut heard).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&heard), bytes);
}

impl Exchange {
    /// The server has read a GET, and says this; the content that arrives, or why it breaks off.
    async fn get(said: &str, then_closes: bool) -> (Result<Bytes, String>, mpsc::Receiver<Http1>) {
        let Self {
            mut server,
            answer,
            home,
        } = exchange(request("GET", Body::Empty), 64 << 10);
        hears(&mut server, "GET /a?b HTTP/1.1\r\n\r\n").await;
        server.write_all(said.as_bytes()).await.unwrap();
        let mut open = Some(server);
        if then_closes {
            open = None;
        }
        let content = match answer.await.unwrap() {
            Ok(answer) => answer.into_body().collect().await,
            Err(why) => return (Err(Fault::from(why).source.unwrap().to_string()), home),
        };
        drop(open);
        let content = content.map(http_body_util::Collected::to_bytes);
        (content.map_err(|error| error.to_string()), home)
    }
}

#[tokio::test]
async fn an_answer_ends_where_its_head_says_and_its_connection_comes_home_if_it_persists() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for (said, closes, content, persists) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            false,
            "ok",
            true,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false, "", true),
        ("HTTP/1.1 204 No Content\r\n\r\n", false, "", true),
        (
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n",
            false,
            "",
            true,
        ),
        (
            &[chunked, "1\r\no\r\n1  \r\nk\r\n0\r\n\r\n"].concat(),
            false,
            "ok",
            true,
        ),
        ("HTTP/1.1 200 OK\r\n\r\nall the rest", true, "all the rest", false),
        (
            "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
            false,
            "ok",
            false,
        ),
        (
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok",
            false,
            "ok",
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
            false,
            "ok",
            false,
        ),
        // What nobody has asked for is no answer to the next request.
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
            false,
            "ok",
            false,
        ),
    ] {
        let (got, mut home) = Exchange::get(said, closes).await;
        assert_eq!(got.unwrap(), content, "{said:?}");
        assert_eq!(home.recv().await.is_some(), persists, "{said:?}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_is_none_is_an_error_and_no_end() {
    for (said, why) in [
        ("", "before message completed"),
        ("HTTP/1.1 200 O", "before message completed"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok",
            "before message completed",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
            "before message completed",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nok\r\n",
            "a chunk does not end",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx y\r\n\r\n",
            "trailers are no HTTP",
        ),
        (
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "has a Transfer-Encoding",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "is no number",
        ),
        ("SSH-2.0-OpenSSH\r\n", "is no HTTP"),
    ] {
        let (got, mut home) = Exchange::get(said, true).await;
        let error = got.unwrap_err();
        assert!(error.contains(why), "{said:?}: {error}");
        assert!(home.recv().await.is_none(), "{said:?}");
    }
}

#[tokio::test]
async fn an_answer_of_any_size_is_read_as_it_comes() {
    let content = "0123456789".repeat(50_000);
    let said = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{content}",
        content.len()
    );
    for room in [100, 5_000, 1 << 20] {
        let mut exchange = exchange(request("GET", Body::Empty), room);
        hears(&mut exchange.server, "GET /a?b HTTP/1.1\r\n\r\n").await;
        let saying = exchange.server.write_all(said.as_bytes());
        let reading = async {
            let answer = exchange.answer.await.unwrap().unwrap();
            answer.into_body().collect().await.unwrap().to_bytes()
        };
        let (written, read) = tokio::join!(saying, reading);
        written.unwrap();
        assert!(read == content, "{} bytes", read.len());
        assert!(exchange.home.recv().await.is_some());
    }
}

#[tokio::test]
async fn small_frames_are_written_together_and_large_ones_where_they_are() {
    let (small, large) = (Bytes::from_static(b"hi"), Bytes::from(vec![b'x'; 0x2_0000]));
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("1"))]);
    let data = [small.clone(), Bytes::new(), small.clone(), large, small];
    let body = Body::Frames(Frames::new(data, Some(trailers)));
    let mut exchange = exchange(request("POST", body), 1 << 20);
    let head = "POST /a?b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
    hears(&mut exchange.server, head).await;
    hears(&mut exchange.server, "2\r\nhi\r\n2\r\nhi\r\n20000\r\n").await;
    hears(&mut exchange.server, &"x".repeat(0x2_0000)).await;
    hears(&mut exchange.server, "\r\n2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n").await;
}

#[tokio::test]
async fn a_body_of_another_length_than_its_head_says_never_makes_another_request() {
    for (said, sent) in [("5", "hell"), ("5", "hello!"), ("5", ""), ("x", "hello")] {
        let body = match sent {
            "" => Body::Empty,
            sent => Body::Frames(Frames::new([Bytes::from_static(sent.as_bytes())], None)),
        };
        let mut request = request("POST", body);
        request
            .headers_mut()
            .insert("content-length", HeaderValue::from_static(said));
        let mut exchange = exchange(request, 64 << 10);
        let why = exchange.answer.await.unwrap().unwrap_err();
        assert!(matches!(why, Unanswered::Broken(Error::Length)), "{said} {sent}");
        let mut heard = String::new();
        exchange.server.read_to_string(&mut heard).await.unwrap();
        assert!(!heard.contains("hello"), "{heard}");
        assert!(exchange.home.recv().await.is_none());
    }
}

/// A request whose body goes on for as long as the test likes.
fn upload() -> (Request<Body>, mpsc::Sender<relay::Next>) {
    let (frames, body) = mpsc::channel(1);
    (request("POST", Body::Relayed(Relayed::of(body))), frames)
}

const CHUNKED_HEAD: &str = "POST /a?b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";
const EARLY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A request that goes on though the server has said this: its frames, the server's end, the answer's body, and where the
/// connection comes home.
async fn early(
    said: &str,
) -> (
    mpsc::Sender<relay::Next>,
    DuplexStream,
    Body,
    mpsc::Receiver<Http1>,
) {
    let (request, frames) = upload();
    let mut exchange = exchange(request, 64 << 10);
    hears(&mut exchange.server, CHUNKED_HEAD).await;
    exchange.server.write_all(said.as_bytes()).await.unwrap();
    let answer = exchange.answer.await.unwrap().unwrap();
    (frames, exchange.server, answer.into_body(), exchange.home)
}

#[tokio::test]
async fn a_request_goes_on_behind_an_early_answer_whoever_reads_that() {
    for read_at_once in [true, false] {
        let (frames, mut server, body, mut home) = early(EARLY).await;
        let mut unread = Some(body);
        if read_at_once && let Some(body) = unread.take() {
            assert_eq!(body.collect().await.unwrap().to_bytes(), "ok");
        }
        for _ in 0..3 {
            let more = Frame::data(Bytes::from_static(b"more"));
            frames.send(Some(Ok(more))).await.unwrap();
            hears(&mut server, "4\r\nmore\r\n").await;
        }
        frames.send(None).await.unwrap();
        hears(&mut server, "0\r\n\r\n").await;
        if let Some(body) = unread {
            assert_eq!(body.collect().await.unwrap().to_bytes(), "ok");
        }
        assert!(home.recv().await.is_some());
    }
}

/// The same, not whole.
fn cut_short() -> &'static str {
    &EARLY[..EARLY.len() - 1]
}

#[tokio::test]
async fn nobody_sends_on_for_an_early_answer_that_nobody_wants() {
    let (frames, mut server, body, mut home) = early(cut_short()).await;
    drop(body);
    let mut rest = String::new();
    server.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "");
    frames.closed().await;
    assert!(home.recv().await.is_none());
}

#[tokio::test]
async fn a_request_that_breaks_off_behind_an_early_answer_breaks_that_off() {
    let (frames, _server, body, mut home) = early(cut_short()).await;
    frames.send(Some(Err(Error::Incomplete))).await.unwrap();
    assert!(body.collect().await.is_err());
    assert!(home.recv().await.is_none());
}

#[tokio::test]
async fn a_server_that_takes_no_more_may_still_have_answered() {
    let (request, frames) = upload();
    let mut exchange = exchange(request, 64 << 10);
    hears(&mut exchange.server, CHUNKED_HEAD).await;
    let refusal = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n";
    exchange.server.write_all(refusal).await.unwrap();
    drop(exchange.server);
    frames
        .try_send(Some(Ok(Frame::data(Bytes::from_static(b"more")))))
        .unwrap();
    let answer = exchange.answer.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    assert!(exchange.home.recv().await.is_none());
}

#[tokio::test]
async fn a_chunk_ends_where_it_should_wherever_the_server_stops_reading() {
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("1"))]);
    let large = || Bytes::from(vec![b'x'; 5_000]);
    let chunk = format!("1388\r\n{}\r\n", "x".repeat(5_000));
    let sent = [CHUNKED_HEAD, &chunk, &chunk, "0\r\nx-sum: 1\r\n\r\n"].concat();
    for end in [0, 1, 2] {
        let body = Body::Frames(Frames::new([large(), large()], Some(trailers.clone())));
        let room = CHUNKED_HEAD.len() + "1388\r\n".len() + 5_000 + end;
        let mut exchange = exchange(request("POST", body), room);
        hears(&mut exchange.server, &sent).await;
    }
}

#[tokio::test]
async fn a_request_that_stops_behind_an_early_answer_is_left_when_the_server_ends() {
    let (frames, server, body, mut home) = early(EARLY).await;
    assert_eq!(body.collect().await.unwrap().to_bytes(), "ok");
    assert!(!frames.is_closed());
    drop(server);
    frames.closed().await;
    assert!(home.recv().await.is_none());
}

#[tokio::test]
async fn a_target_without_a_path_gets_one() {
    let mut request = request("GET", Body::Empty);
    let absolute: http::Uri = "http://web?x=1".parse().unwrap();
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = absolute.path_and_query().cloned();
    *request.uri_mut() = http::Uri::from_parts(parts).unwrap();
    let mut exchange = exchange(request, 64 << 10);
    hears(&mut exchange.server, "GET /?x=1 HTTP/1.1\r\n\r\n").await;
}

#[tokio::test]
async fn an_answer_whose_task_is_lost_is_no_whole_one() {
    let (_, frames) = mpsc::channel(1);
    assert!(Body::Relayed(Relayed::of(frames)).collect().await.is_err());
}
