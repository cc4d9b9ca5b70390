//! Balancing on random loads: two choices, peak EWMA, backoff.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use outrigger_policy::backoff::Backoff;
use outrigger_policy::balance::ewma::PeakEwma;
use outrigger_policy::balance::p2c;
use outrigger_policy::outbound::LoadParams;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

proptest! {
    #[test]
    fn only_a_ready_endpoint_is_picked_and_never_the_most_loaded(
        loads in vec(option::of(0.0..1e3f64), 0..40),
        seed: u64,
    ) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let ready: Vec<f64> = loads.iter().flatten().copied().collect();
        let most = ready.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for _ in 0..50 {
            match p2c::choose(loads.len(), &mut rng, |i| loads[i]) {
                None => prop_assert!(ready.is_empty()),
                Some(i) => {
                    let load = loads[i];
                    prop_assert!(load.is_some(), "{i} is not ready");
                    prop_assert!(ready.len() == 1 || load < Some(most) || ready.iter().filter(|l| **l == most).count() > 1);
                }
            }
        }
    }

    #[test]
    fn less_load_is_picked_more_often(seed: u64, few in any::<bool>()) {
        // With `few`, one in ten is ready, and the choice is made by going through all.
        let step = if few { 10 } else { 1 };
        let load = |i: usize| i.is_multiple_of(step).then_some((i / step) as f64);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut counts = [0; 8];
        for _ in 0..4000 {
            let picked = p2c::choose(8 * step, &mut rng, load).unwrap();
            counts[picked / step] += 1;
        }
        // Of 8, the one with rank r (0: least loaded) wins against 7 - r of 28 pairs.
        for (rank, count) in counts.into_iter().enumerate() {
            let expected = 4000.0 * (7 - rank) as f64 / 28.0;
            prop_assert!((f64::from(count) - expected).abs() < 250.0, "{counts:?}");
        }
    }

    #[test]
    fn an_estimate_is_never_below_what_was_just_measured_nor_above_all_that_was(
        samples in vec((100u64..10_000_000, 0u64..60_000), 1..50),
    ) {
        let params = LoadParams::default();
        let mut now = Duration::from_secs(1);
        let mut ewma = PeakEwma::new(params, now);
        let mut highest = params.default_rtt;
        for (micros, pause) in samples {
            now += Duration::from_millis(pause);
            let rtt = Duration::from_micros(micros);
            highest = highest.max(rtt);
            ewma.observe(rtt, now);
            let estimate = ewma.estimate(now);
            prop_assert!(estimate >= rtt.as_secs_f64() * 0.999_999);
            prop_assert!(estimate <= highest.as_secs_f64() * 1.000_001);
            prop_assert!(ewma.estimate(now + params.decay) < estimate);
            prop_assert!(ewma.load(now, 1) > ewma.load(now, 0));
        }
    }

    #[test]
    fn a_wait_stays_within_its_bounds(
        min in 1u64..10_000,
        more in 0u64..100_000,
        jitter in 0.0..100.0f64,
        attempt: u32,
        seed: u64,
    ) {
        let [min, max] = [min, min + more].map(Duration::from_millis);
        let backoff = Backoff::try_new(min, max, jitter).unwrap();
        let mut rng = fastrand::Rng::with_seed(seed);
        for attempt in [0, 1, 5, attempt] {
            let wait = backoff.delay(attempt, &mut rng);
            prop_assert!(min <= wait && wait <= max, "{wait:?}");
        }
    }
}
