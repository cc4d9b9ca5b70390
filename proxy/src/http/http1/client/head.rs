//! The head of an answer, final or interim (RFC 9112 §4, §5).

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes};
use http::header::CONNECTION;
use http::{HeaderName, HeaderValue, Response, StatusCode, Version};
use hyper::ext::ReasonPhrase;
use memchr::memchr;

use crate::http::http1::client::Error;
use crate::http::interim;

/// Fields of a head.
const MAX_FIELDS: usize = 100;
/// Bytes of the head of an answer.
const MAX_BYTES: usize = 400 << 10;

/// Takes a head from the front of what a server has said, if it is whole. Empty lines may precede it. The
/// first `searched` bytes have been looked at before: so a head in many pieces is not read as often.
///
/// # Errors
/// It is no HTTP, or too long.
pub fn take(bytes: &mut Bytes, searched: usize) -> Result<Option<Response<()>>, Error> {
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
            let response = response(bytes, &head).ok_or(NO_HTTP)?;
            bytes.advance(end);
            Ok(Some(response))
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
fn response(bytes: &Bytes, head: &httparse::Response<'_, '_>) -> Option<Response<()>> {
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
    let fields = response.headers_mut();
    fields.reserve(head.headers.len());
    for field in &*head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?;
        fields.append(name, value);
    }
    Some(response)
}

/// Whether the server takes another request on the connection (RFC 9112 §9.3).
pub fn is_persistent(response: &Response<()>) -> bool {
    let says = |option: &str| {
        let lists = response.headers().get_all(CONNECTION).iter();
        lists
            .filter_map(|list| list.to_str().ok())
            .flat_map(|list| list.split(','))
            .any(|named| named.trim().eq_ignore_ascii_case(option))
    };
    !says("close") && (response.version() != Version::HTTP_10 || says("keep-alive"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &str) -> (Result<Option<Response<()>>, Error>, Bytes) {
        let mut bytes = Bytes::copy_from_slice(bytes.as_bytes());
        (take(&mut bytes, 0), bytes)
    }

    fn persistent(bytes: &str) -> bool {
        is_persistent(&whole(bytes).0.unwrap().unwrap())
    }

    #[test]
    fn a_head_is_the_same_in_whatever_pieces_and_what_follows_is_left() {
        let said = "\r\nHTTP/1.1 404 Nothing here\r\nLink: </a>\r\nx: \u{e4}\r\nlink: </b> \r\n\r\nHTTP";
        for size in [1, 2, 5, said.len()] {
            let (mut bytes, mut searched, mut found) = (Bytes::new(), 0, None);
            for end in (size..=said.len()).step_by(size) {
                bytes = Bytes::copy_from_slice(&said.as_bytes()[..end]);
                found = take(&mut bytes, searched).unwrap();
                searched = bytes.len();
                if found.is_some() {
                    break;
                }
            }
            let head = found.unwrap();
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
}
