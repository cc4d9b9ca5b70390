//! Heads and trailers of HTTP/1 messages, read as RFC 9112 writes them: in one way only, or not at all.
//!
//! What two readers could take in two ways is the stuff of request smuggling, so nothing is repaired here: no bare LF, no
//! folded line, no space before a colon, one `Content-Length` or one `Transfer-Encoding: chunked`.

use std::fmt;

use memchr::memchr;

use crate::config::HeadLimits;
use crate::error::{Fault, Kind, Side};
use crate::http::http1::expect;

/// Bytes that are not taken, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// How it is answered and counted.
    pub kind: Kind,
    /// What was wrong.
    pub why: &'static str,
}

/// How long the body behind a head is (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// As long as this, bytes; most are empty.
    Length(u64),
    /// As long as its chunks.
    Chunked,
    /// There is none.
    #[default]
    Empty,
}

/// What a request's head says about the bytes after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// How long its body is.
    pub framing: Framing,
    /// What follows the body may be a tunnel's bytes: only the answer can tell.
    pub tunnel: bool,
}

/// Lines up to an empty one: a request's head, or its trailers. Reads on where it stopped when there are more bytes.
#[derive(Clone, Copy, Debug)]
pub struct Lines {
    trailers: bool,
    /// Where the line begins that is not complete yet.
    line: usize,
    /// Up to where its end has been looked for.
    searched: usize,
    fields: usize,
    seen: Seen,
}

/// What the lines so far have said.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    request_line: bool,
    http10: bool,
    connect: bool,
    upgrade: bool,
    chunked: bool,
    host: bool,
    length: Option<u64>,
}

impl Lines {
    /// Those of a request's head.
    pub fn head() -> Self {
        Self {
            trailers: false,
            line: 0,
            searched: 0,
            fields: 0,
            seen: Seen::default(),
        }
    }

    /// Those after the last chunk.
    pub fn trailers() -> Self {
        Self {
            trailers: true,
            ..Self::head()
        }
    }

    /// Reads on. `bytes` begins where the lines begin and holds at least what it held before. `Some` is where they end
    /// and what they said; `None`: the end is not there yet.
    ///
    /// # Errors
    /// The lines are not what RFC 9112 says, can be read in two ways, or exceed the limits.
    pub fn read(&mut self, bytes: &mut [u8], limits: &HeadLimits) -> Result<Option<(usize, Head)>, Refusal> {
        while let Some(at) = memchr(b'\n', &bytes[self.searched..]) {
            let end = self.searched + at;
            if end >= limits.max_bytes {
                return Err(self.too_large());
            }
            let Some((b'\r', line)) = bytes[self.line..end].split_last_mut() else {
                return malformed("a line ends without CR");
            };
            (self.line, self.searched) = (end + 1, end + 1);
            if !line.is_empty() {
                self.line(line, limits)?;
            } else if self.trailers || self.seen.request_line {
                return Ok(Some((end + 1, self.seen.conclude()?)));
            } // else one of the empty lines that may precede a request (RFC 9112 §2.2)
        }
        self.searched = bytes.len();
        if bytes.len() > limits.max_bytes {
            return Err(self.too_large());
        }
        Ok(None)
    }

    /// Whether something has come that is more than empty lines.
    pub fn begun(&self) -> bool {
        self.seen.request_line || self.searched > self.line || self.fields > 0
    }

    fn line(&mut self, line: &mut [u8], limits: &HeadLimits) -> Result<(), Refusal> {
        if !self.trailers && !self.seen.request_line {
            return self.seen.request_line(line);
        }
        self.fields += 1;
        if self.fields > limits.max_fields {
            return Err(Refusal {
                kind: Kind::HeadersTooLarge,
                why: "the message has too many header fields",
            });
        }
        self.seen.field(line, self.trailers)
    }

    fn too_large(&self) -> Refusal {
        if self.trailers || self.seen.request_line {
            Refusal {
                kind: Kind::HeadersTooLarge,
                why: "the header fields are too long",
            }
        } else {
            Refusal {
                kind: Kind::UriTooLong,
                why: "the request line is too long",
            }
        }
    }
}

impl Seen {
    /// `method SP target SP version` (RFC 9112 §3), where RFC 9112 §2.3 knows two versions.
    fn request_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.request_line = true;
        let mut parts = line.split(|byte| *byte == b' ');
        let (method, target, version) = (parts.next(), parts.next(), parts.next());
        let (Some(method), Some(target), Some(version), None) = (method, target, version, parts.next())
        else {
            return malformed("the request line is not method, target and version");
        };
        if method.is_empty() || !method.iter().all(|byte| is_tchar(*byte)) {
            return malformed("the method is no token");
        }
        if target.is_empty() || has_control(target) || target.contains(&b'\t') {
            return malformed("the request's target is empty or has control characters");
        }
        self.connect = method == b"CONNECT";
        self.http10 = version == b"HTTP/1.0";
        match version {
            b"HTTP/1.1" | b"HTTP/1.0" => Ok(()),
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                Err(Refusal {
                    kind: Kind::Version,
                    why: "the request's version is neither HTTP/1.1 nor HTTP/1.0",
                })
            }
            _ => malformed("the request line does not end in a version"),
        }
    }

    /// `name: value` (RFC 9112 §5).
    fn field(&mut self, line: &mut [u8], trailer: bool) -> Result<(), Refusal> {
        let end = match line.iter().position(|byte| !is_tchar(*byte)) {
            Some(end) if line[end] == b':' && end > 0 => end,
            Some(0) if matches!(line[0], b' ' | b'\t') => return malformed("a header line is folded"),
            _ => return malformed("a header's name is no token"),
        };
        let (name, value) = line.split_at_mut(end);
        let value = &mut value[1..];
        if has_control(value) {
            return malformed("a header's value has control characters");
        }
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is(b"host") => self.host(trailer),
            6 if is(b"expect") && !expect::hide(value) => {
                malformed("the request's Expect is no list of expectations")
            }
            7 if is(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            14 if is(b"content-length") => self.length(trim(value), trailer),
            17 if is(b"transfer-encoding") => self.transfer_encoding(trim(value), trailer),
            _ => Ok(()),
        }
    }

    /// One at most (RFC 9112 §3.2).
    fn host(&mut self, trailer: bool) -> Result<(), Refusal> {
        if self.host || trailer {
            return Err(Refusal {
                kind: Kind::BadRequest,
                why: "the request has more than one Host",
            });
        }
        self.host = true;
        Ok(())
    }

    /// Digits, and once only: what repeats or lists them may be read as any one of them (RFC 9110 §8.6).
    fn length(&mut self, value: &[u8], trailer: bool) -> Result<(), Refusal> {
        if self.length.is_some() || trailer {
            return framing("the request has more than one Content-Length");
        }
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(value).ok().filter(|_| digits);
        // hyper takes two of the largest for something else.
        self.length = length
            .and_then(|digits| digits.parse().ok())
            .filter(|n| *n <= MAX_LENGTH);
        match self.length {
            Some(_) => Ok(()),
            None => framing("the request's Content-Length is no number"),
        }
    }

    /// `chunked`, once, in HTTP/1.1 (RFC 9112 §6.1); no other coding is understood here.
    fn transfer_encoding(&mut self, value: &[u8], trailer: bool) -> Result<(), Refusal> {
        if self.http10 || trailer {
            return framing("a Transfer-Encoding where HTTP has none");
        }
        if self.chunked {
            return framing("the request has more than one Transfer-Encoding");
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal {
                kind: Kind::TransferEncoding,
                why: "the request's Transfer-Encoding is not chunked",
            });
        }
        self.chunked = true;
        Ok(())
    }

    fn conclude(&self) -> Result<Head, Refusal> {
        let framing = match (self.chunked, self.length) {
            (true, Some(_)) => return framing("the request has a Content-Length beside a Transfer-Encoding"),
            (true, None) => Framing::Chunked,
            (false, Some(0) | None) => Framing::Empty,
            (false, Some(length)) => Framing::Length(length),
        };
        if self.connect && framing != Framing::Empty {
            return framing_of_connect();
        }
        Ok(Head {
            framing,
            tunnel: !self.http10 && (self.connect || self.upgrade),
        })
    }
}

/// What a body may have, bytes.
const MAX_LENGTH: u64 = i64::MAX as u64;

impl Refusal {
    /// As a fault of the client.
    pub fn fault(self) -> Fault {
        Fault::because(self.kind, Side::Client, self.why)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why)
    }
}

impl std::error::Error for Refusal {}

/// The refusal that caused an error, however deep.
pub fn refusal_in(error: &(dyn std::error::Error + 'static)) -> Option<Refusal> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return Some(*refusal);
        }
        // An I/O error does not name the error that it is made of as its source.
        let within = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        if let Some(refusal) = within.and_then(|within| within.downcast_ref::<Refusal>()) {
            return Some(*refusal);
        }
        next = error.source();
    }
    None
}

/// Bytes that are no message.
pub(super) fn malformed<T>(why: &'static str) -> Result<T, Refusal> {
    Err(Refusal {
        kind: Kind::Malformed,
        why,
    })
}

/// Bytes whose message could end here or there.
pub(super) fn framing<T>(why: &'static str) -> Result<T, Refusal> {
    Err(Refusal {
        kind: Kind::Framing,
        why,
    })
}

fn framing_of_connect<T>() -> Result<T, Refusal> {
    framing("a CONNECT request has no body")
}

/// A byte of a token (RFC 9110 §5.6.2).
fn is_tchar(byte: u8) -> bool {
    const TCHARS: [bool; 256] = {
        let (mut table, mut at) = ([false; 256], 0);
        while at < 256 {
            table[at] = (at as u8).is_ascii_alphanumeric();
            at += 1;
        }
        let (others, mut at) = (b"!#$%&'*+-.^_`|~", 0);
        while at < others.len() {
            table[others[at] as usize] = true;
            at += 1;
        }
        table
    };
    TCHARS[usize::from(byte)]
}

/// Control characters have no place in a line (RFC 9110 §5.5), CR, NUL and DEL among them; a tab has.
fn has_control(bytes: &[u8]) -> bool {
    // No early end: so the compiler looks at many at a time.
    let bad = |bad, byte: &u8| bad | ((*byte < b' ') & (*byte != b'\t')) | (*byte == 0x7f);
    bytes.iter().fold(false, bad)
}

/// Without spaces and tabs at either end (OWS, RFC 9110 §5.6.3).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
