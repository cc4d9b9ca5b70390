//! Matches of routes, lowered to the one form that proxies follow.

use http::Method;
use http::header::HeaderName;
use outrigger_policy::route::header::{HeaderMatch, QueryMatch};
use outrigger_policy::route::host::HostMatch;
use outrigger_policy::route::request::{RequestMatch, RpcMatch};

use crate::resources::route::{ExactOrRegex, GrpcMatch, Header, Hostname, HttpMatch, QueryParam};

/// The hosts of a route.
pub fn hosts(list: Option<&[Hostname]>) -> Vec<HostMatch> {
    list.into_iter().flatten().map(|host| host.0.clone()).collect()
}

/// The matches of a rule of an HTTPRoute.
pub fn http(list: Option<&[HttpMatch]>) -> Vec<RequestMatch> {
    list.into_iter().flatten().map(http_match).collect()
}

/// The matches of a rule of a GRPCRoute, or what can't be expressed.
pub fn grpc(list: Option<&[GrpcMatch]>) -> Result<Vec<RequestMatch>, String> {
    list.into_iter().flatten().map(grpc_match).collect()
}

fn http_match(written: &HttpMatch) -> RequestMatch {
    RequestMatch {
        path: written.path.as_ref().map(|path| path.0.clone()),
        headers: headers(written.headers.as_deref()),
        query: query(written.query_params.as_deref()),
        method: written.method.as_ref().map(|method| Method::clone(&method.0)),
        ..RequestMatch::default()
    }
}

fn grpc_match(written: &GrpcMatch) -> Result<RequestMatch, String> {
    let mut rpc = RpcMatch::default();
    if let Some(method) = &written.method {
        if method.kind == ExactOrRegex::RegularExpression {
            return Err(
                "regular expressions for gRPC methods can't be expressed in Linkerd's API: list the methods"
                    .into(),
            );
        }
        rpc.service = method.service.as_deref().map(Into::into);
        rpc.method = method.method.as_deref().map(Into::into);
    }
    Ok(RequestMatch {
        rpc: Some(rpc),
        headers: headers(written.headers.as_deref()),
        ..RequestMatch::default()
    })
}

/// Of conditions on the same header only the first counts (Gateway API, HTTPHeaderMatch).
fn headers(list: Option<&[Header]>) -> Vec<HeaderMatch> {
    let mut kept: Vec<HeaderMatch> = Vec::new();
    for Header(header) in list.into_iter().flatten() {
        let known = |name: &HeaderName| kept.iter().any(|k| k.name == *name);
        if !known(&header.name) {
            kept.push(header.clone());
        }
    }
    kept
}

/// Of conditions on the same parameter only the first counts (Gateway API, HTTPQueryParamMatch).
fn query(list: Option<&[QueryParam]>) -> Vec<QueryMatch> {
    let mut kept: Vec<QueryMatch> = Vec::new();
    for QueryParam(param) in list.into_iter().flatten() {
        if !kept.iter().any(|k| k.name == param.name) {
            kept.push(param.clone());
        }
    }
    kept
}
