//! Bodies on HTTP/2 streams.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyExt, StreamBody};
use outrigger_http2::{Reason, Recv, Send, client, server};
use tokio::io::duplex;
use tokio::time::timeout;

use crate::http::body::{Body, Error};
use crate::http::h2::backlog::testing::claim;
use crate::http::h2::backlog::{Backlog, Handles, Share};
use crate::http::h2::{reason, recv, send};

/// Both ends of a stream whose request has begun: what the client sends on and hears, and the server's side.
struct Stream {
    request: Send,
    response: Recv,
    body: Option<Recv>,
    respond: Send,
}

/// Opens a connection and a stream on it; both sides are driven until the test ends.
async fn stream() -> Stream {
    let (near, far) = duplex(1 << 20);
    let serving = tokio::spawn(async move {
        let mut server = server::handshake(far, &server::Config::default()).await.unwrap();
        let accepted = server.accept().await.unwrap().unwrap();
        tokio::spawn(async move { while let Some(Ok(_)) = server.accept().await {} });
        accepted
    });
    let (mut opener, connection) = client::handshake(near, &client::Config::default()).await.unwrap();
    tokio::spawn(connection);
    let (response, request) = opener
        .open(&Request::get("http://app/").body(()).unwrap(), false)
        .unwrap();
    let accepted = serving.await.unwrap();
    Stream {
        request: request.unwrap(),
        response,
        body: accepted.recv,
        respond: accepted.send,
    }
}

/// Sends a piece of content; `last`: nothing comes behind it.
async fn put(stream: &mut Send, text: &'static str, last: bool) {
    let mut piece = Bytes::from_static(text.as_bytes());
    poll_fn(|cx| stream.poll_send(cx, &mut piece, last))
        .await
        .unwrap();
}

fn received(body: Option<Recv>) -> Body {
    recv::body(body, &HeaderMap::new(), claim)
}

/// A body of so many frames of 16 KiB each, which counts how many have been taken from it.
fn counted(
    frames: usize,
) -> (
    impl HttpBody<Data = Bytes, Error = Error> + Unpin,
    Arc<AtomicUsize>,
) {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    let frames = stream::iter((0..frames).map(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Frame::data(Bytes::from(vec![b'x'; 16_384])))
    }));
    (StreamBody::new(frames), taken)
}

fn endless() -> impl HttpBody<Data = Bytes, Error = Error> + Unpin {
    StreamBody::new(stream::pending())
}

#[tokio::test]
async fn a_body_larger_than_every_window_arrives_whole_with_its_trailers() {
    let Stream {
        request,
        body,
        response: _response,
        respond: _respond,
    } = stream().await;
    let (data, _) = counted(100);
    let trailers = HeaderMap::from_iter([
        ("grpc-status".parse().unwrap(), HeaderValue::from_static("0")),
        ("connection".parse().unwrap(), HeaderValue::from_static("close")),
    ]);
    let sent = data.with_trailers(std::future::ready(Some(Ok(trailers))));
    let sending = tokio::spawn(send::send(request, sent, Reason::CANCEL));
    let whole = received(body).collect().await.unwrap();
    let trailers = whole.trailers().unwrap();
    assert_eq!(
        (trailers.len(), &trailers["grpc-status"]),
        (1, &HeaderValue::from_static("0"))
    );
    assert_eq!(whole.to_bytes().len(), 100 * 16_384);
    sending.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_last_data_ends_the_stream() {
    let Stream {
        request,
        body,
        response: _response,
        respond: _respond,
    } = stream().await;
    let full = Body::Full(Bytes::from_static(b"all of it"));
    send::send(request, full, Reason::CANCEL).await.unwrap();
    let mut body = received(body);
    let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!((&data[..], body.is_end_stream()), (&b"all of it"[..], true));
}

#[tokio::test]
async fn an_end_that_comes_in_a_frame_of_its_own_is_one_when_that_was_read() {
    let mut stream = stream().await;
    let fields = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("2"))]);
    let mut body = recv::body(stream.body, &fields, claim);
    for (sent, ends) in [("ok", false), ("", true)] {
        put(&mut stream.request, sent, ends).await;
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((&data[..], body.is_end_stream()), (sent.as_bytes(), ends));
    }
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_reader_that_stops_reading_stops_the_body() {
    let Stream {
        request,
        body,
        response: _response,
        respond: _respond,
    } = stream().await;
    let (data, taken) = counted(100);
    let sending = tokio::spawn(send::send(request, data, Reason::CANCEL));
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    // Four frames of 16 KiB are more than the window, by one byte.
    assert_eq!(taken.load(Ordering::Relaxed), 4);
    assert!(!sending.is_finished());
    drop(body);
}

#[tokio::test]
async fn a_reset_is_noticed_while_the_body_has_nothing_to_send() {
    let Stream {
        request,
        mut respond,
        response: _response,
        body: _body,
    } = stream().await;
    let sending = tokio::spawn(send::send(request, endless(), Reason::CANCEL));
    respond.reset(Reason::REFUSED_STREAM);
    let error = sending.await.unwrap().unwrap_err();
    assert_eq!(reason::of(&error), Some(Reason::REFUSED_STREAM));
}

#[tokio::test]
async fn a_reset_is_noticed_while_the_window_is_shut() {
    let Stream {
        request,
        mut respond,
        body,
        response: _response,
    } = stream().await;
    let (data, taken) = counted(100);
    let sending = tokio::spawn(send::send(request, data, Reason::CANCEL));
    while taken.load(Ordering::Relaxed) < 4 {
        tokio::task::yield_now().await;
    }
    respond.reset(Reason::ENHANCE_YOUR_CALM);
    let error = sending.await.unwrap().unwrap_err();
    assert_eq!(reason::of(&error), Some(Reason::ENHANCE_YOUR_CALM));
    drop(body);
}

#[tokio::test]
async fn a_body_that_fails_resets_the_stream() {
    for (failure, expected) in [
        (Error::Proxy("the client left"), Reason::CANCEL),
        (
            outrigger_http2::Error::from(Reason::INTERNAL_ERROR).into(),
            Reason::INTERNAL_ERROR,
        ),
        (
            outrigger_http2::Error::from(Reason::NO_ERROR).into(),
            Reason::CANCEL,
        ),
    ] {
        let Stream {
            request,
            body,
            response: _response,
            respond: _respond,
        } = stream().await;
        let failing = StreamBody::new(stream::iter([Err(failure)]));
        assert!(send::send(request, failing, Reason::CANCEL).await.is_err());
        let error = received(body).collect().await.unwrap_err();
        assert_eq!(reason::of(&error), Some(expected));
    }
}

#[tokio::test]
async fn a_server_that_has_answered_and_wants_no_more_has_answered_completely() {
    let Stream {
        request,
        mut response,
        body,
        mut respond,
    } = stream().await;
    respond.send_head(&Response::new(()), false).unwrap();
    put(&mut respond, "enough", true).await;
    drop((respond, body)); // which resets the stream with NO_ERROR
    let error = send::send(request, endless(), Reason::CANCEL).await.unwrap_err();
    assert_eq!(reason::of(&error), Some(Reason::NO_ERROR));
    poll_fn(|cx| response.poll_head(cx)).await.unwrap();
    let whole = received(Some(response)).collect().await.unwrap();
    assert_eq!(whole.to_bytes(), "enough");
}

#[tokio::test]
async fn a_reset_in_the_middle_is_an_error_whatever_it_says() {
    let Stream {
        request,
        mut response,
        body,
        mut respond,
    } = stream().await;
    respond.send_head(&Response::new(()), false).unwrap();
    put(&mut respond, "not all of", false).await;
    poll_fn(|cx| response.poll_head(cx)).await.unwrap();
    respond.reset(Reason::NO_ERROR);
    assert!(received(Some(response)).collect().await.is_err());
    drop((request, body));
}

#[tokio::test]
async fn a_reader_gets_everything_though_memory_is_short() {
    let Stream {
        request,
        body,
        response: _response,
        respond: _respond,
    } = stream().await;
    let backlog = Backlog::new(2, Handles::default());
    let others = Share::of_server(&backlog, 0);
    let _unread = others.open(1);
    others.arrived(1, 10, 10);
    // All but 4 KiB of the window is kept back, and the peer is never told of a quarter of it at once.
    let share = Share::of_client(&backlog, 65_535 - 4_096);
    let (data, _) = counted(20);
    let sending = tokio::spawn(send::send(request, data, Reason::CANCEL));
    let body = recv::body(body, &HeaderMap::new(), |stream| share.accept(stream));
    let whole = timeout(Duration::from_secs(10), body.collect()).await;
    assert_eq!(whole.unwrap().unwrap().to_bytes().len(), 20 * 16_384);
    sending.await.unwrap().unwrap();
}
