//! A message on its way out (RFC 9112 §6, §7): a head, and a body behind it as it comes.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use crate::http::body;
use crate::http::http1::{spare, trailers};

/// Bytes of a frame up to which it is copied behind others, to be written with them.
const SMALL: usize = 4 << 10;
/// Encoded bytes that are gathered before they are written.
const FULL: usize = 16 << 10;
/// Bytes of larger frames, and how many, that are gathered as well. Each counts against nobody's window any more.
const MOST: usize = 64 << 10;
const PIECES: usize = 8;

/// What is still to be written of a message.
#[derive(Debug)]
pub struct Sending<B> {
    body: Option<B>,
    framing: Framing,
    /// Encoded, and how much of it has been written.
    out: Vec<u8>,
    written: usize,
    /// Data that is written from where it is, in its places within what is encoded.
    pieces: VecDeque<Piece>,
    /// Bytes of those.
    queued: usize,
    stage: Stage,
    /// The peer may have got something, or the body has been asked.
    touched: bool,
    /// Why the peer takes no more of it.
    broken: Option<io::Error>,
}

/// Data that belongs behind so many bytes of what is encoded.
#[derive(Debug)]
struct Piece {
    at: usize,
    data: Bytes,
}

/// How the end of the body is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// By its length, of which so much is to come.
    Length(u64),
    /// By its last chunk.
    Chunked,
    /// By that of the connection.
    Close,
    /// There is none.
    #[default]
    Empty,
}

/// What ends a message too early.
#[derive(Debug)]
pub enum Error {
    /// The connection did.
    Connection(io::Error),
    /// The body did.
    Body(Box<body::Error>),
    /// The body has another length than its head says. To send it would be to say where another message begins (RFC 9112
    /// §11.2).
    Length,
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
    /// The peer takes no more.
    Broken,
}

impl<B> Default for Sending<B> {
    fn default() -> Self {
        Self {
            body: None,
            framing: Framing::Empty,
            out: Vec::new(),
            written: 0,
            pieces: VecDeque::new(),
            queued: 0,
            stage: Stage::Complete,
            touched: false,
            broken: None,
        }
    }
}

impl<B> Sending<B> {
    /// Whether the peer has got all.
    pub fn is_complete(&self) -> bool {
        self.stage == Stage::Complete
    }
}

impl<B: Body<Data = Bytes, Error = body::Error> + Unpin> Sending<B> {
    /// Where a head is to be written. What waits there is written before it.
    pub fn head(&mut self) -> &mut Vec<u8> {
        if self.stage == Stage::Complete {
            self.out = spare::buffer();
            self.stage = Stage::Ended;
        }
        &mut self.out
    }

    /// The body behind the last head.
    pub fn body(&mut self, body: B, framing: Framing) {
        self.body = Some(body);
        self.framing = framing;
        self.stage = match framing {
            Framing::Empty => Stage::Ended,
            Framing::Length(_) | Framing::Chunked | Framing::Close => Stage::Body,
        };
    }

    /// Writes what there is. Ready when all has been written.
    ///
    /// # Errors
    /// The connection or the body broke off, or the body has not the length that was announced.
    pub fn poll<W>(&mut self, cx: &mut Context<'_>, io: &mut W) -> Poll<Result<(), Error>>
    where
        W: AsyncWrite + Unpin,
    {
        if self.stage == Stage::Complete {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_out(cx, io))?;
        if self.stage != Stage::Ended {
            return Poll::Pending;
        }
        self.complete();
        Poll::Ready(Ok(()))
    }

    /// The same to a server. That it takes no more is no error: it may answer yet.
    ///
    /// # Errors
    /// The body broke off, or has not the length that was announced; or the connection did before the server could get
    /// anything.
    pub fn poll_patiently<W>(&mut self, cx: &mut Context<'_>, io: &mut W) -> Poll<Result<(), Error>>
    where
        W: AsyncWrite + Unpin,
    {
        if self.stage == Stage::Broken {
            return Poll::Pending;
        }
        match ready!(self.poll(cx, io)) {
            Err(Error::Connection(error)) if self.touched => {
                *self = Self {
                    stage: Stage::Broken,
                    touched: true,
                    broken: Some(error),
                    ..Self::default()
                };
                Poll::Pending
            }
            sent => Poll::Ready(sent),
        }
    }

    fn complete(&mut self) {
        spare::keep_buffer(std::mem::take(&mut self.out));
        *self = Self::default();
    }

    /// Whether the peer takes no more.
    pub fn is_broken(&self) -> bool {
        self.stage == Stage::Broken
    }

    /// Why the peer takes no more.
    pub fn broken(&mut self) -> Option<io::Error> {
        self.broken.take()
    }

    /// The peer has said something, and so may have got something.
    pub fn touch(&mut self) {
        self.touched = true;
    }

    /// The body, if neither it nor the peer has been asked for anything.
    pub fn untouched(&mut self) -> Option<B> {
        if self.touched { None } else { self.body.take() }
    }

    /// Ready when all is written that the body had to say up to now.
    fn poll_out<W>(&mut self, cx: &mut Context<'_>, io: &mut W) -> Poll<Result<(), Error>>
    where
        W: AsyncWrite + Unpin,
    {
        loop {
            if let Err(error) = self.gather(cx) {
                if matches!(error, Error::Body(_)) {
                    // What came before is told as well, as far as it is taken at once.
                    let _taken = self.poll_write(cx, io);
                    let _taken = Pin::new(io).poll_flush(cx);
                }
                return Poll::Ready(Err(error));
            }
            if self.is_written() {
                return Pin::new(io).poll_flush(cx).map_err(Error::Connection);
            }
            ready!(self.poll_write(cx, io)).map_err(Error::Connection)?;
        }
    }

    /// Asks the body for as much as is written at a time.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        while self.stage == Stage::Body && self.has_room() {
            let Some(body) = &mut self.body else { break };
            self.touched = true;
            let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
                break;
            };
            match frame {
                None => self.end(None)?,
                Some(frame) => self.add(frame.map_err(|error| Error::Body(Box::new(error)))?)?,
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
            if data.len() <= SMALL {
                self.out.extend_from_slice(&data);
            } else {
                self.queued += data.len();
                let at = self.out.len();
                self.pieces.push_back(Piece { at, data });
            }
            if self.framing == Framing::Chunked {
                self.out.extend_from_slice(b"\r\n");
            }
        }
        if self.body.as_ref().is_some_and(B::is_end_stream) {
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
            Framing::Close => {}
            Framing::Empty => return Err(Error::Length),
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Error> {
        match self.framing {
            Framing::Length(1..) => return Err(Error::Length),
            Framing::Length(0) | Framing::Close | Framing::Empty => {}
            Framing::Chunked => {
                self.out.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    trailers::write(&mut self.out, trailers);
                }
                self.out.extend_from_slice(b"\r\n");
            }
        }
        self.stage = Stage::Ended;
        self.body = None;
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.out.len() < FULL && self.queued < MOST && self.pieces.len() < PIECES
    }

    fn is_written(&self) -> bool {
        self.written == self.out.len() && self.pieces.is_empty()
    }

    fn poll_write<W>(&mut self, cx: &mut Context<'_>, io: &mut W) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin,
    {
        while !self.is_written() {
            let mut slices = [IoSlice::new(&[]); 2 * PIECES + 1];
            let parts = self.parts(&mut slices);
            let written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..parts]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.touched = true;
            self.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Whatever is to be written, in order; how many parts that is.
    fn parts<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut from, mut parts) = (self.written, 0);
        let mut add = |part: &'a [u8]| {
            if !part.is_empty() {
                slices[parts] = IoSlice::new(part);
                parts += 1;
            }
        };
        for piece in &self.pieces {
            add(&self.out[from..piece.at]);
            add(&piece.data);
            from = piece.at;
        }
        add(&self.out[from..]);
        parts
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(piece) = self.pieces.front_mut() {
            let before = written.min(piece.at - self.written);
            let here = (written - before).min(piece.data.len());
            self.written += before;
            self.queued -= here;
            written -= before + here;
            piece.data.advance(here);
            if !piece.data.is_empty() {
                return;
            }
            self.pieces.pop_front();
        }
        self.written += written;
        if self.written == self.out.len() {
            self.written = 0;
            self.out.clear();
        }
    }
}

/// Writes text behind what is there.
pub fn write_text(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    // It grows with whatever is written, and so says no error.
    let _written = out.write_fmt(text);
}
