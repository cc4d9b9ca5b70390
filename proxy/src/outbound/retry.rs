//! Sends a request until the answer is worth keeping, the budget is spent, or time is up.

use std::ops::ControlFlow;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body as _;
use outrigger_policy::classify::{self, Class, GrpcStatus};
use outrigger_policy::retry::{Outcome, RetryOn, Verdict};
use outrigger_policy::timeouts;
use tokio::time::Instant;

use crate::balance::endpoint;
use crate::error::{Fault, Kind, Late};
use crate::exchange::Exchange;
use crate::http::body::Body;
use crate::http::deadline::Deadline;
use crate::http::replay::Memory;
use crate::http::upgrade::Tunnels;
use crate::http::{headers, peek};
use crate::outbound::attempt::{self, Way};
use crate::outbound::dispatch::Prepared;
use crate::outbound::kept::Kept;
use crate::outbound::rule::{Retries, Rule};
use crate::telemetry::route::Retry;

/// Sends a request, which leaves an empty one behind, and gives back the answer as the application is to see it.
pub(super) async fn send(
    way: &Way<'_>,
    request: &mut Request<Body>,
    exchange: &mut Exchange,
    memory: &Memory,
    tunnels: &Tunnels,
) -> Result<Response<Body>, Fault> {
    let mut prepared = Prepared::of(request);
    let (deadline, mut retries) = start(way, &prepared, request, exchange.started(), memory);
    loop {
        // What a block holds does not take room in the future beside what comes after it.
        let wait = {
            let per_try = retries.as_ref().and_then(Retrying::per_try);
            let result =
                attempt::send(way, &deadline, per_try, &mut prepared, request, exchange, tunnels).await;
            let Some(retrying) = &mut retries else {
                return result;
            };
            let told = if retrying.wants_trailers(&result) {
                Box::pin(look(result)).await
            } else {
                told(result)
            };
            match retrying.next(told, request, exchange) {
                ControlFlow::Continue(wait) => wait,
                ControlFlow::Break(answer) => {
                    if let Some(retrying) = retries.take() {
                        retrying.finish();
                    }
                    return answer;
                }
            }
        };
        deadline.sleep(wait).await?;
    }
}

/// What bounds the attempts together, and what makes another one possible.
fn start<'a>(
    way: &Way<'a>,
    prepared: &Prepared,
    request: &mut Request<Body>,
    started: Instant,
    memory: &Memory,
) -> (Deadline, Option<Retrying<'a>>) {
    let terms = way.rule.terms(request.headers_mut());
    let asked = if way.asked.grpc {
        timeouts::grpc_timeout(request.headers())
    } else {
        None
    };
    let deadline = Deadline::start(&terms.timeouts, asked, started);
    let retrying = match terms.retry {
        Some(policy) if !prepared.is_tunnel() => Retrying::start(way.rule, policy, request, memory),
        _ => None,
    };
    (deadline, retrying)
}

/// The result of an attempt, and the gRPC code that it has.
type Told = (Result<Response<Body>, Fault>, Option<GrpcStatus>);

/// What the head says.
fn told(result: Result<Response<Body>, Fault>) -> Told {
    let grpc = result
        .as_ref()
        .ok()
        .and_then(|response| GrpcStatus::of(response.headers()));
    (result, grpc)
}

/// The same with what may stand behind the first frame of the body.
async fn look(result: Result<Response<Body>, Fault>) -> Told {
    let (head, body) = match result {
        Ok(response) => response.into_parts(),
        Err(fault) => return (Err(fault), None),
    };
    let (code, body) = peek::grpc_status(body).await;
    (Ok(Response::from_parts(head, body)), code)
}

/// The attempts of one request.
#[derive(Debug)]
struct Retrying<'a> {
    rule: &'a Rule,
    policy: Retries<'a>,
    kept: Box<Kept>,
}

impl<'a> Retrying<'a> {
    /// `None` if the request's body is longer than the policy keeps.
    fn start(
        rule: &'a Rule,
        policy: Retries<'a>,
        request: &mut Request<Body>,
        memory: &Memory,
    ) -> Option<Self> {
        if let Some(budget) = &rule.budget {
            budget.deposit(endpoint::now());
        }
        let kept = rule.spare.keep(request, policy.max_request_bytes, memory)?;
        Some(Self { rule, policy, kept })
    }

    fn per_try(&self) -> Option<Duration> {
        self.policy.attempt_timeout(self.kept.attempt)
    }

    /// Whether the answer may be one to try again after, though its headers do not say so.
    fn wants_trailers(&self, result: &Result<Response<Body>, Fault>) -> bool {
        let Ok(response) = result else { return false };
        let by_code = match &self.policy.on {
            RetryOn::Statuses { grpc, .. } => !grpc.is_empty(),
            RetryOn::Failures => true,
        };
        by_code
            && headers::is_grpc(response.headers())
            && GrpcStatus::of(response.headers()).is_none()
            && !response.body().is_end_stream()
    }

    /// Makes the request ready to be sent again, after a while; or gives back the answer.
    fn next(
        &mut self,
        (result, grpc): Told,
        request: &mut Request<Body>,
        exchange: &mut Exchange,
    ) -> ControlFlow<Result<Response<Body>, Fault>, Duration> {
        let Some(wait) = self.judge(&result, grpc) else {
            return ControlFlow::Break(result);
        };
        match &result {
            Ok(response) => exchange.retried(response, grpc),
            Err(fault) => exchange.retried_after(fault),
        }
        if self.kept.restore(request) {
            ControlFlow::Continue(wait)
        } else {
            ControlFlow::Break(result)
        }
    }

    /// How long to wait before the next attempt; `None`: the result is the answer.
    fn judge(
        &mut self,
        result: &Result<Response<Body>, Fault>,
        grpc: Option<GrpcStatus>,
    ) -> Option<Duration> {
        let outcome = self.outcome(result, grpc)?;
        let verdict = self
            .policy
            .judge(outcome, self.kept.attempt, &mut fastrand::Rng::new());
        let (retry, wait) = match verdict {
            Verdict::Again(wait) if self.kept.is_whole() && self.withdraw() => {
                self.kept.attempt += 1;
                (Retry::Sent, Some(wait))
            }
            Verdict::Again(_) => (Retry::Overflowed, None),
            Verdict::Exhausted => (Retry::Exhausted, None),
            Verdict::Final if self.kept.attempt > 0 && is_success(outcome) => (Retry::Succeeded, None),
            Verdict::Final => return None,
        };
        self.rule.handles.retry(retry);
        wait
    }

    /// What the result is to the policy; `None`: final in any case.
    fn outcome(&self, result: &Result<Response<Body>, Fault>, grpc: Option<GrpcStatus>) -> Option<Outcome> {
        let answered = |status, grpc| {
            let class = classify::response_by(self.rule.handles.classes(), status, grpc);
            Some(Outcome::Answered { status, grpc, class })
        };
        match result {
            Ok(response) => answered(response.status(), grpc),
            Err(fault) => match fault.kind {
                Kind::FailFast | Kind::Timeout(Late::Try) => Some(Outcome::TimedOut),
                Kind::Connect | Kind::ConnectTimeout | Kind::Tls => Some(Outcome::Unprocessed),
                Kind::Reset => answered(fault.kind.answer().status, None),
                _ => None,
            },
        }
    }

    fn withdraw(&self) -> bool {
        let budget = self.rule.budget.as_ref();
        budget.is_none_or(|budget| budget.withdraw(endpoint::now()))
    }

    fn finish(self) {
        self.rule.spare.give_back(self.kept);
    }
}

fn is_success(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Answered {
            class: Class::Success,
            ..
        }
    )
}
