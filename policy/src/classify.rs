//! Classification: an HTTP status or a gRPC code → success or failure.

use std::ops::RangeInclusive;

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

/// What a ServiceProfile route calls the responses that a condition holds of (`destination.ResponseClass`).
#[derive(Clone, Debug, PartialEq)]
pub struct ResponseClass {
    /// Which responses.
    pub condition: ResponseCondition,
    /// What they are.
    pub class: Class,
}

/// What must hold of a response (`destination.ResponseMatch`).
#[derive(Clone, Debug, PartialEq)]
pub enum ResponseCondition {
    /// All of these; none of them: always.
    All(Vec<Self>),
    /// One of these; none of them: never.
    Any(Vec<Self>),
    /// Not this.
    Not(Box<Self>),
    /// An HTTP status in this range.
    Status(RangeInclusive<u16>),
}

impl GrpcStatus {
    /// RESOURCE_EXHAUSTED.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);

    /// UNAVAILABLE.
    pub const UNAVAILABLE: Self = Self(14);

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

impl ResponseCondition {
    /// Whether it holds of a response with this status.
    pub fn holds(&self, status: StatusCode) -> bool {
        match self {
            Self::All(all) => all.iter().all(|c| c.holds(status)),
            Self::Any(any) => any.iter().any(|c| c.holds(status)),
            Self::Not(not) => !not.holds(status),
            Self::Status(range) => range.contains(&status.as_u16()),
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

/// The first of the classes whose condition holds decides, else [`response`].
pub fn response_by(classes: &[ResponseClass], status: StatusCode, grpc: Option<GrpcStatus>) -> Class {
    let listed = classes.iter().find(|class| class.condition.holds(status));
    listed.map_or_else(|| response(status, grpc), |listed| listed.class)
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

    #[test]
    fn the_first_class_that_holds_decides_over_every_status() {
        use ResponseCondition::{All, Any, Not, Status};
        let class = |condition, class| ResponseClass { condition, class };
        let classes = [
            class(Status(404..=404), Class::Failure),
            class(
                All(vec![Status(500..=599), Not(Box::new(Status(503..=503)))]),
                Class::Success,
            ),
            class(Any(vec![Status(400..=499), Status(503..=503)]), Class::Success),
        ];
        let by = |status: u16, grpc| response_by(&classes, StatusCode::from_u16(status).unwrap(), grpc);
        assert_eq!(by(404, None), Class::Failure);
        assert_eq!(by(500, None), Class::Success);
        assert_eq!(by(503, None), Class::Success);
        assert_eq!(by(200, Some(GrpcStatus::UNAVAILABLE)), Class::Failure);
        assert_eq!(by(403, Some(GrpcStatus(7))), Class::Success);
    }
}
