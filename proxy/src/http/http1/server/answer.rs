//! How an answer is written (RFC 9112 §4, §6), and what becomes of its connection behind it (§9.3).

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::ext::ReasonPhrase;

use crate::http::http1::field;
use crate::http::http1::send::{Framing, write_text};
use crate::http::http1::server::Error;

/// What of a request decides how its answer is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    http10: bool,
    head: bool,
    connect: bool,
    /// The client will take another answer.
    persistent: bool,
}

/// What becomes of the connection behind an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Another request.
    Next,
    /// It ends.
    Close,
    /// It is a tunnel.
    Tunnel,
}

/// What the fields of an answer say of its framing and its connection.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    connection: bool,
    close: bool,
}

impl Asked {
    pub(super) fn of<B>(request: &Request<B>, persistent: bool) -> Self {
        Self {
            http10: request.version() == Version::HTTP_10,
            head: request.method() == Method::HEAD,
            connect: request.method() == Method::CONNECT,
            persistent,
        }
    }
}

/// Writes an answer's head; how its body is to be told, and what becomes of the connection behind it. `last`: it closes,
/// whatever is said.
///
/// # Errors
/// It has lengths that nobody could rely on. Then nothing is written.
pub(super) fn write(
    out: &mut Vec<u8>,
    response: &Response<impl Body>,
    asked: Asked,
    last: bool,
) -> Result<(Framing, Then), Error> {
    let before = out.len();
    write_status(out, response, asked);
    let mut said = Said::default();
    for (name, value) in response.headers() {
        if *name == CONTENT_LENGTH {
            let refused = said.note_length(value).inspect_err(|_| out.truncate(before));
            refused?;
        } else if *name == CONNECTION {
            said.note_connection(value);
        } else if *name != TRANSFER_ENCODING {
            field::write(out, name, value);
        }
    }
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS || (asked.connect && status.is_success()) {
        write_connection(out, response.headers());
        out.extend_from_slice(b"\r\n");
        return Ok((Framing::Empty, Then::Tunnel));
    }
    let framing = write_framing(out, response, asked, said.length);
    // Behind a CONNECT nobody can tell what is another request, nor behind an interim answer what is the answer.
    let unclear = asked.connect || status.is_informational() || framing == Framing::Close;
    let closes = last || said.close || !asked.persistent || unclear;
    if closes {
        out.extend_from_slice(b"connection: close\r\n");
    } else if asked.http10 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    } else if said.connection {
        write_connection(out, response.headers());
    }
    out.extend_from_slice(b"\r\n");
    Ok((framing, if closes { Then::Close } else { Then::Next }))
}

/// In our own version, as an intermediary has to (RFC 9112 §2.3), but not in one that the client does not know.
fn write_status<B>(out: &mut Vec<u8>, response: &Response<B>, asked: Asked) {
    let status = response.status();
    out.extend_from_slice(if asked.http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    let said = response
        .extensions()
        .get::<ReasonPhrase>()
        .map(ReasonPhrase::as_bytes);
    let canonical = || status.canonical_reason().unwrap_or_default().as_bytes();
    out.extend_from_slice(said.unwrap_or_else(canonical));
    out.extend_from_slice(b"\r\n");
}

/// Tells how long the body is, which is announced to be so long.
fn write_framing(
    out: &mut Vec<u8>,
    response: &Response<impl Body>,
    asked: Asked,
    announced: Option<u64>,
) -> Framing {
    let body = response.body();
    let ended = body.is_end_stream();
    // Nothing follows these, whatever they announce (RFC 9112 §6.3); only who asked with HEAD expects that they do.
    let is_bare = is_bare(response.status());
    let exact = || if ended { Some(0) } else { body.size_hint().exact() };
    let length = match (is_bare, asked.head) {
        (true, _) => None,
        (false, true) => announced,
        (false, false) => announced.or_else(exact),
    };
    if let Some(length) = length {
        out.extend_from_slice(b"content-length: ");
        write_text(out, format_args!("{length}\r\n"));
    }
    match length {
        _ if is_bare || asked.head => Framing::Empty,
        Some(0) if ended => Framing::Empty,
        Some(length) => Framing::Length(length),
        None if asked.http10 => Framing::Close,
        None => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Framing::Chunked
        }
    }
}

fn write_connection(out: &mut Vec<u8>, fields: &HeaderMap) {
    for value in fields.get_all(CONNECTION) {
        field::write(out, &CONNECTION, value);
    }
}

/// Whether an answer has no content (RFC 9110 §6.4.1).
fn is_bare(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

impl Said {
    /// A length may be said once, or several times the same (RFC 9110 §8.6).
    fn note_length(&mut self, value: &HeaderValue) -> Result<(), Error> {
        let length = field::length(value).ok_or(Error::Length)?;
        match self.length.replace(length) {
            Some(before) if before != length => Err(Error::Length),
            _ => Ok(()),
        }
    }

    fn note_connection(&mut self, value: &HeaderValue) {
        self.connection = true;
        self.close |= field::options(value).any(|option| option.eq_ignore_ascii_case(b"close"));
    }
}
