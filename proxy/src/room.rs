//! Room: how many connections may be open at the same time, and who holds a place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::reclaim;

/// Room for connections of one kind: accepted or opened, inbound or outbound.
///
/// Each kind has its own, so that a flood of one leaves the others theirs.
#[derive(Debug)]
pub struct Room {
    limit: usize,
    taken: AtomicUsize,
    freed: Notify,
    /// How often there was none.
    full: AtomicU64,
    /// How often the system had nothing left for another one.
    starved: AtomicU64,
    cut: AtomicBool,
}

/// Room for the connections of one direction.
#[derive(Clone, Debug)]
pub struct Rooms {
    /// For those that are accepted.
    pub accepted: Arc<Room>,
    /// For those that are opened.
    pub opened: Arc<Room>,
}

/// A place in a room, for as long as its connection is open.
#[derive(Debug)]
pub struct Place(Arc<Room>);

impl Rooms {
    /// Room for this many of either kind: an opaque connection that is accepted opens another one.
    pub fn new(limit: usize) -> Self {
        Self {
            accepted: Room::new(limit),
            opened: Room::new(limit),
        }
    }

    /// From now on connections that end are cut, not closed.
    pub fn cut(&self) {
        self.accepted.cut();
        self.opened.cut();
    }
}

impl Room {
    /// Room for this many connections, at least one.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.max(1),
            taken: AtomicUsize::new(0),
            freed: Notify::new(),
            full: AtomicU64::new(0),
            starved: AtomicU64::new(0),
            cut: AtomicBool::new(false),
        })
    }

    /// A place, if there is one.
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        let place = self.admit();
        // A place that was one too many goes back by being dropped.
        if self.taken() > self.limit {
            self.full.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(place)
    }

    /// A place for a connection that is there already, whether or not there is room.
    pub fn admit(self: &Arc<Self>) -> Place {
        self.taken.fetch_add(1, Ordering::AcqRel);
        Place(self.clone())
    }

    /// Waits until there is room; `on_full` is called once if there is none. Whoever waits takes nothing.
    pub async fn vacancy(&self, on_full: impl FnOnce()) {
        if self.taken() < self.limit {
            return;
        }
        self.full.fetch_add(1, Ordering::Relaxed);
        on_full();
        while self.taken() >= self.limit {
            self.freed.notified().await;
        }
        // Another listener of the same room may have been waiting too.
        self.freed.notify_one();
    }

    /// Places there are.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Places taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    /// How often a connection had to wait for a place, or got none.
    pub fn full(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }

    /// Counts that the system had nothing left for another connection: no descriptor, no memory.
    pub fn starve(&self) {
        self.starved.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the system had nothing left for another connection.
    pub fn starved(&self) -> u64 {
        self.starved.load(Ordering::Relaxed)
    }

    /// From now on connections that end are cut, not closed: nobody takes what they got for all there was.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::Release);
    }
}

impl Place {
    /// Whether its connection ends by being cut.
    pub fn is_cut(&self) -> bool {
        self.0.cut.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let before = self.0.taken.fetch_sub(1, Ordering::AcqRel);
        // Nobody waits below the limit.
        if before >= self.0.limit {
            self.0.freed.notify_one();
        }
        reclaim::connection_ended();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn there_are_as_many_places_as_the_limit_says() {
        let room = Room::new(2);
        let places = [room.enter().unwrap(), room.enter().unwrap()];
        assert!(room.enter().is_none());
        assert_eq!((room.taken(), room.full()), (2, 1));
        drop(places);
        assert!(room.enter().is_some());
        assert_eq!(room.taken(), 0);
    }

    #[tokio::test]
    async fn who_waits_for_room_goes_on_when_a_place_is_free() {
        let room = Room::new(1);
        let place = room.enter().unwrap();
        let mut told = 0;
        let mut waiting = Box::pin(room.vacancy(|| told += 1));
        assert!(waiting.as_mut().now_or_never().is_none());
        let mut second = Box::pin(room.vacancy(|| {}));
        assert!(second.as_mut().now_or_never().is_none());
        drop(place);
        waiting.await;
        second.await;
        assert_eq!((told, room.full(), room.taken()), (1, 2, 0));
    }

    #[test]
    fn a_connection_that_is_there_already_is_admitted_beyond_the_limit() {
        let room = Room::new(1);
        let places = [room.admit(), room.admit()];
        assert_eq!(room.taken(), 2);
        assert!(room.vacancy(|| {}).now_or_never().is_none());
        drop(places);
        assert!(room.vacancy(|| {}).now_or_never().is_some());
    }
}
