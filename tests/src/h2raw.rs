//! HTTP/2 frame by frame: what no library can be made to say.

use crate::pod::Pod;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// What opens a client's side (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types (RFC 9113 §6).
pub mod kind {
    #![allow(missing_docs, reason = "they are named as in the RFC")]
    pub const DATA: u8 = 0x0;
    pub const HEADERS: u8 = 0x1;
    pub const PRIORITY: u8 = 0x2;
    pub const RST_STREAM: u8 = 0x3;
    pub const SETTINGS: u8 = 0x4;
    pub const PUSH_PROMISE: u8 = 0x5;
    pub const PING: u8 = 0x6;
    pub const GOAWAY: u8 = 0x7;
    pub const WINDOW_UPDATE: u8 = 0x8;
    pub const CONTINUATION: u8 = 0x9;
}

/// The flag of DATA and HEADERS that ends the stream.
pub const END_STREAM: u8 = 0x1;
/// The flag of HEADERS and CONTINUATION that ends the field section.
pub const END_HEADERS: u8 = 0x4;

/// Frames that are written one after another.
pub type Frames = Box<dyn Iterator<Item = Vec<u8>> + Send>;

/// One frame. `flags` may hold what the type does not define.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    assert_eq!(length[0], 0, "a frame has at most 2^24 - 1 bytes");
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// SETTINGS with these parameters (RFC 9113 §6.5.2).
pub fn settings(parameters: &[(u16, u32)]) -> Vec<u8> {
    let each = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let payload: Vec<u8> = parameters.iter().flat_map(each).collect();
    frame(kind::SETTINGS, 0, 0, &payload)
}

/// WINDOW_UPDATE.
pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

/// RST_STREAM with CANCEL.
pub fn cancel(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// A field section (RFC 7541) for this method, path and authority, nothing of it indexed by name of ours.
pub fn head(method: &str, path: &str, authority: &str) -> Vec<u8> {
    let mut block = vec![0x86]; // :scheme http
    for (index, value) in [(2, method), (4, path), (1, authority)] {
        block.push(index); // the name of the static table, the value as it stands
        text(&mut block, value.as_bytes());
    }
    block
}

/// Adds a field, without indexing.
pub fn field(block: &mut Vec<u8>, name: &str, value: &[u8]) {
    block.push(0);
    text(block, name.as_bytes());
    text(block, value);
}

/// Adds a field that is indexed: as the last one, it is 62 from then on.
pub fn indexed(block: &mut Vec<u8>, name: &str, value: &[u8]) {
    block.push(0x40);
    text(block, name.as_bytes());
    text(block, value);
}

/// A string, not Huffman-coded (RFC 7541 §5.2).
fn text(block: &mut Vec<u8>, value: &[u8]) {
    let mut rest = value.len();
    if rest < 127 {
        block.push(rest as u8);
    } else {
        block.push(127);
        rest -= 127;
        while rest >= 128 {
            block.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        block.push(rest as u8);
    }
    block.extend(value);
}

/// HEADERS that open a stream and end it, for `GET <path>`.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    let flags = END_STREAM | END_HEADERS;
    frame(kind::HEADERS, flags, stream, &head("GET", path, "web"))
}

/// HEADERS that open a stream and leave it open, for `POST <path>`.
pub fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS, stream, &head("POST", path, "web"))
}

/// What came of an attack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Frames that were written, more or less: some of the last may be lost with the connection.
    pub sent: usize,
    /// The code of the peer's GOAWAY, if one arrived.
    pub goaway: Option<u32>,
    /// Streams that the peer reset.
    pub resets: usize,
    /// HEADERS from the peer.
    pub heads: usize,
}

/// The flag of SETTINGS that says that the peer's are in force.
const ACK: u8 = 0x1;

/// Opens a connection that only says it is there, and that it knows what the peer allows.
pub fn open(mut stream: TcpStream) -> TcpStream {
    stream.write_all(&[PREFACE, &settings(&[])].concat()).unwrap();
    let (kind, ..) = read_frame(&mut stream).unwrap();
    assert_eq!(
        kind,
        kind::SETTINGS,
        "the first frame of a server (RFC 9113 §3.4)"
    );
    stream.write_all(&frame(kind::SETTINGS, ACK, 0, &[])).unwrap();
    let listening = stream.try_clone().unwrap();
    // It ends with the connection; what the peer says is not needed.
    thread::spawn(move || hear(listening));
    stream
}

/// Opens a connection with `settings`, sends `frames` until the peer has ended the connection or all are sent, then
/// ends it, and hears what the peer has said.
pub fn attack(stream: TcpStream, settings: &[u8], frames: Frames) -> Outcome {
    attack_over(stream, &[PREFACE, settings].concat(), frames)
}

/// The same without a preface, for a server.
fn attack_over(mut stream: TcpStream, opening: &[u8], frames: Frames) -> Outcome {
    let reader = stream.try_clone().unwrap();
    let listening = thread::spawn(move || hear(reader));
    let sent = flood(&mut stream, opening, frames);
    let mut outcome = listening.join().unwrap();
    outcome.sent = sent;
    outcome
}

/// How many frames were written before the connection was gone.
fn flood(stream: &mut TcpStream, opening: &[u8], frames: Frames) -> usize {
    const CHUNK: usize = 16 * 1024;
    let (mut chunk, mut waiting, mut sent) = (opening.to_vec(), 0, 0);
    for frame in frames {
        chunk.extend(frame);
        waiting += 1;
        if chunk.len() >= CHUNK {
            if stream.write_all(&chunk).is_err() {
                return sent;
            }
            sent += waiting;
            waiting = 0;
            chunk.clear();
        }
    }
    // The peer may have gone just now: that is one of the outcomes.
    if stream.write_all(&chunk).is_ok() && stream.shutdown(Shutdown::Write).is_ok() {
        sent += waiting;
    }
    sent
}

/// Reads frames until the connection ends, however it does.
fn hear(mut stream: TcpStream) -> Outcome {
    let mut outcome = Outcome::default();
    while let Ok((kind, _, payload)) = read_frame(&mut stream) {
        match kind {
            kind::GOAWAY => outcome.goaway = code(payload.get(4..8)),
            kind::RST_STREAM => outcome.resets += 1,
            kind::HEADERS => outcome.heads += 1,
            _ => {}
        }
    }
    outcome
}

fn code(bytes: Option<&[u8]>) -> Option<u32> {
    Some(u32::from_be_bytes(bytes?.try_into().ok()?))
}

/// The next frame: type, stream, payload.
///
/// # Errors
/// Those of the connection.
pub fn read_frame(stream: &mut TcpStream) -> io::Result<(u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload)?;
    let id = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    Ok((head[3], id, payload))
}

/// Serves HTTP/2 on this port of a pod, and answers the first request of each connection with these frames.
pub fn hostile(pod: &Pod, port: u16, attack: impl Fn(u32) -> Frames + Send + Sync + 'static) {
    let (listener, attack) = (pod.listen(port), Arc::new(attack));
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let attack = attack.clone();
            thread::spawn(move || {
                if let Ok(asked) = asked(&mut stream) {
                    attack_over(stream, &[], attack(asked));
                }
            });
        }
    });
}

/// The stream of the first request.
fn asked(stream: &mut TcpStream) -> io::Result<u32> {
    stream.set_read_timeout(Some(crate::wait::BOUND))?;
    stream.set_write_timeout(Some(crate::wait::BOUND))?;
    stream.read_exact(&mut [0; PREFACE.len()])?;
    stream.write_all(&settings(&[]))?;
    loop {
        if let (kind::HEADERS, id, _) = read_frame(stream)? {
            return Ok(id);
        }
    }
}

/// An application that takes requests and never answers.
#[derive(Debug, Default)]
pub struct Silent {
    asked: AtomicUsize,
    given_up: AtomicUsize,
}

impl Silent {
    /// Takes HTTP/2 requests on this port of a pod.
    pub fn serve(pod: &Pod, port: u16) -> Arc<Self> {
        let (listener, silent) = (pod.listen(port), Arc::<Self>::default());
        let shared = silent.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let silent = shared.clone();
                // It ends with the connection.
                thread::spawn(move || silent.take(stream));
            }
        });
        silent
    }

    /// Requests that have arrived.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Requests that were given up after they had arrived.
    pub fn given_up(&self) -> usize {
        self.given_up.load(Ordering::Relaxed)
    }

    fn take(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.read_exact(&mut [0; PREFACE.len()])?;
        stream.write_all(&settings(&[(3, 10_000)]))?;
        loop {
            match read_frame(&mut stream)? {
                (kind::HEADERS, ..) => self.asked.fetch_add(1, Ordering::Relaxed),
                (kind::RST_STREAM, ..) => self.given_up.fetch_add(1, Ordering::Relaxed),
                _ => 0,
            };
        }
    }
}
