//! Penalties: a failed response counts as a slow one, so that a server that fails fast does not look like a fast one.

use std::time::Duration;

use http::StatusCode;

use crate::classify::GrpcStatus;
use crate::outbound::PenaltyParams;

/// The round-trip time that a response counts for, `None` when it is no failure. `grpc` is the code in its headers
/// (trailers-only), `hint` how long the server asks to be left alone ([`crate::hint`]).
pub fn of(
    params: PenaltyParams,
    status: StatusCode,
    grpc: Option<GrpcStatus>,
    hint: Option<Duration>,
) -> Option<Duration> {
    let overloaded = matches!(status.as_u16(), 429 | 503)
        || matches!(
            grpc,
            Some(GrpcStatus::RESOURCE_EXHAUSTED | GrpcStatus::UNAVAILABLE)
        );
    let failed = status.is_server_error() || grpc.is_some_and(|code| matches!(code.0, 2 | 4 | 13 | 15));
    if overloaded {
        let hint = hint.unwrap_or_default().min(params.max_retry_after);
        return Some(params.penalty.max(hint));
    }
    failed.then_some(params.penalty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overloaded_server_is_believed_up_to_the_longest_hint() {
        let params = PenaltyParams::default();
        let seconds = |status: u16, grpc: Option<u16>, hint| {
            let status = StatusCode::from_u16(status).unwrap();
            let hint = Some(Duration::from_secs(hint));
            of(params, status, grpc.map(GrpcStatus), hint).map(|p| p.as_secs())
        };
        for (status, grpc, hint, expected) in [
            (429, None, 60, Some(60)),
            (503, None, 1, Some(5)),
            (503, None, 9999, Some(300)),
            (500, None, 60, Some(5)),
            (200, Some(8), 60, Some(60)),
            (200, Some(14), 60, Some(60)),
            (200, Some(13), 60, Some(5)),
            (200, Some(5), 60, None),
            (404, None, 60, None),
        ] {
            assert_eq!(seconds(status, grpc, hint), expected, "{status} {grpc:?} {hint}");
        }
    }
}
