//! A request, as HTTP/1 writes it (RFC 9112 §3, §6).

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Method, Request, Version};
use http_body::Body as _;

use crate::http::body::Body;
use crate::http::http1::client::Error;
use crate::http::http1::field;
use crate::http::http1::send::{Framing, Sending, write_text};

/// A request is to be sent. Its body is taken.
pub(super) fn send(sending: &mut Sending<Body>, request: &mut Request<Body>) -> Result<(), Error> {
    let framing = framing(request)?;
    write_head(sending.head(), request, framing);
    sending.body(std::mem::take(request.body_mut()), framing);
    Ok(())
}

/// A body whose length nobody has said is chunked (RFC 9112 §6.3), such as one that came over HTTP/2.
fn framing(request: &Request<Body>) -> Result<Framing, Error> {
    let ended = request.body().is_end_stream();
    // What follows a CONNECT is no body (RFC 9110 §9.3.6).
    if request.method() == Method::CONNECT {
        return Ok(Framing::Empty);
    }
    let Some(length) = request.headers().get(CONTENT_LENGTH) else {
        return Ok(if ended { Framing::Empty } else { Framing::Chunked });
    };
    match field::length(length).ok_or(Error::Length)? {
        0 if ended => Ok(Framing::Empty),
        1.. if ended => Err(Error::Length),
        length => Ok(Framing::Length(length)),
    }
}

fn write_head(out: &mut Vec<u8>, request: &Request<Body>, framing: Framing) {
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.extend_from_slice(b" ");
    let uri = request.uri();
    match (uri.authority(), uri.path_and_query()) {
        (None, Some(path)) => {
            if path.as_str().starts_with('?') {
                out.push(b'/');
            }
            out.extend_from_slice(path.as_str().as_bytes());
        }
        (Some(authority), None) => out.extend_from_slice(authority.as_str().as_bytes()),
        _ => write_text(out, format_args!("{uri}")),
    }
    let chunked = matches!(framing, Framing::Chunked);
    // HTTP/1.0 has no chunks; a proxy speaks the version that it has (RFC 9110 §2.5).
    out.extend_from_slice(match request.version() {
        Version::HTTP_10 if !chunked => b" HTTP/1.0\r\n",
        _ => b" HTTP/1.1\r\n",
    });
    for (name, value) in request.headers() {
        if name != TRANSFER_ENCODING {
            field::write(out, name, value);
        }
    }
    if chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
}
