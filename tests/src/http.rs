//! HTTP/1.1 as a test speaks it: one request on one connection, and an application that answers with what it received.

use crate::pod::Pod;
use hyper::StatusCode;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// The path whose answer the application holds back until [`Echo::open_gate`].
pub const GATE: &str = "/gate";

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header values by lower-case name; the last one if there are several.
    pub headers: BTreeMap<String, String>,
    /// The body, as text.
    pub body: String,
}

impl Response {
    /// A header's value, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// One GET from a pod on a connection of its own; headers are whole lines.
///
/// # Panics
/// When there is no answer that is HTTP.
pub fn get(pod: &Pod, addr: SocketAddr, host: &str, path: &str, headers: &[&str]) -> Response {
    try_get(pod, addr, host, path, headers).unwrap_or_else(|error| panic!("GET {path} from {addr}: {error}"))
}

/// The same, where a failure is expected too.
///
/// # Errors
/// When the connection fails, or what comes back is not HTTP.
pub fn try_get(
    pod: &Pod,
    addr: SocketAddr,
    host: &str,
    path: &str,
    headers: &[&str],
) -> io::Result<Response> {
    exchange(&mut pod.connect(addr)?, host, path, headers)
}

/// One GET on a connection that stays open.
///
/// # Errors
/// When the connection fails, or what comes back is not HTTP.
pub fn exchange(
    stream: &mut (impl Read + Write),
    host: &str,
    path: &str,
    headers: &[&str],
) -> io::Result<Response> {
    let more: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{more}\r\n").as_bytes())?;
    read_response(&mut BufReader::with_capacity(1, stream))
}

fn read_response(stream: &mut impl BufRead) -> io::Result<Response> {
    let (first, headers) = read_head(stream)?;
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {first:?}")))?;
    let mut body = Vec::new();
    let length = headers
        .get("content-length")
        .and_then(|length| length.parse().ok());
    if headers
        .get("transfer-encoding")
        .is_some_and(|value| value.contains("chunked"))
    {
        read_chunks(stream, &mut body)?;
    } else if let Some(length) = length {
        body.resize(length, 0);
        stream.read_exact(&mut body)?;
    } else if status >= 200 && status != 204 && status != 304 {
        stream.read_to_end(&mut body)?;
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Response {
        status,
        headers,
        body,
    })
}

fn read_head(stream: &mut impl BufRead) -> io::Result<(String, BTreeMap<String, String>)> {
    let first = read_line(stream)?;
    let mut headers = BTreeMap::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            return Ok((first, headers));
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| io::Error::other("a header without a colon"))?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    match stream.read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}

fn read_chunks(stream: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let line = read_line(stream)?;
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default(), 16);
        let size = size.map_err(|_| io::Error::other(format!("not a chunk's size: {line:?}")))?;
        let start = body.len();
        body.resize(start + size, 0);
        stream.read_exact(&mut body[start..])?;
        read_line(stream)?;
        if size == 0 {
            return Ok(());
        }
    }
}

/// An HTTP/1.1 application: answers every request with its own name, then the request's head as it received it.
#[derive(Clone, Debug)]
pub struct Echo {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    name: String,
    requests: AtomicUsize,
    waiting: AtomicUsize,
    open: Mutex<bool>,
    opened: Condvar,
    closed: AtomicBool,
    failing: Mutex<Failing>,
}

/// Requests that are still to be answered with an error.
#[derive(Debug, Default)]
struct Failing {
    path: String,
    status: StatusCode,
    left: usize,
}

impl Echo {
    /// Serves on this port of the pod until the pod ends.
    pub fn serve(pod: &Pod, port: u16) -> Self {
        let listener = pod.listen(port);
        let shared = Arc::new(Shared {
            name: pod.name().to_owned(),
            ..Shared::default()
        });
        let echo = Self {
            shared: Arc::clone(&shared),
        };
        thread::spawn(move || accept(&listener, &shared));
        echo
    }

    /// Requests received so far.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Requests for [`GATE`] that wait for their answer.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Answers what waits, and from now on everything at once.
    pub fn open_gate(&self) {
        *self.shared.open.lock().unwrap() = true;
        self.shared.opened.notify_all();
    }

    /// Answers the next requests with 503, so many of them.
    pub fn fail(&self, requests: usize) {
        self.fail_at("/", 503, requests);
    }

    /// Answers the next requests whose paths begin like this with a status, so many of them, and all others well.
    pub fn fail_at(&self, path: &str, status: u16, requests: usize) {
        *self.shared.failing.lock().unwrap() = Failing {
            path: path.to_owned(),
            status: StatusCode::from_u16(status).unwrap(),
            left: requests,
        };
    }

    /// Closes every connection that comes from now on.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Relaxed);
    }
}

impl Failing {
    /// The status that a request with this first line is answered with, if it fails.
    fn next(&mut self, first: &str) -> Option<StatusCode> {
        let path = first.split(' ').nth(1)?;
        if !path.starts_with(&self.path) {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        Some(self.status)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().map_while(Result::ok) {
        let shared = Arc::clone(shared);
        if !shared.closed.load(Ordering::Relaxed) {
            // What goes wrong here is the client's to tell.
            thread::spawn(move || answer_all(stream, &shared));
        }
    }
}

fn answer_all(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let (first, headers) = read_head(&mut reader)?;
        if let Some(length) = headers
            .get("content-length")
            .and_then(|length| length.parse().ok())
        {
            io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
        }
        shared.requests.fetch_add(1, Ordering::Relaxed);
        if first.contains(GATE) {
            shared.waiting.fetch_add(1, Ordering::Relaxed);
            let closed = shared.open.lock().unwrap();
            drop(shared.opened.wait_while(closed, |open| !*open).unwrap());
            shared.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        let lines: String = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\n"))
            .collect();
        let body = format!("{}\n{first}\n{lines}", shared.name);
        let status = shared.failing.lock().unwrap().next(&first).unwrap_or_default();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
        // In one packet: the second would wait for the answer to the first.
        writer.write_all((head + &body).as_bytes())?;
    }
}
