//! What is a request and what is not, in whatever pieces it comes.

use std::time::Duration;

use bytes::Bytes;

use crate::config::HeadLimits;
use crate::error::Kind;
use crate::http::http1::content::{Content, Sender};
use crate::http::http1::head::{self, Lines, Refusal};

pub(in crate::http::http1) const LIMITS: HeadLimits = HeadLimits {
    max_bytes: 512,
    max_fields: 5,
    timeout: Some(Duration::from_secs(30)),
    half_closed: Duration::from_secs(2),
    drain_idle: Duration::from_secs(3),
};

/// How many bytes are taken, and what is refused behind them, when they come in pieces of this size.
fn in_pieces(bytes: &[u8], size: usize) -> (usize, Option<Refusal>) {
    let (mut held, mut taken, mut place) = (Bytes::new(), 0, Reading::Head(Lines::head()));
    for piece in bytes.chunks(size) {
        held = [&held, piece].concat().into();
        loop {
            let before = held.len();
            match place.take(&mut held) {
                Ok(()) if held.len() == before => break,
                Ok(()) => taken += before - held.len(),
                Err(refusal) => return (taken, Some(refusal)),
            }
        }
    }
    (taken, None)
}

/// Where in requests their bytes have come to.
enum Reading {
    Head(Lines),
    Body(Content),
}

impl Reading {
    fn take(&mut self, held: &mut Bytes) -> Result<(), Refusal> {
        match self {
            Self::Head(lines) => {
                if let Some(head) = head::request(lines, held, &LIMITS)? {
                    *self = Self::Body(Content::from(head.framing));
                }
            }
            Self::Body(content) => drop(content.take(held, Sender::Client(&LIMITS))?),
        }
        if matches!(self, Self::Body(Content::Over)) {
            *self = Self::Head(Lines::head());
        }
        Ok(())
    }
}

/// Why bytes are refused, and that it does not matter in which pieces they come.
fn refused(bytes: &str) -> Option<Kind> {
    let (passed, refusal) = in_pieces(bytes.as_bytes(), bytes.len());
    for size in [1, 2, 7] {
        let pieces = in_pieces(bytes.as_bytes(), size);
        assert_eq!(pieces.1, refusal, "{bytes:?} in pieces of {size}");
    }
    if refusal.is_none() {
        assert_eq!(passed, bytes.len(), "{bytes:?} is let through to its end");
    }
    refusal.map(|refusal| refusal.kind)
}

#[test]
fn what_rfc_9112_allows_is_let_through() {
    for bytes in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.0\r\n\r\n",
        "GET /a?b HTTP/1.1\r\nx:\r\ny: \t \r\nz:\t\u{e4}\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 3 \r\n\r\nabcGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding:\tChunked\r\n\r\nA;a=\"b\"\r\n0123456789\r\n0\r\nT: 1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        "M-SEARCH * HTTP/1.1\r\nexpect: the best\r\n\r\n",
    ] {
        assert_eq!(refused(bytes), None, "{bytes:?}");
    }
}

#[test]
fn heads_that_are_read_in_two_ways_are_refused() {
    use Kind::{BadRequest, Framing, HeadersTooLarge, Malformed, TransferEncoding, UriTooLong, Version};
    for (fields, kind) in [
        ("GET / HTTP/1.1\nhost: a\n\n", Malformed),
        ("GET / HTTP/1.1\r\nhost: a\n\r\n", Malformed),
        ("GET / HTTP/1.1\r\nhost: a\rb: c\r\n\r\n", Malformed),
        ("GET  / HTTP/1.1\r\n\r\n", Malformed),
        ("GET / HTTP/1.1 \r\n\r\n", Malformed),
        ("GET /\r\n\r\n", Malformed),
        ("G@T / HTTP/1.1\r\n\r\n", Malformed),
        ("GET /\0 HTTP/1.1\r\n\r\n", Malformed),
        ("GET / HTTP/1.2\r\n\r\n", Version),
        ("GET / HTTP/2.0\r\n\r\n", Version),
        ("GET / http/1.1\r\n\r\n", Malformed),
        ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", Malformed),
        ("GET / HTTP/1.1\r\n host: a\r\n\r\n", Malformed),
        ("GET / HTTP/1.1\r\nx: a\r\n b\r\n\r\n", Malformed),
        ("GET / HTTP/1.1\r\n: a\r\n\r\n", Malformed),
        ("GET / HTTP/1.1\r\nx\r\n\r\n", Malformed),
        ("GET / HTTP/1.1\r\nx: a\0\r\n\r\n", Malformed),
        ("GET / HTTP/1.1\r\nhost: a\r\nHOST: a\r\n\r\n", BadRequest),
        (
            "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
            Framing,
        ),
        ("POST / HTTP/1.1\r\ncontent-length: 1, 1\r\n\r\n", Framing),
        ("POST / HTTP/1.1\r\ncontent-length: +1\r\n\r\n", Framing),
        ("POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", Framing),
        ("POST / HTTP/1.1\r\ncontent-length: 0x1\r\n\r\n", Framing),
        ("POST / HTTP/1.1\r\ncontent-length: 1 1\r\n\r\n", Framing),
        ("POST / HTTP/1.1\r\ncontent-length:\r\n\r\n", Framing),
        (
            "POST / HTTP/1.1\r\ncontent-length: 18446744073709551616\r\n\r\n",
            Framing,
        ),
        (
            "POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            Framing,
        ),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n",
            Framing,
        ),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            Framing,
        ),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked, chunked\r\n\r\n",
            TransferEncoding,
        ),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: xchunked\r\n\r\n",
            TransferEncoding,
        ),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: identity\r\n\r\n",
            TransferEncoding,
        ),
        ("POST / HTTP/1.1\r\ntransfer-encoding:\r\n\r\n", TransferEncoding),
        (
            "POST / HTTP/1.1\r\ntransfer-encoding: \u{b}chunked\r\n\r\n",
            Malformed,
        ),
        ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", Framing),
        ("CONNECT a:80 HTTP/1.1\r\ncontent-length: 5\r\n\r\n", Framing),
        (
            "GET / HTTP/1.1\r\na: 1\r\na: 1\r\na: 1\r\na: 1\r\na: 1\r\na: 1\r\n\r\n",
            HeadersTooLarge,
        ),
        (
            &format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "a".repeat(512)),
            HeadersTooLarge,
        ),
        (&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(512)), UriTooLong),
    ] {
        assert_eq!(refused(fields), Some(kind), "{fields:?}");
    }
}

#[test]
fn chunks_that_are_read_in_two_ways_are_refused() {
    let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(2_000));
    for chunks in [
        "-1\r\n\r\n0\r\n\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        " 1\r\na\r\n0\r\n\r\n",
        "1 \r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1;a\nb\r\na\r\n0\r\n\r\n",
        "1;a\0\r\na\r\n0\r\n\r\n",
        "1\r\r\na\r\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "g\r\n0\r\n\r\n",
        "10000000000000000\r\n0\r\n\r\n",
        "0\r\nx: 1\n\r\n",
        "0\r\n x: 1\r\n\r\n",
        "0\r\ncontent-length: 5\r\n\r\n",
        "0\r\ntransfer-encoding: chunked\r\n\r\n",
        &long,
    ] {
        let request = format!("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        assert!(refused(&request).is_some(), "{chunks:?}");
    }
}
