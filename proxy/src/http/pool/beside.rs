//! HTTP/1 beside HTTP/2 to another proxy, whichever is cheaper for the traffic at hand.
//!
//! HTTP/2 is cheaper where many requests share its records, system calls and wake-ups. A request that is nearly alone pays
//! for frames, compressed fields and another task, and has nobody to share them with: HTTP/1 carries it for less
//! (docs/profiling.md). So a few HTTP/1 connections are opened beside, in the background and seldom, and such requests take
//! them while they are idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::header::UPGRADE;
use http::{Request, Version};
use http_body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::body::Body;

/// Requests that HTTP/2 carries, though nearly alone, for each HTTP/1 connection that may be opened beside it: a handshake
/// costs a proxy about as much as thirty requests, and connections whose requests are cancelled are lost.
const EACH: u32 = 64;

/// Requests that HTTP/2 carries after there were many under way, however few there seem to be: those that come together begin
/// with a first one, which is not alone.
const CROWD: u32 = 16;

/// The HTTP/1 connections to an address that HTTP/2 reaches too.
#[derive(Debug)]
pub(super) struct Beside {
    /// Requests under way with which HTTP/1 is taken, and connections that there may be.
    most: usize,
    places: Arc<Semaphore>,
    /// Requests that HTTP/2 has carried since a connection was opened.
    carried: AtomicU32,
    /// Requests that HTTP/2 is to carry yet, since there were many.
    crowd: AtomicU32,
}

impl Beside {
    /// Of so many at most.
    pub(super) fn new(most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Self {
            most,
            places: Arc::new(Semaphore::new(most)),
            carried: AtomicU32::new(0),
            crowd: AtomicU32::new(0),
        }
    }

    /// Whether a request is nearly alone, with so many under way. To be asked about each: it remembers.
    ///
    /// A count that another thread overwrites is one request more or less.
    pub(super) fn is_for(&self, under_way: usize) -> bool {
        if under_way > self.most {
            self.crowd.store(CROWD, Ordering::Relaxed);
            return false;
        }
        let crowd = self.crowd.load(Ordering::Relaxed);
        self.crowd.store(crowd.saturating_sub(1), Ordering::Relaxed);
        crowd == 0
    }

    /// Counts a request that HTTP/2 carries, though nearly alone. `Some`: a connection may be opened for those to come.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        if self.carried.fetch_add(1, Ordering::Relaxed) < EACH {
            return None;
        }
        self.carried.store(0, Ordering::Relaxed);
        self.places.clone().try_acquire_owned().ok()
    }
}

/// Whether a request can be sent once more when its connection has broken off (RFC 9110 §9.2.2): it changes nothing, all of
/// it is in its head, and it asks for no tunnel.
pub(super) fn is_repeatable(request: &Request<Body>) -> bool {
    request.method().is_safe()
        && request.version() == Version::HTTP_11
        && request.body().is_end_stream()
        && !request.headers().contains_key(UPGRADE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_opened_for_many_requests_and_never_more_than_the_most() {
        let beside = Beside::new(2);
        let mut places = Vec::new();
        for _ in 0..10 * EACH {
            places.extend(beside.place());
        }
        assert_eq!(places.len(), 2);
        places.pop();
        let opened = (0..=EACH).filter_map(|_| beside.place()).count();
        assert_eq!(opened, 1, "one that has ended makes room");
        assert!(!Beside::new(0).is_for(1));
    }

    #[test]
    fn a_request_is_alone_once_none_of_many_has_come_with_others() {
        let beside = Beside::new(2);
        assert!(beside.is_for(2) && beside.is_for(1));
        assert!(!beside.is_for(3));
        let carried = (0..10 * CROWD).take_while(|_| !beside.is_for(1)).count();
        assert_eq!(carried, CROWD as usize);
        assert!(beside.is_for(1));
    }
}
