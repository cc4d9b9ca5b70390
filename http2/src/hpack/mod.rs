//! HPACK, the header compression of HTTP/2 (RFC 7541).
//!
//! Written for blocks whose fields were nearly all seen before: the decoder's table keeps parsed
//! fields, and the encoder finds a field with one short hash and one comparison.

mod decoder;
mod encoder;
mod huffman;
mod table;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, StatusCode};

pub(crate) use decoder::Decoder;
pub(crate) use encoder::Encoder;

/// A field as it comes from a header block, its value already parsed. Table entries keep the parsed
/// form, so that a field sent by its index costs a clone of handles.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Field {
    /// `:method`
    Method(Method),
    /// `:scheme`
    Scheme(Scheme),
    /// `:authority`
    Authority(Authority),
    /// `:path`
    Path(PathAndQuery),
    /// `:status`
    Status(StatusCode),
    /// `:protocol` (RFC 8441 §4), an ASCII upgrade token.
    Protocol(Bytes),
    /// A regular field. Its value is marked sensitive if the peer sent it as never indexed
    /// (RFC 7541 §6.2.3), because we must pass that on.
    Header(HeaderName, HeaderValue),
    /// Well-formed HPACK, but no field that HTTP/2 allows (RFC 9113 §8.2.1, §8.3). The message is
    /// malformed, the compression state is fine.
    Malformed,
}

/// The pseudo-fields of RFC 9113 §8.3 and RFC 8441 §4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pseudo {
    /// `:method`
    Method,
    /// `:scheme`
    Scheme,
    /// `:authority`
    Authority,
    /// `:path`
    Path,
    /// `:status`
    Status,
    /// `:protocol`
    Protocol,
}

impl Pseudo {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Method => ":method",
            Self::Scheme => ":scheme",
            Self::Authority => ":authority",
            Self::Path => ":path",
            Self::Status => ":status",
            Self::Protocol => ":protocol",
        }
    }

    fn parse(name: &[u8]) -> Option<Self> {
        match name {
            b":method" => Some(Self::Method),
            b":scheme" => Some(Self::Scheme),
            b":authority" => Some(Self::Authority),
            b":path" => Some(Self::Path),
            b":status" => Some(Self::Status),
            b":protocol" => Some(Self::Protocol),
            _ => None,
        }
    }
}

/// The block cannot be decoded: a connection error of type COMPRESSION_ERROR (RFC 9113 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Error;

/// What an entry costs beyond its name and value (RFC 7541 §4.1).
const ENTRY_OVERHEAD: usize = 32;

/// The table size a connection starts with (RFC 9113 §6.5.2, SETTINGS_HEADER_TABLE_SIZE).
const DEFAULT_TABLE_SIZE: usize = 4096;
