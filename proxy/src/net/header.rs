//! The transport header: what a proxy sends first on a connection to another proxy's inbound port.
//!
//! It follows a handshake in which ALPN chose [`ALPN`]: a preface of 23 bytes, a length of 4 bytes (big-endian), and
//! the protobuf message `transport.l5d.io.Header`.

use std::num::NonZeroU16;

use bytes::{BufMut, BytesMut};
use outrigger_policy::name::DnsName;
use outrigger_proto::transport_header::{Header, SessionProtocol, session_protocol};
use prost::Message;

/// The ALPN protocol of connections that begin with a transport header.
pub const ALPN: &[u8] = b"transport.l5d.io/v1";

/// The longest header with its preface and length, bytes; a caller's buffer has to hold as many.
pub const LIMIT: usize = 64 << 10;

const PREFACE: &[u8; 23] = b"transport.l5d.io/v1\r\n\r\n";
const FRAMING: usize = PREFACE.len() + size_of::<u32>();

/// Where a connection between proxies is going, and what is spoken on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportHeader {
    /// The port of the workload.
    pub port: NonZeroU16,
    /// The destination behind a gateway; `None` for the workload beside the proxy.
    pub name: Option<DnsName>,
    /// What is spoken; `None` for bytes.
    pub session: Option<Session>,
}

/// The version of HTTP that follows a transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Session {
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What was read from the first bytes of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The bytes can still become a header.
    NeedMore,
    /// A header, and how many bytes it took; the payload follows.
    Complete(TransportHeader, usize),
}

/// Why the first bytes of a connection are no transport header.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum HeaderError {
    /// They don't begin with the preface.
    #[error("the connection does not begin with a transport header")]
    Preface,
    /// The message would take the header above [`LIMIT`].
    #[error("a transport header of {0} bytes is too long: at most {max} are accepted", max = LIMIT - FRAMING)]
    TooLong(u32),
    /// The message is no `transport.l5d.io.Header`.
    #[error("the transport header can't be decoded")]
    Message(#[from] prost::DecodeError),
    /// The port is not in 1–65535.
    #[error("the transport header names port {0}: it must be from 1 to 65535")]
    Port(i32),
    /// The name is no DNS name.
    #[error("the transport header's name is no DNS name")]
    Name,
    /// The session protocol is one that this version does not know.
    #[error("the transport header names a session protocol that is neither HTTP/1 nor HTTP/2")]
    Session,
}

impl TransportHeader {
    /// Appends the header with its preface and length.
    pub fn encode(&self, buf: &mut BytesMut) {
        let message = self.message();
        let length = message.encoded_len();
        buf.reserve(FRAMING + length);
        buf.put_slice(PREFACE);
        // A name has at most 253 bytes, and the rest of the message 13.
        buf.put_u32(length as u32);
        buf.put_slice(&message.encode_to_vec());
    }

    fn message(&self) -> Header {
        let kind = self.session.map(|session| match session {
            Session::Http1 => session_protocol::Kind::Http1(session_protocol::Http1 {}),
            Session::Http2 => session_protocol::Kind::Http2(session_protocol::Http2 {}),
        });
        Header {
            port: i32::from(self.port.get()),
            name: self.name.as_ref().map_or_else(String::new, DnsName::to_string),
            session_protocol: kind.map(|kind| SessionProtocol { kind: Some(kind) }),
        }
    }
}

/// Reads a header from the first bytes of a connection. What can't become one is refused at the first byte that says
/// so.
pub fn decode(bytes: &[u8]) -> Result<Decoded, HeaderError> {
    let preface = bytes.len().min(PREFACE.len());
    if bytes[..preface] != PREFACE[..preface] {
        return Err(HeaderError::Preface);
    }
    let Some((length, rest)) = bytes[preface..].split_first_chunk() else {
        return Ok(Decoded::NeedMore);
    };
    let length = u32::from_be_bytes(*length);
    let end = FRAMING.saturating_add(length as usize);
    if end > LIMIT {
        return Err(HeaderError::TooLong(length));
    }
    match rest.get(..end - FRAMING) {
        Some(message) => Ok(Decoded::Complete(checked(Header::decode(message)?)?, end)),
        None => Ok(Decoded::NeedMore),
    }
}

fn checked(header: Header) -> Result<TransportHeader, HeaderError> {
    let port = u16::try_from(header.port).ok().and_then(NonZeroU16::new);
    let name = match &header.name[..] {
        "" => None,
        name => Some(DnsName::parse(name).map_err(|_| HeaderError::Name)?),
    };
    let session = header.session_protocol.map(|session| match session.kind {
        Some(session_protocol::Kind::Http1(_)) => Ok(Session::Http1),
        Some(session_protocol::Kind::Http2(_)) => Ok(Session::Http2),
        None => Err(HeaderError::Session),
    });
    Ok(TransportHeader {
        port: port.ok_or(HeaderError::Port(header.port))?,
        name,
        session: session.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(port: u16, name: Option<&str>, session: Option<Session>) -> TransportHeader {
        TransportHeader {
            port: NonZeroU16::new(port).unwrap(),
            name: name.map(|name| DnsName::parse(name).unwrap()),
            session,
        }
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        [PREFACE, &(message.len() as u32).to_be_bytes()[..], message].concat()
    }

    /// Headers, and the bytes that Google's protobuf for Python makes of them after the preface.
    fn golden() -> [(TransportHeader, &'static [u8]); 3] {
        [
            (header(8080, None, None), b"\x00\x00\x00\x03\x08\x90\x3f"),
            (
                header(65535, None, Some(Session::Http1)),
                b"\x00\x00\x00\x08\x08\xff\xff\x03\x1a\x02\x0a\x00",
            ),
            (
                header(1, Some("web.ns.svc.cluster.local"), Some(Session::Http2)),
                b"\x00\x00\x00\x20\x08\x01\x12\x18web.ns.svc.cluster.local\x1a\x02\x12\x00",
            ),
        ]
    }

    #[test]
    fn the_bytes_are_those_of_an_independent_encoder() {
        for (header, golden) in golden() {
            let mut bytes = BytesMut::new();
            header.encode(&mut bytes);
            let golden = [b"transport.l5d.io/v1\r\n\r\n", golden].concat();
            assert_eq!(bytes, golden);
            assert_eq!(decode(&golden), Ok(Decoded::Complete(header, golden.len())));
        }
    }

    #[test]
    fn a_header_may_come_in_pieces_and_the_payload_is_left() {
        let mut bytes = BytesMut::new();
        let header = header(80, Some("a.b"), None);
        header.encode(&mut bytes);
        for n in 0..bytes.len() {
            assert_eq!(decode(&bytes[..n]), Ok(Decoded::NeedMore), "{n}");
        }
        let length = bytes.len();
        bytes.put_slice(b"payload");
        assert_eq!(decode(&bytes), Ok(Decoded::Complete(header, length)));
    }

    #[test]
    fn anything_else_is_refused_at_its_first_byte() {
        assert_eq!(decode(b"GET / HTTP/1.1"), Err(HeaderError::Preface));
        assert_eq!(decode(b"transport.l5d.io/v2"), Err(HeaderError::Preface));
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_the_message_is_there() {
        let with_length = |length: u32| [PREFACE, &length.to_be_bytes()[..]].concat();
        assert_eq!(
            decode(&with_length(u32::MAX)),
            Err(HeaderError::TooLong(u32::MAX))
        );
        assert_eq!(decode(&with_length(65_510)), Err(HeaderError::TooLong(65_510)));
        assert_eq!(decode(&with_length(65_509)), Ok(Decoded::NeedMore));
    }

    #[test]
    fn a_header_that_can_not_be_honoured_is_refused() {
        assert_eq!(decode(&framed(b"")), Err(HeaderError::Port(0)));
        assert_eq!(
            decode(&framed(b"\x08\x80\x80\x04")),
            Err(HeaderError::Port(65_536))
        );
        assert_eq!(decode(&framed(b"\x08\x50\x12\x03a b")), Err(HeaderError::Name));
        assert_eq!(decode(&framed(b"\x08\x50\x1a\x00")), Err(HeaderError::Session));
        assert!(matches!(decode(&framed(b"\xff")), Err(HeaderError::Message(_))));
    }
}
