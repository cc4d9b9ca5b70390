//! Backends, and how one of several is chosen.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::sync::Arc;

use outrigger_policy::Unsupported;
use outrigger_policy::breaker::BreakerPolicy;
use outrigger_policy::name::{DnsName, ResourceRef};
use outrigger_policy::outbound::{Backend, Dispatch, Distribution, LoadParams, PenaltyParams};
use outrigger_policy::route::filter::Filter;

use super::endpoint::{MAX_ENDPOINTS, weighted_addr};
use super::error::{DecodeError, bounded, duration, each, is_set, not_enforced, required};
use super::filter::{self, Filters};
use super::meta;
use crate::outbound::backend::balance_p2c::{Load, PenaltyPeakEwma};
use crate::outbound::backend::{BalanceP2c, Kind, endpoint_discovery};
use crate::outbound::{self, grpc_route, http_route, opaque_route, tls_route};

/// What a route chooses from; a backend that asks for what is not enforced makes it unsupported.
pub(super) type Choice = Result<Distribution, Unsupported>;

/// A backend of a route with its weight.
type Part = Result<(Arc<Backend>, u32), Unsupported>;

/// The backends of a route with their weights.
type Parts = Result<Vec<(Arc<Backend>, u32)>, Unsupported>;

/// Reads the distributions of one kind of route, whose messages differ by name; `$filters` reads what a backend does
/// besides.
macro_rules! distribution {
    ($name:ident, $kind:ident, $filters:expr) => {
        pub(super) fn $name(
            route: &ResourceRef,
            distribution: &Option<$kind::Distribution>,
            breaker: Option<BreakerPolicy>,
        ) -> Result<Choice, DecodeError> {
            use $kind::{RouteBackend, distribution::Kind};
            let filters: fn(&ResourceRef, &RouteBackend) -> Result<Filters, DecodeError> = $filters;
            let part = |b: &RouteBackend, weight| {
                let message = required("backend", &b.backend)?;
                Ok(match filters(route, b)? {
                    Ok(filters) => Ok((Arc::new(backend(message, filters, breaker)?), weight)),
                    Err(why) => Err(why),
                })
            };
            let choice = match required("kind", &required("backends", distribution)?.kind) {
                Ok(Kind::Empty(_)) => Ok(Ok(Distribution::Empty)),
                Ok(Kind::FirstAvailable(first)) => {
                    parts("first_available.backends", &first.backends, |b| part(b, 1)).map(first_available)
                }
                Ok(Kind::RandomAvailable(random)) => {
                    parts("random_available.backends", &random.backends, |b| {
                        part(required("backend", &b.backend)?, b.weight)
                    })
                    .and_then(random_available)
                }
                Err(error) => Err(error),
            };
            choice.map_err(|e| e.within("backends"))
        }
    };
}

distribution!(http, http_route, |route, b| {
    match is_set(&b.request_timeout) {
        true => Ok(Err(refused(route, "backends.requestTimeout"))),
        false => filter::of_outbound_http(route, &b.filters),
    }
});
distribution!(grpc, grpc_route, |route, b| {
    match is_set(&b.request_timeout) {
        true => Ok(Err(refused(route, "backends.requestTimeout"))),
        false => filter::of_outbound_grpc(route, &b.filters),
    }
});
distribution!(opaque_route, opaque_route, |route, b| {
    Ok(none_of(route, b.filters.is_empty()))
});
distribution!(tls_route, tls_route, |route, b| {
    Ok(none_of(route, b.filters.is_empty()))
});

/// The filters of a backend of an opaque route: it can have none.
fn none_of(route: &ResourceRef, empty: bool) -> Filters {
    match empty {
        true => Ok(Vec::new()),
        false => Err(refused(route, "backends.filters")),
    }
}

fn refused(route: &ResourceRef, field: &str) -> Unsupported {
    not_enforced(route, field, "move it to the rule, or remove it")
}

/// The backends of a list; the first that asks for what is not enforced refuses all.
fn parts<T>(
    field: &str,
    list: &[T],
    part: impl FnMut(&T) -> Result<Part, DecodeError>,
) -> Result<Parts, DecodeError> {
    bounded(field, list.len(), MAX_ENDPOINTS)?;
    Ok(each(field, list, part)?.into_iter().collect())
}

fn first_available(parts: Parts) -> Choice {
    let backends: Vec<_> = parts?.into_iter().map(|(backend, _)| backend).collect();
    Ok(match backends.is_empty() {
        true => Distribution::Empty,
        false => Distribution::FirstAvailable(backends),
    })
}

/// Weights that are all zero choose nothing.
fn random_available(parts: Parts) -> Result<Choice, DecodeError> {
    let parts = match parts {
        Ok(parts) => parts,
        Err(why) => return Ok(Err(why)),
    };
    let total = parts
        .iter()
        .try_fold(0u32, |sum, (_, weight)| sum.checked_add(*weight));
    match total {
        Some(0) => Ok(Ok(Distribution::Empty)),
        Some(_) => Ok(Ok(Distribution::RandomAvailable(parts))),
        None => Err(DecodeError::new(
            "random_available.backends.weight",
            "the weights add up to more than 32 bits",
        )),
    }
}

/// A backend with the filters that were read for it.
pub(super) fn backend(
    backend: &outbound::Backend,
    filters: Vec<Filter>,
    breaker: Option<BreakerPolicy>,
) -> Result<Backend, DecodeError> {
    let meta = meta::reference("metadata", &backend.metadata)?;
    let dispatch = match &backend.kind {
        Some(Kind::Forward(addr)) => {
            let endpoint = weighted_addr(addr, &Default::default()).map_err(|e| e.within("forward"))?;
            Dispatch::Forward(endpoint)
        }
        Some(Kind::Balancer(balancer)) => {
            balance(&meta, balancer, breaker).map_err(|e| e.within("balancer"))?
        }
        None => Dispatch::Missing(no_dispatcher(&meta)),
    };
    Ok(Backend {
        meta,
        dispatch,
        filters,
    })
}

/// The reason for a backend without a dispatcher, as clients see it.
pub(crate) fn no_dispatcher(meta: &ResourceRef) -> Unsupported {
    Unsupported::new(match &*meta.namespace {
        "" => format!("backend for {} {} has no dispatcher", meta.kind, meta.name),
        namespace => format!(
            "backend for {} {namespace}/{} has no dispatcher",
            meta.kind, meta.name
        ),
    })
}

fn balance(
    meta: &ResourceRef,
    balancer: &BalanceP2c,
    breaker: Option<BreakerPolicy>,
) -> Result<Dispatch, DecodeError> {
    let discovery = balancer.discovery.as_ref().and_then(|d| d.kind.as_ref());
    let Some(endpoint_discovery::Kind::Dst(dst)) = discovery else {
        return Ok(Dispatch::Missing(no_dispatcher(meta)));
    };
    if !is_name_and_port(&dst.path) {
        let reason = format!("{:?} is not `name:port`", dst.path);
        return Err(DecodeError::new("discovery.dst.path", reason));
    }
    let load = match &balancer.load {
        Some(Load::PeakEwma(params)) => {
            load(&params.default_rtt, &params.decay, None).map_err(|e| e.within("peak_ewma"))?
        }
        Some(Load::PenaltyPeakEwma(params)) => penalty(params)
            .and_then(|penalty| load(&params.default_rtt, &params.decay, Some(penalty)))
            .map_err(|e| e.within("penalty_peak_ewma"))?,
        None => {
            return Ok(Dispatch::Missing(not_enforced(
                meta,
                "a balancer without a known load estimate",
                "use a control plane of the same version",
            )));
        }
    };
    Ok(Dispatch::Balance {
        path: dst.path.as_str().into(),
        load,
        breaker,
    })
}

fn load(
    default_rtt: &Option<prost_types::Duration>,
    decay: &Option<prost_types::Duration>,
    penalty: Option<PenaltyParams>,
) -> Result<LoadParams, DecodeError> {
    let decay = duration("decay", required("decay", decay)?)?;
    if decay.is_zero() {
        return Err(DecodeError::new("decay", "zero"));
    }
    Ok(LoadParams {
        default_rtt: duration("default_rtt", required("default_rtt", default_rtt)?)?,
        decay,
        penalty,
    })
}

/// What is absent has its default.
fn penalty(params: &PenaltyPeakEwma) -> Result<PenaltyParams, DecodeError> {
    let or = |field: &str, value: &Option<prost_types::Duration>, default| match value {
        Some(value) => duration(field, value),
        None => Ok(default),
    };
    let default = PenaltyParams::default();
    Ok(PenaltyParams {
        penalty: or("penalty", &params.penalty, default.penalty)?,
        max_retry_after: or(
            "max_retry_after",
            &params.max_retry_after,
            default.max_retry_after,
        )?,
        decay: or("penalty_decay", &params.penalty_decay, default.decay)?,
    })
}

/// `name:port` or `ip:port`, which `Destination.Get` can be asked for.
pub(super) fn is_name_and_port(path: &str) -> bool {
    let Some((host, port)) = path.rsplit_once(':') else {
        return false;
    };
    let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let is_ip = match v6 {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    };
    port.parse::<NonZeroU16>().is_ok() && (is_ip || DnsName::parse(host).is_ok())
}
