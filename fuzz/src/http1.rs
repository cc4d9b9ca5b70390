//! HTTP/1: what clients and servers say is the same in whatever pieces it comes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use outrigger_proxy::config::HeadLimits;
use outrigger_proxy::http::http1::client::{self, head as answer_head};
use outrigger_proxy::http::http1::content::{Content, Sender};
use outrigger_proxy::http::http1::head::{self, Lines, Refusal};

/// What a client has said is the same requests, or refused for the same reason, in whatever pieces it comes.
pub fn request(bytes: &[u8]) {
    let whole = asked(bytes, bytes.len().max(1));
    for size in [1, 3, 64] {
        assert_eq!(asked(bytes, size), whole, "in pieces of {size}");
    }
}

const SMALL_HEADS: HeadLimits = HeadLimits {
    max_bytes: 256,
    max_fields: 8,
    timeout: None,
    half_closed: Duration::ZERO,
    drain_idle: Duration::ZERO,
};

/// The heads of requests with their trailers, and the bodies.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    heads: Vec<String>,
    content: Vec<u8>,
    refused: Option<Refusal>,
}

fn asked(bytes: &[u8], size: usize) -> Asked {
    let (mut asked, mut held) = (Asked::default(), BytesMut::new());
    let (mut lines, mut content) = (Lines::head(), Content::Over);
    for piece in bytes.chunks(size) {
        held.extend_from_slice(piece);
        let mut bytes = held.split().freeze();
        if let Err(refusal) = asked.read(&mut lines, &mut content, &mut bytes) {
            asked.refused = Some(refusal);
            break;
        }
        held.extend_from_slice(&bytes);
    }
    asked
}

impl Asked {
    fn read(&mut self, lines: &mut Lines, content: &mut Content, bytes: &mut Bytes) -> Result<(), Refusal> {
        loop {
            while let Some(frame) = content.take(bytes, Sender::Client(&SMALL_HEADS))? {
                match frame.into_data() {
                    Ok(data) => self.content.extend_from_slice(&data),
                    Err(trailers) => self.heads.push(format!("{trailers:?}")),
                }
            }
            if *content != Content::Over {
                return Ok(());
            }
            let Some(head) = head::request(lines, bytes, &SMALL_HEADS)? else {
                return Ok(());
            };
            *lines = Lines::head();
            *content = Content::from(head.framing);
            self.heads.push(format!("{head:?}"));
        }
    }
}

/// What a server has said is the same answer in whatever pieces it comes.
pub fn answer(bytes: &[u8]) {
    // A line is looked at when it has ended.
    let bytes = [bytes, b"\n"].concat();
    let whole = answered(&bytes, bytes.len());
    for size in [1, 3, 64] {
        assert_eq!(answered(&bytes, size), whole, "in pieces of {size}");
    }
}

/// Interim heads and the answer, its content and how many trailers, whether it is over, and what was wrong.
#[derive(Debug, Default, PartialEq)]
struct Answered {
    heads: Vec<(StatusCode, HeaderMap)>,
    content: Vec<u8>,
    trailers: usize,
    over: bool,
    refused: Option<String>,
}

fn answered(bytes: &[u8], size: usize) -> Answered {
    let (mut answered, mut content, mut held) = (Answered::default(), None, BytesMut::new());
    for piece in bytes.chunks(size) {
        let searched = held.len();
        held.extend_from_slice(piece);
        let mut bytes = held.split().freeze();
        if let Err(error) = answered.read(&mut content, &mut bytes, searched) {
            answered.refused = Some(error.to_string());
            break;
        }
        held.extend_from_slice(&bytes);
    }
    answered.over = content == Some(Content::Over);
    answered
}

impl Answered {
    fn read(
        &mut self,
        content: &mut Option<Content>,
        bytes: &mut Bytes,
        mut searched: usize,
    ) -> Result<(), client::Error> {
        while content.is_none() && !bytes.is_empty() {
            let Some(head) = answer_head::take(bytes, searched, &mut HeaderMap::new())? else {
                return Ok(());
            };
            searched = 0;
            if !head.response.status().is_informational() {
                head.check()?;
                *content = Some(Content::of(&Method::GET, &head));
            }
            self.heads
                .push((head.response.status(), head.response.into_parts().0.headers));
        }
        let Some(content) = content else { return Ok(()) };
        let broken = |refusal: Refusal| client::Error::Malformed(refusal.why);
        while let Some(frame) = content.take(bytes, Sender::Server).map_err(broken)? {
            match frame.into_data() {
                Ok(data) => self.content.extend_from_slice(&data),
                Err(frame) => self.trailers = frame.trailers_ref().map_or(0, HeaderMap::len),
            }
        }
        Ok(())
    }
}
