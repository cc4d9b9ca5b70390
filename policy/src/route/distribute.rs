//! Distributions: one of several backends, among those that are ready.

/// The first that is ready; where none is, the first: how long it lets a request wait is its own affair.
pub fn first_available<T>(backends: &[T], ready: impl Fn(&T) -> bool) -> Option<&T> {
    match backends {
        [only] => Some(only),
        several => several.iter().find(|b| ready(b)).or_else(|| several.first()),
    }
}

/// One at random by weight among those that are ready; where none is, among all. Those of weight zero are never
/// chosen, so that `None` means that there is nothing to choose.
pub fn random_available<'a, T>(
    backends: &'a [(T, u32)],
    ready: impl Fn(&T) -> bool,
    rng: &mut fastrand::Rng,
) -> Option<&'a T> {
    weighted(backends, ready, rng).or_else(|| weighted(backends, |_| true, rng))
}

fn weighted<'a, T>(
    backends: &'a [(T, u32)],
    admit: impl Fn(&T) -> bool,
    rng: &mut fastrand::Rng,
) -> Option<&'a T> {
    let weight = |backend: &'a (T, u32)| {
        if admit(&backend.0) {
            u64::from(backend.1)
        } else {
            0
        }
    };
    let total: u64 = backends.iter().map(weight).sum();
    if total == 0 {
        return None;
    }
    // Readiness may change between the two passes: then the last that is ready is as good as any.
    let mut point = rng.u64(..total);
    let mut last = None;
    for backend in backends {
        let weight = weight(backend);
        if point < weight {
            return Some(&backend.0);
        }
        point -= weight;
        last = (weight > 0).then_some(&backend.0).or(last);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_is_ready_is_taken_and_the_first_of_all_where_none_is() {
        let backends = ["a", "b", "c"];
        assert_eq!(first_available(&backends, |b| *b != "a"), Some(&"b"));
        assert_eq!(first_available(&backends, |_| false), Some(&"a"));
        assert_eq!(first_available(&backends[..1], |_| false), Some(&"a"));
        assert_eq!(first_available(&backends[..0], |_| true), None);
    }

    fn counts(backends: &[(usize, u32)], ready: impl Fn(&usize) -> bool) -> Vec<usize> {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut counts = vec![0; backends.len()];
        for _ in 0..10_000 {
            if let Some(i) = random_available(backends, &ready, &mut rng) {
                counts[*i] += 1;
            }
        }
        counts
    }

    #[test]
    fn weights_decide_among_those_that_are_ready() {
        let backends = [(0, 90), (1, 10), (2, 900)];
        let counts = counts(&backends, |i| *i != 2);
        assert!((8900..9100).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
    }

    #[test]
    fn with_none_ready_weights_decide_among_all() {
        let counts = counts(&[(0, 1), (1, 1)], |_| false);
        assert!((4800..5200).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn a_weight_of_zero_is_never_chosen_even_where_nothing_else_is_ready() {
        assert_eq!(counts(&[(0, 0), (1, 5)], |i| *i == 0), [0, 10_000]);
        assert_eq!(counts(&[(0, 0), (1, 0)], |_| true), [0, 0]);
        assert_eq!(counts(&[], |_| true), [0; 0]);
    }

    #[test]
    fn the_largest_weights_do_not_overflow() {
        let counts = counts(&[(0, u32::MAX), (1, u32::MAX), (2, u32::MAX)], |_| true);
        assert!(counts.iter().all(|n| (3100..3600).contains(n)), "{counts:?}");
    }
}
