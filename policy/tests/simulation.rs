//! A fleet with sick endpoints under a virtual clock: what balancing, breakers and retries make of it, beside plain two
//! choices and round robin. `cargo test -p outrigger-policy --test simulation -- --nocapture` prints the figures.

#![allow(clippy::unwrap_used)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use http::StatusCode;
use outrigger_policy::backoff::Backoff;
use outrigger_policy::balance::ewma::PeakEwma;
use outrigger_policy::balance::p2c::{self, Weights};
use outrigger_policy::balance::penalty;
use outrigger_policy::breaker::{self, Accrual, Breaker, BreakerPolicy, State, Ticket};
use outrigger_policy::budget::{BudgetPolicy, RetryBudget};
use outrigger_policy::classify;
use outrigger_policy::outbound::{LoadParams, PenaltyParams};
use outrigger_policy::retry::{GrpcCodes, Outcome, RetryOn, RetryPolicy, Verdict};

const MS: Duration = Duration::from_millis(1);
const RUN: Duration = Duration::from_secs(60);
const SEEDS: u64 = 4;

/// How an endpoint behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Health {
    Well,
    /// Twenty times the time.
    Slow,
    /// Every answer is an early 503.
    Failing,
    /// Five seconds like the first, five like the third.
    Flapping,
    /// In another zone: 20 ms away.
    Remote,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Strategy {
    RoundRobin,
    /// Two choices by peak EWMA, no retries.
    Plain,
    /// Two choices with penalties and zone weights, breakers, retries with a budget.
    Whole,
}

struct Endpoint {
    health: Health,
    pending: u32,
    load: PeakEwma,
    breaker: Breaker,
    /// Requests on their way that were let through while it was on probation.
    probing: u32,
}

struct Request {
    arrived: Duration,
    attempt: u32,
}

/// An attempt that is over at a time; the number keeps the order of equals.
struct Attempt {
    request: Request,
    endpoint: usize,
    sent: Duration,
    status: StatusCode,
    ticket: Option<Ticket>,
    probe: bool,
}

struct Fleet {
    strategy: Strategy,
    endpoints: Vec<Endpoint>,
    weights: Option<Weights>,
    budget: RetryBudget,
    retry: RetryPolicy,
    turn: usize,
    rng: fastrand::Rng,
    attempts: u64,
    requests: u64,
    /// Attempts at endpoints that were failing or slow at that time.
    on_sick: u64,
    answered: u64,
    /// Of requests that succeeded.
    latencies: Vec<Duration>,
}

enum Event {
    Arrival,
    Attempt(Attempt),
    Again(Request),
}

/// What is to happen, in order of time.
#[derive(Default)]
struct Agenda {
    order: BinaryHeap<Reverse<(Duration, usize)>>,
    events: Vec<Option<Event>>,
}

impl Agenda {
    fn add(&mut self, at: Duration, event: Event) {
        self.order.push(Reverse((at, self.events.len())));
        self.events.push(Some(event));
    }

    fn next(&mut self) -> Option<(Duration, Event)> {
        let Reverse((at, index)) = self.order.pop()?;
        Some((at, self.events[index].take()?))
    }
}

/// What came of a run.
#[derive(Debug)]
struct Outcomes {
    success: f64,
    /// Of requests that succeeded.
    p99: Duration,
    sick: f64,
    amplification: f64,
}

#[test]
fn sick_endpoints_get_less_and_clients_notice_less_than_with_plain_choices() {
    use Health::{Failing, Flapping, Remote, Slow, Well};
    let fleet = [
        Well, Well, Well, Well, Remote, Remote, Slow, Failing, Flapping, Well,
    ];
    println!("strategy    seed  success      p99   on sick  attempts/request");
    for seed in 0..SEEDS {
        let [round, plain, whole] =
            [Strategy::RoundRobin, Strategy::Plain, Strategy::Whole].map(|strategy| {
                let outcomes = run(strategy, &fleet, 400.0, seed);
                println!(
                    "{:<11} {seed:>4}  {:>6.2}%  {:>7.1?}  {:>6.2}%  {:.3}",
                    format!("{strategy:?}"),
                    outcomes.success * 100.0,
                    outcomes.p99,
                    outcomes.sick * 100.0,
                    outcomes.amplification,
                );
                outcomes
            });
        assert!(whole.success > 0.999, "{whole:?}");
        assert!(whole.success > plain.success && whole.success > round.success);
        assert!(whole.sick < plain.sick / 4.0 && whole.sick < round.sick / 4.0);
        assert!(whole.p99 < round.p99, "{whole:?} {round:?}");
    }
}

#[test]
fn where_everything_fails_the_budget_bounds_the_attempts() {
    for (seed, rate) in [(0, 50.0), (1, 400.0), (2, 2000.0)] {
        let outcomes = run(Strategy::Whole, &[Health::Failing; 5], rate, seed);
        println!(
            "all failing, {rate} requests/s: {:.3} attempts/request",
            outcomes.amplification
        );
        assert_eq!(outcomes.success, 0.0);
    }
}

#[test]
fn an_endpoint_that_gets_well_gets_its_share_again() {
    // Failing for five seconds of each ten, alone: what is answered well are the other five.
    let outcomes = run(Strategy::Whole, &[Health::Flapping], 200.0, 1);
    assert!(outcomes.success > 0.4, "{outcomes:?}");
}

fn run(strategy: Strategy, healths: &[Health], rate: f64, seed: u64) -> Outcomes {
    let mut fleet = Fleet::new(strategy, healths, seed);
    let mut agenda = Agenda::default();
    agenda.add(Duration::ZERO, Event::Arrival);
    while let Some((now, event)) = agenda.next() {
        match event {
            Event::Arrival => {
                let pause = -fleet.rng.f64().max(1e-9).ln() / rate;
                let next = now + Duration::from_secs_f64(pause);
                if next < RUN {
                    agenda.add(next, Event::Arrival);
                }
                fleet.requests += 1;
                fleet.budget.deposit(now);
                fleet.send(
                    Request {
                        arrived: now,
                        attempt: 0,
                    },
                    now,
                    &mut agenda,
                );
            }
            Event::Again(request) => fleet.send(request, now, &mut agenda),
            Event::Attempt(attempt) => fleet.end(attempt, now, &mut agenda),
        }
        fleet.check(now);
    }
    fleet.outcomes()
}

impl Fleet {
    fn new(strategy: Strategy, healths: &[Health], seed: u64) -> Self {
        let whole = strategy == Strategy::Whole;
        let load = LoadParams {
            penalty: whole.then(PenaltyParams::default),
            ..LoadParams::default()
        };
        let policy = BreakerPolicy {
            accrual: Accrual::Consecutive(if whole { 5 } else { 0 }),
            backoff: Backoff::try_new(1000 * MS, 10_000 * MS, 0.5).unwrap(),
            respect_hints: false,
            min_ready_endpoints: 1,
        };
        let endpoint = |health: &Health| Endpoint {
            health: *health,
            pending: 0,
            load: PeakEwma::new(load, Duration::ZERO),
            breaker: Breaker::new(policy),
            probing: 0,
        };
        let zone_weight = |health: &Health| if *health == Health::Remote { 1000 } else { 10_000 };
        Self {
            strategy,
            endpoints: healths.iter().map(endpoint).collect(),
            weights: Weights::new(healths.iter().map(zone_weight)).filter(|_| whole),
            budget: RetryBudget::new(BudgetPolicy::default()),
            retry: RetryPolicy {
                on: RetryOn::Statuses {
                    http: vec![500..=599],
                    grpc: GrpcCodes::default(),
                },
                max_retries: if whole { 3 } else { 0 },
                max_request_bytes: 0,
                per_try: None,
                backoff: Some(Backoff::try_new(MS, 20 * MS, 1.0).unwrap()),
            },
            turn: 0,
            rng: fastrand::Rng::with_seed(seed),
            attempts: 0,
            requests: 0,
            on_sick: 0,
            answered: 0,
            latencies: Vec::new(),
        }
    }

    fn pick(&mut self, now: Duration) -> Option<usize> {
        let endpoints = &self.endpoints;
        let load = |i: usize, share: f64| {
            let endpoint: &Endpoint = &endpoints[i];
            let ready = endpoint.breaker.is_ready(now);
            ready.then(|| endpoint.load.load_of_share(now, endpoint.pending, share))
        };
        match (&self.weights, self.strategy) {
            (_, Strategy::RoundRobin) => {
                self.turn += 1;
                Some(self.turn % endpoints.len())
            }
            (Some(weights), _) => weights.choose(&mut self.rng, load),
            (None, _) => p2c::choose(endpoints.len(), &mut self.rng, |i| load(i, 1.0)),
        }
    }

    fn send(&mut self, request: Request, now: Duration, agenda: &mut Agenda) {
        self.attempts += 1;
        let Some(endpoint) = self.pick(now) else {
            return self.judge(request, StatusCode::SERVICE_UNAVAILABLE, now, agenda);
        };
        let health = self.endpoints[endpoint].health(now);
        self.on_sick += u64::from(matches!(health, Health::Slow | Health::Failing));
        let (took, status) = self.endpoints[endpoint].serve(health, &mut self.rng);
        let picked = &mut self.endpoints[endpoint];
        let ticket = picked.breaker.admit(now);
        assert!(ticket.is_some(), "what is not ready was picked");
        let probe = picked.breaker.state(now) == State::Probation;
        picked.probing += u32::from(probe);
        picked.pending += 1;
        let attempt = Attempt {
            request,
            endpoint,
            sent: now,
            status,
            ticket,
            probe,
        };
        agenda.add(now + took, Event::Attempt(attempt));
    }

    fn end(&mut self, attempt: Attempt, now: Duration, agenda: &mut Agenda) {
        let others: Vec<_> = self.endpoints.iter().map(|e| e.breaker.is_ready(now)).collect();
        let others = others
            .iter()
            .enumerate()
            .filter(|(i, ready)| **ready && *i != attempt.endpoint);
        let others = others.count();
        let endpoint = &mut self.endpoints[attempt.endpoint];
        endpoint.pending -= 1;
        endpoint.probing -= u32::from(attempt.probe);
        let failed = attempt.status.is_server_error();
        match penalty::of(PenaltyParams::default(), attempt.status, None, None) {
            Some(penalty) if self.strategy == Strategy::Whole => endpoint.load.penalise(penalty, now),
            _ => endpoint.load.observe(now - attempt.sent, now),
        }
        let outcome = match failed {
            true => breaker::Outcome::Failure,
            false => breaker::Outcome::Success,
        };
        if let Some(ticket) = attempt.ticket {
            endpoint
                .breaker
                .record(ticket, outcome, None, now, || others, &mut self.rng);
        }
        self.judge(attempt.request, attempt.status, now, agenda);
    }

    fn judge(&mut self, request: Request, status: StatusCode, now: Duration, agenda: &mut Agenda) {
        let class = classify::response(status, None);
        let outcome = Outcome::Answered {
            status,
            grpc: None,
            class,
        };
        match self.retry.judge(outcome, request.attempt, &mut self.rng) {
            Verdict::Again(wait) if self.budget.withdraw(now) => {
                let attempt = request.attempt + 1;
                agenda.add(now + wait, Event::Again(Request { attempt, ..request }));
            }
            _ => {
                self.answered += 1;
                if class == classify::Class::Success {
                    self.latencies.push(now - request.arrived);
                }
            }
        }
    }

    /// What holds after every step.
    fn check(&self, now: Duration) {
        let policy = self.budget.policy();
        let reserve = f64::from(policy.min_per_second()) * (now + policy.ttl()).as_secs_f64();
        let most = self.requests as f64 * (1.0 + f64::from(policy.ratio())) + reserve;
        assert!(
            self.attempts as f64 <= most,
            "{} attempts of {most}",
            self.attempts
        );
        for endpoint in &self.endpoints {
            assert!(endpoint.probing <= 1);
            let estimate = endpoint.load.estimate(now);
            assert!(estimate > 0.0 && estimate.is_finite());
        }
    }

    fn outcomes(mut self) -> Outcomes {
        assert!(self.endpoints.iter().all(|e| e.pending == 0 && e.probing == 0));
        assert_eq!(self.answered, self.requests);
        self.latencies.sort();
        let successes = self.latencies.len();
        Outcomes {
            success: successes as f64 / self.requests as f64,
            p99: self
                .latencies
                .get(successes * 99 / 100)
                .copied()
                .unwrap_or_default(),
            sick: self.on_sick as f64 / self.attempts as f64,
            amplification: self.attempts as f64 / self.requests as f64,
        }
    }
}

impl Endpoint {
    /// How it is at this time.
    fn health(&self, now: Duration) -> Health {
        match self.health {
            Health::Flapping if now.as_secs() / 5 % 2 == 1 => Health::Failing,
            Health::Flapping => Health::Well,
            other => other,
        }
    }

    /// How long it takes for a request, longer with each that is pending, and what it answers.
    fn serve(&self, health: Health, rng: &mut fastrand::Rng) -> (Duration, StatusCode) {
        let base = match health {
            Health::Well | Health::Flapping => 5.0,
            Health::Slow => 100.0,
            Health::Remote => 25.0,
            Health::Failing => return (MS, StatusCode::SERVICE_UNAVAILABLE),
        };
        let busy = 1.0 + f64::from(self.pending) / 4.0;
        let took = base * busy * (0.5 + rng.f64());
        (Duration::from_secs_f64(took / 1000.0), StatusCode::OK)
    }
}
