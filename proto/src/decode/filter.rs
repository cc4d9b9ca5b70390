//! Filters of rules and of backends.

use std::sync::Arc;

use http::header::HeaderName;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, StatusCode};
use outrigger_policy::Unsupported;
use outrigger_policy::classify::GrpcStatus;
use outrigger_policy::name::ResourceRef;
use outrigger_policy::route::filter::{
    Delay, Filter, HeaderEdits, InjectedFailure, InjectedStatus, PathRewrite, Ratio, Redirect, Rewrite,
};

use super::error::{DecodeError, duration, each, not_enforced, required};
use crate::grpc_route::GrpcFailureInjector;
use crate::http_route::{
    self, HttpFailureInjector, PathModifier, RequestHeaderModifier, RequestRedirect, ResponseHeaderModifier,
    path_modifier,
};
use crate::http_types::{self, Headers, scheme};
use crate::{inbound, outbound};

/// Filters, or why nothing may pass them.
pub(super) type Filters = Result<Vec<Filter>, Unsupported>;

/// The highest gRPC status code, UNAUTHENTICATED.
const LAST_CODE: u32 = 16;

/// Reads the filters of one kind of rule; the messages differ by the kinds that they have.
macro_rules! filters {
    ($name:ident, $filter:ty, $kind:path, { $($variant:ident => $decode:expr),+ $(,)? }) => {
        pub(super) fn $name(object: &ResourceRef, filters: &[$filter]) -> Result<Filters, DecodeError> {
            use $kind as Kind;
            let filters = each("filters", filters, |filter| match &filter.kind {
                $(Some(Kind::$variant(message)) => $decode(message).map(Some),)+
                None => Ok(None),
            })?;
            Ok(checked(object, filters))
        }
    };
}

filters!(of_outbound_http, outbound::http_route::Filter, outbound::http_route::filter::Kind, {
    FailureInjector => http_failure,
    RequestHeaderModifier => request_headers,
    ResponseHeaderModifier => response_headers,
    Redirect => redirect,
});
filters!(of_outbound_grpc, outbound::grpc_route::Filter, outbound::grpc_route::filter::Kind, {
    FailureInjector => grpc_failure,
    RequestHeaderModifier => request_headers,
});
filters!(of_inbound_http, inbound::http_route::Filter, inbound::http_route::filter::Kind, {
    FailureInjector => http_failure,
    RequestHeaderModifier => request_headers,
    Redirect => redirect,
});
filters!(of_inbound_grpc, inbound::grpc_route::Filter, inbound::grpc_route::filter::Kind, {
    FailureInjector => grpc_failure,
    RequestHeaderModifier => request_headers,
});

/// Refuses a filter of a kind that is not known, and edits of headers that frame messages.
fn checked(object: &ResourceRef, filters: Vec<Option<Filter>>) -> Filters {
    let remedy = "remove it from the route";
    let framing = |filter: &Filter| match filter {
        Filter::RequestHeaders(edits) | Filter::ResponseHeaders(edits) => edits.framing().cloned(),
        _ => None,
    };
    filters
        .into_iter()
        .map(|filter| {
            let unknown = || not_enforced(object, "a filter of an unknown kind", remedy);
            let filter = filter.ok_or_else(unknown)?;
            match framing(&filter) {
                Some(name) => Err(not_enforced(
                    object,
                    &format!("an edit of the header {name}"),
                    remedy,
                )),
                None => Ok(filter),
            }
        })
        .collect()
}

/// A rewrite, which is ours.
pub(super) fn rewrite(message: &outbound::Rewrite) -> Result<Filter, DecodeError> {
    let host = match message.host.as_str() {
        "" => None,
        host => Some(authority("host", host)?),
    };
    let path = path_rewrite(&message.path)?;
    Ok(Filter::Rewrite(Rewrite { host, path }))
}

/// A delay, which is ours.
pub(super) fn delay(message: &outbound::Delay) -> Result<Filter, DecodeError> {
    Ok(Filter::Delay(Delay {
        duration: duration("duration", required("duration", &message.duration)?)?,
        ratio: ratio(&message.ratio)?,
    }))
}

/// A share of requests; absent, it is all of them.
pub(super) fn ratio(ratio: &Option<http_route::Ratio>) -> Result<Ratio, DecodeError> {
    let Some(http_route::Ratio {
        numerator,
        denominator,
    }) = *ratio
    else {
        return Ok(Ratio::ALWAYS);
    };
    Ratio::new(numerator, denominator).ok_or_else(|| {
        let reason = format!("{numerator}/{denominator} is no share from 0 to 1");
        DecodeError::new("ratio", reason)
    })
}

fn http_failure(injector: &HttpFailureInjector) -> Result<Filter, DecodeError> {
    let status = status(injector.status, 200..=599).map_err(|e| e.within("failure_injector"))?;
    failure(InjectedStatus::Http(status), &injector.message, &injector.ratio)
}

fn grpc_failure(injector: &GrpcFailureInjector) -> Result<Filter, DecodeError> {
    let code = u16::try_from(injector.code)
        .ok()
        .filter(|_| injector.code <= LAST_CODE);
    let code = code.ok_or_else(|| {
        let reason = format!("{} is no gRPC status code", injector.code);
        DecodeError::new("failure_injector.code", reason)
    })?;
    failure(
        InjectedStatus::Grpc(GrpcStatus(code)),
        &injector.message,
        &injector.ratio,
    )
}

fn failure(
    status: InjectedStatus,
    message: &str,
    share: &Option<http_route::Ratio>,
) -> Result<Filter, DecodeError> {
    Ok(Filter::Fail(InjectedFailure {
        status,
        message: message.into(),
        ratio: ratio(share).map_err(|e| e.within("failure_injector"))?,
    }))
}

fn status(status: u32, range: std::ops::RangeInclusive<u16>) -> Result<StatusCode, DecodeError> {
    let code = u16::try_from(status).ok().filter(|status| range.contains(status));
    code.and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| DecodeError::new("status", format!("{status} is not in {range:?}")))
}

fn request_headers(edits: &RequestHeaderModifier) -> Result<Filter, DecodeError> {
    header_edits(&edits.add, &edits.set, &edits.remove)
        .map(Filter::RequestHeaders)
        .map_err(|e| e.within("request_header_modifier"))
}

fn response_headers(edits: &ResponseHeaderModifier) -> Result<Filter, DecodeError> {
    header_edits(&edits.add, &edits.set, &edits.remove)
        .map(Filter::ResponseHeaders)
        .map_err(|e| e.within("response_header_modifier"))
}

fn header_edits(
    add: &Option<Headers>,
    set: &Option<Headers>,
    remove: &[String],
) -> Result<HeaderEdits, DecodeError> {
    let headers = |field: &str, headers: &Option<Headers>| {
        let list = headers.as_ref().map_or(&[][..], |h| &h.headers);
        each(field, list, |header| {
            let value = HeaderValue::from_bytes(&header.value)
                .map_err(|_| DecodeError::new("value", "not a header value"))?;
            Ok((name("name", &header.name)?, value))
        })
    };
    Ok(HeaderEdits {
        add: headers("add", add)?,
        set: headers("set", set)?,
        remove: each("remove", remove, |text| name("name", text))?,
    })
}

fn name(field: &str, text: &str) -> Result<HeaderName, DecodeError> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| DecodeError::new(field, format!("{text:?} is not a header name")))
}

fn redirect(message: &RequestRedirect) -> Result<Filter, DecodeError> {
    read_redirect(message)
        .map(Filter::Redirect)
        .map_err(|e| e.within("redirect"))
}

/// What is absent, empty or zero stays as the request has it; the status is 301 then.
fn read_redirect(message: &RequestRedirect) -> Result<Redirect, DecodeError> {
    let host: Option<Arc<str>> = match message.host.as_str() {
        "" => None,
        host => match authority("host", host)? {
            parsed if parsed.port().is_none() => Some(host.into()),
            _ => return Err(DecodeError::new("host", format!("{host:?} has a port"))),
        },
    };
    let port = u16::try_from(message.port)
        .map_err(|_| DecodeError::new("port", format!("{} is too high", message.port)))?;
    let status = match message.status {
        0 => StatusCode::MOVED_PERMANENTLY,
        code => status(code, 300..=399)?,
    };
    Ok(Redirect {
        scheme: message.scheme.as_ref().map(scheme).transpose()?,
        host,
        port: (port != 0).then_some(port),
        path: path_rewrite(&message.path)?,
        status,
    })
}

fn scheme(scheme: &http_types::Scheme) -> Result<Scheme, DecodeError> {
    let read = match required("scheme.type", &scheme.r#type)? {
        scheme::Type::Registered(number) => match scheme::Registered::try_from(*number) {
            Ok(scheme::Registered::Http) => Ok(Scheme::HTTP),
            Ok(scheme::Registered::Https) => Ok(Scheme::HTTPS),
            Err(_) => Err(number.to_string()),
        },
        scheme::Type::Unregistered(text) => Scheme::try_from(text.as_str()).map_err(|_| text.clone()),
    };
    read.map_err(|text| DecodeError::new("scheme", format!("{text:?} is no scheme")))
}

fn path_rewrite(path: &Option<PathModifier>) -> Result<Option<PathRewrite>, DecodeError> {
    let Some(path) = path else { return Ok(None) };
    let absolute = |text: &str| {
        let path: Arc<str> = if text.starts_with('/') {
            text.into()
        } else {
            format!("/{text}").into()
        };
        match path.parse::<http::uri::PathAndQuery>() {
            Ok(_) => Ok(path),
            Err(_) => Err(DecodeError::new("path", format!("{text:?} is not a path"))),
        }
    };
    Ok(Some(match required("path.replace", &path.replace)? {
        path_modifier::Replace::Full(text) => PathRewrite::Full(absolute(text)?),
        path_modifier::Replace::Prefix(text) => PathRewrite::Prefix(absolute(text)?),
    }))
}

fn authority(field: &str, text: &str) -> Result<Authority, DecodeError> {
    let parsed = text.parse::<Authority>().ok();
    parsed
        .filter(|parsed| !parsed.host().is_empty() && !text.contains('@'))
        .ok_or_else(|| DecodeError::new(field, format!("{text:?} is not a host")))
}
