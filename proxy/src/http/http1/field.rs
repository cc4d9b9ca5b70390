//! A field, as HTTP/1 writes it.

use bytes::BufMut;
use http::{HeaderName, HeaderValue};

/// Writes a line of a head, or of trailers (RFC 9112 §5).
pub fn write(to: &mut impl BufMut, name: &HeaderName, value: &HeaderValue) {
    to.put_slice(name.as_str().as_bytes());
    to.put_slice(b": ");
    to.put_slice(value.as_bytes());
    to.put_slice(b"\r\n");
}
