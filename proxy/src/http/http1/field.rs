//! A field, as HTTP/1 writes it.

use http::{HeaderName, HeaderValue};

/// Writes a line of a head, or of trailers (RFC 9112 §5).
pub fn write(to: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    to.extend_from_slice(name.as_str().as_bytes());
    to.extend_from_slice(b": ");
    to.extend_from_slice(value.as_bytes());
    to.extend_from_slice(b"\r\n");
}
