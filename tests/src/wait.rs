//! Waiting for a condition, with a bound for the case that it never comes.

use std::thread;
use std::time::{Duration, Instant};

/// What is broken if it takes longer; nothing that works comes near it, even on a busy machine.
pub const BOUND: Duration = Duration::from_secs(30);

/// Asks until there is an answer, and gives it.
///
/// # Panics
/// After [`BOUND`], with `what` was waited for.
pub fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(BOUND, ask).unwrap_or_else(|| panic!("waited {BOUND:?} in vain for {what}"))
}

/// Asks until there is an answer, at most this long.
pub fn within<T>(bound: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + bound;
    loop {
        let answer = ask();
        if answer.is_some() || Instant::now() > end {
            return answer;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
