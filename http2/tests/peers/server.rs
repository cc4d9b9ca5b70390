//! Our server against h2's client.

use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use outrigger_http2::server::{Accepted, Config};
use outrigger_http2::{Error, Protocol, Reason};
use tokio::task::JoinHandle;

use crate::support::*;

/// h2's client, with our server behind it.
async fn h2_client<F>(
    builder: Builder,
    config: Config,
    handle: fn(Accepted) -> F,
) -> (SendRequest<Bytes>, JoinHandle<Result<(), Error>>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (here, there) = tokio::io::duplex(16 << 10);
    let server = serve(there, config, handle);
    let (opener, connection) = within(builder.handshake(here)).await.unwrap();
    tokio::spawn(connection);
    (within(opener.ready()).await.unwrap(), server)
}

async fn h2_read(content: &mut h2::RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(piece) = within(content.data()).await {
        let piece = piece?;
        content.flow_control().release_capacity(piece.len()).unwrap();
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

fn small(window: u32) -> (Builder, Config) {
    let mut builder = Builder::new();
    builder.initial_window_size(window);
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
        let (mut opener, _server) = h2_client(builder, config, echo).await;
        let (answer, mut out) = opener.send_request(post(), false).unwrap();
        out.send_data(content(length).into(), true).unwrap();
        let mut content_back = within(answer).await.unwrap().into_body();
        assert_eq!(h2_read(&mut content_back).await.unwrap(), content(length));
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_cross_behind_content_and_without_any() {
    let (mut opener, _server) = h2_client(Builder::new(), Config::default(), echo).await;
    let mut fields = HeaderMap::new();
    fields.insert("x-check", HeaderValue::from_static("sum"));
    for length in [0, 40_000] {
        let (answer, mut out) = opener.send_request(post(), false).unwrap();
        out.send_data(content(length).into(), false).unwrap();
        out.send_trailers(fields.clone()).unwrap();
        let mut back = within(answer).await.unwrap().into_body();
        assert_eq!(h2_read(&mut back).await.unwrap(), content(length));
        assert_eq!(within(back.trailers()).await.unwrap().unwrap(), fields);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_content_has_nothing_to_read() {
    let (mut opener, _server) = h2_client(Builder::new(), Config::default(), |mut accepted| async move {
        assert!(accepted.recv.is_none());
        assert_eq!(accepted.request.uri(), "http://app.test/x?y");
        accepted.send.send_head(&ok(), true).unwrap();
    })
    .await;
    let (answer, _) = opener.send_request(get("/x?y"), true).unwrap();
    assert!(within(answer).await.unwrap().body().is_end_stream());
}

#[tokio::test(start_paused = true)]
async fn interim_heads_go_before_the_answer() {
    let (mut opener, _server) = h2_client(Builder::new(), Config::default(), |mut accepted| async move {
        for status in [100, 103] {
            let interim = Response::builder().status(status).body(()).unwrap();
            accepted.send.send_head(&interim, false).unwrap();
        }
        accepted.send.send_head(&ok(), true).unwrap();
    })
    .await;
    let (mut answer, _) = opener.send_request(get("/"), true).unwrap();
    for status in [100, 103] {
        let interim = within(std::future::poll_fn(|cx| answer.poll_informational(cx))).await;
        assert_eq!(interim.unwrap().unwrap().status(), status);
    }
    assert_eq!(within(answer).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn connect_and_extended_connect_are_told_apart() {
    let (mut opener, _server) = h2_client(Builder::new(), Config::default(), |mut accepted| async move {
        assert_eq!(accepted.request.method(), Method::CONNECT);
        let protocol = accepted.request.extensions().get::<Protocol>();
        let expected = if protocol.is_some() {
            "http://app.test/chat"
        } else {
            "app.test:443"
        };
        assert_eq!(accepted.request.uri(), expected);
        assert_eq!(protocol.map(Protocol::as_str).unwrap_or("websocket"), "websocket");
        accepted.send.send_head(&ok(), true).unwrap();
    })
    .await;
    let plain = Request::connect("app.test:443").body(()).unwrap();
    let (answer, _out) = opener.send_request(plain, false).unwrap();
    assert_eq!(within(answer).await.unwrap().status(), 200);
    assert!(opener.is_extended_connect_protocol_enabled());
    let mut extended = Request::connect("http://app.test/chat").body(()).unwrap();
    extended
        .extensions_mut()
        .insert(h2::ext::Protocol::from_static("websocket"));
    let (answer, _out) = opener.send_request(extended, false).unwrap();
    assert_eq!(within(answer).await.unwrap().status(), 200);
}

#[tokio::test(start_paused = true)]
async fn header_blocks_longer_than_a_frame_cross_both_ways() {
    let mut builder = Builder::new();
    builder.max_header_list_size(1 << 20);
    let config = Config {
        max_header_list_size: 100 << 10,
        ..Config::default()
    };
    let (mut opener, _server) = h2_client(builder, config, |mut accepted| async move {
        let mut answer = ok();
        *answer.headers_mut() = accepted.request.headers().clone();
        accepted.send.send_head(&answer, true).unwrap();
    })
    .await;
    let mut large = get("/");
    for n in 0..60 {
        let name = http::HeaderName::try_from(format!("x-request-{n}")).unwrap();
        large
            .headers_mut()
            .insert(name, HeaderValue::from_str(&"v".repeat(1_000)).unwrap());
    }
    for _ in 0..2 {
        let (answer, _) = opener.send_request(large.clone(), true).unwrap();
        assert_eq!(within(answer).await.unwrap().headers(), large.headers());
    }
}

#[tokio::test(start_paused = true)]
async fn fields_that_are_too_large_are_answered_431_and_the_next_request_is_served() {
    let (mut opener, _server) = h2_client(Builder::new(), Config::default(), echo).await;
    for ended in [true, false] {
        let mut large = get("/");
        large
            .headers_mut()
            .insert("x", HeaderValue::from_str(&"v".repeat(17_000)).unwrap());
        let (answer, out) = opener.send_request(large, ended).unwrap();
        assert_eq!(within(answer).await.unwrap().status(), 431, "{ended}");
        drop(out);
        let (answer, _) = opener.send_request(get("/"), true).unwrap();
        assert_eq!(within(answer).await.unwrap().status(), 200, "{ended}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_complete_answer_is_readable_though_the_rest_of_the_request_is_unwanted() {
    let (mut opener, _server) = h2_client(Builder::new(), Config::default(), |mut accepted| async move {
        accepted.send.send_head(&ok(), false).unwrap();
        send(&mut accepted.send, content(30_000), true).await.unwrap();
    })
    .await;
    let (answer, mut out) = opener.send_request(post(), false).unwrap();
    let mut back = within(answer).await.unwrap().into_body();
    assert_eq!(h2_read(&mut back).await.unwrap(), content(30_000));
    let reason = within(std::future::poll_fn(|cx| out.poll_reset(cx)))
        .await
        .unwrap();
    assert_eq!(reason, h2::Reason::NO_ERROR);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_answers_is_cancelled() {
    let (mut opener, _server) = h2_client(Builder::new(), Config::default(), |accepted| async move {
        drop(accepted);
    })
    .await;
    for ended in [true, false] {
        let (answer, _out) = opener.send_request(get("/"), ended).unwrap();
        let error = within(answer).await.unwrap_err();
        assert_eq!(
            (error.reason(), error.is_remote()),
            (Some(h2::Reason::CANCEL), true)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_by_the_client_is_told_to_reader_and_sender() {
    let (mut opener, server) = h2_client(Builder::new(), Config::default(), |accepted| async move {
        let Accepted {
            recv, send: mut out, ..
        } = accepted;
        let mut recv = recv.unwrap();
        assert_eq!(data(&mut recv).await.unwrap().unwrap().0, "some");
        let error = until_reset(&mut out).await;
        assert_eq!((error.reason(), error.is_remote()), (Some(Reason::CANCEL), true));
        assert_eq!(
            data(&mut recv).await.unwrap().unwrap_err().reason(),
            Some(Reason::CANCEL)
        );
        assert!(out.send_head(&ok(), true).is_err());
    })
    .await;
    let (answer, mut out) = opener.send_request(post(), false).unwrap();
    out.send_data(Bytes::from_static(b"some"), false).unwrap();
    all_wait().await;
    out.send_reset(h2::Reason::CANCEL);
    drop((answer, out));
    let (answer, _) = opener.send_request(get("/"), true).unwrap();
    // The one handler serves this one badly: it has no content.
    assert!(within(answer).await.is_err());
    drop(opener);
    within(server).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn changed_windows_hold_for_streams_under_way() {
    let (here, there) = tokio::io::duplex(16 << 10);
    let _server = serve(there, Config::default(), echo);
    let (mut opener, mut connection) = within(h2::client::handshake(here)).await.unwrap();
    let (change, mut changes) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                ended = &mut connection => return ended,
                Some(window) = changes.recv() => connection.set_initial_window_size(window).unwrap(),
            }
        }
    });
    let (answer, mut out) = opener.send_request(post(), false).unwrap();
    out.send_data(content(1 << 20).into(), true).unwrap();
    let mut back = within(answer).await.unwrap().into_body();
    let mut all = Vec::new();
    for window in [1 << 20, 0, 100_000, 10, 65_535].into_iter().cycle() {
        change.send(window).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let piece = tokio::time::timeout(Duration::from_millis(10), back.data()).await;
        // With a window of 0, nothing comes at all.
        let Ok(piece) = piece else { continue };
        let Some(piece) = piece else { break };
        let piece = piece.unwrap();
        back.flow_control().release_capacity(piece.len()).unwrap();
        all.extend_from_slice(&piece);
    }
    assert_eq!(all, content(1 << 20));
}

#[tokio::test(start_paused = true)]
async fn any_size_of_the_header_table_works() {
    for size in [0, 50, 4_096, 100_000] {
        let mut builder = Builder::new();
        builder.header_table_size(size);
        let (mut opener, _server) = h2_client(builder, Config::default(), |mut accepted| async move {
            let mut answer = ok();
            *answer.headers_mut() = accepted.request.headers().clone();
            accepted.send.send_head(&answer, true).unwrap();
        })
        .await;
        for n in 0..50 {
            let mut request = get("/");
            let value = HeaderValue::try_from(format!("value {}", n % 7)).unwrap();
            request.headers_mut().insert("x-some-name", value);
            let (answer, _) = opener.send_request(request.clone(), true).unwrap();
            assert_eq!(within(answer).await.unwrap().headers(), request.headers());
        }
    }
}
