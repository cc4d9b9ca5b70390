//! Filters of routes, lowered to the one form that proxies follow.
//!
//! What Linkerd's API has no field for at some place is refused there, with the reason.

use http::uri::{Authority, Scheme};
use outrigger_policy::name::DnsName;
use outrigger_policy::route::filter::{
    Filter, HeaderEdits, InjectedStatus, PathRewrite, Ratio, Redirect, Rewrite,
};

use crate::resources::route::{
    HeaderModifier, HttpFilter, PathModifier, RequestMirror, RequestRedirect, UrlRewrite,
};
use crate::resources::traffic::Traffic;

/// Where a filter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On a rule of an HTTPRoute of a Service or an EgressNetwork.
    OutboundHttp,
    /// The same of a GRPCRoute.
    OutboundGrpc,
    /// On a backend of an HTTPRoute.
    BackendHttp,
    /// On a backend of a GRPCRoute.
    BackendGrpc,
    /// On a rule of an HTTPRoute of a Server.
    InboundHttp,
    /// The same of a GRPCRoute.
    InboundGrpc,
}

impl Place {
    fn is_grpc(self) -> bool {
        matches!(self, Self::OutboundGrpc | Self::BackendGrpc | Self::InboundGrpc)
    }

    fn is_outbound_rule(self) -> bool {
        matches!(self, Self::OutboundHttp | Self::OutboundGrpc)
    }
}

/// What a rule does, in the order in which proxies do it: injected faults, the filters as they are written, rewrites,
/// delays.
pub fn of_rule(
    written: Option<&[HttpFilter]>,
    traffic: &Traffic,
    place: Place,
) -> Result<Vec<Filter>, String> {
    let mut filters = Vec::new();
    if let Some(fault) = &traffic.fault {
        match (&fault.status, place.is_grpc()) {
            (InjectedStatus::Http(_), true) => {
                return Err("outrigger.dev/fault-status: use fault-grpc-code".into());
            }
            (InjectedStatus::Grpc(_), false) => {
                return Err("outrigger.dev/fault-grpc-code: use fault-status".into());
            }
            _ => filters.push(Filter::Fail(fault.clone())),
        }
    }
    filters.extend(lower(written, place)?);
    if let Some(delay) = traffic.delay {
        if !place.is_outbound_rule() {
            return Err("outrigger.dev/delay: only routes of Services and EgressNetworks can delay".into());
        }
        filters.push(Filter::Delay(delay));
    }
    Ok(filters)
}

/// The filters as they are written; rewrites come behind all others. Mirrors are no filters, see [`mirrors`].
pub fn lower(written: Option<&[HttpFilter]>, place: Place) -> Result<Vec<Filter>, String> {
    let (mut filters, mut rewrites) = (Vec::new(), Vec::new());
    for filter in written.into_iter().flatten() {
        if filter.request_mirror.is_some() && place.is_outbound_rule() {
            continue;
        }
        match lowered(filter, place)? {
            rewrite @ Filter::Rewrite(_) => rewrites.push(rewrite),
            other => filters.push(other),
        }
    }
    filters.extend(rewrites);
    Ok(filters)
}

/// The mirrors among the filters of a rule, each with its share of the requests.
pub fn mirrors(written: Option<&[HttpFilter]>) -> Result<Vec<(&RequestMirror, Ratio)>, String> {
    let mirrors = written
        .into_iter()
        .flatten()
        .filter_map(|filter| filter.request_mirror.as_ref());
    mirrors.map(|mirror| Ok((mirror, ratio(mirror)?))).collect()
}

fn lowered(filter: &HttpFilter, place: Place) -> Result<Filter, String> {
    let kind = &filter.kind;
    if let Some(headers) = &filter.request_header_modifier {
        return edits(headers).map(Filter::RequestHeaders);
    }
    let refused = || {
        format!(
            "a filter of type {kind} can't be expressed in Linkerd's API at this place ({place:?}): remove it"
        )
    };
    if let (Some(headers), Place::OutboundHttp | Place::BackendHttp) =
        (&filter.response_header_modifier, place)
    {
        return edits(headers).map(Filter::ResponseHeaders);
    }
    if let Some(to) = filter.request_redirect.as_ref().filter(|_| !place.is_grpc()) {
        return redirect(to).map(Filter::Redirect);
    }
    if let (Some(to), Place::OutboundHttp) = (&filter.url_rewrite, place) {
        return rewrite(to).map(Filter::Rewrite);
    }
    Err(refused())
}

fn edits(written: &HeaderModifier) -> Result<HeaderEdits, String> {
    let pairs = |list: &Option<Vec<_>>| {
        let list: &[crate::resources::route::HeaderEdit] = list.as_deref().unwrap_or_default();
        list.iter().map(|edit| (edit.0.clone(), edit.1.clone())).collect()
    };
    let edits = HeaderEdits {
        add: pairs(&written.add),
        set: pairs(&written.set),
        remove: written
            .remove
            .iter()
            .flatten()
            .map(|name| name.0.clone())
            .collect(),
    };
    match edits.framing() {
        Some(name) => Err(format!(
            "the header {name} frames messages and can't be edited: remove it"
        )),
        None => Ok(edits),
    }
}

fn redirect(written: &RequestRedirect) -> Result<Redirect, String> {
    let scheme = match written.scheme.as_deref() {
        None => None,
        Some("http") => Some(Scheme::HTTP),
        Some("https") => Some(Scheme::HTTPS),
        Some(other) => {
            return Err(format!(
                "requestRedirect: the scheme {other:?} is neither http nor https"
            ));
        }
    };
    Ok(Redirect {
        scheme,
        host: written
            .hostname
            .as_deref()
            .map(host)
            .transpose()?
            .map(|name| name.as_str().into()),
        port: written.port,
        path: written.path.as_ref().map(path),
        status: written
            .status_code
            .map_or(http::StatusCode::FOUND, |status| status.0),
    })
}

fn rewrite(written: &UrlRewrite) -> Result<Rewrite, String> {
    let authority = |text: &str| {
        let name = host(text)?;
        Authority::try_from(name.as_str()).map_err(|_| format!("{text:?} is no host name"))
    };
    Ok(Rewrite {
        host: written.hostname.as_deref().map(authority).transpose()?,
        path: written.path.as_ref().map(path),
    })
}

fn host(text: &str) -> Result<DnsName, String> {
    DnsName::parse(text).map_err(|_| format!("{text:?} is no host name"))
}

fn path(written: &PathModifier) -> PathRewrite {
    match written {
        PathModifier::ReplaceFullPath { replacement } => PathRewrite::Full(replacement.as_str().into()),
        PathModifier::ReplacePrefixMatch { replacement } => PathRewrite::Prefix(replacement.as_str().into()),
    }
}

fn ratio(mirror: &RequestMirror) -> Result<Ratio, String> {
    let (numerator, denominator) = match (mirror.percent, mirror.fraction) {
        (None, None) => return Ok(Ratio::ALWAYS),
        (Some(percent), None) => (percent, 100),
        (None, Some(fraction)) => (fraction.numerator, fraction.denominator.unwrap_or(100)),
        (Some(_), Some(_)) => return Err("requestMirror has both percent and fraction: remove one".into()),
    };
    Ratio::new(numerator, denominator)
        .ok_or_else(|| format!("requestMirror: {numerator} of {denominator} is no share from 0 to 1"))
}
