//! Frames as they lie on the wire (RFC 9113 §4.1, §6).

use bytes::{BufMut, BytesMut};

use crate::error::{Fatal, Reason};

/// What opens a client's side of a connection (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's head.
pub(crate) const HEAD: usize = 9;

pub(crate) const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const PRIORITY: u8 = 0x2;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const PUSH_PROMISE: u8 = 0x5;
pub(crate) const PING: u8 = 0x6;
pub(crate) const GOAWAY: u8 = 0x7;
pub(crate) const WINDOW_UPDATE: u8 = 0x8;
pub(crate) const CONTINUATION: u8 = 0x9;

pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITIZED: u8 = 0x20;

/// The smallest SETTINGS_MAX_FRAME_SIZE, and the one that holds until another is announced (RFC 9113 §6.5.2).
pub(crate) const MIN_MAX_FRAME_SIZE: u32 = 16_384;
/// The largest.
pub(crate) const MAX_MAX_FRAME_SIZE: u32 = (1 << 24) - 1;
/// The largest window (RFC 9113 §6.9.1).
pub(crate) const MAX_WINDOW: i64 = (1 << 31) - 1;
/// The window that holds until another is announced (RFC 9113 §6.9.2).
pub(crate) const INITIAL_WINDOW: i64 = 65_535;
/// The highest number of a stream (RFC 9113 §5.1.1).
pub(crate) const MAX_STREAM: u32 = (1 << 31) - 1;

/// A frame's head (RFC 9113 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes of the payload.
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// 0 is the connection.
    pub(crate) stream: u32,
}

impl Head {
    /// The head that these bytes begin with, once all of it is there.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, s0, s1, s2, s3] = bytes.first_chunk::<HEAD>()?;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        })
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Writes a frame's head.
pub(crate) fn put_head(out: &mut BytesMut, length: usize, kind: u8, flags: u8, stream: u32) {
    out.put_slice(&head(length, kind, flags, stream));
}

/// The bytes of a frame's head. A payload is never longer than [`MAX_MAX_FRAME_SIZE`].
pub(crate) fn head(length: usize, kind: u8, flags: u8, stream: u32) -> [u8; HEAD] {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    [a, b, c, kind, flags, s0, s1, s2, s3]
}

/// RST_STREAM (RFC 9113 §6.4).
pub(crate) fn put_reset(out: &mut BytesMut, stream: u32, reason: Reason) {
    put_head(out, 4, RST_STREAM, 0, stream);
    out.put_u32(reason.into());
}

/// WINDOW_UPDATE (RFC 9113 §6.9).
pub(crate) fn put_window_update(out: &mut BytesMut, stream: u32, more: u32) {
    put_head(out, 4, WINDOW_UPDATE, 0, stream);
    out.put_u32(more);
}

/// PING (RFC 9113 §6.7).
pub(crate) fn put_ping(out: &mut BytesMut, flags: u8, payload: [u8; 8]) {
    put_head(out, 8, PING, flags, 0);
    out.put_slice(&payload);
}

/// GOAWAY (RFC 9113 §6.8).
pub(crate) fn put_go_away(out: &mut BytesMut, last: u32, reason: Reason, text: &str) {
    put_head(out, 8 + text.len(), GOAWAY, 0, 0);
    out.put_u32(last);
    out.put_u32(reason.into());
    out.put_slice(text.as_bytes());
}

/// What lies between the padding of a frame (RFC 9113 §6.1), or between padding and priority of HEADERS.
///
/// # Errors
/// There is more padding than frame.
pub(crate) fn unpadded(head: Head, payload: &[u8]) -> Result<&[u8], Fatal> {
    if !head.has(PADDED) {
        return Ok(payload);
    }
    let kept = payload.split_first().and_then(|(padding, rest)| {
        let kept = rest.len().checked_sub(usize::from(*padding))?;
        rest.get(..kept)
    });
    kept.ok_or(Fatal(Reason::PROTOCOL_ERROR, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let bytes = head(70_000, GOAWAY, ACK, 5);
        let read = Head {
            length: 70_000,
            kind: GOAWAY,
            flags: ACK,
            stream: 5,
        };
        assert_eq!(Head::parse(&bytes), Some(read));
        assert_eq!(Head::parse(&bytes[..8]), None);
        let reserved_bit = [0, 0, 0, 0, 0, 0x80, 0, 0, 7];
        assert_eq!(Head::parse(&reserved_bit).unwrap().stream, 7);
    }

    #[test]
    fn padding_is_taken_off_and_never_longer_than_the_frame() {
        let padded = Head::parse(&head(0, DATA, PADDED, 1)).unwrap();
        assert_eq!(unpadded(padded, &[2, b'h', b'i', 0, 0]).unwrap(), &b"hi"[..]);
        assert_eq!(unpadded(padded, &[2, 0, 0]).unwrap(), &b""[..]);
        assert!(unpadded(padded, &[3, 0, 0]).is_err());
        assert!(unpadded(padded, &[]).is_err());
        let plain = Head::parse(&head(0, DATA, 0, 1)).unwrap();
        assert_eq!(unpadded(plain, &[9]).unwrap(), &[9][..]);
    }
}
