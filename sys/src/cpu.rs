//! How many processors this process may use, and how many worker threads follow from that.

use std::thread;

/// Processors this process may use: affinity mask and cgroup quota (v1 and v2) counted, at least 1.
pub fn available() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Worker threads for the data path (`LINKERD2_PROXY_CORES_MIN`, `…_MAX`, `…_MAX_RATIO`): at most `max`, or without it the
/// share `ratio` (0 < ratio ≤ 1) of the processors, or without both one; at least `min`; never more than [`available`].
pub fn worker_threads(min: usize, max: Option<usize>, ratio: Option<f64>) -> usize {
    workers(available(), min, max, ratio)
}

fn workers(available: usize, min: usize, max: Option<usize>, ratio: Option<f64>) -> usize {
    // A float to integer cast saturates: no ratio, however odd, leaves the range below.
    let share = ratio.map(|ratio| (available as f64 * ratio).round() as usize);
    max.or(share).unwrap_or(1).max(min).clamp(1, available.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_unless_asked_for_more() {
        assert_eq!(workers(8, 1, None, None), 1);
        assert_eq!(workers(8, 0, Some(0), None), 1);
    }

    #[test]
    fn the_minimum_lifts_and_the_machine_caps() {
        assert_eq!(workers(8, 3, None, None), 3);
        assert_eq!(workers(8, 3, Some(2), None), 3);
        assert_eq!(workers(2, 1, Some(64), None), 2);
        assert_eq!(workers(2, 64, None, None), 2);
    }

    #[test]
    fn a_ratio_is_rounded_and_yields_to_a_maximum() {
        assert_eq!(workers(10, 1, None, Some(0.25)), 3);
        assert_eq!(workers(10, 1, None, Some(0.01)), 1);
        assert_eq!(workers(10, 1, Some(4), Some(1.0)), 4);
        assert_eq!(workers(10, 1, None, Some(f64::NAN)), 1);
        assert_eq!(workers(10, 1, None, Some(f64::INFINITY)), 10);
    }

    #[test]
    fn this_machine_has_a_processor() {
        assert!(available() >= 1);
        assert_eq!(worker_threads(1, None, None), 1);
    }
}
