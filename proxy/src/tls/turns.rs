//! Turns: how many handshakes with one peer are under way at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::error::{Fault, Kind, Side};

/// Handshakes under way with a peer. A handshake is work for both sides, and goes to and fro: with a thousand at once
/// each is as late as the last one, and all of them run out of time.
const AT_ONCE: usize = 32;

/// Turns of the handshakes with one peer.
#[derive(Debug)]
pub struct Turns {
    free: Semaphore,
    /// How the latest has ended: in time, or not.
    late: AtomicBool,
}

/// A turn of one handshake, until it is over.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    _permit: SemaphorePermit<'a>,
}

impl Turns {
    /// Nobody has a turn yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            free: Semaphore::new(AT_ONCE),
            late: AtomicBool::new(false),
        })
    }

    /// Waits for a turn. `timeout` is that of a handshake: who has waited for as long while others ran out of time does
    /// not try what they have tried.
    pub(super) async fn take(&self, timeout: Duration) -> Result<Turn<'_>, Fault> {
        let asked = Instant::now();
        let permit = self.free.acquire().await.map_err(|closed| {
            // Nobody ever closes it.
            Fault::because(Kind::Internal, Side::Proxy, closed)
        })?;
        if self.late.load(Ordering::Relaxed) && asked.elapsed() >= timeout {
            let text = format!("connect timed out after {timeout:?}, as others did meanwhile");
            return Err(Fault::because(Kind::ConnectTimeout, Side::Server, text));
        }
        Ok(Turn {
            turns: self,
            _permit: permit,
        })
    }
}

impl Turn<'_> {
    /// Remembers for those that wait how it has ended.
    pub(super) fn ended<T>(self, ended: &Result<T, Fault>) {
        let late = matches!(ended, Err(fault) if fault.kind == Kind::ConnectTimeout);
        self.turns.late.store(late, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    async fn all(turns: &Turns) -> Vec<Turn<'_>> {
        let mut taken = Vec::new();
        for _ in 0..AT_ONCE {
            taken.push(turns.take(TIMEOUT).await.unwrap());
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_slow_peer_gets_a_turn_in_the_end() {
        let turns = Turns::new();
        let mut taken = all(&turns).await;
        let mut waiting = Box::pin(turns.take(TIMEOUT));
        assert!(waiting.as_mut().now_or_never().is_none());
        advance(TIMEOUT * 3).await;
        taken.pop().unwrap().ended(&Ok(()));
        assert!(waiting.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_dead_peer_waits_no_longer_than_the_others() {
        let turns = Turns::new();
        let mut taken = all(&turns).await;
        let mut waiting = Box::pin(turns.take(TIMEOUT));
        assert!(waiting.as_mut().now_or_never().is_none());
        advance(TIMEOUT).await;
        let late = Fault::new(Kind::ConnectTimeout, Side::Server);
        taken.pop().unwrap().ended(&Err::<(), _>(late));
        assert_eq!(waiting.await.unwrap_err().kind, Kind::ConnectTimeout);
        // Who asks only now tries for himself.
        assert!(turns.take(TIMEOUT).await.is_ok());
    }
}
