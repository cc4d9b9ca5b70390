//! Filters of rules and of backends.

use http::StatusCode;
use http::header::HeaderName;
use outrigger_policy::Unsupported;
use outrigger_policy::classify::GrpcStatus;
use outrigger_policy::route::filter::{
    Delay, Filter, HeaderEdits, InjectedFailure, InjectedStatus, PathRewrite, Ratio, Redirect, Rewrite,
};

use super::error::EncodeError;
use super::meta::duration;
use crate::grpc_route::GrpcFailureInjector;
use crate::http_route::{
    self, HttpFailureInjector, PathModifier, RequestHeaderModifier, RequestRedirect, ResponseHeaderModifier,
    path_modifier,
};
use crate::http_types::{self, Headers, headers::Header};
use crate::{inbound, outbound};

/// The answer of readers on a route that is not enforced.
const FAULT: InjectedStatus = InjectedStatus::Http(StatusCode::INTERNAL_SERVER_ERROR);

/// The same for gRPC: INTERNAL.
const GRPC_FAULT: InjectedStatus = InjectedStatus::Grpc(GrpcStatus(13));

const NO_FIELD: EncodeError =
    EncodeError("the contract has no field for one of the filters of this kind of route");

/// The filters that are written here; rewrites and delays have a place of their own, behind all others.
pub(super) fn theirs(filters: &[Filter]) -> impl Iterator<Item = &Filter> {
    filters
        .iter()
        .filter(|filter| !matches!(filter, Filter::Rewrite(_) | Filter::Delay(_)))
}

pub(super) fn rewrites(filters: &[Filter]) -> Vec<outbound::Rewrite> {
    let rewrite = |filter: &Filter| match filter {
        Filter::Rewrite(rewrite) => Some(of_rewrite(rewrite)),
        _ => None,
    };
    filters.iter().filter_map(rewrite).collect()
}

pub(super) fn delays(filters: &[Filter]) -> Vec<outbound::Delay> {
    let delay = |filter: &Filter| match filter {
        Filter::Delay(delay) => Some(of_delay(delay)),
        _ => None,
    };
    filters.iter().filter_map(delay).collect()
}

/// A rule that is not enforced fails every request, with the reason.
pub(super) fn fault(why: &Unsupported) -> Filter {
    failing(FAULT, why)
}

/// The same for gRPC.
pub(super) fn grpc_fault(why: &Unsupported) -> Filter {
    failing(GRPC_FAULT, why)
}

fn failing(status: InjectedStatus, why: &Unsupported) -> Filter {
    Filter::Fail(InjectedFailure {
        status,
        message: why.0.clone(),
        ratio: Ratio::ALWAYS,
    })
}

pub(super) fn outbound_http(filter: &Filter) -> Result<outbound::http_route::Filter, EncodeError> {
    use outbound::http_route::filter::Kind;
    let kind = match filter {
        Filter::Fail(failure) => Kind::FailureInjector(http_failure(failure)?),
        Filter::RequestHeaders(edits) => Kind::RequestHeaderModifier(request_headers(edits)),
        Filter::ResponseHeaders(edits) => Kind::ResponseHeaderModifier(response_headers(edits)),
        Filter::Redirect(to) => Kind::Redirect(redirect(to)),
        Filter::Rewrite(_) | Filter::Delay(_) => return Err(NO_FIELD),
    };
    Ok(outbound::http_route::Filter { kind: Some(kind) })
}

pub(super) fn outbound_grpc(filter: &Filter) -> Result<outbound::grpc_route::Filter, EncodeError> {
    use outbound::grpc_route::filter::Kind;
    let kind = match filter {
        Filter::Fail(failure) => Kind::FailureInjector(grpc_failure(failure)?),
        Filter::RequestHeaders(edits) => Kind::RequestHeaderModifier(request_headers(edits)),
        _ => return Err(NO_FIELD),
    };
    Ok(outbound::grpc_route::Filter { kind: Some(kind) })
}

pub(super) fn inbound_http(filter: &Filter) -> Result<inbound::http_route::Filter, EncodeError> {
    use inbound::http_route::filter::Kind;
    let kind = match filter {
        Filter::Fail(failure) => Kind::FailureInjector(http_failure(failure)?),
        Filter::RequestHeaders(edits) => Kind::RequestHeaderModifier(request_headers(edits)),
        Filter::Redirect(to) => Kind::Redirect(redirect(to)),
        _ => return Err(NO_FIELD),
    };
    Ok(inbound::http_route::Filter { kind: Some(kind) })
}

pub(super) fn inbound_grpc(filter: &Filter) -> Result<inbound::grpc_route::Filter, EncodeError> {
    use inbound::grpc_route::filter::Kind;
    let kind = match filter {
        Filter::Fail(failure) => Kind::FailureInjector(grpc_failure(failure)?),
        Filter::RequestHeaders(edits) => Kind::RequestHeaderModifier(request_headers(edits)),
        _ => return Err(NO_FIELD),
    };
    Ok(inbound::grpc_route::Filter { kind: Some(kind) })
}

/// A share of requests; all of them are not written.
pub(super) fn ratio(ratio: Ratio) -> Option<http_route::Ratio> {
    let (numerator, denominator) = ratio.parts();
    (ratio != Ratio::ALWAYS).then_some(http_route::Ratio {
        numerator,
        denominator,
    })
}

fn http_failure(failure: &InjectedFailure) -> Result<HttpFailureInjector, EncodeError> {
    let InjectedStatus::Http(status) = failure.status else {
        return Err(EncodeError("an HTTP route can't fail with a gRPC code"));
    };
    Ok(HttpFailureInjector {
        status: status.as_u16().into(),
        message: failure.message.to_string(),
        ratio: ratio(failure.ratio),
    })
}

fn grpc_failure(failure: &InjectedFailure) -> Result<GrpcFailureInjector, EncodeError> {
    let InjectedStatus::Grpc(code) = failure.status else {
        return Err(EncodeError("a gRPC route can't fail with an HTTP status"));
    };
    Ok(GrpcFailureInjector {
        code: code.0.into(),
        message: failure.message.to_string(),
        ratio: ratio(failure.ratio),
    })
}

fn request_headers(edits: &HeaderEdits) -> RequestHeaderModifier {
    RequestHeaderModifier {
        add: headers(&edits.add),
        set: headers(&edits.set),
        remove: edits.remove.iter().map(HeaderName::to_string).collect(),
    }
}

fn response_headers(edits: &HeaderEdits) -> ResponseHeaderModifier {
    ResponseHeaderModifier {
        add: headers(&edits.add),
        set: headers(&edits.set),
        remove: edits.remove.iter().map(HeaderName::to_string).collect(),
    }
}

fn headers(list: &[(HeaderName, http::HeaderValue)]) -> Option<Headers> {
    let header = |(name, value): &(HeaderName, http::HeaderValue)| Header {
        name: name.to_string(),
        value: value.as_bytes().to_vec(),
    };
    (!list.is_empty()).then(|| Headers {
        headers: list.iter().map(header).collect(),
    })
}

fn redirect(to: &Redirect) -> RequestRedirect {
    use http_types::scheme::{Registered, Type};
    let scheme = to.scheme.as_ref().map(|scheme| match scheme.as_str() {
        "http" => Type::Registered(Registered::Http.into()),
        "https" => Type::Registered(Registered::Https.into()),
        other => Type::Unregistered(other.to_owned()),
    });
    RequestRedirect {
        scheme: scheme.map(|scheme| http_types::Scheme { r#type: Some(scheme) }),
        host: to.host.as_deref().unwrap_or_default().to_owned(),
        path: path(&to.path),
        port: to.port.map_or(0, u32::from),
        status: to.status.as_u16().into(),
    }
}

fn of_rewrite(rewrite: &Rewrite) -> outbound::Rewrite {
    outbound::Rewrite {
        host: rewrite.host.as_ref().map(ToString::to_string).unwrap_or_default(),
        path: path(&rewrite.path),
    }
}

fn of_delay(delay: &Delay) -> outbound::Delay {
    outbound::Delay {
        duration: Some(duration(delay.duration)),
        ratio: ratio(delay.ratio),
    }
}

fn path(rewrite: &Option<PathRewrite>) -> Option<PathModifier> {
    let replace = match rewrite.as_ref()? {
        PathRewrite::Full(path) => path_modifier::Replace::Full(path.to_string()),
        PathRewrite::Prefix(path) => path_modifier::Replace::Prefix(path.to_string()),
    };
    Some(PathModifier {
        replace: Some(replace),
    })
}
