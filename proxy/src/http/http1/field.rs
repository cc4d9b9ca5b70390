//! A field, as HTTP/1 writes it, and what those say that are of the connection and the framing.

use bytes::BufMut;
use http::{HeaderName, HeaderValue};

/// Writes a line of a head, or of trailers (RFC 9112 §5).
pub fn write(to: &mut impl BufMut, name: &HeaderName, value: &HeaderValue) {
    to.put_slice(name.as_str().as_bytes());
    to.put_slice(b": ");
    to.put_slice(value.as_bytes());
    to.put_slice(b"\r\n");
}

/// What a `Content-Length` says, if it is digits and nothing else: what repeats or lists them may be read as any one of them
/// (RFC 9110 §8.6).
pub fn length(value: &HeaderValue) -> Option<u64> {
    let digits = value.to_str().ok()?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let length = digits.parse().ok().filter(|_| is_number);
    length.filter(|length| *length <= MAX_LENGTH)
}

/// What a body may have, bytes: others count them with a sign.
const MAX_LENGTH: u64 = i64::MAX as u64;

/// The options that a `Connection` lists (RFC 9110 §7.6.1).
pub fn options(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(trim)
}

/// Without spaces and tabs at either end (OWS, RFC 9110 §5.6.3).
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
