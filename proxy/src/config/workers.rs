//! How many threads work.

use crate::config::env::Reader;
use crate::config::value::Ratio;
use crate::config::vars;

/// How many threads work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Workers {
    /// At least so many.
    pub min: usize,
    /// At most so many.
    pub max: Option<usize>,
    /// At most this share of the processors available, where `max` is unset.
    pub max_ratio: Option<f64>,
}

impl Workers {
    /// The number of threads, where so many processors are available. At least 1.
    pub fn count(&self, available: usize) -> usize {
        // A ratio is in (0, 1], so the product fits.
        let share = |ratio: f64| (available as f64 * ratio).round() as usize;
        let max = self.max.or_else(|| self.max_ratio.map(share)).unwrap_or(1);
        max.max(self.min).min(available).max(1)
    }
}

/// Invalid values are not worth refusing to run: they are warned about and ignored, as in Linkerd.
pub(in crate::config) fn read(r: &mut Reader<'_>) -> Workers {
    Workers {
        min: r.lenient(&vars::CORES_MIN.row).unwrap_or(1),
        max: r.lenient(&vars::CORES_MAX.row),
        max_ratio: r.lenient(&vars::CORES_MAX_RATIO.row).map(|Ratio(ratio)| ratio),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_workers_lies_between_min_and_the_processors_available() {
        let count = |min, max, max_ratio, available| Workers { min, max, max_ratio }.count(available);
        assert_eq!(count(1, None, None, 8), 1);
        assert_eq!(count(3, Some(2), None, 8), 3);
        assert_eq!(count(1, Some(20), None, 8), 8);
        assert_eq!(count(1, None, Some(0.5), 5), 3);
        assert_eq!(count(1, Some(2), Some(1.0), 8), 2);
        assert_eq!(count(0, Some(0), None, 0), 1);
    }
}
