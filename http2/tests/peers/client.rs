//! Our client against h2's server.

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use outrigger_http2::Protocol;
use outrigger_http2::client::{Config, Opener, Unopened};
use tokio::io::DuplexStream;

use crate::support::*;

type Reply = SendResponse<Bytes>;

/// h2's server, which hands every request to `handle`.
fn h2_server<F>(builder: Builder, handle: fn(Request<h2::RecvStream>, Reply) -> F) -> DuplexStream
where
    F: Future<Output = ()> + Send + 'static,
{
    let (here, there) = tokio::io::duplex(16 << 10);
    tokio::spawn(async move {
        let mut connection = builder.handshake::<_, Bytes>(there).await.unwrap();
        while let Some(Ok((request, reply))) = connection.accept().await {
            tokio::spawn(handle(request, reply));
        }
    });
    here
}

async fn open(builder: Builder, config: Config) -> Opener {
    connect(h2_server(builder, h2_echo), &config).await.0
}

/// Sends a request's content and trailers back.
async fn h2_echo(request: Request<h2::RecvStream>, mut reply: Reply) {
    let (head, mut content) = request.into_parts();
    let mut answer = Response::new(());
    if let Some(size) = head.headers.get("x-answer-size") {
        let size: usize = size.to_str().unwrap().parse().unwrap();
        for n in 0..size / 1_000 {
            let value = HeaderValue::from_str(&"v".repeat(960)).unwrap();
            answer
                .headers_mut()
                .insert(http::HeaderName::try_from(format!("x-{n}")).unwrap(), value);
        }
    }
    let mut out = reply.send_response(answer, false).unwrap();
    while let Some(piece) = content.data().await {
        let piece = piece.unwrap();
        content.flow_control().release_capacity(piece.len()).unwrap();
        out.send_data(piece, false).unwrap();
    }
    match content.trailers().await.unwrap() {
        Some(trailers) => out.send_trailers(trailers).unwrap(),
        None => out.send_data(Bytes::new(), true).unwrap(),
    }
}

fn small(window: u32) -> (Builder, Config) {
    let mut builder = Builder::new();
    builder.initial_window_size(window).max_frame_size(16_384);
    let config = Config {
        stream_window: window,
        connection_window: 65_535,
        ..Config::default()
    };
    (builder, config)
}

#[tokio::test(start_paused = true)]
async fn a_megabyte_crosses_both_ways_through_any_window() {
    for (window, length) in [(65_535, 1 << 20), (1_000, 1 << 20), (7, 3_000), (1, 500)] {
        let (builder, config) = small(window);
        let mut opener = open(builder, config).await;
        let (mut recv, out) = opener.open(&post(), false).unwrap();
        let sender = tokio::spawn(async move {
            let mut out = out.unwrap();
            send(&mut out, content(length), true).await.unwrap();
        });
        assert_eq!(head(&mut recv).await.unwrap().status(), 200);
        assert_eq!(read(&mut recv).await.unwrap(), content(length));
        within(sender).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_cross_behind_content_and_without_any() {
    let mut opener = open(Builder::new(), Config::default()).await;
    let mut fields = HeaderMap::new();
    fields.insert("x-check", HeaderValue::from_static("sum"));
    for length in [0, 40_000] {
        let (mut recv, out) = opener.open(&post(), false).unwrap();
        let mut out = out.unwrap();
        send(&mut out, content(length), false).await.unwrap();
        out.send_trailers(&fields).unwrap();
        head(&mut recv).await.unwrap();
        assert_eq!(read(&mut recv).await.unwrap(), content(length));
        assert_eq!(trailers(&mut recv).await.unwrap().unwrap(), fields);
        assert!(trailers(&mut recv).await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_and_an_answer_without_content_are_two_heads() {
    let io = h2_server(Builder::new(), |request, mut reply| async move {
        assert!(request.body().is_end_stream());
        assert_eq!(request.uri(), "http://app.test/x?y");
        reply.send_response(Response::new(()), true).unwrap();
    });
    let mut opener = connect(io, &Config::default()).await.0;
    let (mut recv, out) = opener.open(&get("/x?y"), true).unwrap();
    assert!(out.is_none());
    head(&mut recv).await.unwrap();
    assert!(recv.is_over());
    assert!(data(&mut recv).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn interim_heads_come_before_the_answer() {
    let io = h2_server(Builder::new(), |_, mut reply| async move {
        for status in [100, 103] {
            let interim = Response::builder().status(status).body(()).unwrap();
            reply.send_informational(interim).unwrap();
        }
        reply.send_response(Response::new(()), true).unwrap();
    });
    let mut opener = connect(io, &Config::default()).await.0;
    let (mut recv, _) = opener.open(&get("/"), true).unwrap();
    for status in [100, 103, 200] {
        assert_eq!(head(&mut recv).await.unwrap().status(), status);
    }
    assert!(recv.is_over());
}

#[tokio::test(start_paused = true)]
async fn header_blocks_longer_than_a_frame_cross_both_ways() {
    let mut builder = Builder::new();
    builder.max_header_list_size(1 << 20);
    let config = Config {
        max_header_list_size: 100 << 10,
        ..Config::default()
    };
    let mut opener = open(builder, config).await;
    let mut large = post();
    large
        .headers_mut()
        .insert("x-answer-size", HeaderValue::from_static("60000"));
    for n in 0..60 {
        let name = http::HeaderName::try_from(format!("x-request-{n}")).unwrap();
        large
            .headers_mut()
            .insert(name, HeaderValue::from_str(&"v".repeat(1_000)).unwrap());
    }
    for _ in 0..2 {
        let (mut recv, out) = opener.open(&large, false).unwrap();
        send(&mut out.unwrap(), &b"x"[..], true).await.unwrap();
        let answer = head(&mut recv).await.unwrap();
        assert_eq!(answer.headers().len(), 60);
        assert_eq!(answer.headers()["x-59"].len(), 960);
        assert_eq!(read(&mut recv).await.unwrap(), b"x");
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_head_is_refused_and_the_next_one_taken() {
    let mut opener = open(Builder::new(), Config::default()).await;
    let mut large = post();
    large
        .headers_mut()
        .insert("x-answer-size", HeaderValue::from_static("20000"));
    let (mut recv, _out) = opener.open(&large, false).unwrap();
    assert!(head(&mut recv).await.unwrap_err().is_reset());
    let (mut recv, out) = opener.open(&post(), false).unwrap();
    send(&mut out.unwrap(), &b""[..], true).await.unwrap();
    assert_eq!(head(&mut recv).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_head_has_a_length_and_no_content() {
    let io = h2_server(Builder::new(), |_, mut reply| async move {
        let answer = Response::builder()
            .header("content-length", "1000")
            .body(())
            .unwrap();
        reply.send_response(answer, true).unwrap();
    });
    let mut opener = connect(io, &Config::default()).await.0;
    let request = Request::head("http://app.test/").body(()).unwrap();
    let (mut recv, _) = opener.open(&request, true).unwrap();
    assert_eq!(head(&mut recv).await.unwrap().headers()["content-length"], "1000");
    assert!(data(&mut recv).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn connect_opens_a_tunnel() {
    let io = h2_server(Builder::new(), |request, reply| async move {
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.uri(), "app.test:443");
        h2_echo(request, reply).await;
    });
    let mut opener = connect(io, &Config::default()).await.0;
    let request = Request::connect("app.test:443").body(()).unwrap();
    let (mut recv, out) = opener.open(&request, false).unwrap();
    head(&mut recv).await.unwrap();
    let mut out = out.unwrap();
    for _ in 0..3 {
        send(&mut out, &b"ping"[..], false).await.unwrap();
        assert_eq!(data(&mut recv).await.unwrap().unwrap().0, "ping");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_for_a_protocol_is_opened_if_the_server_takes_one() {
    let mut request = Request::connect("http://app.test/chat").body(()).unwrap();
    request
        .extensions_mut()
        .insert(Protocol::from_static("websocket"));
    let mut opener = open(Builder::new(), Config::default()).await;
    assert!(matches!(opener.open(&request, false), Err(Unopened::NoTunnel)));
    let mut builder = Builder::new();
    builder.enable_connect_protocol();
    let io = h2_server(builder, |request, mut reply| async move {
        assert_eq!(
            request.extensions().get::<h2::ext::Protocol>().unwrap().as_str(),
            "websocket"
        );
        reply.send_response(Response::new(()), true).unwrap();
    });
    let mut opener = connect(io, &Config::default()).await.0;
    let (mut recv, _out) = opener.open(&request, false).unwrap();
    assert_eq!(head(&mut recv).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_makes_no_sense_is_not_sent() {
    let mut opener = open(Builder::new(), Config::default()).await;
    for request in [Request::get("/no-scheme"), Request::connect("/no-authority")] {
        let request = request.body(()).unwrap();
        assert!(matches!(opener.open(&request, true), Err(Unopened::Malformed(_))));
    }
    let (mut recv, _) = opener.open(&get("/"), true).unwrap();
    assert_eq!(recv.id(), 1);
    head(&mut recv).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_more_streams_are_opened_than_the_server_allows() {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(2);
    let mut opener = open(builder, Config::default()).await;
    let (mut first, out) = opener.open(&post(), false).unwrap();
    let _second = opener.open(&post(), false).unwrap();
    assert!(matches!(opener.open(&post(), false), Err(Unopened::Full)));
    send(&mut out.unwrap(), &b""[..], true).await.unwrap();
    head(&mut first).await.unwrap();
    read(&mut first).await.unwrap();
    opener.open(&post(), false).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reset_before_the_head_and_amid_content_is_told_to_reader_and_sender() {
    let io = h2_server(Builder::new(), |request, mut reply| async move {
        if request.uri().path() == "/amid" {
            let mut out = reply.send_response(Response::new(()), false).unwrap();
            out.send_data(Bytes::from_static(b"some"), false).unwrap();
            all_wait().await;
            out.send_reset(h2::Reason::INADEQUATE_SECURITY);
        } else {
            reply.send_reset(h2::Reason::REFUSED_STREAM);
        }
    });
    let mut opener = connect(io, &Config::default()).await.0;
    let (mut recv, out) = opener.open(&get("/before"), false).unwrap();
    let error = head(&mut recv).await.unwrap_err();
    assert_eq!(error.reason(), Some(outrigger_http2::Reason::REFUSED_STREAM));
    assert!(error.is_reset() && error.is_remote());
    assert!(until_reset(&mut out.unwrap()).await.is_remote());
    let (mut recv, out) = opener.open(&get("/amid"), false).unwrap();
    head(&mut recv).await.unwrap();
    assert_eq!(
        data(&mut recv).await.unwrap().unwrap(),
        (Bytes::from_static(b"some"), false)
    );
    let error = data(&mut recv).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(outrigger_http2::Reason::INADEQUATE_SECURITY));
    assert!(
        send(&mut out.unwrap(), &b"x"[..], false)
            .await
            .unwrap_err()
            .is_remote()
    );
}
