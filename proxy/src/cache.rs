//! `Cache<K, V>`: entries that live while they are used, and a while longer.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Entries that are made once for all who ask at the same time, and forgotten when nobody has used them for a while.
#[derive(Debug)]
pub struct Cache<K, V> {
    slots: Mutex<HashMap<K, Slot<V>>>,
    /// How long an entry outlives its last use.
    idle: Duration,
    /// How many entries there may be; above that the unused go first, and no new ones are kept.
    capacity: usize,
}

#[derive(Debug)]
struct Slot<V> {
    value: Arc<OnceCell<Arc<V>>>,
    /// When a sweep first found it unused.
    unused_since: Option<Instant>,
}

impl<K: Eq + Hash + Clone, V> Cache<K, V> {
    /// An empty cache.
    pub fn new(idle: Duration, capacity: usize) -> Self {
        Self {
            slots: Mutex::default(),
            idle,
            capacity,
        }
    }

    /// The entry for `key`, made by `make` if there is none. A failure is not kept: the next caller tries again.
    pub async fn get_or_try<E>(
        &self,
        key: &K,
        make: impl AsyncFnOnce() -> Result<V, E>,
    ) -> Result<Arc<V>, E> {
        let cell = self.cell(key);
        if let Some(value) = cell.get() {
            return Ok(value.clone());
        }
        // Boxed, since it is rare and who waits may be large: finding an entry costs only what it takes.
        Box::pin(cell.get_or_try_init(async || make().await.map(Arc::new)))
            .await
            .cloned()
    }

    /// The entry for `key`, made on the spot if there is none.
    pub fn get_or(&self, key: &K, make: impl FnOnce() -> V) -> Arc<V> {
        let cell = self.cell(key);
        if let Some(value) = cell.get() {
            return value.clone();
        }
        let made = Arc::new(make());
        match cell.set(made.clone()) {
            Ok(()) => made,
            Err(_) => cell.get().cloned().unwrap_or(made),
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what has not been used for the idle time. Called from time to time.
    pub fn sweep(&self, now: Instant) {
        let mut slots = self.lock();
        slots.retain(|_, slot| {
            if slot.is_used() {
                slot.unused_since = None;
                return true;
            }
            now.duration_since(*slot.unused_since.get_or_insert(now)) < self.idle
        });
    }

    fn cell(&self, key: &K) -> Arc<OnceCell<Arc<V>>> {
        let mut slots = self.lock();
        if let Some(slot) = slots.get_mut(key) {
            slot.unused_since = None;
            return slot.value.clone();
        }
        if slots.len() >= self.capacity {
            slots.retain(|_, slot| slot.is_used());
        }
        let value = Arc::new(OnceCell::new());
        if slots.len() < self.capacity {
            slots.insert(
                key.clone(),
                Slot {
                    value: value.clone(),
                    unused_since: None,
                },
            );
        }
        value
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Slot<V>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Slot<V> {
    fn is_used(&self) -> bool {
        // The cell itself is held while the value is being made.
        Arc::strong_count(&self.value) > 1
            || self.value.get().is_some_and(|value| Arc::strong_count(value) > 1)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const IDLE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn an_entry_is_made_once() {
        let cache = Cache::new(IDLE, 10);
        let first = cache
            .get_or_try(&1, async || Ok::<_, Infallible>("a"))
            .await
            .unwrap();
        let second = cache
            .get_or_try(&1, async || Ok::<_, Infallible>("b"))
            .await
            .unwrap();
        assert_eq!((*first, *second), ("a", "a"));
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let cache = Cache::new(IDLE, 10);
        assert!(
            cache
                .get_or_try(&1, async || { Err::<(), _>("no") })
                .await
                .is_err()
        );
        assert!(cache.get_or_try(&1, async || { Ok::<_, &str>(()) }).await.is_ok());
    }

    #[tokio::test]
    async fn an_unused_entry_is_forgotten_after_the_idle_time_and_a_used_one_never() {
        let cache = Cache::new(IDLE, 10);
        let held = cache.get_or(&1, || "held");
        drop(cache.get_or(&2, || "dropped"));
        let start = Instant::now();
        cache.sweep(start);
        assert_eq!(cache.len(), 2);
        cache.sweep(start + IDLE);
        assert_eq!(cache.len(), 1);
        assert_eq!(*held, "held");
    }

    #[tokio::test]
    async fn a_full_cache_makes_room_and_still_serves_when_it_can_not() {
        let cache = Cache::new(IDLE, 1);
        drop(cache.get_or(&1, || 1));
        let two = cache.get_or(&2, || 2);
        assert_eq!((*two, *cache.get_or(&3, || 3), cache.len()), (2, 3, 1));
    }
}
