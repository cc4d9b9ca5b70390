//! Backends, and how one of several is chosen.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::sync::Arc;

use outrigger_policy::Unsupported;
use outrigger_policy::name::{DnsName, ResourceRef};
use outrigger_policy::outbound::{Backend, Dispatch, Distribution, LoadParams};

use super::endpoint::{MAX_ENDPOINTS, weighted_addr};
use super::error::{DecodeError, bounded, duration, each, is_set, not_enforced, required};
use super::meta;
use crate::outbound::backend::balance_p2c::{Load, PeakEwma};
use crate::outbound::backend::{BalanceP2c, Kind, endpoint_discovery};
use crate::outbound::{self, grpc_route, http_route, opaque_route, tls_route};

/// What a route chooses from; a backend with a filter or a timeout of its own makes it unsupported.
pub(super) type Choice = Result<Distribution, Unsupported>;

/// A backend of a route with its weight; the messages of the four kinds of route differ by name only.
struct Part<'a> {
    backend: &'a Option<outbound::Backend>,
    weight: u32,
    /// The field that this version does not enforce.
    refused: Option<&'static str>,
}

/// Reads the distributions of one kind of route; `$refused` finds what a backend asks for too much.
macro_rules! distribution {
    ($name:ident, $kind:ident, $refused:expr) => {
        pub(super) fn $name(
            route: &ResourceRef,
            distribution: &Option<$kind::Distribution>,
        ) -> Result<Choice, DecodeError> {
            use $kind::{RouteBackend, distribution::Kind};
            fn part(backend: &RouteBackend, weight: u32) -> Part<'_> {
                let refused: fn(&RouteBackend) -> Option<&'static str> = $refused;
                Part {
                    backend: &backend.backend,
                    weight,
                    refused: refused(backend),
                }
            }
            let choice = match required("kind", &required("backends", distribution)?.kind) {
                Ok(Kind::Empty(_)) => Ok(Ok(Distribution::Empty)),
                Ok(Kind::FirstAvailable(first)) => {
                    first_available(route, first.backends.iter().map(|b| part(b, 1)).collect())
                }
                Ok(Kind::RandomAvailable(random)) => random
                    .backends
                    .iter()
                    .map(|b| {
                        Ok(part(
                            required("random_available.backend", &b.backend)?,
                            b.weight,
                        ))
                    })
                    .collect::<Result<Vec<_>, _>>()
                    .and_then(|parts| random_available(route, parts)),
                Err(error) => Err(error),
            };
            choice.map_err(|e| e.within("backends"))
        }
    };
}

distribution!(http, http_route, |b| {
    let timeout = is_set(&b.request_timeout).then_some("backends.requestTimeout");
    timeout.or_else(|| (!b.filters.is_empty()).then_some("backends.filters"))
});
distribution!(grpc, grpc_route, |b| {
    let timeout = is_set(&b.request_timeout).then_some("backends.requestTimeout");
    timeout.or_else(|| (!b.filters.is_empty()).then_some("backends.filters"))
});
distribution!(opaque_route, opaque_route, |b| (!b.filters.is_empty())
    .then_some("backends.filters"));
distribution!(tls_route, tls_route, |b| (!b.filters.is_empty())
    .then_some("backends.filters"));

fn first_available(route: &ResourceRef, parts: Vec<Part<'_>>) -> Result<Choice, DecodeError> {
    if let Some(refusal) = refusal(route, &parts) {
        return Ok(Err(refusal));
    }
    let backends = backends("first_available.backends", &parts)?;
    Ok(Ok(match backends.is_empty() {
        true => Distribution::Empty,
        false => Distribution::FirstAvailable(backends),
    }))
}

/// Weights that are all zero choose nothing.
fn random_available(route: &ResourceRef, parts: Vec<Part<'_>>) -> Result<Choice, DecodeError> {
    if let Some(refusal) = refusal(route, &parts) {
        return Ok(Err(refusal));
    }
    let total = parts
        .iter()
        .try_fold(0u32, |sum, part| sum.checked_add(part.weight));
    let total = total.ok_or_else(|| {
        DecodeError::new(
            "random_available.backends.weight",
            "the weights add up to more than 32 bits",
        )
    })?;
    let backends = backends("random_available.backends", &parts)?;
    Ok(Ok(match total {
        0 => Distribution::Empty,
        _ => Distribution::RandomAvailable(
            backends
                .into_iter()
                .zip(parts.iter().map(|part| part.weight))
                .collect(),
        ),
    }))
}

fn refusal(route: &ResourceRef, parts: &[Part<'_>]) -> Option<Unsupported> {
    let field = parts.iter().find_map(|part| part.refused)?;
    Some(not_enforced(route, field, "move it to the rule, or remove it"))
}

fn backends(field: &str, parts: &[Part<'_>]) -> Result<Vec<Arc<Backend>>, DecodeError> {
    bounded(field, parts.len(), MAX_ENDPOINTS)?;
    each(field, parts, |part| backend(required("backend", part.backend)?))
}

fn backend(backend: &outbound::Backend) -> Result<Arc<Backend>, DecodeError> {
    let meta = meta::reference("metadata", &backend.metadata)?;
    let dispatch = match &backend.kind {
        Some(Kind::Forward(addr)) => {
            let endpoint = weighted_addr(addr, &Default::default()).map_err(|e| e.within("forward"))?;
            Dispatch::Forward(endpoint)
        }
        Some(Kind::Balancer(balancer)) => balance(&meta, balancer).map_err(|e| e.within("balancer"))?,
        None => Dispatch::Missing(no_dispatcher(&meta)),
    };
    Ok(Arc::new(Backend { meta, dispatch }))
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

fn balance(meta: &ResourceRef, balancer: &BalanceP2c) -> Result<Dispatch, DecodeError> {
    let discovery = balancer.discovery.as_ref().and_then(|d| d.kind.as_ref());
    let Some(endpoint_discovery::Kind::Dst(dst)) = discovery else {
        return Ok(Dispatch::Missing(no_dispatcher(meta)));
    };
    if !is_name_and_port(&dst.path) {
        let reason = format!("{:?} is not `name:port`", dst.path);
        return Err(DecodeError::new("discovery.dst.path", reason));
    }
    Ok(match &balancer.load {
        Some(Load::PeakEwma(params)) => Dispatch::Balance {
            path: dst.path.as_str().into(),
            load: load(params).map_err(|e| e.within("peak_ewma"))?,
        },
        Some(Load::PenaltyPeakEwma(_)) => Dispatch::Missing(not_enforced(
            meta,
            "the load estimate penalty_peak_ewma",
            "remove the annotation balancer.alpha.linkerd.io/penalize-failures",
        )),
        None => Dispatch::Missing(not_enforced(
            meta,
            "a balancer without a known load estimate",
            "use a control plane of the same version",
        )),
    })
}

fn load(params: &PeakEwma) -> Result<LoadParams, DecodeError> {
    let decay = duration("decay", required("decay", &params.decay)?)?;
    if decay.is_zero() {
        return Err(DecodeError::new("decay", "zero"));
    }
    Ok(LoadParams {
        default_rtt: duration("default_rtt", required("default_rtt", &params.default_rtt)?)?,
        decay,
    })
}

/// `name:port` or `ip:port`, which `Destination.Get` can be asked for.
fn is_name_and_port(path: &str) -> bool {
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
