//! The heads of HTTP/2 frames (RFC 9113 §4.1), found in a byte stream that passes by. Nothing is copied or kept.

/// What opens a client's side of a connection (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's head.
const HEAD: usize = 9;
/// Bytes of a payload that are looked at, at most: of a GOAWAY, its code and what it says.
const LOOK: usize = 40;

/// DATA (RFC 9113 §6.1).
pub const DATA: u8 = 0x0;
/// HEADERS (RFC 9113 §6.2).
pub const HEADERS: u8 = 0x1;
/// PRIORITY (RFC 9113 §6.3).
pub const PRIORITY: u8 = 0x2;
/// RST_STREAM (RFC 9113 §6.4).
pub const RST_STREAM: u8 = 0x3;
/// SETTINGS (RFC 9113 §6.5).
pub const SETTINGS: u8 = 0x4;
/// PING (RFC 9113 §6.7).
pub const PING: u8 = 0x6;
/// GOAWAY (RFC 9113 §6.8).
pub const GOAWAY: u8 = 0x7;
/// WINDOW_UPDATE (RFC 9113 §6.9).
pub const WINDOW_UPDATE: u8 = 0x8;
/// CONTINUATION (RFC 9113 §6.10).
pub const CONTINUATION: u8 = 0x9;

/// The flag of DATA that is the last of its stream (RFC 9113 §6.1).
const END_STREAM: u8 = 0x1;
/// The flag of DATA that is padded (RFC 9113 §6.1).
const PADDED: u8 = 0x8;

/// A frame that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its type.
    pub kind: u8,
    /// The stream it belongs to; 0 is the connection.
    pub stream: u32,
    /// Bytes of its payload.
    pub length: u32,
    /// Whether it is DATA behind which nothing comes on its stream.
    pub last: bool,
    /// The first bytes of a GOAWAY's payload, the length of what DATA is padded with; nothing of any other's.
    pub look: &'a [u8],
}

impl Frame<'_> {
    /// Bytes of DATA that are neither padding nor its length.
    pub fn content(&self) -> usize {
        let padding = self.look.first().map_or(0, |padding| 1 + u32::from(*padding));
        self.length.saturating_sub(padding) as usize
    }
}

/// Walks over the frames of one direction of a connection.
#[derive(Debug)]
pub struct Frames {
    /// Bytes until the next frame.
    skip: u32,
    head: [u8; HEAD + LOOK],
    have: u8,
}

impl Frames {
    /// From the first byte of a client on.
    pub fn of_client() -> Self {
        Self {
            skip: PREFACE.len() as u32,
            ..Self::of_server()
        }
    }

    /// From the first byte of a server on.
    pub fn of_server() -> Self {
        Self {
            skip: 0,
            head: [0; HEAD + LOOK],
            have: 0,
        }
    }

    /// Whether one frame has ended and no other has begun.
    pub fn is_between(&self) -> bool {
        self.skip == 0 && self.have == 0
    }

    /// Shows each frame whose head ends within `bytes`, the next of the stream.
    pub fn walk(&mut self, mut bytes: &[u8], mut seen: impl FnMut(Frame<'_>)) {
        while !bytes.is_empty() {
            let skipped = bytes.len().min(self.skip as usize);
            self.skip -= skipped as u32;
            bytes = &bytes[skipped..];
            bytes = self.fill(HEAD, bytes);
            if usize::from(self.have) < HEAD {
                return;
            }
            let length = u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]);
            let kind = self.head[3];
            let look = match kind {
                GOAWAY => LOOK.min(length as usize),
                DATA if self.head[4] & PADDED != 0 => 1.min(length as usize),
                _ => 0,
            };
            bytes = self.fill(HEAD + look, bytes);
            if usize::from(self.have) < HEAD + look {
                return;
            }
            let [a, b, c, d] = [self.head[5], self.head[6], self.head[7], self.head[8]];
            seen(Frame {
                kind,
                stream: u32::from_be_bytes([a & 0x7f, b, c, d]),
                length,
                last: kind == DATA && self.head[4] & END_STREAM != 0,
                look: &self.head[HEAD..HEAD + look],
            });
            self.have = 0;
            self.skip = length - look as u32;
        }
    }

    /// Takes bytes until `want` are there, and answers the rest.
    fn fill<'a>(&mut self, want: usize, bytes: &'a [u8]) -> &'a [u8] {
        let have = usize::from(self.have);
        let taken = bytes.len().min(want.saturating_sub(have));
        self.head[have..have + taken].copy_from_slice(&bytes[..taken]);
        self.have += taken as u8;
        &bytes[taken..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PING, a DATA frame with 300 bytes on stream 5, a GOAWAY with 2 bytes of text.
    fn stream() -> Vec<u8> {
        let mut bytes = PREFACE.to_vec();
        bytes.extend(b"\0\0\x08\x06\0\0\0\0\0pingpong");
        bytes.extend(b"\0\x01\x2c\0\x01\x80\0\0\x05");
        bytes.extend([7; 300]);
        bytes.extend(b"\0\0\x0a\x07\0\0\0\0\0\0\0\0\x01\0\0\0\x0bhi");
        bytes
    }

    fn walked(parts: &[&[u8]]) -> Vec<(u8, u32, u32, Vec<u8>)> {
        let (mut frames, mut seen) = (Frames::of_client(), Vec::new());
        for part in parts {
            frames.walk(part, |frame| {
                seen.push((frame.kind, frame.stream, frame.length, frame.look.to_vec()));
            });
        }
        assert!(frames.is_between());
        seen
    }

    #[test]
    fn frames_are_found_wherever_the_stream_is_cut() {
        let stream = stream();
        let expected = [
            (PING, 0, 8, vec![]),
            (DATA, 5, 300, vec![]),
            (GOAWAY, 0, 10, b"\0\0\0\x01\0\0\0\x0bhi".to_vec()),
        ];
        assert_eq!(walked(&[&stream]), expected);
        for cut in 0..stream.len() {
            assert_eq!(
                walked(&[&stream[..cut], &stream[cut..]]),
                expected,
                "cut at {cut}"
            );
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(walked(&bytes), expected);
    }

    #[test]
    fn a_frame_that_has_begun_is_not_between() {
        let mut frames = Frames::of_server();
        for (bytes, between) in [
            (&b"\0\0\x04\x08\0"[..], false),
            (b"\0\0\0\0", false),
            (b"1234", true),
        ] {
            frames.walk(bytes, |_| {});
            assert_eq!(frames.is_between(), between, "{bytes:?}");
        }
    }
}
