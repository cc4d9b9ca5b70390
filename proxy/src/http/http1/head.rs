//! Heads and trailers of HTTP/1 messages, read as RFC 9112 writes them: in one way only, or not at all.
//!
//! What two readers could take in two ways is the stuff of request smuggling, so nothing is repaired here: no bare LF, no
//! folded line, no space before a colon, one `Content-Length` or one `Transfer-Encoding: chunked`.

use std::fmt;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use memchr::memchr;

use crate::config::HeadLimits;
use crate::error::{Fault, Kind, Side};
use crate::http::http1::{field, spare};

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
    /// As long as this, bytes.
    Length(u64),
    /// As long as its chunks.
    Chunked,
    /// There is none.
    #[default]
    Empty,
}

/// A request's head.
#[derive(Debug)]
pub struct Head {
    /// What it says to all.
    pub request: Request<()>,
    /// How long its body is.
    pub framing: Framing,
    /// What follows the body may be a tunnel's bytes: only the answer can tell.
    pub tunnel: bool,
    /// The client will take another answer on the connection (RFC 9112 §9.3).
    pub persistent: bool,
}

/// The lines of a head, or of trailers, up to an empty one, as they come: where they end, and whether they are lines and
/// not too many. Goes on where it stopped when there are more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines {
    trailers: bool,
    /// Where the line begins that is not complete yet.
    line: usize,
    /// Up to where its end has been looked for.
    searched: usize,
    request_line: bool,
    /// It has been looked at by itself.
    checked: bool,
    fields: usize,
}

impl Lines {
    /// Those of a request's head.
    pub fn head() -> Self {
        Self {
            trailers: false,
            line: 0,
            searched: 0,
            request_line: false,
            checked: false,
            fields: 0,
        }
    }

    /// Those after the last chunk.
    pub fn trailers() -> Self {
        Self {
            trailers: true,
            ..Self::head()
        }
    }

    /// Reads on. `bytes` begins where the lines begin and holds at least what it held before. `Some` is where they end;
    /// `None`: the end is not there yet.
    ///
    /// # Errors
    /// A line ends in a way that not everybody takes for an end, or they exceed the limits.
    fn read(&mut self, bytes: &[u8], limits: &HeadLimits) -> Result<Option<usize>, Refusal> {
        while let Some(at) = memchr(b'\n', &bytes[self.searched..]) {
            let end = self.searched + at;
            if end >= limits.max_bytes {
                return Err(self.too_large());
            }
            let Some((b'\r', line)) = bytes[self.line..end].split_last() else {
                return malformed("a line ends without CR");
            };
            (self.line, self.searched) = (end + 1, end + 1);
            match line.is_empty() {
                true if self.trailers || self.request_line => return Ok(Some(end + 1)),
                true => {} // one of the empty lines that may precede a request (RFC 9112 §2.2)
                false if self.trailers || self.request_line => self.field(limits)?,
                false => self.request_line = true,
            }
        }
        self.searched = bytes.len();
        if bytes.len() > limits.max_bytes {
            return Err(self.too_large());
        }
        Ok(None)
    }

    /// Whether these bytes, which begin where the lines begin, are fewer than a whole head, and more of them are allowed.
    pub fn have_room(&mut self, bytes: &[u8], limits: &HeadLimits) -> bool {
        let mut seen = *self;
        let has_room = matches!(seen.read(bytes, limits), Ok(None));
        if has_room {
            *self = seen;
        }
        has_room
    }

    /// Whether something has come that is more than empty lines.
    pub fn begun(&self) -> bool {
        self.request_line || self.searched > self.line || self.fields > 0
    }

    fn field(&mut self, limits: &HeadLimits) -> Result<(), Refusal> {
        self.fields += 1;
        if self.fields > limits.max_fields {
            return Err(Refusal {
                kind: Kind::HeadersTooLarge,
                why: "the message has too many header fields",
            });
        }
        Ok(())
    }

    fn too_large(&self) -> Refusal {
        if self.trailers || self.request_line {
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

/// Takes a request's head from the front of what a client has said, once it is whole.
///
/// # Errors
/// It is not what RFC 9112 says, can be read in two ways, or exceeds the limits.
pub fn request(lines: &mut Lines, bytes: &mut Bytes, limits: &HeadLimits) -> Result<Option<Head>, Refusal> {
    let read = lines.read(bytes, limits);
    // Whoever speaks something else waits for no fields; and what is wrong first is said, in whatever pieces it comes.
    if !matches!(read, Ok(Some(_))) && lines.request_line && !lines.checked {
        lines.checked = true;
        request_line(bytes, &mut each_line(bytes))?;
    }
    let Some(end) = read? else {
        return Ok(None);
    };
    let section = bytes.split_to(end);
    let mut each = each_line(&section);
    let (mut seen, mut request) = request_line(&section, &mut each)?;
    let mut fields = spare::table(lines.fields.min(MOST_FIELDS));
    for line in each.take_while(|line| !line.is_empty()) {
        let (name, value) = parse(&section, line)?;
        let value = seen.field(&name, value)?;
        append(&mut fields, name, value)?;
    }
    *request.headers_mut() = fields;
    seen.conclude(request).map(Some)
}

/// Takes a trailer section from the front of what a client has said, once it is whole.
///
/// # Errors
/// As those of [`request`]; and what frames or routes a message has no place there.
pub fn trailers(
    lines: &mut Lines,
    bytes: &mut Bytes,
    limits: &HeadLimits,
) -> Result<Option<HeaderMap>, Refusal> {
    let Some(end) = lines.read(bytes, limits)? else {
        return Ok(None);
    };
    let section = bytes.split_to(end);
    let mut trailers = HeaderMap::with_capacity(lines.fields.min(MOST_FIELDS));
    for line in each_line(&section).take_while(|line| !line.is_empty()) {
        let (name, value) = parse(&section, line)?;
        if [HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name) {
            return framing("a trailer frames or routes the message");
        }
        append(&mut trailers, name, value)?;
    }
    Ok(Some(trailers))
}

/// Fields that room is made for before they are read.
const MOST_FIELDS: usize = 64;

/// The lines of a section, which have been looked at; the last one is empty, and there may be such at the front.
fn each_line(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let end = memchr(b'\n', rest)?;
        let line = &rest[..end - 1];
        rest = &rest[end + 1..];
        Some(line)
    })
}

/// `name: value` (RFC 9112 §5). The value is a part of the section, not a copy.
fn parse(section: &Bytes, line: &[u8]) -> Result<(HeaderName, HeaderValue), Refusal> {
    let colon = memchr(b':', line).unwrap_or(line.len());
    let Ok(name) = HeaderName::from_bytes(&line[..colon]) else {
        return malformed(match line {
            [b' ' | b'\t', ..] => "a header line is folded",
            _ => "a header's name is no token",
        });
    };
    if colon == line.len() {
        return malformed("a header line has no colon");
    }
    match HeaderValue::from_maybe_shared(section.slice_ref(field::trim(&line[colon + 1..]))) {
        Ok(value) => Ok((name, value)),
        Err(_) => malformed("a header's value has control characters"),
    }
}

fn append(fields: &mut HeaderMap, name: HeaderName, value: HeaderValue) -> Result<(), Refusal> {
    match fields.try_append(name, value) {
        Ok(_) => Ok(()),
        Err(_) => Err(Refusal {
            kind: Kind::HeadersTooLarge,
            why: "the message has more header fields than anybody can hold",
        }),
    }
}

/// What the lines of a head have said about the bytes behind it.
#[derive(Debug, Default)]
struct Seen {
    http10: bool,
    connect: bool,
    upgrade: bool,
    chunked: bool,
    host: bool,
    length: Option<u64>,
    close: bool,
    keep_alive: bool,
}

/// `method SP target SP version` (RFC 9112 §3), where RFC 9112 §2.3 knows two versions.
fn request_line<'a>(
    section: &Bytes,
    lines: &mut impl Iterator<Item = &'a [u8]>,
) -> Result<(Seen, Request<()>), Refusal> {
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let mut parts = line.split(|byte| *byte == b' ');
    let mut request = Request::new(());
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, parts.next()) else {
        return malformed("the request line is not method, target and version");
    };
    *request.version_mut() = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Refusal {
                kind: Kind::Version,
                why: "the request's version is neither HTTP/1.1 nor HTTP/1.0",
            });
        }
        _ => return malformed("the request line does not end in a version"),
    };
    let Ok(method) = Method::from_bytes(method) else {
        return malformed("the method is no token");
    };
    let Ok(target) = Uri::from_maybe_shared(section.slice_ref(target)) else {
        return malformed("the request's target is no URI");
    };
    let seen = Seen {
        http10: request.version() == Version::HTTP_10,
        connect: method == Method::CONNECT,
        ..Seen::default()
    };
    (*request.method_mut(), *request.uri_mut()) = (method, target);
    Ok((seen, request))
}

impl Seen {
    /// Takes what a field says; as it is to be told.
    fn field(&mut self, name: &HeaderName, value: HeaderValue) -> Result<HeaderValue, Refusal> {
        if *name == HOST {
            self.host()?;
        } else if *name == CONTENT_LENGTH {
            self.length(&value)?;
        } else if *name == TRANSFER_ENCODING {
            self.transfer_encoding(value.as_bytes())?;
            return Ok(HeaderValue::from_static("chunked"));
        } else if *name == UPGRADE {
            self.upgrade = true;
        } else if *name == CONNECTION {
            self.connection(&value);
        }
        Ok(value)
    }

    /// One at most (RFC 9112 §3.2).
    fn host(&mut self) -> Result<(), Refusal> {
        if self.host {
            return Err(Refusal {
                kind: Kind::BadRequest,
                why: "the request has more than one Host",
            });
        }
        self.host = true;
        Ok(())
    }

    /// Digits, and once only: what repeats or lists them may be read as any one of them (RFC 9110 §8.6).
    fn length(&mut self, value: &HeaderValue) -> Result<(), Refusal> {
        if self.length.is_some() {
            return framing("the request has more than one Content-Length");
        }
        self.length = field::length(value);
        match self.length {
            Some(_) => Ok(()),
            None => framing("the request's Content-Length is no number"),
        }
    }

    /// `chunked`, once, in HTTP/1.1 (RFC 9112 §6.1); no other coding is understood here.
    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.http10 {
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

    fn connection(&mut self, value: &HeaderValue) {
        for option in field::options(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    fn conclude(&self, request: Request<()>) -> Result<Head, Refusal> {
        let body = match (self.chunked, self.length) {
            (true, Some(_)) => return framing("the request has a Content-Length beside a Transfer-Encoding"),
            (true, None) => Framing::Chunked,
            (false, Some(0) | None) => Framing::Empty,
            (false, Some(length)) => Framing::Length(length),
        };
        if self.connect && body != Framing::Empty {
            return framing("a CONNECT request has no body");
        }
        Ok(Head {
            request,
            framing: body,
            tunnel: !self.http10 && (self.connect || self.upgrade),
            persistent: !self.close && (!self.http10 || self.keep_alive),
        })
    }
}

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
