//! Outbound policies and profiles: `OutboundPolicy` to [`OutboundPolicy`], `DestinationProfile` to [`Profile`].

use std::collections::HashMap;
use std::sync::Arc;

use outrigger_policy::Unsupported;
use outrigger_policy::name::ResourceRef;
use outrigger_policy::outbound::{
    Dispatch, Distribution, OpaqueAction, OpaqueRoute, OutboundPolicy, OutboundProtocol, OutboundRule,
    TlsRoute,
};
use outrigger_policy::profile::Profile;
use outrigger_policy::route::{Route, RouteTable, Rule};

use super::backend;
use super::endpoint::weighted_addr;
use super::error::{DecodeError, each, is_set, not_enforced, required};
use super::meta;
use super::route::{self, check_size};
use crate::destination::DestinationProfile;
use crate::http_route::Timeouts;
use crate::outbound::proxy_protocol::{Detect, Kind};
use crate::outbound::{self, FailureAccrual, GrpcRoute, HttpRoute, ProxyProtocol, grpc_route, http_route};

/// What may be done to reach a destination.
///
/// The authority is the path of the first balancer among the backends.
pub fn policy(policy: outbound::OutboundPolicy) -> Result<OutboundPolicy, DecodeError> {
    let parent = meta::reference("metadata", &policy.metadata)?;
    let protocol = required("protocol", &policy.protocol)?;
    let protocol = protocol_of(protocol, &parent).map_err(|e| e.within("protocol"))?;
    Ok(OutboundPolicy {
        authority: first_balanced(&protocol).unwrap_or_default(),
        protocol,
        parent,
    })
}

/// What the profile of a destination says; one that routes, retries, limits time or overrides is unsupported.
///
/// A retry budget has no effect without routes, and the references name objects only: all three are passed over.
pub fn profile(profile: DestinationProfile) -> Result<Profile, DecodeError> {
    let name = profile.fully_qualified_name.as_str();
    let endpoint = profile.endpoint.as_ref();
    let endpoint =
        endpoint.map(|addr| weighted_addr(addr, &HashMap::new()).map_err(|e| e.within("endpoint")));
    let unsupported = |field: &str| {
        Unsupported::new(format!(
            "profile of {name:?}: {field} are not enforced by this version; remove them from the ServiceProfile, \
             or use an HTTPRoute"
        ))
    };
    Ok(Profile {
        fully_qualified_name: (!name.is_empty()).then(|| name.into()),
        opaque: profile.opaque_protocol,
        endpoint: endpoint.transpose()?,
        unsupported: match (profile.routes.is_empty(), profile.dst_overrides.is_empty()) {
            (false, _) => Some(unsupported("routes")),
            (true, false) => Some(unsupported("dst_overrides")),
            (true, true) => None,
        },
    })
}

fn protocol_of(protocol: &ProxyProtocol, parent: &ResourceRef) -> Result<OutboundProtocol, DecodeError> {
    let kind = required("kind", &protocol.kind)?;
    if breaks_circuits(kind) {
        let remedy = "remove the annotation balancer.linkerd.io/failure-accrual";
        return Ok(OutboundProtocol::Invalid(not_enforced(
            parent,
            "failure_accrual",
            remedy,
        )));
    }
    Ok(match kind {
        Kind::Detect(detect) => detected(detect).map_err(|e| e.within("detect"))?,
        Kind::Opaque(opaque) => OutboundProtocol::Opaque(opaque_route("opaque.routes", &opaque.routes)?),
        Kind::Http1(http) => OutboundProtocol::Http1(http_routes("http1.routes", &http.routes)?),
        Kind::Http2(http) => OutboundProtocol::Http2(http_routes("http2.routes", &http.routes)?),
        Kind::Grpc(grpc) => OutboundProtocol::Grpc(grpc_routes("grpc.routes", &grpc.routes)?),
        Kind::Tls(tls) => OutboundProtocol::Tls(tls_routes("tls.routes", &tls.routes)?),
    })
}

fn breaks_circuits(kind: &Kind) -> bool {
    let breaks = |accrual: &Option<FailureAccrual>| accrual.as_ref().is_some_and(|a| a.kind.is_some());
    match kind {
        Kind::Detect(detect) => {
            detect
                .http1
                .as_ref()
                .is_some_and(|http| breaks(&http.failure_accrual))
                || detect
                    .http2
                    .as_ref()
                    .is_some_and(|http| breaks(&http.failure_accrual))
        }
        Kind::Http1(http) => breaks(&http.failure_accrual),
        Kind::Http2(http) => breaks(&http.failure_accrual),
        Kind::Grpc(grpc) => breaks(&grpc.failure_accrual),
        Kind::Opaque(_) | Kind::Tls(_) => false,
    }
}

/// The timeout is not used: the proxy's own decides how long it looks.
fn detected(detect: &Detect) -> Result<OutboundProtocol, DecodeError> {
    Ok(OutboundProtocol::Detect {
        http1: http_routes("http1.routes", &required("http1", &detect.http1)?.routes)?,
        http2: http_routes("http2.routes", &required("http2", &detect.http2)?.routes)?,
        opaque: opaque_route("opaque.routes", &required("opaque", &detect.opaque)?.routes)?,
    })
}

fn http_routes(field: &str, routes: &[HttpRoute]) -> Result<RouteTable<OutboundRule>, DecodeError> {
    let matches = routes.iter().flat_map(|r| &r.rules).flat_map(|r| &r.matches);
    check_size(
        field,
        routes.iter().map(|r| r.rules.len()),
        matches.map(route::http_patterns),
    )?;
    let routes = each(field, routes, |route| {
        let meta = meta::reference("metadata", &route.metadata)?;
        let rules = each("rules", &route.rules, |rule| {
            Ok(Rule {
                matches: each("matches", &rule.matches, route::http_match)?,
                then: OutboundRule {
                    backends: match http_refusal(&meta, rule) {
                        Some(refusal) => Err(refusal),
                        None => backend::http(&meta, &rule.backends)?,
                    },
                },
            })
        })?;
        Ok(Route {
            hosts: route::hosts(&route.hosts)?,
            meta,
            rules,
        })
    })?;
    Ok(RouteTable { routes })
}

fn grpc_routes(field: &str, routes: &[GrpcRoute]) -> Result<RouteTable<OutboundRule>, DecodeError> {
    let matches = routes.iter().flat_map(|r| &r.rules).flat_map(|r| &r.matches);
    check_size(
        field,
        routes.iter().map(|r| r.rules.len()),
        matches.map(route::grpc_patterns),
    )?;
    let routes = each(field, routes, |route| {
        let meta = meta::reference("metadata", &route.metadata)?;
        let rules = each("rules", &route.rules, |rule| {
            Ok(Rule {
                matches: each("matches", &rule.matches, route::grpc_match)?,
                then: OutboundRule {
                    backends: match grpc_refusal(&meta, rule) {
                        Some(refusal) => Err(refusal),
                        None => backend::grpc(&meta, &rule.backends)?,
                    },
                },
            })
        })?;
        Ok(Route {
            hosts: route::hosts(&route.hosts)?,
            meta,
            rules,
        })
    })?;
    Ok(RouteTable { routes })
}

fn http_refusal(route: &ResourceRef, rule: &http_route::Rule) -> Option<Unsupported> {
    use http_route::filter::Kind;
    let asked = Asked {
        filter: rule.filters.first().map(|filter| match &filter.kind {
            Some(Kind::FailureInjector(fault)) => format!("failure_injector ({:?})", fault.message),
            Some(Kind::RequestHeaderModifier(_)) => "request_header_modifier".to_owned(),
            Some(Kind::Redirect(_)) => "redirect".to_owned(),
            Some(Kind::ResponseHeaderModifier(_)) => "response_header_modifier".to_owned(),
            None => "(of an unknown kind)".to_owned(),
        }),
        timeouts: is_set(&rule.request_timeout) || rule.timeouts.as_ref().is_some_and(limits_time),
        retries: rule.retry.as_ref().is_some_and(|retry| retry.max_retries > 0),
        overrides: rule.allow_l5d_request_headers,
    };
    asked.refusal(route)
}

fn grpc_refusal(route: &ResourceRef, rule: &grpc_route::Rule) -> Option<Unsupported> {
    use grpc_route::filter::Kind;
    let asked = Asked {
        filter: rule.filters.first().map(|filter| match &filter.kind {
            Some(Kind::FailureInjector(fault)) => format!("failure_injector ({:?})", fault.message),
            Some(Kind::RequestHeaderModifier(_)) => "request_header_modifier".to_owned(),
            None => "(of an unknown kind)".to_owned(),
        }),
        timeouts: is_set(&rule.request_timeout) || rule.timeouts.as_ref().is_some_and(limits_time),
        retries: rule.retry.as_ref().is_some_and(|retry| retry.max_retries > 0),
        overrides: rule.allow_l5d_request_headers,
    };
    asked.refusal(route)
}

fn limits_time(timeouts: &Timeouts) -> bool {
    is_set(&timeouts.request) || is_set(&timeouts.response) || is_set(&timeouts.idle)
}

/// What a rule asks for beyond matches and backends, none of which this version enforces.
struct Asked {
    filter: Option<String>,
    timeouts: bool,
    retries: bool,
    overrides: bool,
}

impl Asked {
    fn refusal(self, route: &ResourceRef) -> Option<Unsupported> {
        let refuse = |field: &str, remedy| Some(not_enforced(route, field, remedy));
        if let Some(filter) = self.filter {
            return refuse(&format!("the filter {filter}"), "remove it from the route");
        }
        if self.timeouts {
            return refuse(
                "timeouts",
                "remove them from the route, or the annotations timeout.linkerd.io/* from it and the Service",
            );
        }
        if self.retries {
            return refuse(
                "retry",
                "remove the annotations retry.linkerd.io/* from the route and the Service",
            );
        }
        if self.overrides {
            return refuse(
                "allow_l5d_request_headers",
                "start the policy controller without --allow-l5d-request-headers",
            );
        }
        None
    }
}

/// What one rule of an opaque or TLS route does; a route without rules leads nowhere.
macro_rules! action {
    ($kind:ident, $meta:expr, $rules:expr) => {
        match $rules {
            [] => Ok(OpaqueAction::NoRoute),
            [rule] => match rule.filters.first().map(|filter| &filter.kind) {
                Some(Some(outbound::$kind::filter::Kind::Forbidden(_))) => Ok(OpaqueAction::Forbid),
                Some(Some(outbound::$kind::filter::Kind::Invalid(invalid))) => {
                    Ok(OpaqueAction::Invalid(misconfigured($meta, &invalid.message)))
                }
                Some(None) => Ok(OpaqueAction::Invalid(not_enforced(
                    $meta,
                    "a filter of an unknown kind",
                    "remove it from the route",
                ))),
                None => backend::$kind($meta, &rule.backends).map(|choice| match choice {
                    Ok(distribution) => OpaqueAction::Forward(distribution),
                    Err(refusal) => OpaqueAction::Invalid(refusal),
                }),
            },
            _ => Ok(OpaqueAction::Invalid(not_enforced(
                $meta,
                "more than one rule",
                "leave one in the route",
            ))),
        }
        .map_err(|e| e.within("rules[0]"))
    };
}

fn misconfigured(route: &ResourceRef, message: &str) -> Unsupported {
    match message {
        "" => Unsupported::new(format!("{route}: the control plane calls the route invalid")),
        message => Unsupported::new(message),
    }
}

fn opaque_route(field: &str, routes: &[outbound::OpaqueRoute]) -> Result<OpaqueRoute, DecodeError> {
    let Some(first) = routes.first() else {
        return Ok(OpaqueRoute {
            meta: Arc::new(ResourceRef::of_default("none")),
            action: OpaqueAction::NoRoute,
        });
    };
    let at = |e: DecodeError| e.within(&format!("{field}[0]"));
    let meta = meta::reference("metadata", &first.metadata).map_err(at)?;
    let action = match routes.len() {
        1 => action!(opaque_route, &meta, first.rules.as_slice()).map_err(at)?,
        _ => OpaqueAction::Invalid(not_enforced(&meta, "one of several opaque routes", "leave one")),
    };
    Ok(OpaqueRoute { meta, action })
}

fn tls_routes(field: &str, routes: &[outbound::TlsRoute]) -> Result<Vec<TlsRoute>, DecodeError> {
    check_size(field, routes.iter().map(|r| r.rules.len()), std::iter::empty())?;
    each(field, routes, |route| {
        let meta = meta::reference("metadata", &route.metadata)?;
        Ok(TlsRoute {
            snis: route::snis(&route.snis)?,
            route: OpaqueRoute {
                action: action!(tls_route, &meta, route.rules.as_slice())?,
                meta,
            },
        })
    })
}

fn first_balanced(protocol: &OutboundProtocol) -> Option<Arc<str>> {
    let of_table = |table: &RouteTable<OutboundRule>| {
        let mut rules = table.routes.iter().flat_map(|route| &route.rules);
        rules.find_map(|rule| balanced(rule.then.backends.as_ref().ok()?))
    };
    let of_opaque = |route: &OpaqueRoute| match &route.action {
        OpaqueAction::Forward(distribution) => balanced(distribution),
        OpaqueAction::Forbid | OpaqueAction::NoRoute | OpaqueAction::Invalid(_) => None,
    };
    match protocol {
        OutboundProtocol::Detect { http1, http2, opaque } => of_table(http1)
            .or_else(|| of_table(http2))
            .or_else(|| of_opaque(opaque)),
        OutboundProtocol::Http1(table) | OutboundProtocol::Http2(table) | OutboundProtocol::Grpc(table) => {
            of_table(table)
        }
        OutboundProtocol::Opaque(route) => of_opaque(route),
        OutboundProtocol::Tls(routes) => routes.iter().find_map(|tls| of_opaque(&tls.route)),
        OutboundProtocol::Invalid(_) => None,
    }
}

fn balanced(distribution: &Distribution) -> Option<Arc<str>> {
    distribution
        .backends()
        .find_map(|backend| match &backend.dispatch {
            Dispatch::Balance { path, .. } => Some(path.clone()),
            Dispatch::Forward(_) | Dispatch::Missing(_) => None,
        })
}
