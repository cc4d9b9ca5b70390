//! Chunked bodies as they stream by (RFC 9112 §7.1): nothing is kept of them but where the next chunk begins.

use crate::http::http1::head::{Refusal, framing};

/// Bytes of one chunk's extensions. They are passed by (RFC 9112 §7.1.1); signatures of uploads take about a hundred.
const MAX_EXTENSION: u16 = 1_024;
/// Digits of a chunk's size: 2⁶⁰ bytes.
const MAX_DIGITS: u8 = 15;

/// Where in a chunked body the bytes have come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunks {
    /// In a chunk's size.
    Size { size: u64, digits: u8 },
    /// In spaces behind it: they may precede an extension (RFC 9112 §7.1.1), and old servers fill the line with them. Who
    /// allows them [pads](Self::pad).
    Padding { size: u64, length: u16 },
    /// In what follows it.
    Extension { size: u64, length: u16 },
    /// Behind the CR of that line.
    SizeEnd { size: u64 },
    /// In the chunk itself, with so many bytes to come.
    Data { left: u64 },
    /// Behind the chunk.
    DataEnd,
    /// Behind the CR after the chunk.
    DataLf,
    /// Behind the line of the last chunk: trailers follow, or an empty line.
    Last,
}

/// What bytes of a chunked body are, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Data.
    Data(usize),
    /// What surrounds it.
    Line(usize),
}

impl Chunks {
    /// At the first chunk.
    pub fn first() -> Self {
        Self::Size { size: 0, digits: 0 }
    }

    /// Passes a space by that stands behind a size; how many bytes that was.
    pub fn pad(&mut self, bytes: &[u8]) -> usize {
        let (Self::Size { size, digits: 1.. }, Some(b' ' | b'\t')) = (*self, bytes.first()) else {
            return 0;
        };
        *self = Self::Padding { size, length: 1 };
        1
    }

    /// Reads one byte on, or all that there is of a chunk's data. Without bytes, and behind the last chunk, there is nothing
    /// to be read.
    ///
    /// # Errors
    /// The bytes are no chunks, or another reader could end them elsewhere.
    pub fn step(&mut self, bytes: &[u8]) -> Result<Piece, Refusal> {
        let Some(first) = bytes.first().filter(|_| *self != Self::Last) else {
            return Ok(Piece::Line(0));
        };
        let Self::Data { left } = self else {
            *self = self.after(*first)?;
            return Ok(Piece::Line(1));
        };
        let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
        *left -= here as u64;
        if *left == 0 {
            *self = Self::DataEnd;
        }
        Ok(Piece::Data(here))
    }

    /// One byte that is not of a chunk's data.
    fn after(self, byte: u8) -> Result<Self, Refusal> {
        let hex = char::from(byte).to_digit(16);
        Ok(match (self, byte) {
            (Self::Size { size, digits }, _) if hex.is_some() && digits < MAX_DIGITS => Self::Size {
                size: size << 4 | u64::from(hex.unwrap_or_default()),
                digits: digits + 1,
            },
            (Self::Size { digits: 0, .. }, _) => return framing("a chunk's size is no hexadecimal number"),
            (Self::Size { size, .. } | Self::Padding { size, .. } | Self::Extension { size, .. }, b'\r') => {
                Self::SizeEnd { size }
            }
            (Self::Padding { size, length }, b' ' | b'\t') if length < MAX_EXTENSION => Self::Padding {
                size,
                length: length + 1,
            },
            (Self::Size { size, .. } | Self::Padding { size, .. }, b';') => {
                Self::Extension { size, length: 0 }
            }
            (Self::Size { .. } | Self::Padding { .. }, _) => {
                return framing("a chunk's size is no hexadecimal number, or too large");
            }
            (
                Self::Extension {
                    length: MAX_EXTENSION,
                    ..
                },
                _,
            ) => return framing("a chunk's extensions are too long"),
            (Self::Extension { .. }, ..b' ' | 0x7f) if byte != b'\t' => {
                return framing("a chunk's extensions have control characters");
            }
            (Self::Extension { size, length }, _) => Self::Extension {
                size,
                length: length + 1,
            },
            (Self::SizeEnd { size: 0 }, b'\n') => Self::Last,
            (Self::SizeEnd { size }, b'\n') => Self::Data { left: size },
            (Self::DataEnd, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::first(),
            _ => return framing("a chunk does not end where its size says, with CR and LF"),
        })
    }
}
