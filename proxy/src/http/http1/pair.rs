//! What passes between a client and a server, to the byte, with nothing but our two sides of HTTP/1 between them.

use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::config::HeadLimits;
use crate::drain::{self, Drainer};
use crate::error::{BoxError, Fault, Kind};
use crate::http::body::testing::Frames;
use crate::http::body::{Body, End, Track, Tracked};
use crate::http::closing::Closing;
use crate::http::http1::client::{Home, Http1};
use crate::http::http1::server;
use crate::http::interim::Interims;
use crate::net::io::{Io, Socket};

const LIMITS: HeadLimits = HeadLimits {
    max_bytes: 64 << 10,
    max_fields: 100,
    timeout: None,
    half_closed: Duration::from_secs(2),
    drain_idle: Duration::from_secs(3),
};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

struct Untold;

impl Track for Untold {
    fn first_frame(&mut self) {}

    fn trailers(&mut self, _trailers: &HeaderMap) {}

    fn finish(self, _end: End<'_>) {}
}

/// The far ends of both connections.
struct Pair<C = DuplexStream> {
    client: C,
    app: DuplexStream,
    faults: Arc<Mutex<Vec<Kind>>>,
    server: JoinHandle<Result<(), server::Error>>,
    _drainer: Drainer,
}

/// A client and an application, over pipes that hold so many bytes.
async fn pair(room: usize) -> Pair {
    let (client, near) = duplex(room);
    between(client, Io::pipe(near), room)
}

/// The same, where the client's connection is this one.
fn between<C>(client: C, near: Io, room: usize) -> Pair<C> {
    let (app, far) = duplex(room);
    let (drainer, drain) = drain::channel();
    let faults = Arc::<Mutex<Vec<Kind>>>::default();
    let shelf = Arc::<Shelf>::default();
    shelf.clone().give_back(Http1::on(Io::pipe(far)));
    let noted = faults.clone();
    let service = move |request, interims| forward(shelf.clone(), request, interims, noted.clone());
    let server = tokio::spawn(server::serve(near, service, LIMITS, Closing::default(), drain));
    Pair {
        client,
        app,
        faults,
        server,
        _drainer: drainer,
    }
}

/// A pool of one connection. One whose exchange has failed does not come back.
#[derive(Debug, Default)]
struct Shelf {
    connection: Mutex<Option<Http1>>,
    back: Notify,
}

impl Shelf {
    async fn take(&self) -> Http1 {
        loop {
            let connection = self.connection.lock().unwrap().take();
            match connection {
                Some(connection) => return connection,
                None => self.back.notified().await,
            }
        }
    }
}

impl Home for Shelf {
    fn give_back(self: Arc<Self>, connection: Http1) {
        *self.connection.lock().unwrap() = Some(connection);
        self.back.notify_one();
    }
}

async fn forward(
    shelf: Arc<Shelf>,
    mut request: Request<Body>,
    interims: Interims,
    faults: Arc<Mutex<Vec<Kind>>>,
) -> Result<Response<Tracked<Untold>>, BoxError> {
    let connection = shelf.take().await;
    let fault: Fault = match connection.send(&mut request, &interims, Some(shelf)).await {
        Ok(response) => return Ok(response.map(|body| Tracked::new(body, Untold))),
        Err(why) => why.into(),
    };
    faults.lock().unwrap().push(fault.kind);
    let mut response = Response::new(Tracked::new(Body::Empty, Untold));
    *response.status_mut() = fault.kind.answer().status;
    Ok(response)
}

async fn say(to: &mut DuplexStream, bytes: &str) {
    to.write_all(bytes.as_bytes()).await.unwrap();
}

/// Reads exactly this, and so nothing else before it.
async fn hears(from: &mut DuplexStream, bytes: &str) {
    let mut heard = vec![0; bytes.len()];
    from.read_exact(&mut heard).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&heard), bytes);
}

/// Whether nothing has come, though everybody else has done what there was to do.
async fn hears_nothing(from: &mut DuplexStream) {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    let mut byte = [0];
    let read = Box::pin(from.read(&mut byte));
    let heard = futures_util::FutureExt::now_or_never(read);
    assert!(heard.is_none(), "{heard:?}: {:?}", char::from(byte[0]));
}

#[tokio::test]
async fn interim_heads_come_in_order_before_the_answer_in_whatever_pieces() {
    for size in [1, 3, 1_000] {
        let mut pair = pair(64 << 10).await;
        let said = [CONTINUE, HINTS, "HTTP/1.1 102 Processing\r\n\r\n", OK].concat();
        for _ in 0..3 {
            say(&mut pair.client, GET).await;
            hears(&mut pair.app, GET).await;
            for piece in said.as_bytes().chunks(size) {
                pair.app.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            hears(&mut pair.client, &said).await;
        }
    }
}

#[tokio::test]
async fn an_interim_head_does_not_wait_for_what_follows_it() {
    let mut pair = pair(64 << 10).await;
    say(&mut pair.client, GET).await;
    hears(&mut pair.app, GET).await;
    for _ in 0..3 {
        say(&mut pair.app, HINTS).await;
        hears(&mut pair.client, HINTS).await;
    }
    say(&mut pair.app, OK).await;
    hears(&mut pair.client, OK).await;
}

#[tokio::test]
async fn pipelined_answers_keep_their_interim_heads_through_the_narrowest_pipe() {
    let pair = pair(3).await;
    let (app_says, client_says) = ([HINTS, OK].concat(), GET.repeat(4));
    let (mut heard, answers) = (vec![0; 4 * app_says.len()], app_says.repeat(4));
    let (mut from_app, mut to_app) = tokio::io::split(pair.app);
    let (mut from_client, mut to_client) = tokio::io::split(pair.client);
    let application = async {
        for _ in 0..4 {
            from_app.read_exact(&mut vec![0; GET.len()]).await.unwrap();
            to_app.write_all(app_says.as_bytes()).await.unwrap();
        }
    };
    let (_, said, read) = tokio::join!(
        application,
        to_client.write_all(client_says.as_bytes()),
        from_client.read_exact(&mut heard)
    );
    said.unwrap();
    read.unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), answers);
}

#[tokio::test]
async fn a_client_of_http10_gets_the_answer_only() {
    let mut pair = pair(64 << 10).await;
    let request = "GET / HTTP/1.0\r\nhost: a\r\n\r\n";
    say(&mut pair.client, request).await;
    hears(&mut pair.app, request).await;
    say(&mut pair.app, &[CONTINUE, HINTS, OK].concat()).await;
    let mut answer = String::new();
    pair.client.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.0 200 OK\r\n") && !answer.contains("link"),
        "{answer}"
    );
}

#[tokio::test]
async fn interim_heads_without_end_end_the_exchange() {
    let endless = format!("HTTP/1.1 103 Early Hints\r\nx: {}", "x".repeat(70 << 10));
    for flood in [HINTS.repeat(1_000), endless, "\r\n".repeat(70 << 10)] {
        let mut pair = pair(1 << 20).await;
        say(&mut pair.client, GET).await;
        hears(&mut pair.app, GET).await;
        say(&mut pair.app, &flood).await;
        let mut heard = String::new();
        while !heard.ends_with("content-length: 0\r\n\r\n") {
            heard.push(pair.client.read_u8().await.unwrap().into());
        }
        assert!(heard.contains("HTTP/1.1 502 Bad Gateway\r\n"));
        assert!(heard.matches(" 103 ").count() <= 256);
        assert_eq!(*pair.faults.lock().unwrap(), [Kind::BadAnswer]);
        let mut rest = Vec::new();
        pair.app.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"", "the server's connection is closed");
    }
}

const UPLOAD: &str = "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";

#[tokio::test]
async fn it_is_the_application_that_says_100_continue() {
    let mut pair = pair(64 << 10).await;
    for _ in 0..2 {
        say(&mut pair.client, UPLOAD).await;
        hears(&mut pair.app, UPLOAD).await;
        hears_nothing(&mut pair.client).await;
        say(&mut pair.app, CONTINUE).await;
        hears(&mut pair.client, CONTINUE).await;
        say(&mut pair.client, "hello").await;
        hears(&mut pair.app, "hello").await;
        say(&mut pair.app, OK).await;
        hears(&mut pair.client, OK).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_wait_is_not_made_to() {
    let mut pair = pair(64 << 10).await;
    say(&mut pair.client, &[UPLOAD, "hello", GET].concat()).await;
    hears(&mut pair.app, UPLOAD).await;
    hears(&mut pair.app, "hello").await;
    say(&mut pair.app, &[CONTINUE, OK].concat()).await;
    hears(&mut pair.client, &[CONTINUE, OK].concat()).await;
    hears(&mut pair.app, GET).await;
}

#[tokio::test]
async fn an_application_that_does_not_want_the_body_gets_none() {
    let mut pair = pair(64 << 10).await;
    say(&mut pair.client, UPLOAD).await;
    hears(&mut pair.app, UPLOAD).await;
    let refusal = "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\n\r\nno";
    say(&mut pair.app, refusal).await;
    hears(&mut pair.client, refusal).await;
    // RFC 9110 §10.1.1: such a client sends the body, or closes.
    drop(pair.client);
    let mut rest = Vec::new();
    pair.app.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"");
    assert!(pair.server.await.is_ok(), "its connection has ended");
}

#[tokio::test]
async fn nobody_says_100_continue_if_the_application_does_not() {
    let mut pair = pair(64 << 10).await;
    say(&mut pair.client, UPLOAD).await;
    hears(&mut pair.app, UPLOAD).await;
    hears_nothing(&mut pair.client).await;
    // The client has waited long enough.
    say(&mut pair.client, "hello").await;
    hears(&mut pair.app, "hello").await;
    say(&mut pair.app, OK).await;
    hears(&mut pair.client, OK).await;
}

#[tokio::test]
async fn trailers_that_nobody_has_announced_go_both_ways() {
    let mut pair = pair(64 << 10).await;
    let request = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    // One chunk looks like the last one.
    let body = "2\r\nhi\r\n5\r\n0\r\n\r\n\r\n0\r\n";
    for _ in 0..2 {
        say(
            &mut pair.client,
            &[request, body, "X-Sum: up\r\nAuthorization: Basic eA==\r\n\r\n"].concat(),
        )
        .await;
        hears(&mut pair.app, &[request, body, "x-sum: up\r\n\r\n"].concat()).await;
        let trailers = "X-Sum: down\r\nx-sum: again\r\nSet-Cookie: a=b\r\n\r\n";
        say(&mut pair.app, &[CHUNKED, body, trailers].concat()).await;
        let passed = "x-sum: down\r\nx-sum: again\r\n\r\n";
        hears(&mut pair.client, &[CHUNKED, body, passed].concat()).await;
    }
    // What follows has none.
    say(&mut pair.client, &[request, body, "\r\n"].concat()).await;
    hears(&mut pair.app, &[request, body, "\r\n"].concat()).await;
    say(&mut pair.app, &[CHUNKED, body, "host: evil\r\n\r\n"].concat()).await;
    hears(&mut pair.client, &[CHUNKED, body, "\r\n"].concat()).await;
}

#[tokio::test]
async fn trailers_and_interim_heads_of_pipelined_answers_stay_with_them_in_the_narrowest_pipe() {
    let pair = pair(2).await;
    let answer = [HINTS, CHUNKED, "2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n"].concat();
    let answers = answer.repeat(3);
    let (mut from_app, mut to_app) = tokio::io::split(pair.app);
    let (mut from_client, mut to_client) = tokio::io::split(pair.client);
    let application = async {
        for _ in 0..3 {
            from_app.read_exact(&mut vec![0; GET.len()]).await.unwrap();
            to_app.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    let mut heard = vec![0; answers.len()];
    let requests = GET.repeat(3);
    let mut asking = Pin::from(Box::new(async {
        to_client.write_all(requests.as_bytes()).await.unwrap();
    }));
    let (_, (), read) = tokio::join!(application, asking.as_mut(), from_client.read_exact(&mut heard));
    read.unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), answers);
}

#[tokio::test]
async fn an_answer_of_which_only_the_end_tells_that_it_is_whole_ends_in_a_reset_if_it_is_not() {
    for breaks in [false, true] {
        let (client, near) = tcp().await;
        let mut pair = between(client, near, 64 << 10);
        let request = "GET / HTTP/1.0\r\n\r\n";
        pair.client.write_all(request.as_bytes()).await.unwrap();
        hears(&mut pair.app, request).await;
        say(&mut pair.app, &[CHUNKED, "2\r\nhi\r\n"].concat()).await;
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\nhi") {
            heard.push(pair.client.read_u8().await.unwrap());
        }
        match breaks {
            false => say(&mut pair.app, "0\r\n\r\n").await,
            true => drop(pair.app),
        }
        let ended = pair.client.read_u8().await.unwrap_err().kind();
        let expected = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
        assert_eq!(ended, expected[usize::from(breaks)]);
    }
}

const UNTIL_ANSWERED: &str = "connection: close\r\n";

/// An upload that goes on behind an answer, after which its connection closes or not.
#[tokio::test]
async fn what_is_still_sent_behind_an_answer_goes_where_it_belongs() {
    for close in ["", UNTIL_ANSWERED] {
        let mut pair = pair(64 << 10).await;
        let begun = format!("POST / HTTP/1.1\r\nhost: a\r\n{close}content-length: 10\r\n\r\nhello");
        say(&mut pair.client, &begun).await;
        hears(&mut pair.app, &begun).await;
        say(&mut pair.app, OK).await;
        while pair.client.read_u8().await.unwrap() != b'k' {}
        hears_nothing(&mut pair.app).await;
        say(&mut pair.client, "world").await;
        hears(&mut pair.app, "world").await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_behind_the_last_answer_has_no_hole() {
    let (client, near) = duplex(256 << 10);
    let mut pair = between(client, Io::pipe(near), 64);
    let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunks = |byte: &str, count| format!("400\r\n{}\r\n", byte.repeat(1 << 10)).repeat(count);
    say(&mut pair.client, &[head, &chunks("a", 20)].concat()).await;
    hears(&mut pair.app, head).await;
    say(&mut pair.app, OK).await;
    while pair.client.read_u8().await.unwrap() != b'k' {}
    say(&mut pair.client, &chunks("b", 1)).await;
    // Longer than a connection is read that is closed in the middle of a request.
    tokio::time::sleep(Duration::from_secs(2)).await;
    say(&mut pair.client, &[&chunks("c", 1), "0\r\n\r\n"].concat()).await;
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n0\r\n\r\n") {
        got.push(pair.app.read_u8().await.unwrap());
    }
    let count = |byte| got.iter().filter(|other| **other == byte).count();
    assert_eq!([b'a', b'b', b'c'].map(count), [20 << 10, 1 << 10, 1 << 10]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_gone_is_missed_whatever_it_has_said_before() {
    for said in [
        GET,
        "POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi\r\n",
        "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nhost",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nh",
    ] {
        let (mut client, near) = duplex(64 << 10);
        let (_drainer, drain) = drain::channel();
        let silent = |request: Request<Body>, _interims| async {
            drop(request);
            Ok(Response::new(Tracked::new(Body::Frames(Frames::stuck()), Untold)))
        };
        let near = Io::pipe(near);
        let server = tokio::spawn(server::serve(near, silent, LIMITS, Closing::default(), drain));
        say(&mut client, said).await;
        hears(&mut client, CHUNKED).await;
        drop(client);
        assert!(server.await.unwrap().is_err(), "{said}");
    }
}

#[tokio::test]
async fn what_came_of_an_answer_before_it_broke_off_arrives() {
    let mut pair = pair(64 << 10).await;
    say(&mut pair.client, GET).await;
    hears(&mut pair.app, GET).await;
    let begun = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n{}",
        "x".repeat(12_000)
    );
    say(&mut pair.app, &begun).await;
    drop(pair.app);
    let mut heard = String::new();
    pair.client.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, begun);
}

/// A client and a server over TCP.
async fn tcp() -> (TcpStream, Io) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let near = Io::plain(Socket::new(listener.accept().await.unwrap().0));
    (client, near)
}

#[tokio::test]
async fn an_answer_to_a_large_upload_that_nobody_wanted_is_not_lost() {
    let (mut client, near) = tcp().await;
    let (_drainer, drain) = drain::channel();
    let gate = Arc::<Notify>::default();
    let opened = gate.clone();
    let late = move |request: Request<Body>, _interims| {
        drop(request);
        let gate = gate.clone();
        async move {
            gate.notified().await;
            Ok(Response::new(Tracked::new(Body::Full("no".into()), Untold)))
        }
    };
    tokio::spawn(server::serve(near, late, LIMITS, Closing::default(), drain));
    let head = "POST / HTTP/1.1\r\ncontent-length: 10000000\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    // More than is passed by before the answer.
    client.write_all(&vec![b'x'; 3 << 19]).await.unwrap();
    opened.notify_one();
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.unwrap();
    assert!(heard.ends_with("\r\n\r\nno"), "{heard}");
}
