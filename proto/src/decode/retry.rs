//! Timeouts, retries and their budget, and circuit breakers.

use std::time::Duration;

use outrigger_policy::backoff::Backoff;
use outrigger_policy::breaker::{Accrual, BreakerPolicy};
use outrigger_policy::budget::BudgetPolicy;
use outrigger_policy::retry::{GrpcCodes, RetryOn, RetryPolicy};
use outrigger_policy::timeouts::Timeouts;

use super::error::{DecodeError, bounded, duration, each, is_set, required};
use crate::destination::RetryBudget;
use crate::http_route;
use crate::outbound::failure_accrual::{Kind, Unified};
use crate::outbound::grpc_route::Retry as GrpcRetry;
use crate::outbound::http_route::Retry as HttpRetry;
use crate::outbound::{ExponentialBackoff, FailureAccrual};

/// Ranges of statuses accepted in one retry policy.
const MAX_RANGES: usize = 100;

/// The span of a success rate, when none is given.
const DEFAULT_WINDOW: Duration = Duration::from_secs(10);

/// The shortest span of a success rate.
const MIN_WINDOW: Duration = Duration::from_millis(10);

/// The most requests that a success rate can be made to wait for.
const MAX_MIN_REQUESTS: u32 = 1_000_000;

/// The lifetimes of a budget's requests; what is outside counts as the nearest.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The timeouts of a rule, of which zero is none. `older` stands in for the request timeout.
pub(super) fn timeouts(
    timeouts: &Option<http_route::Timeouts>,
    older: &Option<prost_types::Duration>,
) -> Result<Timeouts, DecodeError> {
    let timeouts = timeouts.unwrap_or_default();
    let request = optional("timeouts.request", &timeouts.request)?;
    Ok(Timeouts {
        request: match request {
            Some(request) => Some(request),
            None => optional("requestTimeout", older)?,
        },
        response: optional("timeouts.response", &timeouts.response)?,
        idle: optional("timeouts.idle", &timeouts.idle)?,
        headers: None,
    })
}

/// The retries of an HTTP rule; none at most is none.
pub(super) fn http(retry: &Option<HttpRetry>) -> Result<Option<RetryPolicy>, DecodeError> {
    let Some(retry) = retry.as_ref().filter(|retry| retry.max_retries > 0) else {
        return Ok(None);
    };
    let ranges = retry.conditions.as_ref().map_or(&[][..], |c| &c.status_ranges);
    bounded("retry.conditions.status_ranges", ranges.len(), MAX_RANGES)?;
    let http = each("retry.conditions.status_ranges", ranges, |range| {
        match (u16::try_from(range.start), u16::try_from(range.end)) {
            (Ok(start), Ok(end)) if start <= end => Ok(start..=end),
            _ => Err(DecodeError::new(
                "start",
                format!("{}–{} is no range", range.start, range.end),
            )),
        }
    })?;
    let grpc = GrpcCodes::default();
    policy(
        RetryOn::Statuses { http, grpc },
        (retry.max_retries, retry.max_request_bytes),
        &retry.timeout,
        &retry.backoff,
    )
}

/// The retries of a gRPC rule; none at most is none.
pub(super) fn grpc(retry: &Option<GrpcRetry>) -> Result<Option<RetryPolicy>, DecodeError> {
    let Some(retry) = retry.as_ref().filter(|retry| retry.max_retries > 0) else {
        return Ok(None);
    };
    let codes = retry.conditions.unwrap_or_default();
    let codes = [
        (codes.cancelled, 1),
        (codes.deadine_exceeded, 4),
        (codes.resource_exhausted, 8),
        (codes.internal, 13),
        (codes.unavailable, 14),
    ];
    let on = RetryOn::Statuses {
        http: Vec::new(),
        grpc: codes
            .into_iter()
            .filter(|(set, _)| *set)
            .map(|(_, code)| code)
            .collect(),
    };
    policy(
        on,
        (retry.max_retries, retry.max_request_bytes),
        &retry.timeout,
        &retry.backoff,
    )
}

fn policy(
    on: RetryOn,
    (max_retries, max_request_bytes): (u32, u32),
    per_try: &Option<prost_types::Duration>,
    wait: &Option<ExponentialBackoff>,
) -> Result<Option<RetryPolicy>, DecodeError> {
    Ok(Some(RetryPolicy {
        on,
        max_retries,
        max_request_bytes: max_request_bytes as usize,
        per_try: optional("retry.timeout", per_try)?,
        backoff: wait
            .as_ref()
            .map(|wait| backoff(wait).map_err(|e| e.within("retry.backoff")))
            .transpose()?,
    }))
}

/// A budget; one that says nothing at all is none.
pub(super) fn budget(budget: &RetryBudget) -> Result<Option<BudgetPolicy>, DecodeError> {
    if *budget == RetryBudget::default() {
        return Ok(None);
    }
    let ttl = duration("ttl", required("ttl", &budget.ttl)?)?;
    BudgetPolicy::try_new(
        budget.retry_ratio,
        budget.min_retries_per_second,
        ttl.clamp(TTL.0, TTL.1),
    )
    .map(Some)
    .map_err(|why| DecodeError::new("retry_ratio", &*why.0))
}

/// When endpoints are shut; `None` when nothing shuts them.
pub(super) fn accrual(accrual: &Option<FailureAccrual>) -> Result<Option<BreakerPolicy>, DecodeError> {
    let Some(message) = accrual else { return Ok(None) };
    let (accrual, wait) = match &message.kind {
        None => return Ok(None),
        Some(Kind::ConsecutiveFailures(c)) => (Accrual::Consecutive(c.max_failures), &c.backoff),
        Some(Kind::Unified(unified)) => (of_unified(unified)?, &unified.backoff),
    };
    let wait = required("failure_accrual.backoff", wait)?;
    Ok(Some(BreakerPolicy {
        accrual,
        backoff: backoff(wait).map_err(|e| e.within("failure_accrual.backoff"))?,
        respect_hints: wait.respect_retry_after_hint,
        min_ready_endpoints: message.ejection.map_or(0, |e| e.min_ready_endpoints),
    }))
}

fn of_unified(unified: &Unified) -> Result<Accrual, DecodeError> {
    let bad = |field: &str, reason: String| {
        let field = format!("failure_accrual.unified.{field}");
        Err(DecodeError::new(&field, reason))
    };
    let rate = unified.success_rate_threshold;
    if !(0.0..=1.0).contains(&rate) {
        return bad("success_rate_threshold", format!("{rate} is not from 0 to 1"));
    }
    if unified.min_requests > MAX_MIN_REQUESTS {
        return bad(
            "min_requests",
            format!("{} is above {MAX_MIN_REQUESTS}", unified.min_requests),
        );
    }
    let threshold = (rate * 10_000.0).round() as u16;
    let window = optional("failure_accrual.unified.decay", &unified.decay)?.unwrap_or(DEFAULT_WINDOW);
    if threshold > 0 && window < MIN_WINDOW {
        return bad("decay", format!("{window:?} is shorter than {MIN_WINDOW:?}"));
    }
    Ok(Accrual::Unified {
        max_consecutive: unified.max_consecutive_failures,
        threshold,
        min_requests: unified.min_requests,
        window,
    })
}

fn backoff(wait: &ExponentialBackoff) -> Result<Backoff, DecodeError> {
    let min = duration("min_backoff", required("min_backoff", &wait.min_backoff)?)?;
    let max = duration("max_backoff", required("max_backoff", &wait.max_backoff)?)?;
    Backoff::try_new(min, max, wait.jitter_ratio.into())
        .map_err(|why| DecodeError::new("min_backoff", &*why.0))
}

/// A duration, of which zero is none.
pub(super) fn optional(
    field: &str,
    value: &Option<prost_types::Duration>,
) -> Result<Option<Duration>, DecodeError> {
    match value {
        Some(some) if is_set(value) => duration(field, some).map(Some),
        _ => Ok(None),
    }
}
