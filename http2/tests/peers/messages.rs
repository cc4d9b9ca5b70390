//! Messages that are not what they say (RFC 9113 §8.1.1, §8.2, §8.3).

use outrigger_http2::{Reason, client, server};

use crate::support::*;

/// What becomes of a request with this block and this content: the code of its reset.
async fn outcome(block: &[u8], pieces: &[&[u8]], ended: bool) -> (u32, u32) {
    let (mut raw, _server) = Raw::client(server::Config::default(), echo).await;
    let flags = if pieces.is_empty() && ended {
        WHOLE
    } else {
        END_HEADERS
    };
    raw.send(HEADERS, flags, 1, block).await;
    for (at, piece) in pieces.iter().enumerate() {
        let last = ended && at + 1 == pieces.len();
        raw.send(DATA, if last { END_STREAM } else { 0 }, 1, piece).await;
    }
    let reset = raw.reset().await;
    // The connection goes on.
    raw.send(HEADERS, WHOLE, 3, &request("GET", &[])).await;
    assert_eq!(raw.next_of(HEADERS).await.stream, 3);
    reset
}

#[tokio::test(start_paused = true)]
async fn content_of_another_length_than_was_said_resets_the_request() {
    let five = request("POST", &[("content-length", "5")]);
    assert_eq!(outcome(&five, &[b"123", b"456"], false).await, (1, 1));
    assert_eq!(outcome(&five, &[b"123", b"4"], true).await, (1, 1));
    assert_eq!(outcome(&five, &[], true).await, (1, 1));
    let twice = request("POST", &[("content-length", "5"), ("content-length", "6")]);
    assert_eq!(outcome(&twice, &[b"12345"], true).await, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn trailers_before_all_content_has_come_reset_the_request() {
    let (mut raw, _server) = Raw::client(server::Config::default(), echo).await;
    raw.send(
        HEADERS,
        END_HEADERS,
        1,
        &request("POST", &[("content-length", "5")]),
    )
    .await;
    raw.send(HEADERS, WHOLE, 1, &block(&[("x", "y")])).await;
    assert_eq!(raw.reset().await, (1, 1));
    raw.send(HEADERS, END_HEADERS, 3, &request("POST", &[])).await;
    raw.send(HEADERS, END_HEADERS, 3, &block(&[("x", "y")])).await;
    assert_eq!(raw.reset().await, (3, 1));
    raw.send(HEADERS, END_HEADERS, 5, &request("POST", &[])).await;
    raw.send(HEADERS, WHOLE, 5, &block(&[(":path", "/")])).await;
    assert_eq!(raw.reset().await, (5, 1));
}

#[tokio::test(start_paused = true)]
async fn requests_that_http2_does_not_allow_are_reset() {
    for (name, value) in [
        ("connection", "close"),
        ("keep-alive", "timeout=1"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("Upper", "case"),
        ("x y", "z"),
        ("x", "a\r\nb"),
        (":unknown", "x"),
        (":status", "200"),
        (":path", "/"),
        ("content-length", "-1"),
    ] {
        let reset = outcome(&request("GET", &[(name, value)]), &[], true).await;
        assert_eq!(reset, (1, 1), "{name}: {value}");
    }
    let late = block(&[
        (":method", "GET"),
        ("a", "b"),
        (":scheme", "http"),
        (":path", "/"),
    ]);
    assert_eq!(outcome(&late, &[], true).await, (1, 1));
}

#[tokio::test(start_paused = true)]
async fn te_may_ask_for_trailers() {
    let (mut raw, _server) = Raw::client(server::Config::default(), echo).await;
    raw.send(HEADERS, WHOLE, 1, &request("GET", &[("te", "trailers")]))
        .await;
    assert_eq!(raw.next_of(HEADERS).await.stream, 1);
}

#[tokio::test(start_paused = true)]
async fn padding_and_priority_are_no_part_of_a_message() {
    let (mut raw, _server) = Raw::client(server::Config::default(), echo).await;
    let padded = [
        &[3][..],
        &[0x80, 0, 0, 9, 7],
        &request("POST", &[("content-length", "2")]),
        &[0; 3],
    ];
    let flags = END_HEADERS | PADDED | PRIORITIZED;
    raw.send(HEADERS, flags, 1, &padded.concat()).await;
    raw.send(DATA, END_STREAM | PADDED, 1, b"\x04hi\0\0\0\0").await;
    assert_eq!(raw.next_of(DATA).await.payload, b"hi");
}

/// What our client makes of an answer: its content, or the reason.
async fn answered(
    method: &str,
    block: &[u8],
    pieces: &[&[u8]],
    ended: bool,
) -> Result<Vec<u8>, Option<Reason>> {
    let (mut raw, mut opener, _connection) = Raw::server(&[], &client::Config::default()).await;
    let request = http::Request::builder().method(method).uri("http://app.test/");
    let (mut recv, _) = opener.open(&request.body(()).unwrap(), true).unwrap();
    raw.next_of(HEADERS).await;
    let flags = if pieces.is_empty() && ended {
        WHOLE
    } else {
        END_HEADERS
    };
    raw.send(HEADERS, flags, 1, block).await;
    for (at, piece) in pieces.iter().enumerate() {
        let last = ended && at + 1 == pieces.len();
        raw.send(DATA, if last { END_STREAM } else { 0 }, 1, piece).await;
    }
    let whole = async {
        head(&mut recv).await?;
        read(&mut recv).await
    };
    whole.await.map_err(|error| error.reason())
}

#[tokio::test(start_paused = true)]
async fn answers_of_another_length_than_was_said_fail() {
    let wrong = Err(Some(Reason::PROTOCOL_ERROR));
    let five = response("200", &[("content-length", "5")]);
    assert_eq!(
        answered("GET", &five, &[b"123", b"45"], true).await,
        Ok(b"12345".to_vec())
    );
    assert_eq!(answered("GET", &five, &[b"123", b"456"], false).await, wrong);
    assert_eq!(answered("GET", &five, &[b"123", b"4"], true).await, wrong);
    assert_eq!(answered("GET", &five, &[], true).await, wrong);
}

#[tokio::test(start_paused = true)]
async fn answers_that_have_no_content_may_say_a_length_and_bring_none() {
    let five = |status| response(status, &[("content-length", "5")]);
    for (method, status) in [("HEAD", "200"), ("GET", "304"), ("GET", "204")] {
        assert_eq!(
            answered(method, &five(status), &[], true).await,
            Ok(vec![]),
            "{status}"
        );
        assert_eq!(
            answered(method, &five(status), &[b""], true).await,
            Ok(vec![]),
            "{status}"
        );
        let content = answered(method, &five(status), &[b"12345"], true).await;
        assert_eq!(content, Err(Some(Reason::PROTOCOL_ERROR)), "{method} {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_http2_does_not_allow_fail() {
    for block in [
        response("200", &[("transfer-encoding", "chunked")]),
        response("200", &[(":path", "/")]),
        response("101", &[]),
        response("100", &[]),
        response("20", &[]),
        block(&[("x", "y")]),
    ] {
        assert_eq!(
            answered("GET", &block, &[], true).await,
            Err(Some(Reason::PROTOCOL_ERROR))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn content_before_the_head_of_an_answer_fails() {
    let (mut raw, mut opener, _connection) = Raw::server(&[], &client::Config::default()).await;
    let (mut recv, _) = opener.open(&get("/"), true).unwrap();
    raw.next_of(HEADERS).await;
    raw.send(HEADERS, END_HEADERS, 1, &response("103", &[])).await;
    raw.send(DATA, 0, 1, b"early").await;
    assert_eq!(raw.reset().await, (1, 1));
    assert_eq!(head(&mut recv).await.unwrap().status(), 103);
    assert_eq!(
        head(&mut recv).await.unwrap_err().reason(),
        Some(Reason::PROTOCOL_ERROR)
    );
}

#[tokio::test(start_paused = true)]
async fn a_header_block_may_be_cut_anywhere() {
    let block = request("GET", &[("x-some-name", "some value")]);
    for cut in 0..=block.len() {
        let (mut raw, _server) = Raw::client(server::Config::default(), echo).await;
        raw.send(HEADERS, END_STREAM, 1, &block[..cut]).await;
        raw.send(CONTINUATION, END_HEADERS, 1, &block[cut..]).await;
        assert_eq!(raw.next_of(HEADERS).await.stream, 1, "{cut}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_header_block_that_ends_early_ends_the_connection() {
    let block = request("GET", &[("x", "y")]);
    // Where a field ends, what is missing is no matter of the compression: the message is complete, or malformed.
    for cut in 0..block.len() {
        let (mut raw, _server) = Raw::client(server::Config::default(), echo).await;
        raw.send(HEADERS, WHOLE, 1, &block[..cut]).await;
        let frame = loop {
            let frame = raw.next().await.unwrap();
            if [HEADERS, RST_STREAM, GOAWAY].contains(&frame.kind) {
                break frame;
            }
        };
        let whole_fields = [0, 13, 27, 48, 57].contains(&cut);
        assert_eq!(frame.kind == GOAWAY, !whole_fields, "{cut}: {frame:?}");
        if frame.kind == GOAWAY {
            assert_eq!(frame.number(4), 9, "{cut}");
        }
    }
}
