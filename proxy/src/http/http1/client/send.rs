//! A request on its way out (RFC 9112 §3, §6).

use std::fmt;
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request, Version};
use http_body::{Body as _, Frame};
use tokio::io::AsyncWrite;

use crate::http::body::Body;
use crate::http::http1::client::Error;
use crate::http::http1::{field, trailers};
use crate::net::io::Io;

/// Bytes of a frame up to which it is copied behind others, to be written with them.
const SMALL: usize = 4 << 10;
/// Bytes that are gathered before they are written.
const FULL: usize = 16 << 10;
/// What most heads fit into, bytes.
const HEAD: usize = 512;
/// Bytes of a buffer that a connection at rest may keep.
const KEPT: usize = 1 << 10;

/// What is still to be written of a request.
#[derive(Debug, Default)]
pub(super) struct Sending {
    body: Body,
    framing: Framing,
    /// Encoded, and how much of it has been written; then comes `data`, then `tail`. A small buffer is kept for the next
    /// request.
    out: Vec<u8>,
    written: usize,
    data: Bytes,
    tail: &'static [u8],
    stage: Stage,
    /// The server may have got something, or the body has been asked.
    touched: bool,
    /// Why the server takes no more of it.
    broken: Option<io::Error>,
}

/// How the end of the body is told.
#[derive(Clone, Copy, Debug, Default)]
enum Framing {
    /// By its length, of which so much is to come.
    Length(u64),
    Chunked,
    #[default]
    Empty,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// The body has more.
    Body,
    /// All is encoded.
    Ended,
    /// All is written.
    #[default]
    Complete,
    /// The server takes no more.
    Broken,
}

impl Sending {
    /// A request to be sent behind this one, which is complete. Its body is taken.
    pub(super) fn next(self, request: &mut Request<Body>) -> Result<Self, Error> {
        let framing = framing(request)?;
        let mut out = self.out;
        out.reserve(HEAD);
        write_head(&mut out, request, framing);
        Ok(Self {
            body: std::mem::take(request.body_mut()),
            framing,
            out,
            stage: match framing {
                Framing::Empty => Stage::Ended,
                Framing::Length(_) | Framing::Chunked => Stage::Body,
            },
            ..Self::default()
        })
    }

    /// Writes what there is. Ready when all has been written. That the server takes no more is no error: it may answer
    /// yet.
    ///
    /// # Errors
    /// The body broke off, or has not the length that was announced; or the connection did before the server could get
    /// anything.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<Result<(), Error>> {
        match self.stage {
            Stage::Complete => return Poll::Ready(Ok(())),
            Stage::Broken => return Poll::Pending,
            Stage::Body | Stage::Ended => {}
        }
        match ready!(self.poll_out(cx, io))? {
            Ok(()) if self.stage == Stage::Ended => {
                self.complete();
                Poll::Ready(Ok(()))
            }
            Ok(()) => Poll::Pending,
            Err(error) if !self.touched => Poll::Ready(Err(error.into())),
            Err(error) => {
                *self = Self {
                    stage: Stage::Broken,
                    touched: true,
                    broken: Some(error),
                    ..Self::default()
                };
                Poll::Pending
            }
        }
    }

    fn complete(&mut self) {
        let small = |out: &Vec<u8>| out.capacity() <= KEPT;
        *self = Self {
            out: Some(std::mem::take(&mut self.out))
                .filter(small)
                .unwrap_or_default(),
            ..Self::default()
        };
    }

    /// Whether the server has got all.
    pub(super) fn is_complete(&self) -> bool {
        self.stage == Stage::Complete
    }

    /// Whether the server takes no more.
    pub(super) fn is_broken(&self) -> bool {
        self.stage == Stage::Broken
    }

    /// Why the server takes no more.
    pub(super) fn broken(&mut self) -> Option<io::Error> {
        self.broken.take()
    }

    /// The server has said something, and so may have got something.
    pub(super) fn touch(&mut self) {
        self.touched = true;
    }

    /// The body, if neither it nor the server has been asked for anything.
    pub(super) fn untouched(&mut self) -> Option<Body> {
        let untouched = !self.touched && self.stage != Stage::Complete;
        untouched.then(|| std::mem::take(&mut self.body))
    }

    /// Ready when all is written that the body had to say up to now. What breaks off is the body without, the connection
    /// within.
    fn poll_out(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<Result<io::Result<()>, Error>> {
        loop {
            self.gather(cx)?;
            if self.is_written() {
                return Pin::new(io).poll_flush(cx).map(Ok);
            }
            if let Err(error) = ready!(self.poll_write(cx, io)) {
                return Poll::Ready(Ok(Err(error)));
            }
        }
    }

    /// Asks the body for as much as is written at a time.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let has_room =
            |sending: &Self| sending.data.is_empty() && sending.tail.is_empty() && sending.out.len() < FULL;
        while self.stage == Stage::Body && has_room(self) {
            self.touched = true;
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                break;
            };
            match frame {
                None => self.end(None)?,
                Some(frame) => self.add(frame.map_err(|error| Error::Request(Box::new(error)))?)?,
            }
        }
        Ok(())
    }

    fn add(&mut self, frame: Frame<Bytes>) -> Result<(), Error> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(frame.trailers_ref()),
        };
        // A chunk of no bytes would be the last one.
        if !data.is_empty() {
            self.announce(data.len())?;
            self.tail = self.framing.tail();
            if data.len() <= SMALL {
                self.out.extend_from_slice(&data);
                self.out.extend_from_slice(std::mem::take(&mut self.tail));
            } else {
                self.data = data;
            }
        }
        if self.body.is_end_stream() {
            return self.end(None);
        }
        Ok(())
    }

    /// Counts so many bytes of the body, or writes that they follow.
    fn announce(&mut self, bytes: usize) -> Result<(), Error> {
        match &mut self.framing {
            Framing::Length(left) => *left = left.checked_sub(bytes as u64).ok_or(Error::Length)?,
            // The line before a chunk (RFC 9112 §7.1).
            Framing::Chunked => write_text(&mut self.out, format_args!("{bytes:X}\r\n")),
            Framing::Empty => return Err(Error::Length),
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Error> {
        match self.framing {
            Framing::Length(1..) => return Err(Error::Length),
            Framing::Length(0) | Framing::Empty => {}
            Framing::Chunked if self.tail.is_empty() => {
                self.out.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    trailers::write(&mut self.out, trailers);
                }
                self.out.extend_from_slice(b"\r\n");
            }
            Framing::Chunked => self.tail = CHUNK_AND_LAST,
        }
        self.stage = Stage::Ended;
        self.body = Body::Empty;
        Ok(())
    }

    fn is_written(&self) -> bool {
        self.written == self.out.len() && self.data.is_empty() && self.tail.is_empty()
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<io::Result<()>> {
        while !self.is_written() {
            let slices = [&self.out[self.written..], &self.data[..], self.tail].map(IoSlice::new);
            let from = slices.iter().take_while(|slice| slice.is_empty()).count();
            let written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[from..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.touched = true;
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, written: usize) {
        let here = written.min(self.out.len() - self.written);
        self.written += here;
        if self.written == self.out.len() {
            self.written = 0;
            self.out.clear();
        }
        let written = written - here;
        let here = written.min(self.data.len());
        self.data.advance(here);
        self.tail = &self.tail[written - here..];
    }
}

impl Framing {
    fn tail(self) -> &'static [u8] {
        match self {
            Self::Chunked => b"\r\n",
            Self::Length(_) | Self::Empty => b"",
        }
    }
}

/// The end of a chunk, and the last chunk.
const CHUNK_AND_LAST: &[u8] = b"\r\n0\r\n\r\n";

/// A body whose length nobody has said is chunked (RFC 9112 §6.3), such as one that came over HTTP/2.
fn framing(request: &Request<Body>) -> Result<Framing, Error> {
    let ended = request.body().is_end_stream();
    // What follows a CONNECT is no body (RFC 9110 §9.3.6).
    if request.method() == Method::CONNECT {
        return Ok(Framing::Empty);
    }
    let Some(length) = request.headers().get(CONTENT_LENGTH) else {
        return Ok(if ended { Framing::Empty } else { Framing::Chunked });
    };
    let length = length.to_str().ok().and_then(|digits| digits.parse().ok());
    match length.ok_or(Error::Length)? {
        0 if ended => Ok(Framing::Empty),
        1.. if ended => Err(Error::Length),
        length => Ok(Framing::Length(length)),
    }
}

fn write_head(out: &mut Vec<u8>, request: &Request<Body>, framing: Framing) {
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.extend_from_slice(b" ");
    let uri = request.uri();
    match (uri.authority(), uri.path_and_query()) {
        (None, Some(path)) => {
            if path.as_str().starts_with('?') {
                out.push(b'/');
            }
            out.extend_from_slice(path.as_str().as_bytes());
        }
        (Some(authority), None) => out.extend_from_slice(authority.as_str().as_bytes()),
        _ => write_text(out, format_args!("{uri}")),
    }
    let chunked = matches!(framing, Framing::Chunked);
    // HTTP/1.0 has no chunks; a proxy speaks the version that it has (RFC 9110 §2.5).
    out.extend_from_slice(match request.version() {
        Version::HTTP_10 if !chunked => b" HTTP/1.0\r\n",
        _ => b" HTTP/1.1\r\n",
    });
    for (name, value) in request.headers() {
        if name != TRANSFER_ENCODING {
            field::write(out, name, value);
        }
    }
    if chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn write_text(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    // It grows with whatever is written, and so says no error.
    let _written = out.write_fmt(text);
}
