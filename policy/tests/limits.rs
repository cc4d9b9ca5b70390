//! Budgets, rate limits, breakers and weights, on random histories.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use outrigger_policy::backoff::Backoff;
use outrigger_policy::balance::ewma::PeakEwma;
use outrigger_policy::balance::p2c::Weights;
use outrigger_policy::breaker::{Accrual, Breaker, BreakerPolicy, Outcome, State, Ticket};
use outrigger_policy::budget::{BudgetPolicy, RetryBudget};
use outrigger_policy::name::{Identity, ResourceRef};
use outrigger_policy::outbound::{LoadParams, PenaltyParams};
use outrigger_policy::overrides::Overrides;
use outrigger_policy::rate_limit::{RateLimitPolicy, RateLimiter};
use outrigger_policy::route::distribute::random_available;
use outrigger_policy::route::filter::{self, Filter, PathRewrite, Redirect, Rewrite};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_budget_never_grants_more_than_its_share(
        ratio in 0..200u16,
        min_per_second in 0..5u32,
        ttl in 1..8u32,
        history in vec((0..400u32, any::<bool>(), 1..8usize), 1..300),
    ) {
        let ttl = ttl * 1000 * MS;
        let ratio = f32::from(ratio) / 100.0;
        let budget = RetryBudget::new(BudgetPolicy::try_new(ratio, min_per_second, ttl).unwrap());
        let (mut now, mut requests, mut retries) = (Duration::ZERO, VecDeque::new(), VecDeque::new());
        for (pause, request, times) in history {
            now += pause * MS;
            for _ in 0..times {
                if request {
                    budget.deposit(now);
                    requests.push_back(now);
                } else if budget.withdraw(now) {
                    retries.push_back(now);
                    let within = |times: &VecDeque<_>| times.iter().filter(|at| **at + ttl > now).count() as f64;
                    let most = f64::from(ratio) * within(&requests) + f64::from(min_per_second) * ttl.as_secs_f64();
                    prop_assert!(within(&retries) <= most + 1e-6, "{} of {most}", within(&retries));
                }
            }
        }
    }

    #[test]
    fn a_budget_is_not_stingy(ratio in 1..200u32, requests in 1..500u32) {
        let policy = BudgetPolicy::try_new(ratio as f32 / 100.0, 0, 10_000 * MS).unwrap();
        let budget = RetryBudget::new(policy);
        (0..requests).for_each(|_| budget.deposit(MS));
        let granted = (0..2000).take_while(|_| budget.withdraw(2 * MS)).count();
        let expected = (f64::from(policy.ratio()) * f64::from(requests)) as usize;
        prop_assert_eq!(granted, expected);
    }

    #[test]
    fn in_no_interval_are_more_admitted_than_a_burst_and_the_rate(
        rate in 1..50u32,
        history in vec((0..200u32, 1..30usize), 1..60),
    ) {
        let limiter = RateLimiter::new(limits(Some(rate), None));
        let mut now = 1000 * MS;
        let mut admitted = Vec::new();
        for (pause, times) in history {
            now += pause * MS;
            admitted.extend((0..times).filter(|_| limiter.admit(None, now).is_ok()).map(|_| now));
        }
        for (i, from) in admitted.iter().enumerate() {
            for (j, to) in admitted.iter().enumerate().skip(i) {
                let most = f64::from(rate) * (1.0 + (*to - *from).as_secs_f64());
                prop_assert!((j - i + 1) as f64 <= most + 1e-6, "{} from {from:?} to {to:?}", j - i + 1);
            }
        }
    }

    #[test]
    fn who_keeps_to_the_rate_is_never_refused(rate in 1..1000u32, count in 1..300u32, others: bool) {
        let limiter = RateLimiter::new(limits(None, Some(rate)));
        let [client, greedy] = ["good.ns", "greedy.ns"].map(|name| Identity::parse(name).unwrap());
        let distance = Duration::from_nanos(1_000_000_000u64.div_ceil(rate.into()));
        for n in 0..count {
            let now = n * distance;
            prop_assert_eq!(limiter.admit(Some(&client), now), Ok(()));
            if others {
                (0..5).for_each(|_| {
                    limiter.admit(Some(&greedy), now).ok();
                });
            }
        }
    }

    #[test]
    fn a_breaker_is_ready_again_once_its_endpoint_is_well(
        policy in breaker(),
        history in vec((0..3000u32, 0..5u8, any::<prop::sample::Index>()), 0..200),
        seed: u64,
    ) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut breaker = Breaker::new(policy);
        let (mut now, mut open): (_, Vec<Ticket>) = (Duration::ZERO, Vec::new());
        for (pause, what, which) in history {
            now += pause * MS;
            let ready = breaker.is_ready(now);
            prop_assert!(!ready || breaker.state(now) != State::Shut);
            prop_assert_eq!(breaker.state(now) == State::Shut, breaker.shut_until(now).is_some());
            let outcome = match what {
                0 => Outcome::Success,
                1 | 2 => Outcome::Failure,
                3 => Outcome::Limited,
                _ => Outcome::Cancelled,
            };
            match breaker.admit(now) {
                Some(ticket) => {
                    prop_assert!(ready);
                    open.push(ticket);
                    prop_assert!(breaker.state(now) != State::Probation || breaker.admit(now).is_none());
                }
                None => prop_assert!(!ready),
            }
            if !open.is_empty() {
                let ticket = open.swap_remove(which.index(open.len()));
                breaker.record(ticket, outcome, Some(pause * MS), now, || 1, &mut rng);
            }
        }
        // The clients that still wait go away; from now on the endpoint is well.
        for ticket in open {
            breaker.record(ticket, Outcome::Cancelled, None, now, || 1, &mut rng);
        }
        let longest = now + policy.backoff.max();
        if let Some(until) = breaker.shut_until(now) {
            prop_assert!(until <= longest);
            now = until;
        }
        let ticket = breaker.admit(now).expect("nothing is on its way");
        breaker.record(ticket, Outcome::Success, None, now, || 1, &mut rng);
        prop_assert_eq!(breaker.state(now), State::Ready);
    }

    #[test]
    fn weights_converge_over_those_that_are_ready(
        backends in vec((any::<bool>(), 0..100u32), 1..6),
        seed: u64,
    ) {
        let indexed: Vec<_> = backends.iter().enumerate().map(|(i, (_, weight))| (i, *weight)).collect();
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut counts = vec![0; backends.len()];
        const DRAWS: u32 = 4000;
        for _ in 0..DRAWS {
            if let Some(i) = random_available(&indexed, |i| backends[*i].0, &mut rng) {
                counts[*i] += 1;
            }
        }
        let any_ready = backends.iter().any(|(ready, weight)| *ready && *weight > 0);
        let weight = |(ready, weight): &(bool, u32)| if *ready || !any_ready { f64::from(*weight) } else { 0.0 };
        let total: f64 = backends.iter().map(weight).sum();
        for (backend, count) in backends.iter().zip(counts) {
            let share = if total > 0.0 { weight(backend) / total } else { 0.0 };
            prop_assert!((f64::from(count) / f64::from(DRAWS) - share).abs() < 0.05);
            prop_assert!(share > 0.0 || count == 0);
        }
    }

    #[test]
    fn weighted_choices_are_ready_ones(
        endpoints in vec((0..100u32, option::of(0.0..1e3f64)), 2..30),
        seed: u64,
    ) {
        let Some(weights) = Weights::new(endpoints.iter().map(|(weight, _)| *weight)) else { return Ok(()) };
        let mut rng = fastrand::Rng::with_seed(seed);
        let ready = endpoints.iter().any(|(_, load)| load.is_some());
        let heavy = endpoints.iter().any(|(weight, load)| load.is_some() && *weight > 0);
        for _ in 0..50 {
            match weights.choose(&mut rng, |i, _| endpoints[i].1) {
                Some(i) => prop_assert!(endpoints[i].1.is_some() && (endpoints[i].0 > 0 || !heavy)),
                None => prop_assert!(!ready),
            }
        }
    }

    #[test]
    fn a_penalised_estimate_is_above_zero_and_falls_again(
        history in vec((0..20_000u32, any::<bool>(), 0..10_000u32), 1..60),
    ) {
        let params = LoadParams { penalty: Some(PenaltyParams::default()), ..LoadParams::default() };
        let mut now = Duration::from_secs(1);
        let mut ewma = PeakEwma::new(params, now);
        for (pause, penalty, rtt) in history {
            now += pause * MS;
            let before = ewma.estimate(now);
            if penalty {
                ewma.penalise(rtt * MS, now);
                prop_assert!(ewma.estimate(now) >= before);
            } else {
                ewma.observe(rtt * MS, now);
            }
            prop_assert!(ewma.estimate(now) > 0.0 && ewma.estimate(now).is_finite());
        }
        prop_assert!(ewma.estimate(now + 1000 * params.decay) < 1e-3);
    }

    #[test]
    fn what_a_request_says_of_itself_is_read_to_its_end(
        text in "[0-9a-z,.-]{0,40}",
        grpc in "(cancelled|internal|unavailable|,|x){0,6}",
    ) {
        let mut headers = http::HeaderMap::new();
        for name in ["l5d-retry-http", "l5d-retry-limit", "l5d-retry-timeout", "l5d-timeout", "l5d-response-timeout"] {
            headers.insert(name, text.parse().unwrap());
        }
        headers.insert("l5d-retry-grpc", grpc.parse().unwrap());
        let overrides = Overrides::take(&mut headers);
        prop_assert!(headers.is_empty() && overrides.retries());
        let retry = overrides.retry(None).unwrap();
        prop_assert!(retry.max_retries <= 100);
        for range in overrides.http.unwrap() {
            prop_assert!(*range.start() >= 100 && *range.end() <= 599 && !range.is_empty());
        }
    }

    #[test]
    fn no_path_and_no_text_breaks_a_redirect_or_a_rewrite(
        path in "/[a-zA-Z0-9/%?&=.~-]{0,20}",
        text in ".{0,12}",
        prefix in option::of(0..24usize),
        full: bool,
    ) {
        let rewrite = match full {
            true => PathRewrite::Full(text.as_str().into()),
            false => PathRewrite::Prefix(text.as_str().into()),
        };
        let redirect = Filter::Redirect(Redirect {
            scheme: None,
            host: None,
            port: None,
            path: Some(rewrite.clone()),
            status: http::StatusCode::FOUND,
        });
        let rewrite = Filter::Rewrite(Rewrite { host: None, path: Some(rewrite) });
        let mut rng = fastrand::Rng::with_seed(1);
        for filter in [redirect, rewrite] {
            let mut head = http::Request::builder().uri(&path).body(()).unwrap().into_parts().0;
            match filter::request(&[filter], &mut head, "web", prefix, &mut rng) {
                filter::Filtered::Redirect { location, .. } => {
                    prop_assert!(location.as_bytes().starts_with(b"http://web"));
                }
                filter::Filtered::Pass(_) | filter::Filtered::Inapplicable(_) => {}
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}

fn limits(total: Option<u32>, identity: Option<u32>) -> RateLimitPolicy {
    RateLimitPolicy {
        meta: Arc::new(ResourceRef::of_default("limit")),
        total: total.and_then(NonZeroU32::new),
        identity: identity.and_then(NonZeroU32::new),
        overrides: vec![],
    }
}

fn breaker() -> impl Strategy<Value = BreakerPolicy> {
    let unified = (0..5u32, 0..=10_000u16, 0..20u32, 1..20u32).prop_map(
        |(max_consecutive, threshold, min_requests, window)| Accrual::Unified {
            max_consecutive,
            threshold,
            min_requests,
            window: window * 1000 * MS,
        },
    );
    let accrual = prop_oneof![(0..5u32).prop_map(Accrual::Consecutive), unified];
    let backoff = (1..2000u32, 0..9000u32, 0..300u32);
    (accrual, backoff, any::<bool>(), 0..3u32).prop_map(
        |(accrual, (min, more, jitter), respect_hints, min_ready_endpoints)| BreakerPolicy {
            accrual,
            backoff: Backoff::try_new(min * MS, (min + more) * MS, f64::from(jitter) / 100.0).unwrap(),
            respect_hints,
            min_ready_endpoints,
        },
    )
}
