//! Interim answers (1xx, RFC 9110 §15.2): on their way from a server to the client, as they come, and not too many.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::CONTENT_LENGTH;
use http::{Response, StatusCode, Version};

use crate::error::{Fault, Kind, Side};
use crate::http::h2::head;
use crate::http::headers::{self, ORIG_PROTO, PROXY_CONNECTION, PROXY_ERROR};

/// Bytes that the interim heads of one exchange may have together: as many as any one head.
pub const MAX_BYTES: usize = 64 << 10;
/// What a head counts for at least, bytes: so there are at most 256 of them.
pub const LEAST: usize = 256;

/// Interim heads that a client's connection has yet to send, each with the exchange that it belongs to.
#[derive(Debug, Default)]
pub struct Pending {
    heads: Mutex<VecDeque<(u32, Response<()>)>>,
    /// How many there are; most of the time that is all that anybody wants to know.
    count: AtomicUsize,
}

/// The interim answers of one exchange. By default nobody hears of them.
#[derive(Debug, Default)]
pub struct Interims {
    client: Option<Arc<Pending>>,
    exchange: u32,
    bytes: AtomicU32,
}

impl Pending {
    /// The next head that belongs to this exchange.
    pub fn take(&self, exchange: u32) -> Option<Response<()>> {
        if self.is_empty() {
            return None;
        }
        let mut heads = self.lock();
        let at = heads.iter().position(|(other, _)| *other == exchange)?;
        let (_, head) = heads.remove(at)?;
        self.count.store(heads.len(), Ordering::Release);
        Some(head)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    fn put(&self, exchange: u32, head: Response<()>) {
        let mut heads = self.lock();
        heads.push_back((exchange, head));
        self.count.store(heads.len(), Ordering::Release);
    }

    /// A lock whose holder panicked: what waits is as good as before.
    fn lock(&self) -> MutexGuard<'_, VecDeque<(u32, Response<()>)>> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interims {
    /// Those of an exchange that a client has begun with this version. HTTP/1.0 knows none: such a client would take one
    /// for the answer (RFC 9110 §15.2).
    pub fn of(pending: &Arc<Pending>, exchange: u32, version: Version) -> Self {
        Self {
            client: (version != Version::HTTP_10).then(|| pending.clone()),
            exchange,
            bytes: AtomicU32::new(0),
        }
    }

    /// Passes a head on, without what concerns the server's connection, or the peer proxy only. Whatever polls the
    /// exchange sends it then.
    ///
    /// # Errors
    /// There have been too many of them, or it is none: 101 ends an exchange over HTTP/1 and means nothing in HTTP/2
    /// (RFC 9113 §8.6).
    pub fn pass(&self, mut interim: Response<()>) -> Result<(), Fault> {
        if !interim.status().is_informational() || interim.status() == StatusCode::SWITCHING_PROTOCOLS {
            return bad("the server's interim answer is none");
        }
        let spent = u32::try_from(size(&interim).max(LEAST)).unwrap_or(u32::MAX);
        let before = self.bytes.fetch_add(spent, Ordering::Relaxed);
        if before.saturating_add(spent) as usize > MAX_BYTES {
            return bad("the server sends interim answers without end");
        }
        let Some(client) = &self.client else {
            return Ok(());
        };
        let fields = interim.headers_mut();
        head::fit(fields);
        // There is no content that it could be the length of (RFC 9110 §8.6).
        fields.remove(CONTENT_LENGTH);
        if headers::has_linkerds(fields) {
            for own in [ORIG_PROTO, PROXY_ERROR, PROXY_CONNECTION] {
                fields.remove(own);
            }
        }
        client.put(self.exchange, interim);
        Ok(())
    }
}

fn size(head: &Response<()>) -> usize {
    let fields = head.headers().iter();
    fields
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum()
}

fn bad(why: &'static str) -> Result<(), Fault> {
    Err(Fault::because(Kind::BadAnswer, Side::Server, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interim(status: u16, fields: &[(&'static str, &str)]) -> Response<()> {
        let builder = Response::builder().status(status);
        let builder = fields
            .iter()
            .fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).unwrap()
    }

    #[test]
    fn each_exchange_gets_its_own_in_order_and_cleaned() {
        let pending = Arc::<Pending>::default();
        let one = Interims::of(&pending, 1, Version::HTTP_11);
        let two = Interims::of(&pending, 2, Version::HTTP_2);
        one.pass(interim(102, &[])).unwrap();
        two.pass(interim(100, &[])).unwrap();
        let fields = [
            ("link", "</a>"),
            ("connection", "x"),
            ("x", "1"),
            ("content-length", "5"),
            ("l5d-proxy-error", "no"),
        ];
        one.pass(interim(103, &fields)).unwrap();
        assert_eq!(pending.take(1).unwrap().status(), 102);
        let hints = pending.take(1).unwrap();
        assert_eq!((hints.status().as_u16(), hints.headers().len()), (103, 1));
        assert!(pending.take(1).is_none() && !pending.is_empty());
        assert_eq!(pending.take(2).unwrap().status(), 100);
        assert!(pending.is_empty());
    }

    #[test]
    fn a_client_of_http10_never_sees_one() {
        let pending = Arc::<Pending>::default();
        let interims = Interims::of(&pending, 1, Version::HTTP_10);
        interims.pass(interim(103, &[])).unwrap();
        assert!(pending.is_empty());
    }

    #[test]
    fn there_is_an_end_to_them_by_number_and_by_bytes_whoever_listens() {
        let passed = |interims: &Interims, fields: &[(&'static str, &str)]| {
            (0..1_000)
                .take_while(|_| interims.pass(interim(103, fields)).is_ok())
                .count()
        };
        let pending = Arc::<Pending>::default();
        let interims = Interims::of(&pending, 1, Version::HTTP_11);
        assert_eq!(passed(&interims, &[]), 256);
        assert_eq!(passed(&Interims::default(), &[]), 256);
        let long = "x".repeat(16 << 10);
        assert_eq!(passed(&Interims::default(), &[("link", &long)]), 3);
        let fault = interims.pass(interim(103, &[])).unwrap_err();
        assert_eq!((fault.kind, fault.side), (Kind::BadAnswer, Side::Server));
    }

    #[test]
    fn switching_protocols_is_no_interim_answer() {
        for status in [101, 200] {
            assert!(Interims::default().pass(interim(status, &[])).is_err());
        }
    }
}
