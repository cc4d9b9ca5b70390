//! Classification: an HTTP status or a gRPC code → success or failure.

use http::{HeaderMap, StatusCode};

/// Whether a response counts as a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// It does.
    Success,
    /// It does not.
    Failure,
}

/// A gRPC status code (`grpc-status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrpcStatus(pub u16);

impl GrpcStatus {
    /// The status in headers (trailers-only) or trailers, if it is there and a number.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        headers.get("grpc-status")?.to_str().ok()?.parse().ok().map(Self)
    }

    /// UNKNOWN, DEADLINE_EXCEEDED, PERMISSION_DENIED, INTERNAL, UNAVAILABLE and DATA_LOSS are failures.
    pub fn class(self) -> Class {
        if matches!(self.0, 2 | 4 | 7 | 13 | 14 | 15) {
            Class::Failure
        } else {
            Class::Success
        }
    }
}

/// A gRPC status decides where there is one; else 5xx is a failure.
pub fn response(status: StatusCode, grpc: Option<GrpcStatus>) -> Class {
    match grpc {
        Some(grpc) => grpc.class(),
        None if status.is_server_error() => Class::Failure,
        None => Class::Success,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_status_decides_over_the_http_status() {
        assert_eq!(response(StatusCode::OK, Some(GrpcStatus(14))), Class::Failure);
        assert_eq!(response(StatusCode::OK, Some(GrpcStatus(5))), Class::Success);
        assert_eq!(response(StatusCode::SERVICE_UNAVAILABLE, None), Class::Failure);
        assert_eq!(response(StatusCode::NOT_FOUND, None), Class::Success);
    }

    #[test]
    fn a_status_that_is_no_number_is_none() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", "fourteen".parse().unwrap());
        assert_eq!(GrpcStatus::of(&headers), None);
    }
}
