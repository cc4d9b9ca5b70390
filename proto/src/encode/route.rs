//! Matchers of routes: hosts, server names, requests.

use http::Method;
use outrigger_policy::route::header::{HeaderMatch, QueryMatch, ValueMatch};
use outrigger_policy::route::host::HostMatch;
use outrigger_policy::route::path::PathMatch;
use outrigger_policy::route::request::RequestMatch;

use super::error::EncodeError;
use crate::grpc_route::{GrpcRouteMatch, GrpcRpcMatch};
use crate::http_route::{self, HttpRouteMatch, header_match, host_match, path_match, query_param_match};
use crate::http_types::{HttpMethod, http_method};
use crate::tls_route::{SniMatch, sni_match};

const CONDITION: EncodeError = EncodeError("only a ServiceProfile can have conditions");

pub(super) fn hosts(list: &[HostMatch]) -> Vec<http_route::HostMatch> {
    let host = |host: &HostMatch| match host {
        HostMatch::Exact(name) => host_match::Match::Exact(name.to_string()),
        HostMatch::Suffix(suffix) => host_match::Match::Suffix(host_match::Suffix {
            reverse_labels: reverse_labels(suffix),
        }),
    };
    list.iter()
        .map(|h| http_route::HostMatch {
            r#match: Some(host(h)),
        })
        .collect()
}

pub(super) fn snis(list: &[HostMatch]) -> Vec<SniMatch> {
    let sni = |host: &HostMatch| match host {
        HostMatch::Exact(name) => sni_match::Match::Exact(name.to_string()),
        HostMatch::Suffix(suffix) => sni_match::Match::Suffix(sni_match::Suffix {
            reverse_labels: reverse_labels(suffix),
        }),
    };
    list.iter()
        .map(|h| SniMatch {
            r#match: Some(sni(h)),
        })
        .collect()
}

pub(super) fn http_match(m: &RequestMatch) -> Result<HttpRouteMatch, EncodeError> {
    if m.condition.is_some() {
        return Err(CONDITION);
    }
    if m.rpc.is_some() {
        return Err(EncodeError(
            "an HTTP route can't match gRPC methods: use a gRPC route",
        ));
    }
    let query = m.query.iter().map(query_param).collect::<Result<_, _>>()?;
    Ok(HttpRouteMatch {
        path: m.path.as_ref().map(path_match),
        headers: m.headers.iter().map(header).collect(),
        query_params: query,
        method: m.method.as_ref().map(method),
    })
}

pub(super) fn grpc_match(m: &RequestMatch) -> Result<GrpcRouteMatch, EncodeError> {
    if m.condition.is_some() {
        return Err(CONDITION);
    }
    let (Some(rpc), None, None, true) = (&m.rpc, &m.path, &m.method, m.query.is_empty()) else {
        return Err(EncodeError(
            "a gRPC route matches gRPC methods and headers: use an HTTP route",
        ));
    };
    Ok(GrpcRouteMatch {
        rpc: Some(GrpcRpcMatch {
            service: rpc.service.as_deref().unwrap_or_default().to_owned(),
            method: rpc.method.as_deref().unwrap_or_default().to_owned(),
        }),
        headers: m.headers.iter().map(header).collect(),
    })
}

fn reverse_labels(suffix: &str) -> Vec<String> {
    let name = suffix.strip_prefix('.').unwrap_or(suffix);
    name.split('.').rev().map(str::to_owned).collect()
}

fn path_match(path: &PathMatch) -> http_route::PathMatch {
    let kind = match path {
        PathMatch::Exact(path) => path_match::Kind::Exact(path.to_string()),
        PathMatch::Prefix(path) => path_match::Kind::Prefix(path.to_string()),
        PathMatch::Regex(pattern) => path_match::Kind::Regex(pattern.as_str().to_owned()),
    };
    http_route::PathMatch { kind: Some(kind) }
}

fn header(m: &HeaderMatch) -> http_route::HeaderMatch {
    let value = match &m.value {
        ValueMatch::Exact(value) => header_match::Value::Exact(value.to_vec()),
        ValueMatch::Regex(pattern) => header_match::Value::Regex(pattern.as_str().to_owned()),
    };
    http_route::HeaderMatch {
        name: m.name.to_string(),
        value: Some(value),
    }
}

fn query_param(m: &QueryMatch) -> Result<http_route::QueryParamMatch, EncodeError> {
    let value = match &m.value {
        ValueMatch::Exact(value) => {
            let text = String::from_utf8(value.to_vec());
            query_param_match::Value::Exact(text.map_err(|_| EncodeError("a query parameter must be UTF-8"))?)
        }
        ValueMatch::Regex(pattern) => query_param_match::Value::Regex(pattern.as_str().to_owned()),
    };
    Ok(http_route::QueryParamMatch {
        name: m.name.to_string(),
        value: Some(value),
    })
}

pub(super) fn method(method: &Method) -> HttpMethod {
    let kind = match http_method::Registered::from_str_name(method.as_str()) {
        Some(registered) => http_method::Type::Registered(registered.into()),
        None => http_method::Type::Unregistered(method.to_string()),
    };
    HttpMethod { r#type: Some(kind) }
}
