//! The streams of one connection: how many are open, and how many the peer allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The streams of a connection that we opened.
#[derive(Debug)]
pub struct Slots {
    open: AtomicUsize,
    limit: AtomicUsize,
    used: AtomicBool,
    freed: Arc<Notify>,
}

/// A stream's place among those that the peer allows; given back when dropped.
#[derive(Debug)]
pub struct Slot(Arc<Slots>);

impl Slots {
    /// A connection whose peer allows `limit` streams (RFC 9113 §5.1.2). `freed` is told when there is room again.
    pub fn new(limit: usize, freed: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            used: AtomicBool::new(true),
            freed,
        })
    }

    /// The peer allows so many streams now.
    pub fn set_limit(&self, limit: usize) {
        if self.limit.swap(limit, Ordering::AcqRel) != limit {
            self.freed.notify_waiters();
        }
    }

    /// Tells those who wait for a place to try again.
    pub fn tell(&self) {
        self.freed.notify_waiters();
    }

    /// A place, if there is one.
    pub fn take(self: &Arc<Self>) -> Option<Slot> {
        let limit = self.limit.load(Ordering::Acquire);
        // The place is taken first and asked about then: two that ask at the same time never get the same one.
        let slot = Slot(self.clone());
        let before = self.open.fetch_add(1, Ordering::AcqRel);
        (before < limit).then_some(slot)
    }

    /// Whether no stream is open.
    pub fn is_idle(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }

    /// Whether no stream is open, and none has been since this was last called.
    pub fn were_idle(&self) -> bool {
        !self.used.swap(false, Ordering::Relaxed) && self.is_idle()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let slots = &self.0;
        slots.used.store(true, Ordering::Relaxed);
        let before = slots.open.fetch_sub(1, Ordering::AcqRel);
        if before == slots.limit.load(Ordering::Acquire) {
            slots.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn there_are_as_many_places_as_the_peer_allows() {
        let slots = Slots::new(2, Arc::default());
        let (first, second) = (slots.take(), slots.take());
        assert!(first.is_some() && second.is_some());
        assert!(slots.take().is_none());
        drop(first);
        assert!(slots.take().is_some());
        assert!(!slots.is_idle());
        drop(second);
        assert!(slots.is_idle());
    }

    #[test]
    fn who_waits_is_told_when_there_is_room() {
        let freed = Arc::<Notify>::default();
        let slots = Slots::new(1, freed.clone());
        let slot = slots.take();
        let mut waiting = std::pin::pin!(freed.notified());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(slot);
        assert!(waiting.as_mut().now_or_never().is_some());
        let mut waiting = std::pin::pin!(freed.notified());
        assert!(waiting.as_mut().now_or_never().is_none());
        slots.set_limit(2);
        assert!(waiting.as_mut().now_or_never().is_some());
    }

    #[test]
    fn a_connection_is_idle_when_nothing_was_open_for_a_while() {
        let slots = Slots::new(1, Arc::default());
        assert!(!slots.were_idle());
        assert!(slots.were_idle());
        drop(slots.take());
        assert!(!slots.were_idle());
        assert!(slots.were_idle());
    }
}
