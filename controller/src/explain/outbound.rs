//! What the proxy of a pod would do to reach a destination.

use std::net::{Ipv4Addr, SocketAddr};

use outrigger_policy::outbound::{
    Dispatch, Distribution, OpaqueRoute, OutboundPolicy, OutboundProtocol, OutboundRule, find_tls,
};
use outrigger_policy::profile::{Lookup, Profile, effective};
use outrigger_policy::route::RouteTable;

use crate::compile::client::Client;
use crate::compile::refusal::Refusal;
use crate::compile::service_name::ServiceName;
use crate::compile::settings::Settings;
use crate::compile::{endpoints, outbound, profile};
use crate::explain::request::Request;
use crate::explain::words;
use crate::index::cluster::Cluster;

/// Who asks, and for what.
#[derive(Clone, Debug)]
pub struct Question {
    /// The client.
    pub client: Client,
    /// `host:port` or `ip:port`. Short names are those of the client's namespace, as its resolver has them.
    pub to: String,
    /// The request.
    pub request: Request,
}

/// A destination, as the client's application dials it.
enum Dialled {
    Address(SocketAddr),
    /// A Service without an address.
    Name(ServiceName),
}

/// Answers in words, a line each.
pub fn explain(cluster: &Cluster, settings: &Settings, question: &Question) -> Result<Vec<String>, Refusal> {
    let client = placed(cluster, &question.client);
    let dialled = dial(cluster, settings, &question.to, &client)?;
    let looked_up = match &dialled {
        Dialled::Address(addr) => outbound::to_address(cluster, settings, *addr, &client),
        Dialled::Name(name) => Ok(outbound::to_name(cluster, settings, name, &client)),
    };
    let lookup = match looked_up {
        Ok(policy) => Lookup::Found(policy),
        Err(Refusal::NotFound(_)) => Lookup::NotFound,
        Err(other) => return Err(other),
    };
    let (addr, path) = match &dialled {
        Dialled::Address(addr) => (*addr, addr.to_string()),
        Dialled::Name(name) => (
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, name.port)),
            name_of(name, settings),
        ),
    };
    let profile = match profile::at(cluster, settings, &path, &client) {
        Ok(profile::Destination::Service(profile, _) | profile::Destination::Endpoint(profile)) => {
            Some(profile)
        }
        Ok(profile::Destination::NoSuchPort) | Err(Refusal::NotFound(_)) => None,
        Err(other) => return Err(other),
    };
    let policy = effective(addr, profile.as_ref(), &lookup);
    let mut lines = vec![format!("{path} is {}", words::object(&policy.parent))];
    lines.extend(profile.as_ref().and_then(by_profile));
    lines.extend(told(&policy));
    lines.push(String::new());
    let host = question.to.as_str();
    let (decided, distribution) = decide(&policy, &question.request, host);
    lines.extend(decided);
    for path in distribution.into_iter().flat_map(balanced) {
        lines.extend(reached(cluster, settings, &path, &client));
    }
    Ok(lines)
}

/// The client with its node, where the pod is defined.
fn placed(cluster: &Cluster, client: &Client) -> Client {
    let names = client.namespace.as_deref().zip(client.pod.as_deref());
    let pod = names.and_then(|(namespace, name)| cluster.pod(namespace, name));
    Client {
        node: pod.and_then(|pod| pod.node.clone()),
        ..client.clone()
    }
}

/// What the application dials: the Service's address, where it has one.
fn dial(cluster: &Cluster, settings: &Settings, to: &str, client: &Client) -> Result<Dialled, Refusal> {
    if let Ok(addr) = to.parse() {
        return Ok(Dialled::Address(addr));
    }
    let (host, port) = to.rsplit_once(':').unwrap_or((to, "80"));
    let own = client.namespace.as_deref().unwrap_or("default");
    let full = match host.split('.').count() {
        1 => format!("{host}.{own}.svc:{port}"),
        2 => format!("{host}.svc:{port}"),
        _ => to.to_owned(),
    };
    let name = ServiceName::parse(&full, settings).map_err(|_| {
        Refusal::Invalid(format!(
            "{to:?} is no Service's name: give the address that it resolves to, as 192.0.2.1:443"
        ))
    })?;
    let service = cluster.service(&name.namespace, &name.name);
    let service = service.ok_or_else(|| {
        Refusal::NotFound(format!("Service {}/{} is not defined", name.namespace, name.name))
    })?;
    Ok(
        match service.cluster_ips.first().filter(|_| name.instance.is_none()) {
            Some(ip) => Dialled::Address(SocketAddr::new(*ip, name.port)),
            None => Dialled::Name(name),
        },
    )
}

fn name_of(name: &ServiceName, settings: &Settings) -> String {
    let service = ServiceName::full(&name.namespace, &name.name, settings);
    match &name.instance {
        Some(instance) => format!("{instance}.{service}:{}", name.port),
        None => format!("{service}:{}", name.port),
    }
}

fn by_profile(profile: &Profile) -> Option<String> {
    let replaces = !profile.routes.is_empty() || !profile.overrides.is_empty();
    replaces.then(|| "A ServiceProfile or TrafficSplit replaces its HTTP routes".to_owned())
}

/// What the proxy is told.
fn told(policy: &OutboundPolicy) -> Vec<String> {
    match &policy.protocol {
        OutboundProtocol::Detect { http1, opaque, .. } => {
            let mut lines = vec!["What is spoken is found out from the first bytes".to_owned()];
            lines.extend(routes(http1));
            lines.push(format!("  what is not HTTP {}", words::opaque(&opaque.action)));
            lines
        }
        OutboundProtocol::Http1(table) => headed("HTTP/1 is spoken", routes(table)),
        OutboundProtocol::Http2(table) => headed("HTTP/2 is spoken", routes(table)),
        OutboundProtocol::Grpc(table) => headed("gRPC is spoken", routes(table)),
        OutboundProtocol::Opaque(route) => headed("Bytes are passed on as they are", vec![stream(route, "")]),
        OutboundProtocol::Tls(all) => {
            let lines = all.iter().map(|tls| stream(&tls.route, &words::hosts(&tls.snis)));
            headed(
                "TLS of the application is passed on, by its server name",
                lines.collect(),
            )
        }
        OutboundProtocol::Invalid(reason) => vec![format!("Everything is refused: {reason}")],
    }
}

fn headed(head: &str, lines: Vec<String>) -> Vec<String> {
    std::iter::once(head.to_owned()).chain(lines).collect()
}

fn stream(route: &OpaqueRoute, snis: &str) -> String {
    format!(
        "  {}{snis} {}",
        words::object(&route.meta),
        words::opaque(&route.action)
    )
}

fn routes(table: &RouteTable<OutboundRule>) -> Vec<String> {
    let mut lines = Vec::new();
    for route in &table.routes {
        lines.push(format!(
            "  {}{}",
            words::object(&route.meta),
            words::hosts(&route.hosts)
        ));
        for (number, rule) in (1..).zip(&route.rules) {
            lines.push(format!(
                "    rule {number}, for {}",
                words::matches(&rule.matches)
            ));
            lines.extend(
                words::outbound_rule(&rule.then)
                    .into_iter()
                    .map(|line| format!("      {line}")),
            );
        }
    }
    lines
}

/// What becomes of the request, and where it may go.
fn decide<'a>(
    policy: &'a OutboundPolicy,
    request: &Request,
    to: &str,
) -> (Vec<String>, Option<&'a Distribution>) {
    let table = match &policy.protocol {
        OutboundProtocol::Detect { http1: table, .. }
        | OutboundProtocol::Http1(table)
        | OutboundProtocol::Http2(table)
        | OutboundProtocol::Grpc(table) => table,
        OutboundProtocol::Tls(all) => {
            let sni = to.rsplit_once(':').map_or(to, |(host, _)| host);
            let line = match find_tls(all, sni) {
                Some(found) => format!("TLS for {sni} takes{}", stream(&found.route, "")),
                None => format!("TLS for {sni} takes no route, and is closed"),
            };
            return (vec![line], None);
        }
        OutboundProtocol::Opaque(_) => return (vec!["Requests are not looked at".to_owned()], None),
        OutboundProtocol::Invalid(_) => return (vec!["The request is answered with 500".to_owned()], None),
    };
    let head = request.head(to);
    let asked = format!("{} {} for {}", request.method, request.path, head.host);
    let Some(found) = table.find(&head) else {
        return (
            vec![format!("{asked} matches no rule, and is answered with 404")],
            None,
        );
    };
    let route = table.routes.iter().find(|route| {
        route
            .rules
            .iter()
            .any(|rule| std::ptr::eq(&rule.then, found.then))
    });
    let number = route.and_then(|route| {
        route
            .rules
            .iter()
            .position(|rule| std::ptr::eq(&rule.then, found.then))
    });
    let number = number.map_or(String::new(), |number| format!(", rule {}", number + 1));
    let because = match found.matched {
        Some(matched) => format!(
            "it is the most specific that matches ({})",
            words::one_match(matched)
        ),
        None => "it takes every request, and nothing more specific matches".to_owned(),
    };
    let mut lines = vec![format!(
        "{asked} takes {}{number}: {because}",
        words::object(found.meta)
    )];
    lines.extend(
        words::outbound_rule(found.then)
            .into_iter()
            .map(|line| format!("  {line}")),
    );
    (lines, found.then.backends.as_ref().ok())
}

/// The destinations whose endpoints are balanced, each once.
fn balanced(distribution: &Distribution) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    for backend in distribution.backends() {
        if let Dispatch::Balance { path, .. } = &backend.dispatch
            && !paths.iter().any(|known| **known == **path)
        {
            paths.push(path.to_string());
        }
    }
    paths
}

/// Most endpoints of a destination that are listed.
const MOST: usize = 20;

fn reached(cluster: &Cluster, settings: &Settings, path: &str, client: &Client) -> Vec<String> {
    let name = ServiceName::parse(path, settings);
    let found = name.and_then(|name| endpoints::of_service(cluster, settings, &name, client));
    match found {
        Err(refusal) => vec![format!("{path}: {refusal}")],
        Ok(found) if found.by_address.is_empty() => vec![format!("{path} has no ready endpoints")],
        Ok(found) => {
            let mut lines = vec![format!("{path} is ready at")];
            lines.extend(
                found
                    .by_address
                    .values()
                    .take(MOST)
                    .map(|one| format!("  {}", words::endpoint(one))),
            );
            let more = found.by_address.len().saturating_sub(MOST);
            lines.extend((more > 0).then(|| format!("  and {more} more")));
            lines
        }
    }
}
