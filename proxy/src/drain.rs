//! Draining: stop accepting, finish what runs, then end.

use tokio::sync::{mpsc, watch};

/// Starts a drain and waits for its end. One per process.
#[derive(Debug)]
pub struct Drainer {
    signal: watch::Sender<bool>,
    guards: mpsc::Receiver<()>,
}

/// Seen by everything that accepts or serves: tells when draining starts, and keeps the process alive meanwhile.
#[derive(Clone, Debug)]
pub struct Drain {
    signal: watch::Receiver<bool>,
    /// Never sent on: the channel closes when the last clone is dropped.
    _guard: mpsc::Sender<()>,
}

/// A drain signal and the handle that everything holds a clone of.
pub fn channel() -> (Drainer, Drain) {
    let (signal, seen) = watch::channel(false);
    let (guard, guards) = mpsc::channel(1);
    (
        Drainer { signal, guards },
        Drain {
            signal: seen,
            _guard: guard,
        },
    )
}

impl Drainer {
    /// Tells everyone to finish, and waits until every [`Drain`] has been dropped.
    pub async fn drain(mut self) {
        self.signal.send_replace(true);
        self.guards.recv().await;
    }
}

impl Drain {
    /// Waits until draining starts.
    pub async fn started(&mut self) {
        // The drainer lives until it has drained; if it is gone, draining is long under way.
        let _ended = self.signal.wait_for(|draining| *draining).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn draining_ends_when_the_last_guard_is_dropped() {
        let (drainer, mut drain) = channel();
        let other = drain.clone();
        let worker = tokio::spawn(async move {
            drain.started().await;
        });
        let mut draining = tokio::spawn(drainer.drain());
        worker.await.unwrap();
        tokio::task::yield_now().await;
        assert!(futures_util::FutureExt::now_or_never(&mut draining).is_none());
        drop(other);
        draining.await.unwrap();
    }
}
