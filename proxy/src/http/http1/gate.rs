//! Where in the requests of a connection its bytes have come to, and which of them may be passed on. No I/O.

use crate::config::HeadLimits;
use crate::http::http1::chunks::Chunks;
use crate::http::http1::head::{Framing, Head, Lines, Refusal};

/// Lets whole heads and whole trailers through, and bodies as they come.
#[derive(Debug)]
pub struct Gate {
    limits: HeadLimits,
    place: Place,
    /// The request at hand may turn the connection into a tunnel.
    tunnel: bool,
    heads: u64,
}

/// A place in the requests.
#[derive(Clone, Copy, Debug)]
enum Place {
    Head(Lines),
    Body {
        left: u64,
    },
    Chunks(Chunks),
    Trailers(Lines),
    /// Behind a request that asks for a tunnel: the answer says what the next byte is.
    Crossroads,
    Tunnel,
}

/// What may be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// As many bytes from the front.
    pub bytes: usize,
    /// The bytes behind those are refused.
    pub refused: Option<Refusal>,
}

impl Gate {
    /// Before the first request.
    pub fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            place: Place::Head(Lines::head()),
            tunnel: false,
            heads: 0,
        }
    }

    /// Says how many of these bytes may be passed on; they begin where those ended that were passed on before. The
    /// rest has to be kept, and shown again with more behind it.
    ///
    /// An `Expect: 100-continue` among them is hidden: see [`expect`](crate::http::http1::expect).
    pub fn pass(&mut self, bytes: &mut [u8]) -> Passed {
        let mut passed = 0;
        while passed < bytes.len() {
            match self.step(&mut bytes[passed..]) {
                Ok(0) => break,
                Ok(more) => passed += more,
                Err(refusal) => {
                    return Passed {
                        bytes: passed,
                        refused: Some(refusal),
                    };
                }
            }
        }
        Passed {
            bytes: passed,
            refused: None,
        }
    }

    fn step(&mut self, bytes: &mut [u8]) -> Result<usize, Refusal> {
        match &mut self.place {
            Place::Head(lines) => {
                let Some((end, head)) = lines.read(bytes, &self.limits)? else {
                    return Ok(0);
                };
                self.heads += 1;
                self.enter(head);
                Ok(end)
            }
            Place::Body { left } => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= here as u64;
                if *left == 0 {
                    self.complete();
                }
                Ok(here)
            }
            Place::Chunks(chunks) => {
                let read = chunks.read(bytes)?;
                if *chunks == Chunks::Last {
                    self.place = Place::Trailers(Lines::trailers());
                }
                Ok(read)
            }
            Place::Trailers(lines) => {
                let Some((end, _)) = lines.read(bytes, &self.limits)? else {
                    return Ok(0);
                };
                self.complete();
                Ok(end)
            }
            Place::Crossroads => Ok(0),
            Place::Tunnel => Ok(bytes.len()),
        }
    }

    fn enter(&mut self, head: Head) {
        self.tunnel = head.tunnel;
        match head.framing {
            Framing::Empty => self.complete(),
            Framing::Length(left) => self.place = Place::Body { left },
            Framing::Chunked => self.place = Place::Chunks(Chunks::first()),
        }
    }

    fn complete(&mut self) {
        self.place = if self.tunnel {
            Place::Crossroads
        } else {
            Place::Head(Lines::head())
        };
    }

    /// The answer has shown what follows the request that asked for a tunnel.
    pub fn decide(&mut self, tunnel: bool) {
        if matches!(self.place, Place::Crossroads) {
            self.tunnel = tunnel;
            self.complete();
            if tunnel {
                self.place = Place::Tunnel;
            }
        }
    }

    /// How many heads have been passed on.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Behind a request that asks for a tunnel.
    pub fn is_at_crossroads(&self) -> bool {
        matches!(self.place, Place::Crossroads)
    }

    /// The connection has become a tunnel.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.place, Place::Tunnel)
    }

    /// Between two requests, or before the first; a refusal here is of a head.
    pub fn is_between(&self) -> bool {
        matches!(self.place, Place::Head(_))
    }

    /// Whether a head or trailers have begun that are not complete.
    pub fn is_waiting(&self) -> bool {
        matches!(&self.place, Place::Head(lines) | Place::Trailers(lines) if lines.begun())
    }
}
