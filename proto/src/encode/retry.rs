//! Timeouts, retries and their budget, and circuit breakers.

use std::sync::Arc;

use outrigger_policy::backoff::Backoff;
use outrigger_policy::breaker::{Accrual, BreakerPolicy};
use outrigger_policy::budget::BudgetPolicy;
use outrigger_policy::classify::GrpcStatus;
use outrigger_policy::outbound::{Backend, Dispatch};
use outrigger_policy::retry::{GrpcCodes, RetryOn, RetryPolicy};
use outrigger_policy::timeouts::Timeouts;

use super::error::EncodeError;
use super::meta::duration;
use crate::destination::RetryBudget;
use crate::http_route;
use crate::outbound::failure_accrual::{ConsecutiveFailures, Kind, Unified};
use crate::outbound::grpc_route::{Retry as GrpcRetry, retry::Conditions as GrpcConditions};
use crate::outbound::http_route::retry::conditions::StatusRange;
use crate::outbound::http_route::{Retry as HttpRetry, retry::Conditions as HttpConditions};
use crate::outbound::{EjectionConfig, ExponentialBackoff, FailureAccrual};

pub(super) fn timeouts(timeouts: &Timeouts) -> Result<Option<http_route::Timeouts>, EncodeError> {
    if timeouts.headers.is_some() {
        return Err(EncodeError(
            "only a ServiceProfile can limit the time to the response's headers",
        ));
    }
    let written = http_route::Timeouts {
        response: timeouts.response.map(duration),
        request: timeouts.request.map(duration),
        idle: timeouts.idle.map(duration),
    };
    Ok((*timeouts != Timeouts::default()).then_some(written))
}

pub(super) fn http(retry: &Option<RetryPolicy>) -> Result<Option<HttpRetry>, EncodeError> {
    let Some(retry) = retry else { return Ok(None) };
    let (http, grpc) = statuses(retry)?;
    if !grpc.is_empty() {
        return Err(EncodeError(
            "the retries of an HTTP route can't depend on gRPC codes",
        ));
    }
    let range = |range: &std::ops::RangeInclusive<u16>| StatusRange {
        start: (*range.start()).into(),
        end: (*range.end()).into(),
    };
    Ok(Some(HttpRetry {
        max_retries: retry.max_retries,
        max_request_bytes: request_bytes(retry),
        conditions: Some(HttpConditions {
            status_ranges: http.iter().map(range).collect(),
        }),
        timeout: retry.per_try.map(duration),
        backoff: retry.backoff.map(|wait| backoff(wait, false)),
    }))
}

pub(super) fn grpc(retry: &Option<RetryPolicy>) -> Result<Option<GrpcRetry>, EncodeError> {
    let Some(retry) = retry else { return Ok(None) };
    let (http, grpc) = statuses(retry)?;
    let has = |code| grpc.contains(GrpcStatus(code));
    if !http.is_empty() || (0..32).any(|code| has(code) && ![1, 4, 8, 13, 14].contains(&code)) {
        let text = "the retries of a gRPC route depend on the codes 1, 4, 8, 13 and 14 only";
        return Err(EncodeError(text));
    }
    Ok(Some(GrpcRetry {
        max_retries: retry.max_retries,
        max_request_bytes: request_bytes(retry),
        conditions: Some(GrpcConditions {
            cancelled: has(1),
            deadine_exceeded: has(4),
            resource_exhausted: has(8),
            internal: has(13),
            unavailable: has(14),
        }),
        timeout: retry.per_try.map(duration),
        backoff: retry.backoff.map(|wait| backoff(wait, false)),
    }))
}

/// The default is not written; an empty budget is none.
pub(super) fn budget(budget: &Option<BudgetPolicy>) -> Option<RetryBudget> {
    match budget {
        Some(default) if *default == BudgetPolicy::default() => None,
        Some(other) => Some(written_budget(other)),
        None => Some(RetryBudget::default()),
    }
}

pub(super) fn written_budget(budget: &BudgetPolicy) -> RetryBudget {
    RetryBudget {
        retry_ratio: budget.ratio(),
        min_retries_per_second: budget.min_per_second(),
        ttl: Some(duration(budget.ttl())),
    }
}

/// What shuts the endpoints of all these backends: the contract has one for all.
pub(super) fn accrual<'a>(
    backends: impl Iterator<Item = &'a Arc<Backend>>,
) -> Result<Option<FailureAccrual>, EncodeError> {
    let balanced = |dispatch: &Dispatch| match dispatch {
        Dispatch::Balance { breaker, .. } => Some(*breaker),
        Dispatch::Forward(_) | Dispatch::Missing(_) => None,
    };
    let mut breakers = backends.filter_map(|backend| balanced(&backend.dispatch));
    let Some(first) = breakers.next() else {
        return Ok(None);
    };
    if breakers.any(|other| other != first) {
        return Err(EncodeError(
            "the backends of one destination can't have different circuit breakers",
        ));
    }
    Ok(first.as_ref().map(of_breaker))
}

fn of_breaker(breaker: &BreakerPolicy) -> FailureAccrual {
    let backoff = Some(backoff(breaker.backoff, breaker.respect_hints));
    let kind = match breaker.accrual {
        Accrual::Consecutive(max_failures) => Kind::ConsecutiveFailures(ConsecutiveFailures {
            max_failures,
            backoff,
        }),
        Accrual::Unified {
            max_consecutive,
            threshold,
            min_requests,
            window,
        } => Kind::Unified(Unified {
            success_rate_threshold: f64::from(threshold) / 10_000.0,
            decay: Some(duration(window)),
            min_requests,
            max_consecutive_failures: max_consecutive,
            backoff,
        }),
    };
    let min_ready_endpoints = breaker.min_ready_endpoints;
    FailureAccrual {
        ejection: (min_ready_endpoints > 0).then_some(EjectionConfig { min_ready_endpoints }),
        kind: Some(kind),
    }
}

fn statuses(retry: &RetryPolicy) -> Result<(&[std::ops::RangeInclusive<u16>], GrpcCodes), EncodeError> {
    match &retry.on {
        RetryOn::Statuses { http, grpc } => Ok((http, *grpc)),
        RetryOn::Failures => Err(EncodeError(
            "only a ServiceProfile can try again what it classifies as a failure",
        )),
    }
}

fn request_bytes(retry: &RetryPolicy) -> u32 {
    u32::try_from(retry.max_request_bytes).unwrap_or(u32::MAX)
}

fn backoff(wait: Backoff, respect_retry_after_hint: bool) -> ExponentialBackoff {
    ExponentialBackoff {
        min_backoff: Some(duration(wait.min())),
        max_backoff: Some(duration(wait.max())),
        jitter_ratio: wait.jitter() as f32,
        respect_retry_after_hint,
    }
}
