//! Policies in words.

use std::net::IpAddr;

use outrigger_policy::authz::{Authentication, Authorization, ClientTls, Network};
use outrigger_policy::endpoint::{Endpoint, ProtocolHint};
use outrigger_policy::name::ResourceRef;
use outrigger_policy::outbound::{Backend, Dispatch, Distribution, OpaqueAction, OutboundRule};
use outrigger_policy::retry::RetryOn;
use outrigger_policy::route::condition::Condition;
use outrigger_policy::route::filter::{Filter, InjectedStatus, PathRewrite, Ratio};
use outrigger_policy::route::header::ValueMatch;
use outrigger_policy::route::host::HostMatch;
use outrigger_policy::route::path::PathMatch;
use outrigger_policy::route::request::RequestMatch;

/// `HTTPRoute demo/web`, `Service demo/web:80`, `default http`.
pub fn object(object: &ResourceRef) -> String {
    let mut text = format!("{} ", object.kind);
    if !object.namespace.is_empty() {
        text.push_str(&format!("{}/", object.namespace));
    }
    text.push_str(&object.name);
    if let Some(port) = object.port {
        text.push_str(&format!(":{port}"));
    }
    text
}

/// What a rule asks of requests: one of its matches.
pub fn matches(matches: &[RequestMatch]) -> String {
    match matches {
        [] => "every request".to_owned(),
        matches => joined(matches.iter().map(one_match), " or "),
    }
}

/// What a match asks of a request.
pub fn one_match(m: &RequestMatch) -> String {
    let mut parts = Vec::new();
    if let Some(method) = &m.method {
        parts.push(format!("method {method}"));
    }
    parts.extend(m.path.as_ref().map(|path| match path {
        PathMatch::Exact(path) => format!("path {path}"),
        PathMatch::Prefix(prefix) => format!("path prefix {prefix}"),
        PathMatch::Regex(pattern) => format!("path like {}", pattern.as_str()),
    }));
    if let Some(rpc) = &m.rpc {
        let any = |part: &Option<_>| {
            part.as_deref()
                .filter(|p: &&str| !p.is_empty())
                .unwrap_or("*")
                .to_owned()
        };
        parts.push(format!("gRPC method /{}/{}", any(&rpc.service), any(&rpc.method)));
    }
    parts.extend(
        m.headers
            .iter()
            .map(|header| format!("header {} {}", header.name, value(&header.value))),
    );
    parts.extend(
        m.query
            .iter()
            .map(|query| format!("query {} {}", query.name, value(&query.value))),
    );
    parts.extend(m.condition.as_ref().map(condition));
    match parts.is_empty() {
        true => "every request".to_owned(),
        false => parts.join(", "),
    }
}

/// The hosts of a route.
pub fn hosts(hosts: &[HostMatch]) -> String {
    let host = |host: &HostMatch| match host {
        HostMatch::Exact(name) => name.to_string(),
        HostMatch::Suffix(suffix) => format!("*{suffix}"),
    };
    match hosts {
        [] => String::new(),
        hosts => format!(", hosts {}", joined(hosts.iter().map(host), ", ")),
    }
}

/// What a rule does with a request, a line for each thing.
pub fn outbound_rule(rule: &OutboundRule) -> Vec<String> {
    let distribution = match &rule.backends {
        Ok(distribution) => distribution,
        Err(reason) => return vec![format!("is refused: {reason}")],
    };
    let mut lines: Vec<String> = rule.filters.iter().map(filter).collect();
    lines.extend(rule.mirrors.iter().map(|mirror| {
        format!(
            "copies {} to {}",
            share(mirror.ratio),
            object(&mirror.backend.meta)
        )
    }));
    let timeouts = [
        ("request", rule.timeouts.request),
        ("response", rule.timeouts.response),
        ("idle", rule.timeouts.idle),
        ("until the response's headers", rule.timeouts.headers),
    ];
    lines.extend(
        timeouts
            .iter()
            .filter_map(|(name, limit)| Some(format!("timeout {name}: {:?}", (*limit)?))),
    );
    if let Some(retry) = &rule.retry {
        let on = match &retry.on {
            RetryOn::Failures => "what its response classes call a failure".to_owned(),
            RetryOn::Statuses { http, grpc } if grpc.is_empty() => {
                let range = |range: &std::ops::RangeInclusive<u16>| match range.start() == range.end() {
                    true => range.start().to_string(),
                    false => format!("{}-{}", range.start(), range.end()),
                };
                format!("status {}", joined(http.iter().map(range), ", "))
            }
            RetryOn::Statuses { .. } => "gRPC codes of the annotation".to_owned(),
        };
        let each = retry
            .per_try
            .map_or(String::new(), |limit| format!(", {limit:?} for each"));
        lines.push(format!("retries: at most {} on {on}{each}", retry.max_retries));
    }
    lines.push(format!("leads to {}", backends(distribution)));
    lines
}

/// What happens to connections that are not HTTP.
pub fn opaque(action: &OpaqueAction) -> String {
    match action {
        OpaqueAction::Forward(distribution) => format!("leads to {}", backends(distribution)),
        OpaqueAction::Forbid => "is forbidden".to_owned(),
        OpaqueAction::NoRoute => "has no route, and is closed".to_owned(),
        OpaqueAction::Invalid(reason) => format!("is refused: {reason}"),
    }
}

/// Where a distribution leads.
pub fn backends(distribution: &Distribution) -> String {
    let weighted =
        |(one, weight): &(std::sync::Arc<Backend>, u32)| format!("{weight} parts {}", backend(one));
    match distribution {
        Distribution::Empty => "nothing (503)".to_owned(),
        Distribution::FirstAvailable(list) => joined(list.iter().map(|one| backend(one)), ", else "),
        Distribution::RandomAvailable(list) => joined(list.iter().map(weighted), ", "),
    }
}

/// An endpoint, and how it is spoken to.
pub fn endpoint(endpoint: &Endpoint) -> String {
    let mut text = endpoint.addr.to_string();
    if let Some(pod) = endpoint.labels.get("pod") {
        text.push_str(&format!(" (pod {pod})"));
    }
    match &endpoint.tls {
        Some(tls) => text.push_str(&format!(", mutual TLS with {}", tls.identity)),
        None => text.push_str(", without TLS"),
    }
    if endpoint.hint == ProtocolHint::Opaque {
        text.push_str(", opaque");
    }
    text
}

/// Whom an authorization lets in.
pub fn authorization(authorization: &Authorization) -> String {
    let who = match &authorization.authentication {
        Authentication::Unauthenticated => "anybody".to_owned(),
        Authentication::TlsUnauthenticated => "anybody over mesh TLS".to_owned(),
        Authentication::TlsAuthenticated { identities, suffixes } => {
            let exact = identities.iter().map(ToString::to_string);
            let suffix = |s: &str| {
                if s.is_empty() {
                    "any identity".to_owned()
                } else {
                    format!("*{s}")
                }
            };
            joined(exact.chain(suffixes.iter().map(|s| suffix(&s.0))), " or ")
        }
    };
    let networks = joined(authorization.networks.iter().map(network), ", ");
    format!("{}: {who}, from {networks}", object(&authorization.meta))
}

/// Why an authorization does not let a client in; `None` where it does.
pub fn denies(authorization: &Authorization, client: IpAddr, tls: &ClientTls) -> Option<String> {
    let near = authorization
        .networks
        .iter()
        .any(|network| network.contains(client));
    let known = authorization.authentication.admits(tls);
    let who = match tls {
        ClientTls::None => "the client does not come over mesh TLS".to_owned(),
        ClientTls::Terminated(None) => "the client proves no identity".to_owned(),
        ClientTls::Terminated(Some(identity)) => format!("{identity} is not among them"),
    };
    let reasons: Vec<_> = [
        (!near).then(|| format!("{client} is in none of its networks")),
        (!known).then_some(who),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!reasons.is_empty()).then(|| reasons.join(", and "))
}

/// What a filter does.
pub fn filter(filter: &Filter) -> String {
    match filter {
        Filter::Fail(failure) => {
            let status = match failure.status {
                InjectedStatus::Http(status) => format!("status {}", status.as_u16()),
                InjectedStatus::Grpc(code) => format!("gRPC code {}", code.0),
            };
            format!(
                "answers {} with {status}: {}",
                share(failure.ratio),
                failure.message
            )
        }
        Filter::RequestHeaders(_) => "edits request headers".to_owned(),
        Filter::ResponseHeaders(_) => "edits response headers".to_owned(),
        Filter::Redirect(to) => format!("redirects with {}", to.status.as_u16()),
        Filter::Rewrite(to) => {
            let host = to.host.as_ref().map(|host| format!("host to {host}"));
            let path = to.path.as_ref().map(|path| match path {
                PathRewrite::Full(path) => format!("path to {path}"),
                PathRewrite::Prefix(prefix) => format!("path prefix to {prefix}"),
            });
            format!("rewrites {}", joined(host.into_iter().chain(path), ", "))
        }
        Filter::Delay(delay) => format!("lets {} wait {:?}", share(delay.ratio), delay.duration),
    }
}

fn backend(backend: &Backend) -> String {
    let mut text = object(&backend.meta);
    match &backend.dispatch {
        Dispatch::Forward(to) => text.push_str(&format!(" (as dialled, {})", to.addr)),
        Dispatch::Missing(reason) => text.push_str(&format!(" (can't be used: {reason})")),
        Dispatch::Balance { breaker, load, .. } => {
            if breaker.is_some() {
                text.push_str(" (endpoints that fail are shut for a while)");
            }
            if load.penalty.is_some() {
                text.push_str(" (failures count as load)");
            }
        }
    }
    text
}

fn network(network: &Network) -> String {
    match network.except.as_slice() {
        [] => network.net.to_string(),
        except => format!(
            "{} except {}",
            network.net,
            joined(except.iter().map(ToString::to_string), ", ")
        ),
    }
}

fn value(value: &ValueMatch) -> String {
    match value {
        ValueMatch::Exact(exact) => format!("= {:?}", String::from_utf8_lossy(exact)),
        ValueMatch::Regex(pattern) => format!("like {}", pattern.as_str()),
    }
}

fn condition(of: &Condition) -> String {
    let all = |list: &[Condition], word: &str| format!("({})", joined(list.iter().map(condition), word));
    match of {
        Condition::All(list) => all(list, " and "),
        Condition::Any(list) => all(list, " or "),
        Condition::Not(not) => format!("not {}", condition(not)),
        Condition::Path(pattern) => format!("path like {}", pattern.as_str()),
        Condition::Method(method) => format!("method {method}"),
    }
}

fn share(ratio: Ratio) -> String {
    match ratio.parts() {
        (numerator, denominator) if numerator == denominator => "each request".to_owned(),
        (numerator, denominator) => format!("{numerator} of {denominator} requests"),
    }
}

fn joined(parts: impl Iterator<Item = String>, between: &str) -> String {
    parts.collect::<Vec<_>>().join(between)
}
