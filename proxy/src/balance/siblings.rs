//! What the endpoints of one balancer know of each other: how many are ready, and when one becomes so again.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What the endpoints of one balancer know of each other.
#[derive(Debug, Default)]
pub struct Siblings {
    endpoints: AtomicUsize,
    shut: AtomicUsize,
    opened: Notify,
    lost: Notify,
}

impl Siblings {
    /// So many endpoints are in use now.
    pub fn count(&self, endpoints: usize) {
        self.endpoints.store(endpoints, Ordering::Relaxed);
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
