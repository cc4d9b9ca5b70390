//! Who speaks first: the client, whose bytes are classified, or a server that greets before it is asked anything.
//!
//! A client that waits for a greeting says nothing, and so nothing can be told from it. After a short silence a
//! connection to the server is opened; if the server then speaks, and it isn't HTTP that it speaks, the connection is
//! one of bytes. For as long as neither has spoken, whatever the client says is classified as ever.

use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::error::Fault;
use crate::net::detect::http::{self, Preface};
use crate::net::detect::read::{Unread, read_until};
use crate::net::io::Io;

/// How long is waited, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Silence of the client after which the server is dialled.
    pub silence: Duration,
    /// Time in all, after which the connection is one of bytes.
    pub total: Duration,
}

/// Who spoke first. `K` is what goes along with a connection to the server.
#[derive(Debug)]
pub enum First<T, K> {
    /// The client, and what it speaks; the server may have been dialled meanwhile.
    Client(T, Option<(Io, K)>),
    /// The server, or it ended the connection: nothing that the client could still say matters.
    Server(Io, K),
    /// Nobody said enough.
    Nobody(Option<(Io, K)>),
    /// The client went before it said anything.
    Ended,
}

/// What was learnt of a destination: its server speaks first. Only a hint to dial at once, and for a minute.
#[derive(Debug, Default)]
pub struct Hint(AtomicU64);

/// How long a hint is believed.
const BELIEVED: Duration = Duration::from_secs(60);
/// Bytes taken of what a server says at first.
const GREETING: usize = 1024;

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Hint {
    /// Forgets it: the policy has changed, or somebody spoke HTTP.
    pub fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// The server spoke first.
    fn learn(&self) {
        let until = (EPOCH.elapsed() + BELIEVED).as_millis();
        self.0
            .store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether the server is expected to speak first.
    fn is_believed(&self) -> bool {
        u128::from(self.0.load(Ordering::Relaxed)) > EPOCH.elapsed().as_millis()
    }
}

/// What is made of a client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// More may come.
    SoFar,
    /// This is all there will be, or all there was in time.
    InAll,
}

/// What a client that speaks first speaks, `None` for as long as that can't be told.
pub fn preface(bytes: &[u8], heard: Heard) -> Option<Preface> {
    match http::preface(bytes) {
        Preface::NeedMore if heard == Heard::SoFar || bytes.is_empty() => None,
        Preface::NeedMore => Some(http::stalled(bytes)),
        preface => Some(preface),
    }
}

/// Any byte at all.
pub fn anything(bytes: &[u8], _heard: Heard) -> Option<()> {
    (!bytes.is_empty()).then_some(())
}

/// Waits for the first word. What has been read stays to be read, on either side.
pub async fn word<T, K>(
    client: &mut impl Unread,
    patience: Patience,
    hint: &Hint,
    decide: impl Fn(&[u8], Heard) -> Option<T>,
    dial: impl Future<Output = Result<(Io, K), Fault>>,
) -> io::Result<First<T, K>> {
    let mut read = BytesMut::new();
    let first = race(client, &mut read, patience, hint, decide, dial).await;
    client.unread(read);
    first
}

async fn race<T, K>(
    client: &mut impl Unread,
    read: &mut BytesMut,
    patience: Patience,
    hint: &Hint,
    decide: impl Fn(&[u8], Heard) -> Option<T>,
    dial: impl Future<Output = Result<(Io, K), Fault>>,
) -> io::Result<First<T, K>> {
    let so_far = |bytes: &[u8]| decide(bytes, Heard::SoFar);
    let in_all = |bytes: &[u8], server| match decide(bytes, Heard::InAll) {
        Some(decided) => First::Client(decided, server),
        None => First::Nobody(server),
    };
    let start = Instant::now();
    let deadline = start + patience.total;
    let silence = if hint.is_believed() {
        Duration::ZERO
    } else {
        patience.silence.min(patience.total)
    };
    if let Ok(said) = timeout_at(start + silence, read_until(client, read, so_far)).await {
        return Ok(match said? {
            Some(decided) => First::Client(decided, None),
            None if read.is_empty() => First::Ended,
            None => in_all(read, None),
        });
    }
    let mut dial = std::pin::pin!(dial);
    let (mut dialling, mut server, mut greeting) = (true, None::<(Io, K)>, Greeting::default());
    loop {
        tokio::select! {
            biased;
            said = read_until(client, read, so_far) => return Ok(match said? {
                Some(decided) => First::Client(decided, greeting.unread_into(server)),
                None if read.is_empty() => First::Ended,
                None => in_all(read, greeting.unread_into(server)),
            }),
            dialled = dial.as_mut(), if dialling => {
                dialling = false;
                // A server that can't be reached says nothing; the client is told when it has spoken.
                server = dialled.ok();
            }
            spoke = greeting.spoken(&mut server) => match spoke {
                Spoke::Other => {
                    hint.learn();
                    if let Some((server, keep)) = greeting.unread_into(server.take()) {
                        return Ok(First::Server(server, keep));
                    }
                }
                Spoke::Http => hint.forget(),
                Spoke::Reset => server = None,
            },
            () = sleep_until(deadline) => return Ok(in_all(read, greeting.unread_into(server))),
        }
    }
}

/// What a server has said unasked.
#[derive(Debug, Default)]
struct Greeting {
    read: BytesMut,
    /// It looks like HTTP, which a server says unasked too: no evidence, and no reason to go on reading.
    http: bool,
}

/// What came from a server that was dialled early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoke {
    /// Another protocol, or its end.
    Other,
    /// HTTP.
    Http,
    /// It is gone, and has decided nothing.
    Reset,
}

/// What the first bytes of a server say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// Another protocol.
    Other,
    /// An HTTP/2 SETTINGS frame (RFC 9113 §3.4), or an HTTP/1 answer to nothing, such as 408.
    Http,
    /// The bytes can still become HTTP.
    NeedMore,
}

impl Greeting {
    /// Waits until the server has said something.
    async fn spoken<K>(&mut self, server: &mut Option<(Io, K)>) -> Spoke {
        let Some((server, _)) = server.as_mut().filter(|_| !self.http) else {
            return std::future::pending().await;
        };
        loop {
            self.read.reserve(GREETING);
            match server.read_buf(&mut self.read).await {
                // An end is for the client to see, as it would be without us.
                Ok(0) => return Spoke::Other,
                Ok(_) => {}
                // A peer's proxy resets what comes for a port that takes no bytes: the client may yet speak HTTP, for
                // which another connection is opened.
                Err(_) => return Spoke::Reset,
            }
            match said(&self.read) {
                Said::Other => return Spoke::Other,
                Said::NeedMore => {}
                Said::Http => {
                    self.http = true;
                    return Spoke::Http;
                }
            }
        }
    }

    /// The server's connection, from which the greeting can be read again.
    fn unread_into<K>(&mut self, server: Option<(Io, K)>) -> Option<(Io, K)> {
        let (mut server, keep) = server?;
        server.unread(std::mem::take(&mut self.read));
        Some((server, keep))
    }
}

fn said(bytes: &[u8]) -> Said {
    const ANSWER: &[u8] = b"HTTP/1.";
    const SETTINGS: u8 = 4;
    let n = bytes.len().min(ANSWER.len());
    if bytes[..n] == ANSWER[..n] {
        return if n == ANSWER.len() {
            Said::Http
        } else {
            Said::NeedMore
        };
    }
    // Length (24 bits, of entries of 6 bytes), type, flags, stream 0.
    match bytes {
        [0, ..] if bytes.len() < 9 && bytes.get(3).is_none_or(|kind| *kind == SETTINGS) => Said::NeedMore,
        [0, high, low, SETTINGS, 0, 0, 0, 0, 0, ..] if u16::from_be_bytes([*high, *low]) % 6 == 0 => {
            Said::Http
        }
        _ => Said::Other,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::net::io::Socket;

    #[test]
    fn what_an_http_server_says_unasked_is_no_evidence() {
        assert_eq!(said(b"HTTP/1.1 408 Request Timeout\r\n"), Said::Http);
        assert_eq!(said(&[0, 0, 18, 4, 0, 0, 0, 0, 0, 0, 3]), Said::Http);
        assert_eq!(said(b"HTTP"), Said::NeedMore);
        assert_eq!(said(&[0, 0, 18]), Said::NeedMore);
    }

    #[test]
    fn the_greetings_of_other_protocols_are_told_by_their_first_bytes() {
        for greeting in [
            &b"\x4a\x00\x00\x00\x0a10.11.6-MariaDB"[..],
            b"220 mail.example ESMTP",
            b"SSH-2.0-OpenSSH",
            b"INFO {\"server_id\":\"nats\"}",
            &[0, 0, 18, 0],
            &[0, 0, 5, 4, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(said(greeting), Said::Other, "{greeting:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_resets_what_was_dialled_early_leaves_the_word_to_the_client() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (_silent, accepted) = (TcpStream::connect(addr).await.unwrap(), listener.accept());
        let mut client = Io::plain(Socket::new(accepted.await.unwrap().0));
        let dial = async {
            let dialled = TcpStream::connect(addr).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            server.set_zero_linger().unwrap();
            drop(server);
            Ok((Io::plain(Socket::new(dialled)), ()))
        };
        let patience = Patience {
            silence: Duration::ZERO,
            total: Duration::from_millis(200),
        };
        let hint = Hint::default();
        let first = word(&mut client, patience, &hint, preface, dial).await.unwrap();
        assert!(matches!(first, First::Nobody(None)), "{first:?}");
        assert!(!hint.is_believed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_hint_is_believed_for_a_minute() {
        let hint = Hint::default();
        assert!(!hint.is_believed());
        hint.learn();
        assert!(hint.is_believed());
        tokio::time::advance(BELIEVED).await;
        assert!(!hint.is_believed());
        hint.learn();
        hint.forget();
        assert!(!hint.is_believed());
    }
}
