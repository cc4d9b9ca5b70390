//! The power of two choices: of two random endpoints the less loaded.

use std::cmp::Ordering;

/// How many random pairs are looked at before every endpoint is.
const TRIES: usize = 8;

/// Picks two different endpoints at random among those that are ready, and of these the one with the lower load.
///
/// `load(i)` is the load of endpoint `i < len`, `None` when it is not ready. The only one that is ready is picked
/// without a choice. While most are ready the cost does not depend on `len`; otherwise all are looked at once.
pub fn choose(len: usize, rng: &mut fastrand::Rng, load: impl Fn(usize) -> Option<f64>) -> Option<usize> {
    if len < 2 {
        return (len == 1 && load(0).is_some()).then_some(0);
    }
    for _ in 0..TRIES.min(len) {
        let a = rng.usize(..len);
        let b = (a + 1 + rng.usize(..len - 1)) % len;
        if let (Some(load_a), Some(load_b)) = (load(a), load(b)) {
            return Some(lower((a, load_a), (b, load_b)));
        }
    }
    scan(len, rng, load)
}

/// The same choice from a sample of two, drawn while going through all that are ready (reservoir sampling).
fn scan(len: usize, rng: &mut fastrand::Rng, load: impl Fn(usize) -> Option<f64>) -> Option<usize> {
    let mut ready = (0..len).filter_map(|i| Some((i, load(i)?)));
    let first = ready.next()?;
    let Some(second) = ready.next() else {
        return Some(first.0);
    };
    let mut sample = if rng.bool() {
        [first, second]
    } else {
        [second, first]
    };
    for (seen, endpoint) in ready.enumerate() {
        if let Some(slot) = sample.get_mut(rng.usize(..seen + 3)) {
            *slot = endpoint;
        }
    }
    Some(lower(sample[0], sample[1]))
}

fn lower(a: (usize, f64), b: (usize, f64)) -> usize {
    match a.1.total_cmp(&b.1) {
        Ordering::Greater => b.0,
        Ordering::Less | Ordering::Equal => a.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(loads: &[Option<f64>]) -> Vec<usize> {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut counts = vec![0; loads.len()];
        for _ in 0..10_000 {
            if let Some(i) = choose(loads.len(), &mut rng, |i| loads[i]) {
                counts[i] += 1;
            }
        }
        counts
    }

    #[test]
    fn nothing_is_picked_where_nothing_is_ready() {
        assert_eq!(counts(&[]), [0; 0]);
        assert_eq!(counts(&[None]), [0]);
        assert_eq!(counts(&[None; 20]), [0; 20]);
    }

    #[test]
    fn the_only_one_that_is_ready_is_picked() {
        assert_eq!(counts(&[None, Some(9.0), None]), [0, 10_000, 0]);
        assert_eq!(counts(&[Some(9.0)]), [10_000]);
    }

    #[test]
    fn of_two_the_less_loaded_is_always_picked() {
        assert_eq!(counts(&[Some(1.0), Some(2.0)]), [10_000, 0]);
        assert_eq!(counts(&[None, Some(f64::NAN), Some(2.0)]), [0, 0, 10_000]);
    }

    #[test]
    fn equals_share_the_load_even_when_few_are_ready() {
        let mut loads = [None; 100];
        for i in [3, 50, 99] {
            loads[i] = Some(1.0);
        }
        let counts = counts(&loads);
        for i in [3, 50, 99] {
            assert!((3000..3700).contains(&counts[i]), "{i}: {}", counts[i]);
        }
    }

    #[test]
    fn the_most_loaded_of_many_is_never_picked() {
        let loads: Vec<_> = (0..10).map(|i| Some(f64::from(i))).collect();
        let counts = counts(&loads);
        assert!(counts.is_sorted_by(|a, b| a > b), "{counts:?}");
        assert_eq!(counts[9], 0);
    }
}
