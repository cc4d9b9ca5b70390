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

/// The weights of endpoints, ready to draw from. Only for weights that differ: [`choose`] is cheaper without.
#[derive(Clone, Debug)]
pub struct Weights {
    /// The sum of the weights up to and with each endpoint's.
    sums: Vec<u64>,
}

impl Weights {
    /// `None` when all weights are the same, or all zero.
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Option<Self> {
        let mut sum = 0;
        let sums: Vec<u64> = weights
            .into_iter()
            .map(|weight| {
                sum += u64::from(weight);
                sum
            })
            .collect();
        let weights = Self { sums };
        let first = weights.of(0);
        (1..weights.sums.len())
            .any(|i| weights.of(i) != first)
            .then_some(weights)
    }

    /// Draws two endpoints by weight, perhaps the same twice, and picks the one with the lower load. One that was drawn
    /// twice is picked unless it is much worse than a third. Those of weight zero are picked only where no other is
    /// ready.
    ///
    /// `load(i, share)` is as for [`choose`]; `share` is the weight in proportion to the mean, by which what is pending
    /// may be divided ([`super::ewma::PeakEwma::load_of_share`]). The cost grows with the logarithm of their number,
    /// while most are ready.
    pub fn choose(&self, rng: &mut fastrand::Rng, load: impl Fn(usize, f64) -> Option<f64>) -> Option<usize> {
        let load = |i| load(i, self.share(i)).map(|load| (i, load));
        for _ in 0..TRIES {
            let draw = |without: Option<usize>| {
                let (before, left_out) = without.map_or((0, 0), |i| (self.before(i), self.of(i)));
                let left = self.total().checked_sub(left_out).filter(|left| *left > 0)?;
                let point = rng.u64(..left);
                let point = if point < before { point } else { point + left_out };
                load(self.sums.partition_point(|sum| *sum <= point))
            };
            let picked = pick(draw);
            if picked.is_some() {
                return picked;
            }
        }
        self.scan(rng, load)
    }

    /// The same choice, going through all that are ready.
    fn scan(&self, rng: &mut fastrand::Rng, load: impl Fn(usize) -> Option<(usize, f64)>) -> Option<usize> {
        let ready = || (0..self.sums.len()).filter_map(&load);
        let total: u64 = ready().map(|(i, _)| self.of(i)).sum();
        if total == 0 {
            return choose(self.sums.len(), rng, |i| load(i).map(|(_, load)| load));
        }
        pick(|without| {
            let left_out = without.map_or(0, |i| self.of(i));
            let mut point = rng.u64(..total.checked_sub(left_out).filter(|left| *left > 0)?);
            let mut others = ready().filter(|(i, _)| Some(*i) != without);
            others.find(|(i, _)| match point.checked_sub(self.of(*i)) {
                Some(left) => {
                    point = left;
                    false
                }
                None => true,
            })
        })
    }

    /// Above zero: weights that are all zero are the same.
    fn total(&self) -> u64 {
        self.sums.last().map_or(1, |total| (*total).max(1))
    }

    fn of(&self, i: usize) -> u64 {
        self.sums.get(i).map_or(0, |sum| sum - self.before(i))
    }

    fn before(&self, i: usize) -> u64 {
        i.checked_sub(1).map_or(0, |before| self.sums[before])
    }

    fn share(&self, i: usize) -> f64 {
        self.of(i) as f64 * self.sums.len() as f64 / self.total() as f64
    }
}

/// By how much an endpoint that was drawn twice may be worse than another.
const MUCH_WORSE: f64 = 3.0;

/// Picks one of two draws; `draw` may leave one out. Were an endpoint that was drawn twice always picked, a sick one
/// would keep the square of its share.
fn pick(mut draw: impl FnMut(Option<usize>) -> Option<(usize, f64)>) -> Option<usize> {
    let (a, b) = (draw(None)?, draw(None)?);
    if a.0 != b.0 {
        return Some(lower(a, b));
    }
    Some(match draw(Some(a.0)) {
        Some(third) if a.1 > MUCH_WORSE * third.1 => third.0,
        _ => a.0,
    })
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

    fn weighted(weights: &[u32], loads: &[Option<f64>]) -> Vec<usize> {
        let mut rng = fastrand::Rng::with_seed(7);
        let weights = Weights::new(weights.iter().copied()).unwrap();
        let mut counts = vec![0; loads.len()];
        for _ in 0..10_000 {
            if let Some(i) = weights.choose(&mut rng, |i, _| loads[i]) {
                counts[i] += 1;
            }
        }
        counts
    }

    #[test]
    fn weights_that_do_not_differ_are_none() {
        for same in [&[][..], &[7], &[5, 5, 5], &[0, 0]] {
            assert!(Weights::new(same.iter().copied()).is_none(), "{same:?}");
        }
    }

    #[test]
    fn of_equals_weights_decide() {
        let counts = weighted(&[90, 10, 0], &[Some(1.0); 3]);
        assert!((8800..9200).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
    }

    #[test]
    fn a_sick_endpoint_is_never_picked_whatever_its_weight() {
        let counts = weighted(&[90, 10, 10], &[Some(20.0), Some(1.0), Some(1.0)]);
        assert_eq!(counts[0], 0, "{counts:?}");
    }

    #[test]
    fn the_share_is_the_weight_in_proportion_to_the_mean() {
        let weights = Weights::new([30, 10]).unwrap();
        let mut shares = [0.0; 2];
        for i in [0, 1] {
            shares[i] = weights.share(i);
        }
        assert_eq!(shares, [1.5, 0.5]);
    }

    #[test]
    fn weights_draw_only_from_those_that_are_ready() {
        assert_eq!(
            weighted(&[1000, 1, 0], &[None, Some(1.0), Some(1.0)]),
            [0, 10_000, 0]
        );
        assert_eq!(weighted(&[1000, 1, 0], &[None, None, Some(1.0)]), [0, 0, 10_000]);
        assert_eq!(weighted(&[1000, 1], &[None, None]), [0, 0]);
        assert_eq!(weighted(&[1000, 0], &[Some(1.0), Some(1.0)]), [10_000, 0]);
    }
}
