//! Peak EWMA: an estimate of the round-trip time that rises at once and falls slowly.

use std::time::Duration;

use crate::outbound::LoadParams;

/// The least round-trip time to start from, seconds: a smaller one would make the first measurement look like a peak.
const SEED_FLOOR: f64 = 1e-3;

/// The least estimate, seconds. An endpoint idle for hours would otherwise decay to zero, and then its load stays zero
/// whatever it has pending.
const FLOOR: f64 = 1e-6;

/// The least share that an endpoint's load is divided by.
const MIN_SHARE: f64 = 1e-3;

/// A peak-sensitive, exponentially weighted moving average of round-trip times.
///
/// A measurement above the average replaces it; one below is mixed in, weighing more the longer ago the last one was.
/// Without measurements the estimate decays, so that an endpoint that was slow is tried again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeakEwma {
    /// The average at `updated`, seconds.
    average: f64,
    /// Time since the epoch of `now` of the last measurement.
    updated: Duration,
    /// Time constant of the decay, seconds.
    decay: f64,
    /// The same after a penalty.
    penalty_decay: f64,
    /// Whether the average is a penalty, not a measurement.
    penalised: bool,
}

impl PeakEwma {
    /// Starts from the default round-trip time, at least 1 ms. `now` is a monotonic time since any one epoch.
    pub fn new(params: LoadParams, now: Duration) -> Self {
        Self {
            average: params.default_rtt.as_secs_f64().max(SEED_FLOOR),
            updated: now,
            decay: params.decay.as_secs_f64().max(FLOOR),
            penalty_decay: params
                .penalty
                .map_or(params.decay, |penalty| penalty.decay)
                .as_secs_f64()
                .max(FLOOR),
            penalised: false,
        }
    }

    /// Learns of a measurement.
    pub fn observe(&mut self, rtt: Duration, now: Duration) {
        let rtt = rtt.as_secs_f64();
        self.average = if rtt >= self.average {
            self.penalised = false;
            rtt
        } else {
            let old = self.weight(now);
            self.average * old + rtt * (1.0 - old)
        };
        self.updated = self.updated.max(now);
    }

    /// Learns of a failed response, which counts as one that took this long ([`super::penalty`]). The estimate is never
    /// lowered by it.
    pub fn penalise(&mut self, penalty: Duration, now: Duration) {
        let penalty = penalty.as_secs_f64();
        let estimate = self.estimate(now);
        if penalty > estimate {
            self.penalised = true;
        }
        self.average = estimate.max(penalty);
        self.updated = self.updated.max(now);
    }

    /// The estimated round-trip time, seconds; above zero.
    pub fn estimate(&self, now: Duration) -> f64 {
        (self.average * self.weight(now)).max(FLOOR)
    }

    /// What one more request would meet: the estimate for each that is pending and for itself.
    pub fn load(&self, now: Duration, pending: u32) -> f64 {
        self.estimate(now) * (f64::from(pending) + 1.0)
    }

    /// The same for an endpoint that is meant to have `share` times as much pending as the mean of them.
    pub fn load_of_share(&self, now: Duration, pending: u32, share: f64) -> f64 {
        self.estimate(now) * (f64::from(pending) / share.max(MIN_SHARE) + 1.0)
    }

    /// What is left of the weight of the last measurement, 0 to 1.
    fn weight(&self, now: Duration) -> f64 {
        let decay = if self.penalised {
            self.penalty_decay
        } else {
            self.decay
        };
        (-now.saturating_sub(self.updated).as_secs_f64() / decay).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbound::PenaltyParams;

    const START: Duration = Duration::from_secs(100);

    fn ewma(default_rtt: Duration) -> PeakEwma {
        let params = LoadParams {
            default_rtt,
            ..LoadParams::default()
        };
        PeakEwma::new(params, START)
    }

    #[test]
    fn a_peak_replaces_the_estimate_at_once() {
        let mut ewma = ewma(Duration::from_millis(30));
        ewma.observe(Duration::from_millis(500), START);
        assert_eq!(ewma.estimate(START), 0.5);
    }

    #[test]
    fn a_lower_measurement_takes_over_with_time() {
        let mut ewma = ewma(Duration::from_secs(1));
        ewma.observe(Duration::from_millis(100), START);
        assert_eq!(ewma.estimate(START), 1.0);
        let later = START + Duration::from_secs(10);
        ewma.observe(Duration::from_millis(100), later);
        let expected = 0.1 + 0.9 / std::f64::consts::E;
        assert!((ewma.estimate(later) - expected).abs() < 1e-9);
    }

    #[test]
    fn an_idle_estimate_decays_but_keeps_telling_the_busy_from_the_free() {
        let ewma = ewma(Duration::from_secs(1));
        let hours = START + Duration::from_secs(100_000);
        assert!(ewma.load(hours, 1) > ewma.load(hours, 0));
        assert!(ewma.load(hours, 0) > 0.0);
    }

    #[test]
    fn the_seed_is_at_least_a_millisecond() {
        assert_eq!(ewma(Duration::ZERO).estimate(START), 1e-3);
    }

    #[test]
    fn the_load_counts_the_pending_and_oneself() {
        assert_eq!(ewma(Duration::from_secs(1)).load(START, 3), 4.0);
    }

    #[test]
    fn what_is_pending_counts_less_for_an_endpoint_with_a_larger_share() {
        let ewma = ewma(Duration::from_secs(1));
        assert_eq!(ewma.load_of_share(START, 4, 2.0), 3.0);
        assert_eq!(ewma.load_of_share(START, 4, 1.0), ewma.load(START, 4));
        assert!(ewma.load_of_share(START, 1, 0.0).is_finite());
    }

    #[test]
    fn neither_a_zero_decay_nor_a_clock_that_goes_back_gives_nonsense() {
        let params = LoadParams {
            default_rtt: Duration::ZERO,
            decay: Duration::ZERO,
            penalty: None,
        };
        let mut ewma = PeakEwma::new(params, START);
        ewma.observe(Duration::from_millis(5), Duration::ZERO);
        assert_eq!(ewma.estimate(Duration::ZERO), 5e-3);
        assert!(ewma.estimate(START + Duration::from_secs(1)).is_finite());
    }

    #[test]
    fn a_penalty_raises_the_estimate_never_lowers_it_and_decays_at_its_own_pace() {
        let penalty = PenaltyParams {
            decay: Duration::from_secs(1),
            ..PenaltyParams::default()
        };
        let params = LoadParams {
            penalty: Some(penalty),
            ..LoadParams::default()
        };
        let mut ewma = PeakEwma::new(params, START);
        ewma.penalise(Duration::from_secs(5), START);
        ewma.penalise(Duration::from_secs(1), START);
        assert_eq!(ewma.estimate(START), 5.0);
        let later = START + Duration::from_secs(1);
        assert!((ewma.estimate(later) - 5.0 / std::f64::consts::E).abs() < 1e-9);
        ewma.observe(Duration::from_secs(9), later);
        assert!((ewma.estimate(later + Duration::from_secs(10)) - 9.0 / std::f64::consts::E).abs() < 1e-9);
    }
}
