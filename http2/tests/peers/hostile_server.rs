//! Servers that break the protocol, before our client.

use outrigger_http2::Reason;
use outrigger_http2::client::{Config, Unopened};

use crate::support::*;

/// The code of the GOAWAY that these bytes bring about; the stream that waits is told too.
async fn ends_with(bytes: &[u8]) -> u32 {
    let (mut raw, mut opener, connection) = Raw::server(&[], &Config::default()).await;
    let (mut recv, _) = opener.open(&get("/"), true).unwrap();
    raw.next_of(HEADERS).await;
    raw.write(bytes).await;
    let code = raw.end().await;
    assert_eq!(
        head(&mut recv).await.unwrap_err().reason(),
        Some(Reason::from(code))
    );
    let error = within(connection).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::from(code)));
    assert!(is_over(&mut opener));
    code
}

#[tokio::test(start_paused = true)]
async fn frames_where_they_have_no_place_end_the_connection() {
    for wrong in [
        frame(
            PUSH_PROMISE,
            END_HEADERS,
            1,
            &[&[0, 0, 0, 2][..], &request("GET", &[])].concat(),
        ),
        frame(HEADERS, WHOLE, 2, &response("200", &[])),
        frame(HEADERS, WHOLE, 3, &response("200", &[])),
        frame(DATA, 0, 3, b"x"),
        frame(DATA, 0, 2, b"x"),
        number(RST_STREAM, 3, 8),
        number(WINDOW_UPDATE, 3, 1),
        settings(&[(2, 1)]),
        frame(PING, 0, 1, &[0; 8]),
    ] {
        assert_eq!(ends_with(&wrong).await, 1, "{wrong:?}");
    }
    assert_eq!(ends_with(&frame(PING, 0, 0, &[0; 7])).await, 6);
    assert_eq!(ends_with(&frame(HEADERS, WHOLE, 1, &[0x80])).await, 9);
    assert_eq!(ends_with(&number(WINDOW_UPDATE, 0, (1 << 31) - 1)).await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_header_block_without_end_ends_the_connection() {
    let begun = frame(HEADERS, 0, 1, &response("200", &[]));
    let more = frame(CONTINUATION, 0, 1, b"").repeat(33);
    assert_eq!(ends_with(&[begun, more].concat()).await, 11);
}

#[tokio::test(start_paused = true)]
async fn more_than_the_windows_is_not_taken() {
    let config = Config {
        stream_window: 100,
        ..Config::default()
    };
    let (mut raw, mut opener, _connection) = Raw::server(&[], &config).await;
    let (mut recv, _) = opener.open(&get("/"), true).unwrap();
    raw.until_pong().await;
    raw.send(HEADERS, END_HEADERS, 1, &response("200", &[])).await;
    raw.send(DATA, 0, 1, &[0; 101]).await;
    assert_eq!(raw.reset().await, (1, 3));
    head(&mut recv).await.unwrap();
    assert_eq!(
        data(&mut recv).await.unwrap().unwrap_err().reason(),
        Some(Reason::FLOW_CONTROL_ERROR)
    );
}

#[tokio::test(start_paused = true)]
async fn interim_heads_without_end_fail_their_stream() {
    let (mut raw, mut opener, _connection) = Raw::server(&[], &Config::default()).await;
    let (mut recv, _) = opener.open(&get("/"), true).unwrap();
    raw.next_of(HEADERS).await;
    let flood = frame(
        HEADERS,
        END_HEADERS,
        1,
        &response("103", &[("x", &"v".repeat(1_000))]),
    );
    for _ in 0..500 {
        raw.write(&flood).await;
    }
    assert_eq!(raw.reset().await, (1, 11));
    let mut kept = 0;
    while head(&mut recv).await.is_ok() {
        kept += 1;
    }
    assert!(kept <= 300, "{kept}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_streams_may_fall_and_rise() {
    let (mut raw, mut opener, _connection) = Raw::server(&[(3, 1)], &Config::default()).await;
    let held = opener.open(&get("/"), true).unwrap();
    assert!(matches!(opener.open(&get("/"), true), Err(Unopened::Full)));
    raw.write(&settings(&[(3, 0)])).await;
    raw.until_pong().await;
    drop(held);
    assert!(matches!(opener.open(&get("/"), true), Err(Unopened::Full)));
    raw.write(&settings(&[(3, 2)])).await;
    raw.until_pong().await;
    opener.open(&get("/"), true).unwrap();
}

#[tokio::test(start_paused = true)]
async fn tables_may_shrink_to_nothing_and_grow_again_amid_streams() {
    let (here, there) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move {
        let mut builder = h2::server::Builder::new();
        builder.header_table_size(0);
        let mut connection = builder.handshake::<_, bytes::Bytes>(there).await.unwrap();
        while let Some(Ok((request, mut reply))) = connection.accept().await {
            let mut answer = ok();
            *answer.headers_mut() = request.headers().clone();
            reply.send_response(answer, true).unwrap();
        }
    });
    let (mut opener, _connection) = connect(here, &Config::default()).await;
    for n in 0..20 {
        let mut request = get("/");
        request
            .headers_mut()
            .insert("x-name", http::HeaderValue::from(n % 3));
        let (mut recv, _) = opener.open(&request, true).unwrap();
        assert_eq!(head(&mut recv).await.unwrap().headers(), request.headers());
    }
    // By hand: a block after the table was 0 and is 4096 again begins with both sizes.
    let (mut raw, mut opener, _connection) = Raw::server(&[], &Config::default()).await;
    raw.write(&settings(&[(1, 0)])).await;
    raw.write(&settings(&[(1, 4_096)])).await;
    raw.until_pong().await;
    let _held = opener.open(&get("/"), true).unwrap();
    let block = raw.next_of(HEADERS).await.payload;
    assert_eq!(block[..4], [0x20, 0x3f, 0xe1, 0x1f]);
}

#[tokio::test(start_paused = true)]
async fn garbage_harms_nobody() {
    let mut random = fastrand::Rng::with_seed(8);
    for _ in 0..3_000 {
        let (mut raw, mut opener, connection) = Raw::server(&[], &Config::default()).await;
        let (mut recv, out) = opener.open(&post(), false).unwrap();
        for _ in 0..random.usize(1..10) {
            let kind = random.u8(0..11);
            let mut payload = vec![0; random.usize(0..20)];
            random.fill(&mut payload);
            if kind == HEADERS && random.bool() {
                payload = response(["200", "103", "304"][random.usize(0..3)], &[]);
            }
            raw.write(&frame(kind, random.u8(..) & 0x2d, random.u32(0..3), &payload))
                .await;
        }
        tokio::io::AsyncWriteExt::shutdown(&mut raw.io).await.unwrap();
        drop(within(connection).await.expect("it does not panic"));
        while head(&mut recv)
            .await
            .is_ok_and(|head| head.status().is_informational())
        {}
        drop(read(&mut recv).await);
        assert!(send(&mut out.unwrap(), &b"x"[..], true).await.is_err());
    }
}
