//! The content of a message, out of the bytes that follow its head (RFC 9112 §6, §7).

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body::Frame;

use crate::config::HeadLimits;
use crate::http::http1::chunks::{Chunks, Piece};
use crate::http::http1::client::head::Head;
use crate::http::http1::head::{self, Framing, Lines, Refusal, malformed};
use crate::http::interim;

/// Fields of a server's trailer section.
const MAX_TRAILERS: usize = 100;
/// Bytes of one: as many as any one head.
const MAX_BYTES: usize = interim::MAX_BYTES;

/// Who sends the content, and so how strictly it is read: what a server sends was asked for, and is written anew.
#[derive(Clone, Copy, Debug)]
pub enum Sender<'a> {
    /// A server.
    Server,
    /// A client, within its limits.
    Client(&'a HeadLimits),
}

/// What is to come of a message's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunks(Chunks),
    /// What follows the last chunk.
    Trailers(Lines),
    /// All that comes before the server closes the connection.
    Rest,
    /// Nothing.
    Over,
}

impl Content {
    /// How the content of an answer to a request with this method is to be told from what follows it (RFC 9112 §6.3).
    pub fn of(method: &Method, head: &Head) -> Self {
        let status = head.response.status();
        if method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Self::Over;
        }
        match (head.framing.chunked, head.framing.length) {
            (true, _) => Self::Chunks(Chunks::first()),
            (false, Some(0)) => Self::Over,
            (false, Some(length)) => Self::Length(length),
            (false, None) => Self::Rest,
        }
    }

    /// Takes the next frame from the front of what was said. `None`: there has to be more of it, or all is over.
    ///
    /// # Errors
    /// The chunks are none, or their trailers.
    pub fn take(&mut self, bytes: &mut Bytes, sender: Sender<'_>) -> Result<Option<Frame<Bytes>>, Refusal> {
        while !bytes.is_empty() {
            match self {
                Self::Length(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= here as u64;
                    if *left == 0 {
                        *self = Self::Over;
                    }
                    return Ok(Some(Frame::data(bytes.split_to(here))));
                }
                Self::Rest => return Ok(Some(Frame::data(std::mem::take(bytes)))),
                Self::Chunks(chunks) => {
                    let data = chunk(chunks, bytes, sender)?;
                    if *chunks == Chunks::Last {
                        *self = Self::Trailers(Lines::trailers());
                    }
                    if let Some(data) = data {
                        return Ok(Some(Frame::data(data)));
                    }
                }
                Self::Trailers(lines) => {
                    let trailers = match sender {
                        Sender::Server => trailers(bytes)?,
                        Sender::Client(limits) => head::trailers(lines, bytes, limits)?,
                    };
                    let Some(trailers) = trailers else {
                        return Ok(None);
                    };
                    *self = Self::Over;
                    return Ok((!trailers.is_empty()).then(|| Frame::trailers(trailers)));
                }
                Self::Over => return Ok(None),
            }
        }
        *bytes = Bytes::new(); // Nothing is kept of what has been read.
        Ok(None)
    }

    /// The sender has said all; whether that is the end.
    pub fn end(&mut self) -> bool {
        let ends = matches!(self, Self::Rest | Self::Over);
        if ends {
            *self = Self::Over;
        }
        ends
    }

    /// Whether trailers have begun that are not complete.
    pub fn is_waiting(&self) -> bool {
        matches!(self, Self::Trailers(lines) if lines.begun())
    }

    /// How many bytes there are to come, if that is known.
    pub fn length(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Over => Some(0),
            _ => None,
        }
    }
}

impl From<Framing> for Content {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunks(Chunks::first()),
            Framing::Empty => Self::Over,
        }
    }
}

/// Reads on in chunks, up to data or the last one's line.
fn chunk(chunks: &mut Chunks, bytes: &mut Bytes, sender: Sender<'_>) -> Result<Option<Bytes>, Refusal> {
    while *chunks != Chunks::Last {
        if matches!(sender, Sender::Server) {
            bytes.advance(chunks.pad(bytes));
        }
        match chunks.step(bytes)? {
            Piece::Data(here) => return Ok(Some(bytes.split_to(here))),
            Piece::Line(0) => break,
            Piece::Line(here) => bytes.advance(here),
        }
    }
    Ok(None)
}

/// A server's trailer section, if it has come whole.
fn trailers(bytes: &mut Bytes) -> Result<Option<HeaderMap>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let bad = "the server's trailers are no HTTP";
    let (end, found) = match httparse::parse_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(found)) => found,
        Ok(httparse::Status::Partial) if bytes.len() > MAX_BYTES => {
            return malformed("the server's trailers are too long");
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return malformed(bad),
    };
    let mut trailers = HeaderMap::with_capacity(found.len());
    for field in found {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return malformed(bad);
        };
        trailers.append(name, value);
    }
    drop(bytes.split_to(end)); // Nothing is kept of them if that was all.
    Ok(Some(trailers))
}
