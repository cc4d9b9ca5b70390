//! Retries: whether an attempt may be made again, and when.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::StatusCode;

use crate::backoff::Backoff;
use crate::classify::{Class, GrpcStatus};

/// When the requests of a rule are sent again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// After which responses.
    pub on: RetryOn,
    /// Attempts after the first, at most.
    pub max_retries: u32,
    /// Larger requests are sent once only, bytes.
    pub max_request_bytes: usize,
    /// For each attempt but the last, from the end of the request to the response's headers.
    pub per_try: Option<Duration>,
    /// The wait before each further attempt; `None`: at once.
    pub backoff: Option<Backoff>,
}

/// After which responses a request is sent again.
#[derive(Clone, Debug, PartialEq)]
pub enum RetryOn {
    /// Those with one of these statuses; attempts that timed out besides.
    Statuses {
        /// HTTP statuses.
        http: Vec<RangeInclusive<u16>>,
        /// gRPC codes, in headers or trailers.
        grpc: GrpcCodes,
    },
    /// Those that the rule classifies as failures, and nothing else: the retries of ServiceProfile routes.
    Failures,
}

/// A set of gRPC codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct GrpcCodes(u32);

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a response, or with a fault that is answered as one.
    Answered {
        /// Its status.
        status: StatusCode,
        /// Its gRPC code, if it is known by now.
        grpc: Option<GrpcStatus>,
        /// What the rule calls it.
        class: Class,
    },
    /// No server took any of the request: nothing was written, no connection came up, or the stream was refused
    /// (RFC 9113 §8.7). To send it again is always safe.
    Unprocessed,
    /// Its own time was over, or no endpoint was ready in time (fail-fast).
    TimedOut,
}

/// What follows from the end of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the answer.
    Final,
    /// It would be tried again, but it was often enough.
    Exhausted,
    /// It is tried again after this wait, if the budget and the request's body allow.
    Again(Duration),
}

impl RetryPolicy {
    /// Judges the attempt with the number `attempt`, the first being 0.
    pub fn judge(&self, outcome: Outcome, attempt: u32, rng: &mut fastrand::Rng) -> Verdict {
        if !self.on.takes(outcome) {
            return Verdict::Final;
        }
        if attempt >= self.max_retries {
            return Verdict::Exhausted;
        }
        Verdict::Again(
            self.backoff
                .map_or(Duration::ZERO, |backoff| backoff.delay(attempt, rng)),
        )
    }

    /// The time that attempt `attempt` has; the last one has only what the rule's timeouts leave.
    pub fn attempt_timeout(&self, attempt: u32) -> Option<Duration> {
        self.per_try.filter(|_| attempt < self.max_retries)
    }
}

impl RetryOn {
    fn takes(&self, outcome: Outcome) -> bool {
        match (self, outcome) {
            (_, Outcome::Unprocessed) => true,
            (Self::Failures, Outcome::Answered { class, .. }) => class == Class::Failure,
            (Self::Failures, Outcome::TimedOut) => false,
            (Self::Statuses { .. }, Outcome::TimedOut) => true,
            (Self::Statuses { http, grpc: codes }, Outcome::Answered { status, grpc, .. }) => {
                http.iter().any(|range| range.contains(&status.as_u16()))
                    || grpc.is_some_and(|code| codes.contains(code))
            }
        }
    }
}

impl GrpcCodes {
    /// With this code too; codes above 31 are in no set.
    pub fn with(self, code: GrpcStatus) -> Self {
        Self(self.0 | bit(code))
    }

    /// Whether the code is in the set.
    pub fn contains(self, code: GrpcStatus) -> bool {
        self.0 & bit(code) != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<u16> for GrpcCodes {
    fn from_iter<I: IntoIterator<Item = u16>>(codes: I) -> Self {
        codes
            .into_iter()
            .fold(Self::default(), |set, code| set.with(GrpcStatus(code)))
    }
}

fn bit(code: GrpcStatus) -> u32 {
    1u32.checked_shl(code.0.into()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(on: RetryOn) -> RetryPolicy {
        RetryPolicy {
            on,
            max_retries: 2,
            max_request_bytes: 64 << 10,
            per_try: Some(Duration::from_secs(1)),
            backoff: None,
        }
    }

    fn statuses() -> RetryPolicy {
        policy(RetryOn::Statuses {
            http: vec![500..=502, 504..=504],
            grpc: GrpcCodes::from_iter([4, 14]),
        })
    }

    fn answered(status: u16, grpc: Option<u16>) -> Outcome {
        let status = StatusCode::from_u16(status).unwrap();
        let grpc = grpc.map(GrpcStatus);
        Outcome::Answered {
            status,
            grpc,
            class: crate::classify::response(status, grpc),
        }
    }

    fn again(policy: &RetryPolicy, outcome: Outcome) -> bool {
        policy.judge(outcome, 0, &mut fastrand::Rng::with_seed(1)) == Verdict::Again(Duration::ZERO)
    }

    #[test]
    fn listed_statuses_and_codes_are_tried_again() {
        let policy = statuses();
        for (status, grpc, expected) in [
            (500, None, true),
            (502, None, true),
            (503, None, false),
            (504, None, true),
            (200, Some(14), true),
            (200, Some(0), false),
            (200, Some(99), false),
            (200, None, false),
        ] {
            assert_eq!(
                again(&policy, answered(status, grpc)),
                expected,
                "{status} {grpc:?}"
            );
        }
    }

    #[test]
    fn what_no_server_took_is_tried_again_in_any_case() {
        let nothing = policy(RetryOn::Statuses {
            http: vec![],
            grpc: GrpcCodes::default(),
        });
        for policy in [nothing, policy(RetryOn::Failures)] {
            assert!(again(&policy, Outcome::Unprocessed));
        }
    }

    #[test]
    fn a_profile_tries_again_what_it_calls_a_failure_and_no_timeout() {
        let profile = policy(RetryOn::Failures);
        assert!(again(&profile, answered(503, None)) && again(&profile, answered(200, Some(13))));
        assert!(!again(&profile, answered(404, None)) && !again(&profile, Outcome::TimedOut));
        assert!(again(&statuses(), Outcome::TimedOut));
    }

    #[test]
    fn attempts_are_counted_and_wait_longer_and_longer() {
        let ms = Duration::from_millis;
        let mut policy = statuses();
        policy.backoff = Some(Backoff::try_new(ms(10), ms(100), 0.0).unwrap());
        let rng = &mut fastrand::Rng::with_seed(1);
        let verdicts = [0, 1, 2, 3].map(|attempt| policy.judge(Outcome::TimedOut, attempt, rng));
        let exhausted = Verdict::Exhausted;
        assert_eq!(
            verdicts,
            [
                Verdict::Again(ms(10)),
                Verdict::Again(ms(20)),
                exhausted,
                exhausted
            ]
        );
        assert_eq!(policy.judge(answered(200, None), 9, rng), Verdict::Final);
    }

    #[test]
    fn the_last_attempt_has_no_time_of_its_own() {
        let policy = statuses();
        assert_eq!(
            [0, 1, 2].map(|n| policy.attempt_timeout(n).is_some()),
            [true, true, false]
        );
    }
}
