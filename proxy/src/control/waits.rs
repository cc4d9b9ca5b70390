//! `Waits`: the pauses between attempts, longer after each failure.

use std::time::Duration;

use outrigger_policy::backoff::Backoff;

use crate::config;

/// The pauses of one thing that is tried again and again.
#[derive(Debug)]
pub(crate) struct Waits {
    backoff: Backoff,
    failed: u32,
    rng: fastrand::Rng,
}

impl Waits {
    pub(crate) fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            failed: 0,
            rng: fastrand::Rng::new(),
        }
    }

    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let wait = self.backoff.delay(self.failed, &mut self.rng);
        self.failed = self.failed.saturating_add(1);
        wait
    }

    /// It worked: the next failure is the first again.
    pub(crate) fn reset(&mut self) {
        self.failed = 0;
    }
}

/// The configured backoff, or Linkerd's own where it makes no sense.
pub(crate) fn backoff(configured: &config::Backoff) -> Backoff {
    Backoff::try_new(configured.min, configured.max, configured.jitter).unwrap_or_else(|_| {
        Backoff::try_new(Duration::from_millis(100), Duration::from_secs(10), 0.1)
            .expect("0 < 100 ms ≤ 10 s, and the jitter is a tenth")
    })
}
