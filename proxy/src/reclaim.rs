//! Free memory goes back to the system once connections have ended.
//!
//! The allocator keeps a page that has become free for a while, and looks at it again when it is asked for something or
//! given something. After a burst it is not, and what the burst took would stay. It is one for the process, and so is this.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

/// How long memory is kept for connections to come: it goes back at most once in this time.
const KEPT: Duration = Duration::from_secs(1);

static ENDED: Notify = Notify::const_new();
/// How often memory has been due to go back.
static DUE: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// How much of that this thread has seen to.
    static DONE: Cell<u64> = const { Cell::new(0) };
}

/// A connection has ended, and its memory is about to become free.
pub fn connection_ended() {
    ENDED.notify_one();
}

/// Sees to it that memory goes back a while after connections have ended. While none do it only waits.
pub async fn run() {
    loop {
        ENDED.notified().await;
        sleep(KEPT).await;
        DUE.fetch_add(1, Ordering::Relaxed);
    }
}

/// To be called by each thread that is about to wait: what it has kept goes back, if that is due. One that nobody wakes keeps it.
pub fn before_park() {
    let due = DUE.load(Ordering::Relaxed);
    if DONE.replace(due) != due {
        outrigger_sys::memory::give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn memory_is_due_to_go_back_a_while_after_a_connection_has_ended() {
        let before = DUE.load(Ordering::Relaxed);
        let running = tokio::spawn(run());
        connection_ended();
        let due = async {
            while DUE.load(Ordering::Relaxed) == before {
                sleep(KEPT / 2).await;
            }
        };
        tokio::time::timeout(3 * KEPT, due).await.unwrap();
        before_park();
        assert_ne!(DONE.get(), before);
        running.abort();
    }
}
