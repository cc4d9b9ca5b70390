//! Bodies on HTTP/2 streams, against the h2 crate at the other end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::h2::{Reason, RecvStream, SendStream, client, server};
use bytes::Bytes;
use futures_util::stream;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyExt, StreamBody};
use tokio::io::duplex;

use crate::http::body::{Body, Error};
use crate::http::h2::backlog::testing::claim;
use crate::http::h2::{reason, recv, send};

/// Both ends of a stream whose request has begun: what the client sends on and hears, and the server's side.
struct Stream {
    request: SendStream<Bytes>,
    response: client::ResponseFuture,
    body: RecvStream,
    respond: server::SendResponse<Bytes>,
}

/// Opens a connection and a stream on it; both sides are driven until the test ends.
async fn stream() -> Stream {
    let (near, far) = duplex(1 << 20);
    let serving = tokio::spawn(async move {
        let mut server = server::handshake(far).await.unwrap();
        let stream = server.accept().await.unwrap().unwrap();
        tokio::spawn(async move { while let Some(Ok(_)) = server.accept().await {} });
        stream
    });
    let (mut sender, connection) = client::handshake(near).await.unwrap();
    tokio::spawn(connection);
    let (response, request) = sender.send_request(Request::new(()), false).unwrap();
    let (head, respond) = serving.await.unwrap();
    Stream {
        request,
        response,
        body: head.into_body(),
        respond,
    }
}

fn received(body: RecvStream) -> Body {
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
        mut body,
        response: _response,
        respond: _respond,
    } = stream().await;
    let full = Body::Full(Bytes::from_static(b"all of it"));
    send::send(request, full, Reason::CANCEL).await.unwrap();
    assert_eq!(body.data().await.unwrap().unwrap(), "all of it");
    assert!(body.is_end_stream());
}

#[tokio::test]
async fn an_end_that_comes_in_a_frame_of_its_own_is_one_when_that_was_read() {
    let mut stream = stream().await;
    let fields = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("2"))]);
    let mut body = recv::body(stream.body, &fields, claim);
    for (sent, ends) in [("ok", false), ("", true)] {
        stream.request.send_data(sent.into(), ends).unwrap();
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((&data[..], body.is_end_stream()), (sent.as_bytes(), ends));
    }
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_reader_that_stops_reading_stops_the_body() {
    let Stream {
        request,
        mut body,
        response: _response,
        respond: _respond,
    } = stream().await;
    let (data, taken) = counted(100);
    let sending = tokio::spawn(send::send(request, data, Reason::CANCEL));
    while body.flow_control().used_capacity() < 65_535 {
        tokio::task::yield_now().await;
    }
    // Four frames of 16 KiB fill the window, and one more waits for it.
    assert_eq!(taken.load(Ordering::Relaxed), 5);
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
    respond.send_reset(Reason::REFUSED_STREAM);
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
    while taken.load(Ordering::Relaxed) < 5 {
        tokio::task::yield_now().await;
    }
    respond.send_reset(Reason::ENHANCE_YOUR_CALM);
    let error = sending.await.unwrap().unwrap_err();
    assert_eq!(reason::of(&error), Some(Reason::ENHANCE_YOUR_CALM));
    drop(body);
}

#[tokio::test]
async fn a_body_that_fails_resets_the_stream() {
    for (failure, expected) in [
        (Error::Proxy("the client left"), Reason::CANCEL),
        (
            ::h2::Error::from(Reason::INTERNAL_ERROR).into(),
            Reason::INTERNAL_ERROR,
        ),
        (::h2::Error::from(Reason::NO_ERROR).into(), Reason::CANCEL),
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
        response,
        body,
        mut respond,
    } = stream().await;
    let mut answer = respond.send_response(Response::new(()), false).unwrap();
    answer.send_data(Bytes::from_static(b"enough"), true).unwrap();
    drop((answer, respond, body)); // h2 resets the stream with NO_ERROR
    let error = send::send(request, endless(), Reason::CANCEL).await.unwrap_err();
    assert_eq!(reason::of(&error), Some(Reason::NO_ERROR));
    let response = response.await.unwrap().into_body();
    assert_eq!(received(response).collect().await.unwrap().to_bytes(), "enough");
}

#[tokio::test]
async fn a_reset_in_the_middle_is_an_error_whatever_it_says() {
    let Stream {
        request,
        response,
        body,
        mut respond,
    } = stream().await;
    let mut answer = respond.send_response(Response::new(()), false).unwrap();
    answer
        .send_data(Bytes::from_static(b"not all of"), false)
        .unwrap();
    let response = response.await.unwrap().into_body();
    answer.send_reset(Reason::NO_ERROR);
    assert!(received(response).collect().await.is_err());
    drop((request, body));
}
