//! What the tests share: our two sides with awaits instead of polls, and a peer that writes frames by hand.

use std::future::{Future, poll_fn};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use outrigger_http2::client::{self, Opener};
use outrigger_http2::server::{self, Accepted};
use outrigger_http2::{Error, Recv, Send};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITIZED: u8 = 0x20;
pub(crate) const WHOLE: u8 = END_STREAM | END_HEADERS;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Waits, but not for ever: the clock of a test that only waits runs ahead, so what hangs fails at once.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    let mut future = Box::pin(future);
    // What is ready only because the bound has it looked at again has not been woken: the bound counts first.
    tokio::select! {
        biased;
        () = tokio::time::sleep(Duration::from_secs(10)) => panic!("it hangs"),
        output = &mut future => output,
    }
}

/// Lets everything else run until it waits.
pub(crate) async fn all_wait() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

pub(crate) async fn head(recv: &mut Recv) -> Result<Response<()>, Error> {
    within(poll_fn(|cx| recv.poll_head(cx))).await
}

pub(crate) async fn data(recv: &mut Recv) -> Option<Result<(Bytes, bool), Error>> {
    within(poll_fn(|cx| recv.poll_data(cx))).await
}

pub(crate) async fn trailers(recv: &mut Recv) -> Option<Result<HeaderMap, Error>> {
    within(poll_fn(|cx| recv.poll_trailers(cx))).await
}

/// Reads all content, and gives back what was read.
pub(crate) async fn read(recv: &mut Recv) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    while let Some(piece) = data(recv).await {
        let (piece, last) = piece?;
        all.extend_from_slice(&piece);
        recv.release(piece.len());
        if last {
            assert!(recv.is_over());
        }
    }
    Ok(all)
}

pub(crate) async fn send(send: &mut Send, data: impl Into<Bytes>, last: bool) -> Result<(), Error> {
    let mut data = data.into();
    within(poll_fn(|cx| send.poll_send(cx, &mut data, last))).await
}

pub(crate) async fn until_reset(send: &mut Send) -> Error {
    within(poll_fn(|cx| send.poll_reset(cx))).await
}

/// Bytes that tell where they belong.
pub(crate) fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8).collect()
}

pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(format!("http://app.test{path}")).body(()).unwrap()
}

/// Whether the connection takes no streams any more.
pub(crate) fn is_over(opener: &mut Opener) -> bool {
    matches!(opener.open(&get("/"), true), Err(client::Unopened::Over))
}

pub(crate) fn post() -> Request<()> {
    Request::post("http://app.test/").body(()).unwrap()
}

pub(crate) fn ok() -> Response<()> {
    Response::new(())
}

/// Our client. What drives it ends with the connection.
pub(crate) async fn connect<T>(io: T, config: &client::Config) -> (Opener, JoinHandle<Result<(), Error>>)
where
    T: AsyncRead + AsyncWrite + Unpin + std::marker::Send + 'static,
{
    let (opener, connection) = within(client::handshake(io, config)).await.unwrap();
    (opener, tokio::spawn(connection))
}

/// Our server: `handle` is spawned for every request.
pub(crate) fn serve<T, F>(
    io: T,
    config: server::Config,
    handle: fn(Accepted) -> F,
) -> JoinHandle<Result<(), Error>>
where
    T: AsyncRead + AsyncWrite + Unpin + std::marker::Send + 'static,
    F: Future<Output = ()> + std::marker::Send + 'static,
{
    // It is never told to stop: whoever could tell it is gone.
    serve_until(io, config, oneshot::channel().1, handle)
}

/// The same, until it is told to stop gracefully.
pub(crate) fn serve_until<T, F>(
    io: T,
    config: server::Config,
    mut stop: oneshot::Receiver<()>,
    handle: fn(Accepted) -> F,
) -> JoinHandle<Result<(), Error>>
where
    T: AsyncRead + AsyncWrite + Unpin + std::marker::Send + 'static,
    F: Future<Output = ()> + std::marker::Send + 'static,
{
    tokio::spawn(async move {
        let mut connection = server::handshake(io, &config).await?;
        let mut stopped = false;
        loop {
            tokio::select! {
                accepted = connection.accept() => match accepted {
                    Some(accepted) => drop(tokio::spawn(handle(accepted?))),
                    None => return Ok(()),
                },
                told = &mut stop, if !stopped => {
                    stopped = true;
                    if told.is_ok() {
                        connection.graceful_shutdown();
                    }
                }
            }
        }
    })
}

/// Answers with what the request brings, trailers too.
pub(crate) async fn echo(accepted: Accepted) {
    let Accepted {
        recv, send: mut out, ..
    } = accepted;
    let Some(mut recv) = recv else {
        out.send_head(&ok(), true).unwrap();
        return;
    };
    out.send_head(&ok(), false).unwrap();
    while let Some(Ok((piece, last))) = data(&mut recv).await {
        let length = piece.len();
        if send(&mut out, piece, last).await.is_err() {
            return;
        }
        recv.release(length);
    }
    if let Some(Ok(fields)) = trailers(&mut recv).await {
        out.send_trailers(&fields).unwrap();
    }
}

/// A frame as it came.
#[derive(Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The number that a payload begins with at `at`.
    pub(crate) fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

pub(crate) fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let entry = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let payload: Vec<u8> = entries.iter().flat_map(entry).collect();
    frame(SETTINGS, 0, 0, &payload)
}

pub(crate) fn number(kind: u8, stream: u32, value: u32) -> Vec<u8> {
    frame(kind, 0, stream, &value.to_be_bytes())
}

/// A header block of literals that no table keeps (RFC 7541 §6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            put_length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn put_length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return block.push(length as u8);
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(128 | (rest % 128) as u8);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// The block of a request with these fields more.
pub(crate) fn request(method: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let head = [
        (":method", method),
        (":scheme", "http"),
        (":authority", "app.test"),
        (":path", "/"),
    ];
    block(&[&head[..], more].concat())
}

pub(crate) fn response(status: &str, more: &[(&str, &str)]) -> Vec<u8> {
    block(&[&[(":status", status)][..], more].concat())
}

/// A peer that writes what it likes.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) io: DuplexStream,
}

impl Raw {
    /// A client, with our server behind it.
    pub(crate) async fn client<F>(
        config: server::Config,
        handle: fn(Accepted) -> F,
    ) -> (Self, JoinHandle<Result<(), Error>>)
    where
        F: Future<Output = ()> + std::marker::Send + 'static,
    {
        let (here, there) = tokio::io::duplex(1 << 20);
        let server = serve(there, config, handle);
        let mut raw = Self { io: here };
        raw.write(PREFACE).await;
        raw.write(&settings(&[])).await;
        raw.write(&frame(SETTINGS, ACK, 0, &[])).await;
        (raw, server)
    }

    /// A server with these settings, with our client before it.
    pub(crate) async fn server(
        entries: &[(u16, u32)],
        config: &client::Config,
    ) -> (Self, Opener, JoinHandle<Result<(), Error>>) {
        let (here, there) = tokio::io::duplex(1 << 20);
        let mut raw = Self { io: here };
        raw.write(&settings(entries)).await;
        raw.write(&frame(SETTINGS, ACK, 0, &[])).await;
        let (opener, connection) = connect(there, config).await;
        let mut preface = [0; 24];
        within(raw.io.read_exact(&mut preface)).await.unwrap();
        assert_eq!(preface, *PREFACE);
        (raw, opener, connection)
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        within(self.io.write_all(bytes)).await.unwrap();
    }

    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.write(&frame(kind, flags, stream, payload)).await;
    }

    /// The next frame, if there is one.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        within(self.io.read_exact(&mut head)).await.ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        within(self.io.read_exact(&mut payload)).await.unwrap();
        Some(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes(stream),
            payload,
        })
    }

    /// The next frame of a kind.
    pub(crate) async fn next_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await.expect("the connection goes on");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Asks whether the peer is there, and what it says before it answers.
    pub(crate) async fn until_pong(&mut self) -> Vec<Frame> {
        self.send(PING, 0, 0, b"pongpong").await;
        let mut before = Vec::new();
        loop {
            let frame = self.next().await.expect("the connection goes on");
            if frame.kind == PING && frame.flags == ACK && frame.payload == b"pongpong" {
                return before;
            }
            before.push(frame);
        }
    }

    /// The stream that is reset next, and the code.
    pub(crate) async fn reset(&mut self) -> (u32, u32) {
        let frame = self.next_of(RST_STREAM).await;
        (frame.stream, frame.number(0))
    }

    /// The code that the connection ends with; behind it, there is nothing.
    pub(crate) async fn end(&mut self) -> u32 {
        let frame = self.next_of(GOAWAY).await;
        assert_eq!(self.next().await, None);
        frame.number(4)
    }
}
