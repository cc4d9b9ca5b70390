//! The static table (RFC 7541 Appendix A) and the ring behind both dynamic tables (§2.3.2).

use std::collections::VecDeque;
use std::fmt;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::Field;

/// The index of the newest dynamic entry (RFC 7541 §2.3.3).
pub(super) const FIRST_DYNAMIC: usize = FIELDS.len() + 1;

/// The static table, from index 1 on.
pub(super) static FIELDS: [Field; 61] = [
    // `:authority` with an empty value, which is only there for its name.
    Field::Malformed,
    Field::Method(Method::GET),
    Field::Method(Method::POST),
    Field::Path(PathAndQuery::from_static("/")),
    Field::Path(PathAndQuery::from_static("/index.html")),
    Field::Scheme(Scheme::HTTP),
    Field::Scheme(Scheme::HTTPS),
    Field::Status(StatusCode::OK),
    Field::Status(StatusCode::NO_CONTENT),
    Field::Status(StatusCode::PARTIAL_CONTENT),
    Field::Status(StatusCode::NOT_MODIFIED),
    Field::Status(StatusCode::BAD_REQUEST),
    Field::Status(StatusCode::NOT_FOUND),
    Field::Status(StatusCode::INTERNAL_SERVER_ERROR),
    empty(header::ACCEPT_CHARSET),
    Field::Header(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate")),
    empty(header::ACCEPT_LANGUAGE),
    empty(header::ACCEPT_RANGES),
    empty(header::ACCEPT),
    empty(header::ACCESS_CONTROL_ALLOW_ORIGIN),
    empty(header::AGE),
    empty(header::ALLOW),
    empty(header::AUTHORIZATION),
    empty(header::CACHE_CONTROL),
    empty(header::CONTENT_DISPOSITION),
    empty(header::CONTENT_ENCODING),
    empty(header::CONTENT_LANGUAGE),
    empty(header::CONTENT_LENGTH),
    empty(header::CONTENT_LOCATION),
    empty(header::CONTENT_RANGE),
    empty(header::CONTENT_TYPE),
    empty(header::COOKIE),
    empty(header::DATE),
    empty(header::ETAG),
    empty(header::EXPECT),
    empty(header::EXPIRES),
    empty(header::FROM),
    empty(header::HOST),
    empty(header::IF_MATCH),
    empty(header::IF_MODIFIED_SINCE),
    empty(header::IF_NONE_MATCH),
    empty(header::IF_RANGE),
    empty(header::IF_UNMODIFIED_SINCE),
    empty(header::LAST_MODIFIED),
    empty(header::LINK),
    empty(header::LOCATION),
    empty(header::MAX_FORWARDS),
    empty(header::PROXY_AUTHENTICATE),
    empty(header::PROXY_AUTHORIZATION),
    empty(header::RANGE),
    empty(header::REFERER),
    empty(header::REFRESH),
    empty(header::RETRY_AFTER),
    empty(header::SERVER),
    empty(header::SET_COOKIE),
    empty(header::STRICT_TRANSPORT_SECURITY),
    empty(header::TRANSFER_ENCODING),
    empty(header::USER_AGENT),
    empty(header::VARY),
    empty(header::VIA),
    empty(header::WWW_AUTHENTICATE),
];

const fn empty(name: HeaderName) -> Field {
    Field::Header(name, HeaderValue::from_static(""))
}

/// A dynamic table: a queue of entries with their sizes, the newest at the back. It takes no memory
/// before the first insertion, as most connections are idle.
pub(super) struct Ring<T> {
    entries: VecDeque<(T, usize)>,
    size: usize,
    max: usize,
    inserted: u16,
}

impl<T> Ring<T> {
    pub(super) const fn new(max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            max,
            inserted: 0,
        }
    }

    pub(super) const fn max(&self) -> usize {
        self.max
    }

    /// How many entries came after the one with this number. The numbers may wrap, and an evicted
    /// entry has an age like any other: who asks must look at what [`get`](Self::get) finds there.
    #[inline]
    pub(super) fn age(&self, number: u16) -> usize {
        usize::from(self.inserted.wrapping_sub(number).wrapping_sub(1))
    }

    /// The entry of this age and its size; the newest has age 0.
    #[inline]
    pub(super) fn get(&self, age: usize) -> Option<&(T, usize)> {
        // An age past the end wraps around to an index past the end.
        self.entries
            .get(self.entries.len().wrapping_sub(age).wrapping_sub(1))
    }

    /// Inserts an entry and returns its number. One larger than the table only empties it, which is
    /// no error (RFC 7541 §4.4).
    pub(super) fn insert(&mut self, entry: T, size: usize) -> Option<u16> {
        self.evict(self.max.saturating_sub(size));
        if size > self.max {
            return None;
        }
        self.size += size;
        self.entries.push_back((entry, size));
        let number = self.inserted;
        self.inserted = number.wrapping_add(1);
        Some(number)
    }

    /// Sets a new maximum size and evicts what no longer fits (RFC 7541 §4.3).
    pub(super) fn resize(&mut self, max: usize) {
        self.max = max;
        self.evict(max);
        if max == 0 {
            self.entries = VecDeque::new();
        }
    }

    fn evict(&mut self, max: usize) {
        while self.size > max
            && let Some((_, size)) = self.entries.pop_front()
        {
            self.size -= size;
        }
    }
}

// Only the numbers: the entries can hold secrets.
impl<T> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("entries", &self.entries.len())
            .field("size", &self.size)
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}
