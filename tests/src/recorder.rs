//! An HTTP/1 application that records what reaches it, to the byte, and takes only what RFC 9112 allows to the letter.

use crate::pod::Pod;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread;

/// What has reached an application.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Vec<Connection>>>);

/// What has reached it on one connection.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// Every byte.
    pub bytes: Vec<u8>,
    /// The complete requests: method, target, and how long the body was.
    pub requests: Vec<String>,
    /// What follows them: a request that is not complete, or bytes that are none.
    pub rest: Option<String>,
}

impl Recorder {
    /// Serves on this port of the pod until the pod ends. Each request is answered with what was understood of it.
    pub fn serve(pod: &Pod, port: u16) -> Self {
        let (recorder, listener) = (Self::default(), pod.listen(port));
        let served = recorder.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let recorder = served.clone();
                // What goes wrong here is the test's to find.
                thread::spawn(move || recorder.record(stream));
            }
        });
        recorder
    }

    /// What has come so far, by connection.
    pub fn seen(&self) -> Vec<Connection> {
        self.0.lock().unwrap().clone()
    }

    /// Requests so far in the order of their connections, and what is left of others; without those for `/marker`.
    pub fn observed(&self, since: &[Connection]) -> Vec<String> {
        let known = |at: usize| since.get(at).map_or(0, |connection| connection.requests.len());
        let mut observed = Vec::new();
        for (at, connection) in self.seen().into_iter().enumerate() {
            observed.extend(connection.requests.into_iter().skip(known(at)));
            let before = since.get(at).and_then(|connection| connection.rest.clone());
            observed.extend(connection.rest.filter(|rest| Some(rest) != before.as_ref()));
        }
        observed.retain(|request| !request.contains(" /marker "));
        observed
    }

    fn record(&self, mut stream: TcpStream) -> io::Result<()> {
        let at = {
            let mut connections = self.0.lock().unwrap();
            connections.push(Connection::default());
            connections.len() - 1
        };
        let (mut unread, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            unread.extend_from_slice(&buffer[..read]);
            let mut answers = Vec::new();
            let mut odd = false;
            {
                let connection = &mut self.0.lock().unwrap()[at];
                connection.bytes.extend_from_slice(&buffer[..read]);
                connection.rest = None;
                while !unread.is_empty() {
                    match request(&unread) {
                        Ok((line, length)) => {
                            unread.drain(..length);
                            let body = format!("{line}\n");
                            let length = body.len();
                            answers.push(format!(
                                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
                            ));
                            connection.requests.push(line);
                        }
                        Err(rest) => {
                            odd = rest.starts_with("odd");
                            connection.rest = Some(rest);
                            break;
                        }
                    }
                }
            }
            stream.write_all(answers.concat().as_bytes())?;
            if odd {
                return Ok(());
            }
        }
    }
}

/// The request that bytes begin with, and its length; or what they are instead.
fn request(bytes: &[u8]) -> Result<(String, usize), String> {
    let odd = || Err(format!("odd {}", bytes.escape_ascii()));
    let Some(head) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else {
        return Err(format!("broken {}", start(bytes)));
    };
    let text: String = bytes[..head].iter().map(|byte| char::from(*byte)).collect();
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default().to_owned();
    let strict = |line: &str| !line.contains(['\r', '\n', '\0']);
    let parts: Vec<_> = first.split(' ').collect();
    let [method, target, "HTTP/1.1" | "HTTP/1.0"] = parts[..] else {
        return odd();
    };
    let (mut length, mut chunked) = (None, false);
    for line in lines {
        let Some((name, value)) = line.split_once(':').filter(|_| strict(line)) else {
            return odd();
        };
        match (&*name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])) {
            ("content-length", digits)
                if length.is_none() && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                length = digits.parse::<usize>().ok();
            }
            ("transfer-encoding", "chunked") if !chunked => chunked = true,
            ("content-length" | "transfer-encoding", _) => return odd(),
            (name, _) if name.is_empty() || name.contains([' ', '\t']) => return odd(),
            _ => {}
        }
    }
    let start = head + 4;
    let (body, end) = match (chunked, length) {
        (true, Some(_)) => return odd(),
        (true, None) => match chunks(&bytes[start..]) {
            Ok(Some((body, end))) => (body, start + end),
            Ok(None) => return Err(format!("broken {method} {target}")),
            Err(()) => return odd(),
        },
        (false, length) => (length.unwrap_or(0), start + length.unwrap_or(0)),
    };
    if end > bytes.len() {
        return Err(format!("broken {method} {target}"));
    }
    Ok((format!("{method} {target} {body}"), end))
}

/// The first two words of a head that is not complete.
fn start(bytes: &[u8]) -> String {
    let words = bytes.split(|byte| *byte == b' ').take(2);
    words
        .map(|word| word.escape_ascii().to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

/// How much is in chunks, and where they end; `None`: they don't yet.
fn chunks(bytes: &[u8]) -> Result<Option<(usize, usize)>, ()> {
    let (mut body, mut at) = (0, 0);
    loop {
        let Some(line) = line(&bytes[at..])? else {
            return Ok(None);
        };
        let size = usize::from_str_radix(line, 16).map_err(drop)?;
        at += line.len() + 2;
        if size == 0 {
            break;
        }
        let Some(after) = bytes.get(at + size..at + size + 2) else {
            return Ok(None);
        };
        if after != b"\r\n" {
            return Err(());
        }
        (body, at) = (body + size, at + size + 2);
    }
    loop {
        let Some(trailer) = line(&bytes[at..])? else {
            return Ok(None);
        };
        at += trailer.len() + 2;
        if trailer.is_empty() {
            return Ok(Some((body, at)));
        }
    }
}

fn line(bytes: &[u8]) -> Result<Option<&str>, ()> {
    let Some(lf) = bytes.iter().position(|byte| *byte == b'\n') else {
        return Ok(None);
    };
    let line = bytes[..lf].strip_suffix(b"\r").ok_or(())?;
    std::str::from_utf8(line).map(Some).map_err(drop)
}
