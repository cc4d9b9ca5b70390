//! What a port of a pod would accept.

use std::net::IpAddr;

use outrigger_policy::authz::{Authorization, ClientTls, authorize};
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol, InboundRule};
use outrigger_policy::rate_limit::RateLimitPolicy;
use outrigger_policy::route::RouteTable;

use crate::compile::client::Client;
use crate::compile::inbound;
use crate::compile::refusal::Refusal;
use crate::compile::settings::Settings;
use crate::explain::request::Request;
use crate::explain::words;
use crate::index::cluster::Cluster;

/// Which port, and who wants to use it.
#[derive(Clone, Debug)]
pub struct Question {
    /// The pod.
    pub workload: Client,
    /// The port.
    pub port: u16,
    /// Where the client is.
    pub from: IpAddr,
    /// How it comes.
    pub tls: ClientTls,
    /// The request.
    pub request: Request,
}

/// Answers in words, a line each.
pub fn explain(cluster: &Cluster, settings: &Settings, question: &Question) -> Result<Vec<String>, Refusal> {
    let policy = inbound::of_port(cluster, settings, &question.workload, question.port)?;
    let mut lines = vec![format!(
        "Port {} is under {}",
        question.port,
        words::object(&policy.meta)
    )];
    lines.extend(told(&policy));
    lines.push(String::new());
    lines.extend(decide(&policy, question));
    Ok(lines)
}

/// What the proxy is told.
fn told(policy: &InboundPolicy) -> Vec<String> {
    let (spoken, table) = match &policy.protocol {
        InboundProtocol::Detect { routes, .. } => {
            ("What is spoken is found out from the first bytes", Some(routes))
        }
        InboundProtocol::Http1(routes) => ("HTTP/1 is spoken", Some(routes)),
        InboundProtocol::Http2(routes) => ("HTTP/2 is spoken", Some(routes)),
        InboundProtocol::Grpc(routes) => ("gRPC is spoken", Some(routes)),
        InboundProtocol::Opaque => ("Bytes are passed on as they are", None),
        InboundProtocol::Tls => ("TLS of the application is passed on", None),
        InboundProtocol::Invalid(reason) => return vec![format!("Everything is refused: {reason}")],
    };
    let mut lines = vec![spoken.to_owned(), "Who may connect".to_owned()];
    lines.extend(listed(&policy.authorizations));
    for route in table.into_iter().flat_map(|table| &table.routes) {
        lines.push(format!(
            "{}{}",
            words::object(&route.meta),
            words::hosts(&route.hosts)
        ));
        for rule in &route.rules {
            lines.push(format!("  for {}", words::matches(&rule.matches)));
            lines.extend(
                rule.then
                    .unsupported
                    .iter()
                    .map(|reason| format!("    is refused: {reason}")),
            );
            lines.extend(
                rule.then
                    .filters
                    .iter()
                    .map(|filter| format!("    {}", words::filter(filter))),
            );
            if rule.then.authorizations != policy.authorizations {
                lines.extend(
                    listed(&rule.then.authorizations)
                        .into_iter()
                        .map(|line| format!("  {line}")),
                );
            }
        }
    }
    lines.extend(policy.rate_limit.as_deref().map(limit));
    lines
}

fn listed(authorizations: &[Authorization]) -> Vec<String> {
    let line = |authorization| format!("  {}", words::authorization(authorization));
    authorizations.iter().map(line).collect()
}

fn limit(limit: &RateLimitPolicy) -> String {
    let rates = [("in total", limit.total), ("from each identity", limit.identity)];
    let rates = rates
        .iter()
        .filter_map(|(of, rate)| Some(format!("{} {of}", (*rate)?)));
    let overrides = limit.overrides.iter().filter_map(|o| {
        let clients: Vec<_> = o.clients.iter().map(ToString::to_string).collect();
        Some(format!("{} from each of {}", o.limit?, clients.join(", ")))
    });
    let all: Vec<_> = rates.chain(overrides).collect();
    format!(
        "{}: requests each second: {}",
        words::object(&limit.meta),
        all.join("; ")
    )
}

fn decide(policy: &InboundPolicy, question: &Question) -> Vec<String> {
    let who = match &question.tls {
        ClientTls::None => "Without mesh TLS".to_owned(),
        ClientTls::Terminated(None) => "Over mesh TLS without an identity".to_owned(),
        ClientTls::Terminated(Some(identity)) => format!("As {identity}"),
    };
    let who = format!("{who}, from {}", question.from);
    let table = match &policy.protocol {
        InboundProtocol::Detect { routes, .. }
        | InboundProtocol::Http1(routes)
        | InboundProtocol::Http2(routes)
        | InboundProtocol::Grpc(routes) => routes,
        InboundProtocol::Opaque | InboundProtocol::Tls => {
            return verdict(&format!("{who}: a connection"), &policy.authorizations, question);
        }
        InboundProtocol::Invalid(_) => return vec![format!("{who}: refused")],
    };
    let mut lines = request(&who, table, question);
    if matches!(policy.protocol, InboundProtocol::Detect { .. }) {
        let connection = format!("{who}: a connection that is not HTTP");
        lines.extend(verdict(&connection, &policy.authorizations, question));
    }
    lines
}

fn request(who: &str, table: &RouteTable<InboundRule>, question: &Question) -> Vec<String> {
    let asked = format!("{who}: {} {}", question.request.method, question.request.path);
    let Some(found) = table.find(&question.request.head("")) else {
        return vec![format!("{asked} matches no route, and is answered with 404")];
    };
    let asked = format!("{asked} takes {}, and", words::object(found.meta));
    match &found.then.unsupported {
        Some(reason) => vec![format!("{asked} is refused: {reason}")],
        None => verdict(&asked, &found.then.authorizations, question),
    }
}

/// Who lets the client in, or why nobody does.
fn verdict(asked: &str, authorizations: &[Authorization], question: &Question) -> Vec<String> {
    if let Ok(permit) = authorize(authorizations, question.from, &question.tls) {
        return vec![format!("{asked} is allowed by {}", words::object(permit.by))];
    }
    let mut lines = vec![format!("{asked} is denied: nothing lets the client in")];
    lines.extend(authorizations.iter().filter_map(|authorization| {
        let why = words::denies(authorization, question.from, &question.tls)?;
        Some(format!("  {}: {why}", words::object(&authorization.meta)))
    }));
    lines
}
