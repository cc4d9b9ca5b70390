//! Exponential backoff with jitter.

use std::time::Duration;

use crate::Unsupported;

/// How long to wait before trying again: doubled with each attempt, bounded, and never the same for two clients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    jitter: f64,
}

/// The jitter is finite: [`Backoff::try_new`] sees to that.
impl Eq for Backoff {}

impl std::hash::Hash for Backoff {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.min, self.max, self.jitter.to_bits()).hash(state);
    }
}

impl Backoff {
    /// Checks the parameters: `0 < min ≤ max`, jitter finite and from 0 to 100.
    pub fn try_new(min: Duration, max: Duration, jitter: f64) -> Result<Self, Unsupported> {
        if min.is_zero() {
            return Err(Unsupported::new("the shortest backoff must be above 0"));
        }
        if min > max {
            return Err(Unsupported::new(format!(
                "the shortest backoff ({min:?}) must not exceed the longest ({max:?})"
            )));
        }
        if !(0.0..=100.0).contains(&jitter) {
            return Err(Unsupported::new(format!(
                "the backoff's jitter ({jitter}) must be from 0 to 100"
            )));
        }
        // Adding zero turns -0 into 0, which equal backoffs must not differ by.
        let jitter = jitter + 0.0;
        Ok(Self { min, max, jitter })
    }

    /// The shortest wait.
    pub fn min(&self) -> Duration {
        self.min
    }

    /// The longest wait.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// By how much a wait may be longer, as a share of it.
    pub fn jitter(&self) -> f64 {
        self.jitter
    }

    /// The wait after failed attempt number `attempt`, the first being 0: from `base` up to `base × (1 + jitter)`,
    /// evenly drawn, where `base` is `min × 2^attempt`. Never below `min` or above `max`.
    ///
    /// `base` stops at `max / (1 + jitter)`: the longest waits too are spread out, and clients that lost the same
    /// server don't return together.
    pub fn delay(&self, attempt: u32, rng: &mut fastrand::Rng) -> Duration {
        let (min, max) = (self.min.as_secs_f64(), self.max.as_secs_f64());
        let doubled = min * 2f64.powi(attempt.min(1000).cast_signed());
        let base = doubled.min(max / (1.0 + self.jitter)).max(min);
        let wait = base * (1.0 + self.jitter * rng.f64());
        Duration::try_from_secs_f64(wait)
            .unwrap_or(self.max)
            .clamp(self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_wait_doubles_up_to_the_longest() {
        let backoff = Backoff::try_new(100 * MS, 1000 * MS, 0.0).unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        let waits = [0, 1, 2, 3, 4, u32::MAX].map(|n| backoff.delay(n, &mut rng));
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000].map(|n| n * MS));
    }

    #[test]
    fn jitter_spreads_the_longest_waits_too_and_stays_within_bounds() {
        let backoff = Backoff::try_new(100 * MS, 1000 * MS, 1.0).unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        let waits: Vec<_> = (0..1000).map(|_| backoff.delay(9, &mut rng)).collect();
        assert!(waits.iter().all(|w| (500 * MS..=1000 * MS).contains(w)));
        assert!(waits.iter().min().unwrap() < &(550 * MS) && waits.iter().max().unwrap() > &(950 * MS));
    }

    #[test]
    fn the_first_wait_is_never_below_the_shortest() {
        let backoff = Backoff::try_new(100 * MS, 100 * MS, 50.0).unwrap();
        assert_eq!(backoff.delay(0, &mut fastrand::Rng::with_seed(1)), 100 * MS);
    }

    #[test]
    fn impossible_parameters_are_refused() {
        for (min, max, jitter) in [
            (0, 1, 0.0),
            (2, 1, 0.0),
            (1, 2, -0.1),
            (1, 2, f64::NAN),
            (1, 2, 101.0),
        ] {
            assert!(
                Backoff::try_new(min * MS, max * MS, jitter).is_err(),
                "{min} {max} {jitter}"
            );
        }
        assert!(Backoff::try_new(Duration::MAX, Duration::MAX, 100.0).is_ok());
    }
}
