//! The content of an answer, out of the bytes that follow its head (RFC 9112 §6, §7).

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use http_body::Frame;

use crate::http::http1::chunks::{Chunks, Piece};
use crate::http::http1::client::Error;
use crate::http::http1::client::head::Head;
use crate::http::interim;

/// Fields of a trailer section.
const MAX_TRAILERS: usize = 100;
/// Bytes of one: as many as any one head.
const MAX_BYTES: usize = interim::MAX_BYTES;

/// What is to come of an answer's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunks(Chunks),
    /// What follows the last chunk.
    Trailers,
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

    /// Takes the next frame from the front of what the server has said. `None`: there has to be more of it, or all is over.
    ///
    /// # Errors
    /// The chunks are none, or their trailers.
    pub fn take(&mut self, bytes: &mut Bytes) -> Result<Option<Frame<Bytes>>, Error> {
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
                    let data = chunk(chunks, bytes)?;
                    if *chunks == Chunks::Last {
                        *self = Self::Trailers;
                    }
                    if let Some(data) = data {
                        return Ok(Some(Frame::data(data)));
                    }
                }
                Self::Trailers => {
                    let Some(trailers) = trailers(bytes)? else {
                        return Ok(None);
                    };
                    *self = Self::Over;
                    return Ok((!trailers.is_empty()).then(|| Frame::trailers(trailers)));
                }
                Self::Over => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The server has said all.
    ///
    /// # Errors
    /// It was not all that it had announced.
    pub fn end(&mut self) -> Result<(), Error> {
        match self {
            Self::Rest | Self::Over => {
                *self = Self::Over;
                Ok(())
            }
            _ => Err(Error::Incomplete),
        }
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

/// Reads on in chunks, up to data or the last one's line.
fn chunk(chunks: &mut Chunks, bytes: &mut Bytes) -> Result<Option<Bytes>, Error> {
    while *chunks != Chunks::Last {
        bytes.advance(chunks.pad(bytes));
        match chunks
            .step(bytes)
            .map_err(|refusal| Error::Malformed(refusal.why))?
        {
            Piece::Data(here) => return Ok(Some(bytes.split_to(here))),
            Piece::Line(0) => break,
            Piece::Line(here) => bytes.advance(here),
        }
    }
    Ok(None)
}

/// The trailer section, if it has come whole.
fn trailers(bytes: &mut Bytes) -> Result<Option<HeaderMap>, Error> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILERS];
    let bad = Error::Malformed("the server's trailers are no HTTP");
    let (end, found) = match httparse::parse_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(found)) => found,
        Ok(httparse::Status::Partial) if bytes.len() > MAX_BYTES => {
            return Err(Error::Malformed("the server's trailers are too long"));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(bad),
    };
    let mut trailers = HeaderMap::with_capacity(found.len());
    for field in found {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_bytes(field.value);
        let (Ok(name), Ok(value)) = (name, value) else {
            return Err(bad);
        };
        trailers.append(name, value);
    }
    bytes.advance(end);
    Ok(Some(trailers))
}
