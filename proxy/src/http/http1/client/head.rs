//! The head of an answer, final or interim (RFC 9112 §4, §5), and what it says of the bytes that follow (§6.3).
//!
//! An answer that may end in two places may be two, of which one was somebody's input (response splitting): it is refused.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;
use memchr::memchr;

use crate::http::http1::client::Error;
use crate::http::http1::field;
use crate::http::interim;

/// Fields of a head.
const MAX_FIELDS: usize = 100;
/// Bytes of the head of an answer.
const MAX_BYTES: usize = 400 << 10;

/// A head.
#[derive(Debug)]
pub struct Head {
    /// What it says to all.
    pub response: Response<()>,
    /// What it says of its connection.
    pub framing: Framing,
}

/// What fields say of the bytes behind their head, and of the connection.
#[derive(Debug, Default)]
pub struct Framing {
    /// The `Content-Length`.
    pub length: Option<u64>,
    /// The content is chunked.
    pub chunked: bool,
    close: bool,
    keep_alive: bool,
    refused: Option<&'static str>,
}

/// Takes a head from the front of what a server has said, if it is whole. Empty lines may precede it. The
/// first `searched` bytes have been looked at before: so a head in many pieces is not read as often. Its fields take the
/// place of those in `spare`, which nobody needs any more.
///
/// # Errors
/// It is no HTTP, or too long.
pub fn take(bytes: &mut Bytes, searched: usize, spare: &mut HeaderMap) -> Result<Option<Head>, Error> {
    let line_ended = searched == 0 || memchr(b'\n', &bytes[searched..]).is_some();
    if !line_ended {
        return within_bounds(bytes).map(|()| None);
    }
    let (mut none, mut fields) = ([], [const { MaybeUninit::uninit() }; MAX_FIELDS]);
    let mut head = httparse::Response::new(&mut none);
    let config = httparse::ParserConfig::default();
    let parsed = config.parse_response_with_uninit_headers(&mut head, bytes, &mut fields);
    match parsed {
        Ok(httparse::Status::Complete(end)) => {
            let head = read(bytes, &head, std::mem::take(spare)).ok_or(NO_HTTP)?;
            drop(bytes.split_to(end)); // Nothing is kept of it if that was all.
            Ok(Some(head))
        }
        Ok(httparse::Status::Partial) => within_bounds(bytes).map(|()| None),
        Err(httparse::Error::TooManyHeaders) => {
            Err(Error::Malformed("the server's answer has too many fields"))
        }
        Err(_) => Err(NO_HTTP),
    }
}

const NO_HTTP: Error = Error::Malformed("the server's answer is no HTTP");

/// Interim heads, and empty lines, have to be shorter than others.
fn within_bounds(bytes: &[u8]) -> Result<(), Error> {
    let blank = bytes.iter().take_while(|byte| b"\r\n".contains(byte)).count();
    let most = match &bytes[blank..] {
        [] | [b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', b'1', ..] => interim::MAX_BYTES,
        _ => MAX_BYTES,
    };
    if bytes.len() > most {
        return Err(Error::Malformed("the server's answer has too long a head"));
    }
    Ok(())
}

/// Its values are parts of `bytes`, not copies.
fn read(bytes: &Bytes, head: &httparse::Response<'_, '_>, mut fields: HeaderMap) -> Option<Head> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.code?).ok()?;
    *response.version_mut() = match head.version? {
        0 => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let reason = head.reason.unwrap_or_default();
    if response.status().canonical_reason() != Some(reason)
        && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    let mut framing = Framing::default();
    fields.clear();
    fields.reserve(head.headers.len());
    for field in &*head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?;
        if framing.note(&name, &value) {
            fields.append(name, value);
        }
    }
    *response.headers_mut() = fields;
    if framing.chunked && framing.length.is_some() {
        framing.refused = Some("the server's answer has a Content-Length beside a Transfer-Encoding");
    } else if framing.chunked && response.version() == Version::HTTP_10 {
        framing.refused = Some("the server's HTTP/1.0 has a Transfer-Encoding");
    }
    Some(Head { response, framing })
}

impl Framing {
    /// Takes what a field says; whether it is to be told. The same length said again is said once (RFC 9110 §8.6).
    fn note(&mut self, name: &HeaderName, value: &HeaderValue) -> bool {
        if *name == CONTENT_LENGTH {
            return self.note_length(value);
        } else if *name == TRANSFER_ENCODING {
            if self.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                self.refused = Some("the server's Transfer-Encoding is not chunked");
            }
            self.chunked = true;
        } else if *name == CONNECTION {
            for option in field::options(value) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        true
    }

    fn note_length(&mut self, value: &HeaderValue) -> bool {
        let Some(length) = field::length(value) else {
            self.refused = Some("the server's Content-Length is no number");
            return true;
        };
        let before = self.length.replace(length);
        if before.is_some_and(|before| before != length) {
            self.refused = Some("the server's answer has two different Content-Lengths");
        }
        before.is_none()
    }
}

impl Head {
    /// # Errors
    /// The answer can be read in two ways.
    pub fn check(&self) -> Result<(), Error> {
        self.framing
            .refused
            .map_or(Ok(()), |why| Err(Error::Malformed(why)))
    }

    /// Whether the server takes another request on the connection (RFC 9112 §9.3).
    pub fn is_persistent(&self) -> bool {
        let Framing {
            close, keep_alive, ..
        } = self.framing;
        !close && (self.response.version() != Version::HTTP_10 || keep_alive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &str) -> (Result<Option<Head>, Error>, Bytes) {
        let mut bytes = Bytes::copy_from_slice(bytes.as_bytes());
        (take(&mut bytes, 0, &mut HeaderMap::new()), bytes)
    }

    fn persistent(bytes: &str) -> bool {
        whole(bytes).0.unwrap().unwrap().is_persistent()
    }

    #[test]
    fn a_head_is_the_same_in_whatever_pieces_and_what_follows_is_left() {
        let said = "\r\nHTTP/1.1 404 Nothing here\r\nLink: </a>\r\nx: \u{e4}\r\nlink: </b> \r\n\r\nHTTP";
        for size in [1, 2, 5, said.len()] {
            let (mut bytes, mut searched, mut found) = (Bytes::new(), 0, None);
            for end in (size..=said.len()).step_by(size) {
                bytes = Bytes::copy_from_slice(&said.as_bytes()[..end]);
                found = take(&mut bytes, searched, &mut HeaderMap::new()).unwrap();
                searched = bytes.len();
                if found.is_some() {
                    break;
                }
            }
            let head = found.unwrap().response;
            assert_eq!((head.status().as_u16(), head.headers().len()), (404, 3));
            assert_eq!(head.headers()["link"], "</a>");
            assert_eq!(
                head.extensions().get::<ReasonPhrase>().unwrap().as_bytes(),
                b"Nothing here"
            );
            assert!(b"HTTP".starts_with(&bytes), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_head_or_has_no_end_is_refused() {
        let endless = format!("HTTP/1.1 103 OK\r\nx: {}", "y".repeat(interim::MAX_BYTES));
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(MAX_BYTES));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(MAX_FIELDS + 1));
        for bytes in [
            &*endless,
            &long,
            &many,
            &"\r\n".repeat(interim::MAX_BYTES),
            "SSH-2.0-a",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx y\r\n\r\n",
            "HTTP/1.1 1\r\n\r\n\r\n\r\n",
        ] {
            assert!(whole(bytes).0.is_err(), "{bytes:.40?}");
        }
        assert!(whole("HTTP/1.1 200 OK\r\nx: y\r\n").0.unwrap().is_none());
    }

    #[test]
    fn a_connection_persists_by_its_version_unless_it_is_said() {
        assert!(persistent("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!persistent("HTTP/1.1 200 OK\r\nconnection: a, Close\r\n\r\n"));
        assert!(!persistent("HTTP/1.0 200 OK\r\n\r\n"));
        assert!(persistent("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n"));
    }

    /// How many fields are told of an answer that has these, or why it is refused.
    fn told(fields: &[&str]) -> Result<usize, String> {
        let head = format!("HTTP/1.1 200 OK\r\n{}\r\n\r\n", fields.join("\r\n"));
        let head = whole(&head).0.unwrap().unwrap();
        head.check().map_err(|error| error.to_string())?;
        Ok(head.response.headers().len())
    }

    #[test]
    fn an_answer_with_two_ends_is_refused() {
        assert_eq!(told(&["content-length: 5"]), Ok(1));
        assert_eq!(told(&["content-length: 5", "content-length: 5"]), Ok(1));
        assert_eq!(told(&["transfer-encoding: Chunked"]), Ok(1));
        for fields in [
            ["content-length: 5", "transfer-encoding: chunked"],
            ["transfer-encoding: chunked", "content-length: 5"],
            ["transfer-encoding: chunked", "transfer-encoding: chunked"],
            ["transfer-encoding: gzip, chunked", "x:"],
            ["transfer-encoding: identity", "x:"],
            ["content-length: 5, 5", "x:"],
            ["content-length: +5", "x:"],
            ["content-length:", "x:"],
            ["content-length: 99999999999999999999", "x:"],
            ["content-length: 5", "content-length: 6"],
            ["content-length: 5", "content-length: 05x"],
        ] {
            assert!(told(&fields).is_err(), "{fields:?}");
        }
    }
}
