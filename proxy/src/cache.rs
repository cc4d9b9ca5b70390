//! `Cache<K, V>`: entries that live while they are used, and a while longer.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::time::Instant;

/// Entries that are made once for all who ask at the same time, and forgotten when nobody has used them for a while.
/// `E` is how making one fails.
#[derive(Debug)]
pub struct Cache<K, V, E = Infallible> {
    slots: Mutex<HashMap<K, Slot<V, E>>>,
    /// How long an entry outlives its last use.
    idle: Duration,
    /// How many entries there may be; above that the unused go first, and no new ones are kept.
    capacity: usize,
}

#[derive(Debug)]
struct Slot<V, E> {
    entry: Arc<Entry<V, E>>,
    /// When a sweep first found it unused.
    unused_since: Option<Instant>,
}

#[derive(Debug)]
struct Entry<V, E> {
    value: OnceLock<Arc<V>>,
    /// The attempt to make the value, which lives while someone waits for it.
    attempt: Mutex<Option<WeakShared<Attempt<V, E>>>>,
}

type Attempt<V, E> = BoxFuture<'static, Result<Arc<V>, Arc<E>>>;

impl<K: Eq + Hash + Clone, V, E> Cache<K, V, E> {
    /// An empty cache.
    pub fn new(idle: Duration, capacity: usize) -> Self {
        Self {
            slots: Mutex::default(),
            idle,
            capacity,
        }
    }

    /// The entry for `key`, made by `make` if there is none. Whoever asks meanwhile shares the attempt and what comes of
    /// it; a failure is not kept: the next caller tries again.
    pub async fn get_or_try<F>(&self, key: &K, make: impl FnOnce() -> F) -> Result<Arc<V>, Arc<E>>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
        V: Send + Sync + 'static,
        E: Send + Sync + 'static,
    {
        let entry = self.entry(key);
        if let Some(value) = entry.value.get() {
            return Ok(value.clone());
        }
        // The attempt is boxed, and rare: finding an entry costs only what it takes.
        let value = entry.attempt(make).await?;
        Ok(entry.value.get_or_init(|| value).clone())
    }

    /// The entry for `key`, made on the spot if there is none.
    pub fn get_or(&self, key: &K, make: impl FnOnce() -> V) -> Arc<V> {
        self.entry(key).value.get_or_init(|| Arc::new(make())).clone()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        lock(&self.slots).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what has not been used for the idle time. Called from time to time.
    pub fn sweep(&self, now: Instant) {
        let mut slots = lock(&self.slots);
        slots.retain(|_, slot| {
            if slot.is_used() {
                slot.unused_since = None;
                return true;
            }
            now.duration_since(*slot.unused_since.get_or_insert(now)) < self.idle
        });
    }

    fn entry(&self, key: &K) -> Arc<Entry<V, E>> {
        let mut slots = lock(&self.slots);
        if let Some(slot) = slots.get_mut(key) {
            slot.unused_since = None;
            return slot.entry.clone();
        }
        if slots.len() >= self.capacity {
            slots.retain(|_, slot| slot.is_used());
        }
        let entry = Arc::new(Entry::default());
        if slots.len() < self.capacity {
            slots.insert(
                key.clone(),
                Slot {
                    entry: entry.clone(),
                    unused_since: None,
                },
            );
        }
        entry
    }
}

impl<V, E> Slot<V, E> {
    fn is_used(&self) -> bool {
        // The entry itself is held while the value is being made.
        Arc::strong_count(&self.entry) > 1
            || self
                .entry
                .value
                .get()
                .is_some_and(|value| Arc::strong_count(value) > 1)
    }
}

impl<V, E> Entry<V, E> {
    /// The attempt under way, or a new one.
    fn attempt<F>(&self, make: impl FnOnce() -> F) -> Shared<Attempt<V, E>>
    where
        F: Future<Output = Result<V, E>> + Send + 'static,
    {
        let mut attempt = lock(&self.attempt);
        let under_way = attempt
            .as_ref()
            .and_then(WeakShared::upgrade)
            .filter(|shared| shared.peek().is_none());
        under_way.unwrap_or_else(|| {
            let making = make();
            let shared = async move { making.await.map(Arc::new).map_err(Arc::new) }
                .boxed()
                .shared();
            *attempt = shared.downgrade();
            shared
        })
    }
}

impl<V, E> Default for Entry<V, E> {
    fn default() -> Self {
        Self {
            value: OnceLock::new(),
            attempt: Mutex::default(),
        }
    }
}

/// A lock whose holder panicked is as good as any: what it guards is replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tokio::sync::oneshot;

    use super::*;

    const IDLE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn an_entry_is_made_once() {
        let cache = Cache::<_, _>::new(IDLE, 10);
        let first = cache.get_or_try(&1, || ready(Ok("a"))).await.unwrap();
        let second = cache.get_or_try(&1, || ready(Ok("b"))).await.unwrap();
        assert_eq!((*first, *second), ("a", "a"));
    }

    #[tokio::test]
    async fn a_failure_is_shared_by_those_who_wait_and_not_kept() {
        let cache = Cache::<_, _, _>::new(IDLE, 10);
        let (fail, failed) = oneshot::channel::<Result<(), &str>>();
        let mut made = cache.get_or_try(&1, || failed.map(Result::unwrap)).boxed();
        assert!(made.as_mut().now_or_never().is_none());
        let mut shared = cache.get_or_try(&1, || ready(Err("made a second time"))).boxed();
        assert!(shared.as_mut().now_or_never().is_none());
        fail.send(Err("no")).unwrap();
        assert_eq!(
            (*made.await.unwrap_err(), *shared.await.unwrap_err()),
            ("no", "no")
        );
        assert!(cache.get_or_try(&1, || ready(Ok(()))).await.is_ok());
    }

    #[tokio::test]
    async fn who_no_longer_waits_does_not_end_it_for_the_others() {
        let cache = Cache::<_, _>::new(IDLE, 10);
        let (make, made) = oneshot::channel();
        let mut first = cache.get_or_try(&1, || made.map(Result::unwrap)).boxed();
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = cache.get_or_try(&1, || ready(Ok("second"))).boxed();
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        make.send(Ok("first")).unwrap();
        assert_eq!(*second.await.unwrap(), "first");
    }

    #[tokio::test]
    async fn an_unused_entry_is_forgotten_after_the_idle_time_and_a_used_one_never() {
        let cache = Cache::<_, _>::new(IDLE, 10);
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
        let cache = Cache::<_, _>::new(IDLE, 1);
        drop(cache.get_or(&1, || 1));
        let two = cache.get_or(&2, || 2);
        assert_eq!((*two, *cache.get_or(&3, || 3), cache.len()), (2, 3, 1));
    }
}
