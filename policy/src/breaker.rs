//! Circuit breakers: an endpoint that keeps failing is shut for a while, then tried with one request (probation).

use std::time::Duration;

use crate::backoff::Backoff;

/// When an endpoint is shut, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BreakerPolicy {
    /// What shuts it.
    pub accrual: Accrual,
    /// For how long: longer each time that its probation fails.
    pub backoff: Backoff,
    /// A server's own hint lengthens that, up to the longest backoff.
    pub respect_hints: bool,
    /// An endpoint is shut only while this many others are ready.
    pub min_ready_endpoints: u32,
}

/// What shuts an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accrual {
    /// This many failures in a row; 0: nothing.
    Consecutive(u32),
    /// Failures in a row, or a low success rate.
    Unified {
        /// Failures in a row; 0: not looked at.
        max_consecutive: u32,
        /// The success rate below which it is shut, in hundredths of a percent; 0: not looked at.
        threshold: u16,
        /// Responses in the window without which the rate says nothing.
        min_requests: u32,
        /// The span over which the rate is taken.
        window: Duration,
    },
}

/// How an exchange with the endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Success,
    /// With a failure; for a TCP connection: it could not be opened.
    Failure,
    /// The server has too much to do (429, RESOURCE_EXHAUSTED): counts against the success rate only.
    Limited,
    /// Nobody knows: the client went away first.
    Cancelled,
}

/// Leave to send one exchange. It must be given back with its outcome ([`Breaker::record`]), come what may.
#[derive(Debug)]
#[must_use = "a probation whose ticket is lost never ends"]
pub struct Ticket {
    /// Which span between two changes of state it was given in: what is older says nothing about the present one.
    era: u64,
}

/// Where an endpoint stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It takes requests.
    Ready,
    /// It takes none.
    Shut,
    /// It takes one, or has taken it.
    Probation,
}

/// The breaker of one endpoint.
#[derive(Debug)]
pub struct Breaker {
    policy: BreakerPolicy,
    phase: Phase,
    era: u64,
    /// Failures in a row.
    consecutive: u32,
    window: Window,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Ready,
    /// After `failed` failed probations, until then.
    Shut {
        failed: u32,
        until: Duration,
    },
    /// `taken`: the one request is on its way.
    Probation {
        failed: u32,
        taken: bool,
    },
}

impl Breaker {
    /// A breaker that is ready.
    pub fn new(policy: BreakerPolicy) -> Self {
        Self {
            policy,
            phase: Phase::Ready,
            era: 0,
            consecutive: 0,
            window: Window::default(),
        }
    }

    /// Where the endpoint stands. `now` is a monotonic time since any one epoch.
    pub fn state(&self, now: Duration) -> State {
        match self.phase {
            Phase::Ready => State::Ready,
            Phase::Shut { until, .. } if now < until => State::Shut,
            Phase::Shut { .. } | Phase::Probation { .. } => State::Probation,
        }
    }

    /// Whether [`Breaker::admit`] would let a request through.
    pub fn is_ready(&self, now: Duration) -> bool {
        match self.phase {
            Phase::Ready => true,
            Phase::Shut { until, .. } => now >= until,
            Phase::Probation { taken, .. } => !taken,
        }
    }

    /// When it may next be ready, if nothing happens before; `None` when it is, or when that is up to the request
    /// on probation.
    pub fn shut_until(&self, now: Duration) -> Option<Duration> {
        match self.phase {
            Phase::Shut { until, .. } if now < until => Some(until),
            _ => None,
        }
    }

    /// Lets a request through, or not.
    pub fn admit(&mut self, now: Duration) -> Option<Ticket> {
        if !self.is_ready(now) {
            return None;
        }
        match self.phase {
            Phase::Ready => {}
            Phase::Shut { failed, .. } => self.enter(Phase::Probation { failed, taken: true }),
            Phase::Probation { failed, .. } => self.phase = Phase::Probation { failed, taken: true },
        }
        Some(Ticket { era: self.era })
    }

    /// Learns how an exchange ended. `hint` is the server's wish to be left alone ([`crate::hint`]), `others_ready`
    /// how many other endpoints are ready, asked only when this one is about to be shut. `true` when the state changed.
    pub fn record(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        hint: Option<Duration>,
        now: Duration,
        others_ready: impl FnOnce() -> usize,
        rng: &mut fastrand::Rng,
    ) -> bool {
        if ticket.era != self.era {
            return false;
        }
        match self.phase {
            Phase::Ready => {
                let shut =
                    self.count(outcome, now) && others_ready() >= self.policy.min_ready_endpoints as usize;
                if shut {
                    self.shut(0, hint, now, rng);
                }
                shut
            }
            Phase::Probation { failed, .. } => {
                match self.policy.accrual.on_probation(outcome) {
                    Outcome::Success => self.enter(Phase::Ready),
                    Outcome::Cancelled => self.enter(Phase::Probation { failed, taken: false }),
                    Outcome::Failure | Outcome::Limited => {
                        self.shut(failed.saturating_add(1), hint, now, rng)
                    }
                }
                outcome != Outcome::Cancelled
            }
            // To be shut begins an era, in which no ticket is given before probation begins the next.
            Phase::Shut { .. } => false,
        }
    }

    /// Counts an outcome while ready; `true` when it is one too many.
    fn count(&mut self, outcome: Outcome, now: Duration) -> bool {
        match outcome {
            Outcome::Success => self.consecutive = 0,
            Outcome::Failure => self.consecutive = self.consecutive.saturating_add(1),
            Outcome::Limited | Outcome::Cancelled => {}
        }
        match self.policy.accrual {
            Accrual::Consecutive(most) => reached(self.consecutive, most) && outcome == Outcome::Failure,
            Accrual::Unified {
                max_consecutive,
                threshold,
                min_requests,
                window,
            } => {
                if outcome == Outcome::Cancelled {
                    return false;
                }
                let success = outcome == Outcome::Success;
                if threshold > 0 {
                    self.window.count(success, window, now);
                }
                let low = threshold > 0 && self.window.is_below(threshold, min_requests);
                !success && (low || reached(self.consecutive, max_consecutive))
            }
        }
    }

    fn shut(&mut self, failed: u32, hint: Option<Duration>, now: Duration, rng: &mut fastrand::Rng) {
        let backoff = self.policy.backoff;
        let hint = hint.filter(|_| self.policy.respect_hints).unwrap_or_default();
        let wait = backoff.delay(failed, rng).max(hint.min(backoff.max()));
        let until = now.saturating_add(wait);
        self.enter(Phase::Shut { failed, until });
    }

    /// Nothing that was sent before decides about what comes now.
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.era += 1;
        self.consecutive = 0;
        self.window = Window::default();
    }
}

impl Accrual {
    /// What the outcome of the one request on probation means: to a breaker that does not know limits, a limited
    /// server is well.
    fn on_probation(self, outcome: Outcome) -> Outcome {
        match (self, outcome) {
            (Self::Consecutive(_), Outcome::Limited) => Outcome::Success,
            (_, outcome) => outcome,
        }
    }
}

fn reached(count: u32, most: u32) -> bool {
    most > 0 && count >= most
}

/// Parts of the window; the oldest is forgotten as a whole.
const PARTS: usize = 10;

/// Successes and failures of the last while.
#[derive(Debug, Default)]
struct Window {
    /// Number of the latest part of time.
    latest: u64,
    parts: [Part; PARTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    successes: u32,
    failures: u32,
}

impl Window {
    fn count(&mut self, success: bool, span: Duration, now: Duration) {
        let length = (span.as_nanos() / PARTS as u128).max(1);
        let part = u64::try_from(now.as_nanos() / length).unwrap_or(u64::MAX);
        let passed = part.saturating_sub(self.latest).min(PARTS as u64);
        self.latest = self.latest.max(part);
        for age in 0..passed {
            *self.part(age) = Part::default();
        }
        let part = self.part(0);
        let count = if success {
            &mut part.successes
        } else {
            &mut part.failures
        };
        *count = count.saturating_add(1);
    }

    fn part(&mut self, age: u64) -> &mut Part {
        let index = self.latest.wrapping_sub(age) % PARTS as u64;
        &mut self.parts[index as usize]
    }

    /// Whether the success rate is below so many hundredths of a percent, with enough requests to say so.
    fn is_below(&self, threshold: u16, min_requests: u32) -> bool {
        let sum = |count: fn(&Part) -> u32| self.parts.iter().map(|p| u64::from(count(p))).sum::<u64>();
        let (successes, failures) = (sum(|p| p.successes), sum(|p| p.failures));
        let all = successes + failures;
        all >= u64::from(min_requests.max(1)) && successes * 10_000 < all * u64::from(threshold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{Cancelled, Failure, Limited, Success};

    const SECOND: Duration = Duration::from_secs(1);

    fn policy(accrual: Accrual) -> BreakerPolicy {
        BreakerPolicy {
            accrual,
            backoff: Backoff::try_new(SECOND, 60 * SECOND, 0.0).unwrap(),
            respect_hints: false,
            min_ready_endpoints: 0,
        }
    }

    fn unified(max_consecutive: u32, threshold: u16, min_requests: u32) -> Accrual {
        Accrual::Unified {
            max_consecutive,
            threshold,
            min_requests,
            window: 10 * SECOND,
        }
    }

    /// A request that ends at once; `None` when it was not let through, else whether the state changed.
    fn send(breaker: &mut Breaker, outcome: Outcome, now: Duration) -> Option<bool> {
        let ticket = breaker.admit(now)?;
        Some(end(breaker, ticket, outcome, now))
    }

    fn end(breaker: &mut Breaker, ticket: Ticket, outcome: Outcome, now: Duration) -> bool {
        breaker.record(ticket, outcome, None, now, || 9, &mut fastrand::Rng::with_seed(1))
    }

    #[test]
    fn failures_in_a_row_shut_and_one_good_request_makes_ready_again() {
        let mut breaker = Breaker::new(policy(Accrual::Consecutive(3)));
        for outcome in [Failure, Failure, Success, Failure, Limited, Failure] {
            assert_eq!(send(&mut breaker, outcome, SECOND), Some(false));
        }
        assert_eq!(send(&mut breaker, Failure, SECOND), Some(true));
        assert_eq!(breaker.state(SECOND), State::Shut);
        assert_eq!(breaker.shut_until(SECOND), Some(2 * SECOND));
        assert_eq!(send(&mut breaker, Success, SECOND), None);
        assert_eq!(breaker.state(2 * SECOND), State::Probation);
        assert_eq!(send(&mut breaker, Success, 2 * SECOND), Some(true));
        assert_eq!(breaker.state(2 * SECOND), State::Ready);
    }

    #[test]
    fn probation_takes_one_request_and_a_failed_one_shuts_for_longer() {
        let mut breaker = Breaker::new(policy(Accrual::Consecutive(1)));
        send(&mut breaker, Failure, Duration::ZERO);
        let probe = breaker.admit(SECOND).unwrap();
        assert!(!breaker.is_ready(SECOND) && breaker.admit(SECOND).is_none());
        assert!(end(&mut breaker, probe, Failure, SECOND));
        assert_eq!(breaker.shut_until(SECOND), Some(3 * SECOND));
        send(&mut breaker, Failure, 3 * SECOND);
        assert_eq!(breaker.shut_until(3 * SECOND), Some(7 * SECOND));
    }

    #[test]
    fn a_cancelled_probation_is_followed_by_another() {
        let mut breaker = Breaker::new(policy(Accrual::Consecutive(1)));
        send(&mut breaker, Failure, Duration::ZERO);
        for _ in 0..3 {
            assert_eq!(send(&mut breaker, Cancelled, SECOND), Some(false));
            assert!(breaker.is_ready(SECOND));
        }
        assert_eq!(send(&mut breaker, Success, SECOND), Some(true));
    }

    #[test]
    fn what_was_sent_before_the_shut_does_not_decide_the_probation() {
        let mut breaker = Breaker::new(policy(Accrual::Consecutive(1)));
        let [late, later] = [0, 1].map(|_| breaker.admit(Duration::ZERO).unwrap());
        send(&mut breaker, Failure, Duration::ZERO);
        assert!(!end(&mut breaker, late, Success, Duration::ZERO));
        let probe = breaker.admit(SECOND).unwrap();
        assert!(!end(&mut breaker, later, Failure, SECOND));
        assert!(end(&mut breaker, probe, Success, SECOND));
        assert_eq!(breaker.state(SECOND), State::Ready);
    }

    #[test]
    fn a_low_success_rate_shuts_once_there_are_enough_requests() {
        let mut breaker = Breaker::new(policy(unified(0, 8000, 10)));
        for outcome in [
            Failure, Success, Limited, Success, Success, Success, Failure, Success, Success,
        ] {
            assert_eq!(send(&mut breaker, outcome, SECOND), Some(false));
        }
        assert_eq!(send(&mut breaker, Failure, SECOND), Some(true));
    }

    #[test]
    fn failures_that_are_older_than_the_window_are_forgotten() {
        let mut breaker = Breaker::new(policy(unified(0, 5000, 2)));
        send(&mut breaker, Success, Duration::ZERO);
        assert_eq!(send(&mut breaker, Failure, SECOND), Some(false));
        assert_eq!(send(&mut breaker, Failure, 11 * SECOND), Some(false));
        assert_eq!(send(&mut breaker, Failure, 12 * SECOND), Some(true));
    }

    #[test]
    fn a_limited_server_counts_against_the_rate_and_fails_its_probation() {
        let mut breaker = Breaker::new(policy(unified(2, 5000, 3)));
        for expected in [false, false, true] {
            assert_eq!(send(&mut breaker, Limited, Duration::ZERO), Some(expected));
        }
        assert_eq!(send(&mut breaker, Limited, SECOND), Some(true));
        assert_eq!(breaker.state(SECOND), State::Shut);
    }

    #[test]
    fn zeroes_switch_each_of_the_two_off() {
        for accrual in [Accrual::Consecutive(0), unified(0, 0, 0)] {
            let mut breaker = Breaker::new(policy(accrual));
            assert!((0..1000).all(|_| send(&mut breaker, Failure, SECOND) == Some(false)));
        }
        let mut breaker = Breaker::new(policy(unified(2, 0, 0)));
        assert_eq!(
            [0, 1].map(|_| send(&mut breaker, Failure, SECOND)),
            [Some(false), Some(true)]
        );
    }

    #[test]
    fn the_last_ready_endpoints_are_not_shut() {
        let policy = BreakerPolicy {
            min_ready_endpoints: 2,
            ..policy(Accrual::Consecutive(1))
        };
        let mut breaker = Breaker::new(policy);
        let mut fail = |others| {
            let ticket = breaker.admit(SECOND).unwrap();
            breaker.record(
                ticket,
                Failure,
                None,
                SECOND,
                || others,
                &mut fastrand::Rng::with_seed(1),
            )
        };
        assert_eq!([fail(1), fail(0), fail(2)], [false, false, true]);
    }

    #[test]
    fn a_hint_lengthens_the_wait_up_to_the_longest_where_it_is_respected() {
        for (respect_hints, hint, expected) in [(true, 30, 30), (true, 600, 60), (true, 0, 1), (false, 30, 1)]
        {
            let mut breaker = Breaker::new(BreakerPolicy {
                respect_hints,
                ..policy(Accrual::Consecutive(1))
            });
            let ticket = breaker.admit(Duration::ZERO).unwrap();
            let hint = Some(hint * SECOND);
            breaker.record(
                ticket,
                Failure,
                hint,
                Duration::ZERO,
                || 0,
                &mut fastrand::Rng::with_seed(1),
            );
            assert_eq!(breaker.shut_until(Duration::ZERO), Some(expected * SECOND));
        }
    }
}
