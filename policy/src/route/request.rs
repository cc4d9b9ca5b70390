//! Request matchers: the conjunction of path, headers, query parameters and method, for HTTP and for gRPC.

use std::sync::Arc;

use crate::route::header::{HeaderMatch, QueryMatch};
use crate::route::path::PathMatch;

/// Everything that must hold of a request (`HttpRouteMatch`, or a `GrpcRouteMatch` lowered to it).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RequestMatch {
    /// The path; `None` matches every path.
    pub path: Option<PathMatch>,
    /// gRPC service and method (`/service/method`); then the request must be a POST.
    pub rpc: Option<RpcMatch>,
    /// All of these headers.
    pub headers: Vec<HeaderMatch>,
    /// All of these query parameters.
    pub query: Vec<QueryMatch>,
    /// The method.
    pub method: Option<http::Method>,
}

/// A gRPC method; an absent part matches all.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RpcMatch {
    /// Full service name, `package.Service`.
    pub service: Option<Arc<str>>,
    /// Method name.
    pub method: Option<Arc<str>>,
}
