//! When discovery is asked again about a service none of whose endpoints can be connected to: what it said last may be
//! about pods that are gone, on a stream that nobody writes to any more.

use outrigger_policy::backoff::Backoff;
use tokio::time::{Instant, sleep_until};

use crate::balance::siblings::Siblings;

/// When discovery may be asked again: after a pause that grows while asking does not help.
#[derive(Debug)]
pub(super) struct Again {
    pauses: Backoff,
    asked: u32,
    not_before: Option<Instant>,
}

impl Again {
    pub(super) fn new(pauses: Backoff) -> Self {
        Self {
            pauses,
            asked: 0,
            not_before: None,
        }
    }

    /// Waits until no endpoint can be connected to, and it is time to ask.
    pub(super) async fn due(&mut self, siblings: &Siblings) {
        siblings.lost().await;
        if let Some(not_before) = self.not_before {
            sleep_until(not_before).await;
        }
        let now = Instant::now();
        // What went well for so long has nothing to do with what comes now.
        let longest = self.pauses.max();
        if self
            .not_before
            .is_none_or(|before| now.duration_since(before) > longest)
        {
            self.asked = 0;
        }
        let pause = self.pauses.delay(self.asked, &mut fastrand::Rng::new());
        self.asked = self.asked.saturating_add(1);
        self.not_before = Some(now + pause);
    }
}
