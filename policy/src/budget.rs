//! Retry budgets: retries as a share of requests, so that a failing backend is not drowned by its clients.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::Unsupported;

/// How many retries a destination's requests may cause.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetPolicy {
    ratio: f32,
    min_per_second: u32,
    ttl: Duration,
}

/// The requests and retries of the last while, counted without a lock and shared by all that send to a destination.
///
/// Whenever a retry is granted, those of the time to live that ends there are at most `ratio ×` the requests of that
/// time, and `min_per_second` for each of its seconds.
#[derive(Debug)]
pub struct RetryBudget {
    policy: BudgetPolicy,
    /// Retries that are allowed without a request.
    reserve: f64,
    /// The latest part of time that was seen: a clock that lags behind another thread's grants nothing twice.
    latest: AtomicU64,
    slots: [AtomicU64; SLOTS],
}

/// Parts of the time to live.
const PARTS: u32 = 10;

/// One more than that: retries are looked for over the whole time to live and the part that is running.
const SLOTS: usize = PARTS as usize + 1;

/// What a slot counts, in one word: the part of time it is for (24 bits), requests and retries (20 bits each).
#[derive(Clone, Copy)]
struct Slot {
    part: u64,
    requests: u64,
    retries: u64,
}

/// A slot's counts stop here: more requests buy nothing, more retries are refused.
const MOST: u64 = (1 << 20) - 1;

impl BudgetPolicy {
    /// Checks the parameters: a ratio from 0 to 1000, a time to live from 1 s to 60 s.
    pub fn try_new(ratio: f32, min_per_second: u32, ttl: Duration) -> Result<Self, Unsupported> {
        if !(0.0..=1000.0).contains(&ratio) {
            let reason = format!("the retry ratio ({ratio}) must be from 0 to 1000");
            return Err(Unsupported::new(reason));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(60)).contains(&ttl) {
            let reason = format!("the retry budget's ttl ({ttl:?}) must be from 1s to 60s");
            return Err(Unsupported::new(reason));
        }
        Ok(Self {
            ratio,
            min_per_second,
            ttl,
        })
    }

    /// Retries for each request.
    pub fn ratio(&self) -> f32 {
        self.ratio
    }

    /// Retries that are allowed each second, whatever the requests.
    pub fn min_per_second(&self) -> u32 {
        self.min_per_second
    }

    /// For how long a request allows retries.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }
}

impl Default for BudgetPolicy {
    /// A fifth of the requests, and ten each second, over ten seconds.
    fn default() -> Self {
        Self {
            ratio: 0.2,
            min_per_second: 10,
            ttl: Duration::from_secs(10),
        }
    }
}

impl RetryBudget {
    /// A budget that has seen nothing.
    pub fn new(policy: BudgetPolicy) -> Self {
        Self {
            policy,
            reserve: f64::from(policy.min_per_second) * policy.ttl.as_secs_f64(),
            latest: AtomicU64::new(0),
            slots: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// What it was made from.
    pub fn policy(&self) -> BudgetPolicy {
        self.policy
    }

    /// Counts a request (not a retry). `now` is a monotonic time since any one epoch.
    pub fn deposit(&self, now: Duration) {
        let part = self.part(now);
        self.change(part, |slot| slot.requests < MOST, |slot| slot.requests += 1);
    }

    /// Takes a retry out, if there is one.
    pub fn withdraw(&self, now: Duration) -> bool {
        let part = self.part(now);
        // Counted first and looked at afterwards: of two that take the last retry at the same time both may be
        // refused, but never both granted.
        if !self.change(part, |slot| slot.retries < MOST, |slot| slot.retries += 1) {
            return false;
        }
        let (requests, retries) = self.count(part);
        let allowed = self.reserve + f64::from(self.policy.ratio) * requests as f64;
        if retries as f64 <= allowed {
            return true;
        }
        self.change(part, |slot| slot.retries > 0, |slot| slot.retries -= 1);
        false
    }

    /// Retries that could be taken out now.
    pub fn balance(&self, now: Duration) -> u64 {
        let (requests, retries) = self.count(self.part(now));
        let allowed = self.reserve + f64::from(self.policy.ratio) * requests as f64;
        (allowed as u64).saturating_sub(retries)
    }

    /// The part of time, from 1: a slot of zeroes is for none.
    fn part(&self, now: Duration) -> u64 {
        let length = self.policy.ttl.as_nanos() / u128::from(PARTS);
        let part = (now.as_nanos() / length) as u64 + 1;
        self.latest.fetch_max(part, Ordering::AcqRel).max(part)
    }

    /// Changes a part's slot, unless it is for a later part by now, or `admit` refuses.
    fn change(&self, part: u64, admit: impl Fn(&Slot) -> bool, change: impl Fn(&mut Slot)) -> bool {
        let next = |word| {
            let mut slot = Slot::of(word);
            if !slot.is_for(part) {
                let overtaken = self.latest.load(Ordering::Acquire) >= part + SLOTS as u64;
                slot = (!overtaken).then(|| Slot::new(part))?;
            }
            admit(&slot).then(|| {
                change(&mut slot);
                slot.word()
            })
        };
        let slot = &self.slots[part as usize % SLOTS];
        slot.fetch_update(Ordering::AcqRel, Ordering::Acquire, next)
            .is_ok()
    }

    /// The requests of no more, and the retries of no less, than the time to live.
    fn count(&self, part: u64) -> (u64, u64) {
        let (mut requests, mut retries) = (0, 0);
        for age in 0..SLOTS as u64 {
            let Some(wanted) = part.checked_sub(age) else {
                break;
            };
            let slot = Slot::of(self.slots[wanted as usize % SLOTS].load(Ordering::Acquire));
            if slot.is_for(wanted) {
                retries += slot.retries;
                requests += if age < u64::from(PARTS) { slot.requests } else { 0 };
            }
        }
        (requests, retries)
    }
}

impl Slot {
    fn new(part: u64) -> Self {
        Self {
            part: part & 0xff_ffff,
            requests: 0,
            retries: 0,
        }
    }

    fn of(word: u64) -> Self {
        Self {
            part: word >> 40,
            requests: word >> 20 & MOST,
            retries: word & MOST,
        }
    }

    fn word(self) -> u64 {
        self.part << 40 | self.requests << 20 | self.retries
    }

    fn is_for(&self, part: u64) -> bool {
        self.part == part & 0xff_ffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn budget(ratio: f32, min_per_second: u32) -> RetryBudget {
        RetryBudget::new(BudgetPolicy::try_new(ratio, min_per_second, 10 * SECOND).unwrap())
    }

    fn withdrawn(budget: &RetryBudget, now: Duration) -> usize {
        (0..1000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn requests_buy_their_share_of_retries() {
        let budget = budget(0.2, 0);
        assert!(!budget.withdraw(SECOND));
        (0..100).for_each(|_| budget.deposit(SECOND));
        assert_eq!(budget.balance(SECOND), 20);
        assert_eq!(withdrawn(&budget, 2 * SECOND), 20);
    }

    #[test]
    fn the_reserve_needs_no_request() {
        let budget = budget(0.0, 3);
        assert_eq!(withdrawn(&budget, SECOND), 30);
        assert_eq!(withdrawn(&budget, 10 * SECOND), 0);
        assert_eq!(withdrawn(&budget, 12 * SECOND), 30);
    }

    #[test]
    fn old_requests_buy_nothing() {
        let budget = budget(1.0, 0);
        (0..10).for_each(|_| budget.deposit(SECOND));
        assert_eq!(withdrawn(&budget, 11 * SECOND), 0);
        (0..10).for_each(|_| budget.deposit(20 * SECOND));
        assert_eq!(withdrawn(&budget, 29 * SECOND), 10);
    }

    #[test]
    fn a_clock_that_goes_back_grants_nothing_twice() {
        let budget = budget(0.0, 1);
        assert_eq!(withdrawn(&budget, 50 * SECOND), 10);
        assert_eq!(withdrawn(&budget, 30 * SECOND), 0);
        assert_eq!(withdrawn(&budget, 62 * SECOND), 10);
    }

    #[test]
    fn more_requests_than_a_slot_counts_do_not_spill_over() {
        let budget = budget(1.0, 0);
        let slot = &budget.slots[budget.part(SECOND) as usize % SLOTS];
        let full = Slot {
            requests: MOST,
            ..Slot::new(budget.part(SECOND))
        };
        slot.store(full.word(), Ordering::Release);
        budget.deposit(SECOND);
        assert_eq!(budget.balance(SECOND), MOST);
    }

    #[test]
    fn threads_never_take_more_than_there_is() {
        let budget = budget(0.0, 10);
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1000).filter(|_| budget.withdraw(SECOND)).count()))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert!(
            taken <= 100 && budget.balance(SECOND) == 100 - taken as u64,
            "{taken}"
        );
    }

    #[test]
    fn impossible_parameters_are_refused() {
        for (ratio, ttl) in [(-0.1, 10), (1001.0, 10), (f32::NAN, 10), (0.2, 0), (0.2, 61)] {
            assert!(
                BudgetPolicy::try_new(ratio, 0, ttl * SECOND).is_err(),
                "{ratio} {ttl}"
            );
        }
    }
}
