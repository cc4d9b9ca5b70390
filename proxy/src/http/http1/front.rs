//! The front of what a server sends: an interim head, or the answer.

use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::http::interim;

/// Fields of an interim head.
const MAX_FIELDS: usize = 100;

/// What a server's bytes begin with.
#[derive(Debug)]
pub enum Front {
    /// That can't be told before there are more.
    Unknown,
    /// An interim head of so many bytes.
    Interim(Response<()>, usize),
    /// The answer, or nothing that is known.
    Answer,
}

/// Tells what these bytes begin with. Empty lines may precede it, as hyper reads.
///
/// # Errors
/// An interim head that is no HTTP, or too long.
pub fn of(bytes: &[u8]) -> Result<Front, &'static str> {
    let blank = bytes
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    let front = match is_interim(&bytes[blank..]) {
        None => Front::Unknown,
        Some(true) => head(&bytes[blank..], blank)?,
        Some(false) => Front::Answer,
    };
    if matches!(front, Front::Unknown) && bytes.len() > interim::MAX_BYTES {
        return Err("the server's interim answer has too long a head");
    }
    Ok(front)
}

/// Whether this begins as an interim head does: `HTTP/1.1 1xx`, but for 101, which is the last of its exchange.
fn is_interim(bytes: &[u8]) -> Option<bool> {
    let begins = |with: &[u8], at: usize| {
        let here = bytes.len().saturating_sub(at).min(with.len());
        (bytes.get(at..at + here) == Some(&with[..here]) || here == 0).then_some(here == with.len())
    };
    match (begins(b"HTTP/1.", 0), begins(b" 1", 8), begins(b"01", 10)) {
        (None, _, _) | (_, None, _) | (_, _, Some(true)) => Some(false),
        _ if bytes.len() < 12 => None,
        _ => Some(true),
    }
}

fn head(bytes: &[u8], blank: usize) -> Result<Front, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let bad = "the server's interim answer is no HTTP";
    let end = match head.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(Front::Unknown),
        Err(_) => return Err(bad),
    };
    let mut interim = Response::new(());
    *interim.status_mut() = StatusCode::from_u16(head.code.unwrap_or_default()).map_err(|_| bad)?;
    for field in &*head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| bad)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| bad)?;
        interim.headers_mut().append(name, value);
    }
    Ok(Front::Interim(interim, blank + end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nlink: </b>\r\n\r\n";

    #[test]
    fn an_interim_head_is_known_by_its_status() {
        for (bytes, interim) in [
            (HINTS, true),
            ("HTTP/1.0 100 Continue\r\n\r\n", true),
            ("\r\nHTTP/1.1 102 \r\n\r\n", true),
            ("HTTP/1.1 199 ?\r\n\r\n", true),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\n", false),
            ("HTTP/2.0 100 OK\r\n\r\n", false),
            ("SSH-2.0-a", false),
        ] {
            for end in 0..bytes.len() {
                let front = of(&bytes.as_bytes()[..end]).unwrap();
                assert!(!matches!(front, Front::Interim(..)), "{end} bytes of {bytes:?}");
            }
            let front = of(bytes.as_bytes()).unwrap();
            assert_eq!(matches!(front, Front::Answer), !interim, "{bytes:?}");
            if let Front::Interim(_, end) = front {
                assert_eq!(end, bytes.len());
            }
        }
    }

    #[test]
    fn its_fields_are_kept_and_what_follows_is_left() {
        let Front::Interim(head, end) = of((HINTS.to_owned() + "HTTP").as_bytes()).unwrap() else {
            panic!("an interim head");
        };
        assert_eq!((head.status().as_u16(), end), (103, HINTS.len()));
        assert_eq!(head.headers().get_all("link").iter().count(), 2);
    }

    #[test]
    fn one_without_end_or_sense_is_refused() {
        let endless = format!("HTTP/1.1 103 OK\r\nx: {}", "y".repeat(interim::MAX_BYTES));
        let many = format!("HTTP/1.1 103 OK\r\n{}\r\n", "x: y\r\n".repeat(MAX_FIELDS + 1));
        let blank = "\r\n".repeat(interim::MAX_BYTES);
        for bytes in [
            &*endless,
            &many,
            &blank,
            "HTTP/1.1 103 OK\r\nx y\r\n\r\n",
            "HTTP/1.1 1\r\n\r\n\r\n\r\n",
        ] {
            assert!(of(bytes.as_bytes()).is_err(), "{bytes:.40?}");
        }
    }
}
