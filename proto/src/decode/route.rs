//! Matchers of routes: hosts, server names, requests.

use std::sync::Arc;

use http::Method;
use http::header::HeaderName;
use outrigger_policy::Unsupported;
use outrigger_policy::route::header::{HeaderMatch, QueryMatch, ValueMatch};
use outrigger_policy::route::host::HostMatch;
use outrigger_policy::route::path::PathMatch;
use outrigger_policy::route::request::{RequestMatch, RpcMatch};

use super::error::{DecodeError, bounded, each, required};
use crate::grpc_route::GrpcRouteMatch;
use crate::http_route::{self, HttpRouteMatch, header_match, host_match, path_match, query_param_match};
use crate::http_types::{HttpMethod, http_method};
use crate::tls_route::{SniMatch, sni_match};

/// Routes accepted in one list.
pub const MAX_ROUTES: usize = 10_000;

/// Rules accepted in one list of routes, over all of them.
pub const MAX_RULES: usize = 10_000;

/// Regular expressions accepted in one list of routes: each may take 256 KiB once it is compiled.
pub const MAX_PATTERNS: usize = 1_000;

/// Refuses lists of routes that are too long, before anything is made of them.
pub(super) fn check_size(
    field: &str,
    rules_per_route: impl ExactSizeIterator<Item = usize>,
    patterns: impl Iterator<Item = usize>,
) -> Result<(), DecodeError> {
    bounded(field, rules_per_route.len(), MAX_ROUTES)?;
    bounded(&format!("{field}.rules"), rules_per_route.sum(), MAX_RULES)?;
    bounded(
        &format!("{field}.rules.matches.regex"),
        patterns.sum(),
        MAX_PATTERNS,
    )
}

/// How many regular expressions a match holds.
pub(super) fn http_patterns(m: &HttpRouteMatch) -> usize {
    use query_param_match::Value;
    let path = m
        .path
        .iter()
        .filter(|p| matches!(p.kind, Some(path_match::Kind::Regex(_))));
    let query = m
        .query_params
        .iter()
        .filter(|q| matches!(q.value, Some(Value::Regex(_))));
    path.count() + query.count() + header_patterns(&m.headers)
}

/// How many regular expressions a match holds.
pub(super) fn grpc_patterns(m: &GrpcRouteMatch) -> usize {
    header_patterns(&m.headers)
}

fn header_patterns(headers: &[http_route::HeaderMatch]) -> usize {
    let patterns = headers
        .iter()
        .filter(|h| matches!(h.value, Some(header_match::Value::Regex(_))));
    patterns.count()
}

pub(super) fn hosts(list: &[http_route::HostMatch]) -> Result<Vec<HostMatch>, DecodeError> {
    each("hosts", list, |host| match required("match", &host.r#match)? {
        host_match::Match::Exact(name) => exact_host(name),
        host_match::Match::Suffix(suffix) => host_suffix(&suffix.reverse_labels),
    })
}

pub(super) fn snis(list: &[SniMatch]) -> Result<Vec<HostMatch>, DecodeError> {
    each("snis", list, |sni| match required("match", &sni.r#match)? {
        sni_match::Match::Exact(name) => exact_host(name),
        sni_match::Match::Suffix(suffix) => host_suffix(&suffix.reverse_labels),
    })
}

pub(super) fn http_match(m: &HttpRouteMatch) -> Result<RequestMatch, DecodeError> {
    Ok(RequestMatch {
        path: match &m.path {
            Some(path) => Some(path_match(path).map_err(|e| e.within("path"))?),
            None => None,
        },
        rpc: None,
        headers: each("headers", &m.headers, header)?,
        query: each("query_params", &m.query_params, query)?,
        method: match &m.method {
            Some(m) => Some(method(m).map_err(|e| e.within("method"))?),
            None => None,
        },
        condition: None,
    })
}

pub(super) fn grpc_match(m: &GrpcRouteMatch) -> Result<RequestMatch, DecodeError> {
    let rpc = required("rpc", &m.rpc)?;
    let part = |text: &str| (!text.is_empty()).then(|| Arc::from(text));
    Ok(RequestMatch {
        rpc: Some(RpcMatch {
            service: part(&rpc.service),
            method: part(&rpc.method),
        }),
        headers: each("headers", &m.headers, header)?,
        ..RequestMatch::default()
    })
}

fn exact_host(name: &str) -> Result<HostMatch, DecodeError> {
    if name.is_empty() {
        return Err(DecodeError::new("exact", "empty"));
    }
    Ok(HostMatch::exact(name))
}

fn host_suffix(reverse_labels: &[String]) -> Result<HostMatch, DecodeError> {
    let odd = |label: &String| label.is_empty() || label.contains(['.', '*']);
    if reverse_labels.is_empty() || reverse_labels.iter().any(odd) {
        return Err(DecodeError::new(
            "suffix.reverse_labels",
            "not a list of DNS labels",
        ));
    }
    Ok(HostMatch::suffix_of_reverse_labels(reverse_labels))
}

/// A pattern that can't be compiled is a fault of the message.
fn malformed(why: Unsupported) -> DecodeError {
    DecodeError::new("regex", &*why.0)
}

fn path_match(path: &http_route::PathMatch) -> Result<PathMatch, DecodeError> {
    Ok(match required("kind", &path.kind)? {
        path_match::Kind::Exact(path) => PathMatch::Exact(path.as_str().into()),
        path_match::Kind::Prefix(path) => PathMatch::Prefix(path.as_str().into()),
        path_match::Kind::Regex(pattern) => PathMatch::regex(pattern).map_err(malformed)?,
    })
}

fn header(m: &http_route::HeaderMatch) -> Result<HeaderMatch, DecodeError> {
    let name = HeaderName::from_bytes(m.name.as_bytes())
        .map_err(|_| DecodeError::new("name", format!("{:?} is not a header name", m.name)))?;
    let value = match required("value", &m.value)? {
        header_match::Value::Exact(value) => ValueMatch::Exact(value.as_slice().into()),
        header_match::Value::Regex(pattern) => ValueMatch::regex(pattern).map_err(malformed)?,
    };
    Ok(HeaderMatch { name, value })
}

fn query(m: &http_route::QueryParamMatch) -> Result<QueryMatch, DecodeError> {
    let value = match required("value", &m.value)? {
        query_param_match::Value::Exact(value) => ValueMatch::Exact(value.as_bytes().into()),
        query_param_match::Value::Regex(pattern) => ValueMatch::regex(pattern).map_err(malformed)?,
    };
    Ok(QueryMatch {
        name: m.name.as_str().into(),
        value,
    })
}

pub(super) fn method(m: &HttpMethod) -> Result<Method, DecodeError> {
    use http_method::Registered;
    let name = match required("type", &m.r#type)? {
        http_method::Type::Registered(number) => Registered::try_from(*number)
            .map_err(|_| DecodeError::new("registered", format!("{number} is no known method")))?
            .as_str_name(),
        http_method::Type::Unregistered(name) => name,
    };
    Method::from_bytes(name.as_bytes())
        .map_err(|_| DecodeError::new("unregistered", format!("{name:?} is not a method")))
}
