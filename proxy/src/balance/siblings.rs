//! What the endpoints of one balancer know of each other: how many are ready, and when one becomes so again.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What the endpoints of one balancer know of each other.
#[derive(Debug, Default)]
pub struct Siblings {
    endpoints: AtomicUsize,
    shut: AtomicUsize,
    opened: Notify,
    lost: Notify,
    /// Endpoints that have come and gone so far, for the metrics.
    added: AtomicU64,
    removed: AtomicU64,
}

impl Siblings {
    /// So many endpoints are in use now.
    pub fn count(&self, endpoints: usize) {
        self.endpoints.store(endpoints, Ordering::Relaxed);
    }

    /// So many of them are new, and so many that were there before are not.
    pub fn changed(&self, added: usize, removed: usize) {
        self.added.fetch_add(added as u64, Ordering::Relaxed);
        self.removed.fetch_add(removed as u64, Ordering::Relaxed);
    }

    /// How many have come so far, and how many have gone.
    pub(in crate::balance) fn changes(&self) -> (u64, u64) {
        let [added, removed] = [&self.added, &self.removed].map(|count| count.load(Ordering::Relaxed));
        (added, removed)
    }

    /// Endpoints that a breaker has shut, or has on probation.
    pub fn shut(&self) -> usize {
        self.shut.load(Ordering::Relaxed)
    }

    /// Waits until an endpoint becomes ready that was not.
    pub(in crate::balance) async fn opened(&self) {
        self.opened.notified().await;
    }

    /// Waits until none of them can be connected to; each time that one fails then counts.
    pub async fn lost(&self) {
        self.lost.notified().await;
    }

    /// None of them can be connected to.
    pub(in crate::balance) fn lose(&self) {
        self.lost.notify_one();
    }

    pub(in crate::balance) fn ready(&self) -> usize {
        let endpoints = self.endpoints.load(Ordering::Relaxed);
        endpoints.saturating_sub(self.shut())
    }

    pub(in crate::balance) fn enter_shut(&self) {
        self.shut.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::balance) fn leave_shut(&self) {
        self.shut.fetch_sub(1, Ordering::Relaxed);
        self.open();
    }

    /// One of them may be tried: everybody who waits looks again.
    pub(in crate::balance) fn open(&self) {
        self.opened.notify_waiters();
    }
}
