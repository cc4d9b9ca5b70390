//! Trailers (RFC 9110 §6.5), past hyper: it writes only those that a `Trailer` field has announced, and to clients only if
//! they asked for them.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use bytes::{BufMut, BytesMut};
use http::HeaderMap;
use http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, COOKIE, DATE, EXPECT, EXPIRES, HOST, HeaderName, LOCATION, MAX_FORWARDS, PRAGMA,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, RETRY_AFTER, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, VARY, WARNING, WWW_AUTHENTICATE,
};
use http_body::Frame;

use crate::http::http1::field;

/// How a chunked body without trailers ends (RFC 9112 §7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// The trailers of the message that a connection is writing, on their way from its body to its end.
///
/// The body keeps quiet until hyper has written all that comes before them. So what hyper writes next is the last chunk,
/// and nothing else, and the trailers take its place. Who polls the body and who writes is the same task.
#[derive(Debug, Default)]
pub struct Trailers {
    stage: AtomicU8,
    lines: Mutex<Vec<u8>>,
}

/// There are none.
const NONE: u8 = 0;
/// The body has handed them over; hyper may have to write what comes before.
const HANDED: u8 = 1;
/// It has written that.
const NEXT: u8 = 2;
/// It has been told that the body has ended.
const ENDED: u8 = 3;

impl Trailers {
    /// What hyper is to see of a body's next frame: its data, and its end. `handed` is the body's own, `false` at first.
    pub fn part<D, E>(
        &self,
        handed: &mut bool,
        poll: impl FnOnce() -> Poll<Option<Result<Frame<D>, E>>>,
    ) -> Poll<Option<Result<Frame<D>, E>>> {
        if *handed {
            return self.poll_end();
        }
        let polled = poll();
        let Poll::Ready(Some(Ok(frame))) = &polled else {
            return polled;
        };
        let Some(trailers) = frame.trailers_ref() else {
            return polled;
        };
        let mut lines = Vec::new();
        write(&mut lines, trailers);
        if lines.is_empty() {
            return Poll::Ready(None);
        }
        *self.lock() = lines;
        self.stage.store(HANDED, Ordering::Release);
        *handed = true;
        Poll::Pending
    }

    fn poll_end<F>(&self) -> Poll<Option<F>> {
        if self.stage.load(Ordering::Acquire) == HANDED {
            return Poll::Pending; // The flush wakes.
        }
        self.stage.store(ENDED, Ordering::Release);
        Poll::Ready(None)
    }

    /// hyper has written all that it had. `true`: the body has to be polled again.
    pub fn flushed(&self) -> bool {
        match self.stage.load(Ordering::Acquire) {
            HANDED => {
                self.stage.store(NEXT, Ordering::Release);
                true
            }
            ENDED => {
                // The body was not chunked: its end has no place for them.
                self.stage.store(NONE, Ordering::Release);
                false
            }
            _ => false,
        }
    }

    /// hyper is to write these bytes. If they are the end that trailers belong to, writes it to `own`, and says how many of
    /// the bytes that was.
    pub fn end(&self, bytes: &[u8], own: &mut BytesMut) -> usize {
        if self.stage.load(Ordering::Acquire) != ENDED {
            return 0;
        }
        self.stage.store(NONE, Ordering::Release);
        let lines = std::mem::take(&mut *self.lock());
        if !bytes.starts_with(LAST_CHUNK) {
            return 0;
        }
        own.extend_from_slice(b"0\r\n");
        own.extend_from_slice(&lines);
        own.extend_from_slice(b"\r\n");
        LAST_CHUNK.len()
    }

    /// A lock whose holder panicked: what it guards is replaced whole.
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what of them may stand in a trailer section.
pub fn write(to: &mut impl BufMut, trailers: &HeaderMap) {
    for (name, value) in trailers.iter().filter(|(name, _)| is_allowed(name)) {
        field::write(to, name, value);
    }
}

/// Not what frames, routes, authenticates or describes a message, or controls what is done with it (RFC 9110 §6.5.1): a
/// recipient may add trailers to the head. Nor what proxies tell each other and applications.
fn is_allowed(name: &HeaderName) -> bool {
    let text = name.as_str();
    let forbidden = FORBIDDEN.contains(name)
        || matches!(text, "keep-alive" | "proxy-connection" | "http2-settings")
        || text.starts_with("if-")
        || text.starts_with("l5d-");
    !forbidden
}

const FORBIDDEN: [HeaderName; 28] = [
    // framing, and one connection
    CONNECTION,
    CONTENT_LENGTH,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    // routing
    HOST,
    // requests' modifiers
    CACHE_CONTROL,
    EXPECT,
    MAX_FORWARDS,
    PRAGMA,
    RANGE,
    // authentication
    AUTHORIZATION,
    COOKIE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    SET_COOKIE,
    WWW_AUTHENTICATE,
    // content
    CONTENT_ENCODING,
    CONTENT_RANGE,
    CONTENT_TYPE,
    // what is done with an answer
    AGE,
    DATE,
    EXPIRES,
    LOCATION,
    RETRY_AFTER,
    VARY,
    WARNING,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_recipient_could_take_for_part_of_the_head_stays_out() {
        let fields = [
            ("x-sum", "1"),
            ("x-sum", "2"),
            ("host", "evil"),
            ("content-length", "5"),
            ("authorization", "Basic eA=="),
            ("if-match", "*"),
            ("l5d-client-id", "root"),
            ("etag", "\"a\""),
        ];
        let fields = fields.map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let mut trailers = HeaderMap::new();
        for (name, value) in fields {
            trailers.append(name, value);
        }
        let mut lines = Vec::new();
        write(&mut lines, &trailers);
        let lines = String::from_utf8(lines).unwrap();
        assert_eq!(lines, "x-sum: 1\r\nx-sum: 2\r\netag: \"a\"\r\n");
    }

    /// Trailers that were handed over, with the data before them written.
    fn handed() -> (Trailers, bool) {
        let (trailers, mut handed) = (Trailers::default(), false);
        let sum = HeaderMap::from_iter([(HeaderName::from_static("x-sum"), "1".parse().unwrap())]);
        let frame = || Poll::Ready(Some(Ok::<_, ()>(Frame::<()>::trailers(sum))));
        assert!(trailers.part(&mut handed, frame).is_pending());
        (trailers, handed)
    }

    fn poll_again(trailers: &Trailers, handed: &mut bool) -> Poll<Option<Result<Frame<()>, ()>>> {
        trailers.part(handed, || panic!("the body has ended"))
    }

    #[test]
    fn they_wait_for_what_comes_before_them() {
        let (trailers, mut handed) = handed();
        let mut own = BytesMut::new();
        assert!(poll_again(&trailers, &mut handed).is_pending());
        assert_eq!(trailers.end(b"5\r\n0\r\n\r\n", &mut own), 0);
        assert!(trailers.flushed(), "the body is polled again");
        assert!(matches!(poll_again(&trailers, &mut handed), Poll::Ready(None)));
        assert_eq!(trailers.end(LAST_CHUNK, &mut own), 5);
        assert_eq!(&own[..], b"0\r\nx-sum: 1\r\n\r\n");
        assert_eq!(trailers.end(LAST_CHUNK, &mut own), 0, "they are of one message");
    }

    #[test]
    fn a_body_without_chunks_has_no_place_for_them_nor_has_the_next_message() {
        let (trailers, mut handed) = handed();
        let mut own = BytesMut::new();
        assert!(trailers.flushed());
        assert!(matches!(poll_again(&trailers, &mut handed), Poll::Ready(None)));
        assert!(!trailers.flushed());
        assert_eq!(trailers.end(LAST_CHUNK, &mut own), 0);
    }
}
