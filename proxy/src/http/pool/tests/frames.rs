//! A server that speaks HTTP/2 frame by frame, so that it can do what no well-behaved one does.

use std::net::SocketAddr;

use http::{Request, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::http::body::Body;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

pub(super) const NO_ERROR: u32 = 0;
pub(super) const REFUSED_STREAM: u32 = 7;
pub(super) const CANCEL: u32 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame (RFC 9113 §4.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// The server's end of a connection.
pub(super) struct Server<T = TcpStream> {
    io: T,
    /// Whether PINGs are answered.
    pub(super) polite: bool,
}

/// Where a server listens, and its listener.
pub(super) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Accepts a connection on which `streams` are allowed.
pub(super) async fn accept(listener: &TcpListener, streams: u32) -> Server {
    Server::on(listener.accept().await.unwrap().0, streams).await
}

pub(super) fn request(method: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri("http://app/");
    request.version(Version::HTTP_2).body(Body::Empty).unwrap()
}

impl<T: AsyncRead + AsyncWrite + Unpin> Server<T> {
    /// Reads the client's preface, and sends SETTINGS.
    pub(super) async fn on(mut io: T, streams: u32) -> Self {
        io.read_exact(&mut [0; 24]).await.unwrap();
        let mut server = Self { io, polite: true };
        server.allow(streams).await;
        server
    }

    /// Allows so many streams from now on.
    pub(super) async fn allow(&mut self, streams: u32) {
        let mut max_concurrent_streams = vec![0, 3];
        max_concurrent_streams.extend(streams.to_be_bytes());
        self.send(SETTINGS, 0, 0, &max_concurrent_streams).await;
    }

    /// The next frame that is about a stream or the end; `None` if there is no more.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            let mut head = [0; 9];
            self.io.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.io.read_exact(&mut payload).await.ok()?;
            let frame = Frame {
                kind: head[3],
                flags: head[4],
                stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
                payload,
            };
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]).await,
                PING if frame.flags & ACK == 0 && self.polite => {
                    self.send(PING, ACK, 0, &frame.payload).await;
                }
                SETTINGS | PING | WINDOW_UPDATE => {}
                _ => return Some(frame),
            }
        }
    }

    /// The stream of the next request's head.
    pub(super) async fn head(&mut self) -> u32 {
        let frame = self.next().await.expect("a request");
        assert_eq!(frame.kind, HEADERS, "{frame:?}");
        frame.stream
    }

    /// The streams of so many requests.
    pub(super) async fn heads(&mut self, requests: usize) -> Vec<u32> {
        let mut streams = Vec::new();
        for _ in 0..requests {
            streams.push(self.head().await);
        }
        streams
    }

    /// Sends an interim answer with this status (RFC 7541 §6.2.2).
    pub(super) async fn inform(&mut self, stream: u32, status: &str) {
        let field = [b"\x08\x03", status.as_bytes()].concat();
        self.send(HEADERS, END_HEADERS, stream, &field).await;
    }

    /// Answers with status 200 and nothing else.
    pub(super) async fn answer(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &[0x88])
            .await;
    }

    /// Begins an answer with status 200.
    pub(super) async fn begin(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS, stream, &[0x88]).await;
    }

    /// Sends the last data of an answer.
    pub(super) async fn end(&mut self, stream: u32, data: &[u8]) {
        self.send(DATA, END_STREAM, stream, data).await;
    }

    pub(super) async fn reset(&mut self, stream: u32, code: u32) {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    /// Says goodbye: what is above `last` has not been processed (RFC 9113 §6.8).
    pub(super) async fn go_away(&mut self, last: u32) {
        let payload = [last.to_be_bytes(), NO_ERROR.to_be_bytes()].concat();
        self.send(GOAWAY, 0, 0, &payload).await;
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.io.write_all(&frame).await.unwrap();
    }
}

impl Frame {
    /// The code of a reset.
    pub(super) fn code(&self) -> u32 {
        assert_eq!(self.kind, RST_STREAM, "{self:?}");
        u32::from_be_bytes(self.payload[..].try_into().unwrap())
    }

    pub(super) fn ends_stream(&self) -> bool {
        self.flags & END_STREAM != 0
    }
}
