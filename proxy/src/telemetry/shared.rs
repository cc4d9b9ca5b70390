//! Resolved metrics that connections with the same labels share, while one of them is there.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Entries below which nobody looks for those that have gone.
const FEW: usize = 64;

/// Finds what was resolved for the same labels and is still held by somebody: one lookup instead of one per family.
pub struct Shared<L, H>(Arc<Mutex<Entries<L, H>>>);

struct Entries<L, H> {
    resolved: HashMap<Arc<L>, Weak<H>>,
    /// At this size, those that have gone are forgotten. So there are never more than twice as many as are held.
    full: usize,
}

impl<L: Eq + Hash, H> Shared<L, H> {
    /// What is held for these labels, or else what `resolve` makes.
    pub fn get_or(&self, labels: L, resolve: impl FnOnce(Arc<L>) -> H) -> Arc<H> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = entries.resolved.get(&labels).and_then(Weak::upgrade) {
            return held;
        }
        if entries.resolved.len() >= entries.full {
            entries.resolved.retain(|_, held| held.strong_count() > 0);
            entries.full = FEW.max(2 * entries.resolved.len());
        }
        let labels = Arc::new(labels);
        let made = Arc::new(resolve(labels.clone()));
        entries.resolved.insert(labels, Arc::downgrade(&made));
        made
    }
}

impl<L, H> Shared<L, H> {
    /// All that somebody holds.
    pub fn held(&self) -> Vec<Arc<H>> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.resolved.values().filter_map(Weak::upgrade).collect()
    }
}

impl<L, H> Default for Shared<L, H> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Entries {
            resolved: HashMap::new(),
            full: FEW,
        })))
    }
}

impl<L, H> Clone for Shared<L, H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<L, H> fmt::Debug for Shared<L, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_labels_share_while_somebody_holds_them() {
        let shared = Shared::default();
        let first = shared.get_or("a", |_| 1);
        assert_eq!(*shared.get_or("a", |_| 2), 1);
        drop(first);
        assert_eq!(*shared.get_or("a", |_| 3), 3);
    }

    #[test]
    fn what_has_gone_is_forgotten() {
        let shared = Shared::default();
        let held = shared.get_or(0, |_| ());
        for n in 1..100 * FEW {
            shared.get_or(n, |_| ());
        }
        assert!(shared.0.lock().unwrap().resolved.len() <= FEW);
        assert!(Arc::ptr_eq(&held, &shared.get_or(0, |_| ())));
    }
}
