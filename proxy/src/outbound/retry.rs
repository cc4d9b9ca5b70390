//! Sends a request until the answer is worth keeping, the budget is spent, or time is up.

use std::time::Duration;

use http::{Request, Response};
use http_body::Body as _;
use outrigger_policy::classify::{self, Class, GrpcStatus};
use outrigger_policy::retry::{Outcome, RetryOn, Verdict};
use outrigger_policy::timeouts;

use crate::balance::endpoint;
use crate::drain::Drain;
use crate::error::{Fault, Kind, Late};
use crate::exchange::Exchange;
use crate::http::body::Body;
use crate::http::deadline::Deadline;
use crate::http::replay::Memory;
use crate::http::{headers, peek};
use crate::outbound::attempt::{self, Way};
use crate::outbound::dispatch::Prepared;
use crate::outbound::kept::Kept;
use crate::outbound::rule::{Retries, Rule};
use crate::telemetry::route::Retry;

/// Sends a request, which leaves an empty one behind, and gives back the answer as the application is to see it.
pub(super) async fn send(
    way: Way<'_>,
    request: &mut Request<Body>,
    exchange: &mut Exchange,
    memory: &Memory,
    drain: &Drain,
) -> Result<Response<Body>, Fault> {
    let mut prepared = Prepared::of(request);
    let terms = way.rule.terms(request.headers_mut());
    let asked = if way.asked.grpc {
        timeouts::grpc_timeout(request.headers())
    } else {
        None
    };
    let deadline = Deadline::start(&terms.timeouts, asked, exchange.started());
    let mut retries = match terms.retry {
        Some(policy) if !prepared.is_tunnel() => Retrying::start(way.rule, policy, request, memory),
        _ => None,
    };
    loop {
        let per_try = retries.as_ref().and_then(Retrying::per_try);
        let result = attempt::send(way, &deadline, per_try, &mut prepared, request, exchange, drain).await;
        let Some(retrying) = &mut retries else {
            return result;
        };
        let (result, grpc) = match result {
            Ok(response) if retrying.wants_trailers(&response) => Box::pin(look(response)).await,
            Ok(response) => {
                let grpc = GrpcStatus::of(response.headers());
                (Ok(response), grpc)
            }
            Err(fault) => (Err(fault), None),
        };
        let Some(wait) = retrying.judge(&result, grpc) else {
            if let Some(retrying) = retries.take() {
                retrying.finish();
            }
            return result;
        };
        match &result {
            Ok(response) => exchange.retried(response, grpc),
            Err(fault) => exchange.retried_after(fault),
        }
        if !retrying.kept.restore(request) {
            return result;
        }
        deadline.sleep(wait).await?;
    }
}

/// Finds the gRPC code that may stand behind the first frame of the body.
async fn look(response: Response<Body>) -> (Result<Response<Body>, Fault>, Option<GrpcStatus>) {
    let (head, body) = response.into_parts();
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
    fn wants_trailers(&self, response: &Response<Body>) -> bool {
        let by_code = match &self.policy.on {
            RetryOn::Statuses { grpc, .. } => !grpc.is_empty(),
            RetryOn::Failures => true,
        };
        by_code
            && headers::is_grpc(response.headers())
            && GrpcStatus::of(response.headers()).is_none()
            && !response.body().is_end_stream()
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
