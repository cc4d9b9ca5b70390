//! Extensions: what only our own proxy is told.
//!
//! Linkerd's proxies pass over fields that they do not know. A rule that rewrites, delays or mirrors would be followed
//! in part, so they are told that it is refused.

use outrigger_policy::Unsupported;
use outrigger_policy::name::ResourceRef;
use outrigger_policy::outbound::{OutboundPolicy, OutboundProtocol, OutboundRule};
use outrigger_policy::route::RouteTable;
use outrigger_policy::route::filter::Filter;

/// The policy for proxies that do not read our own fields.
pub fn without(policy: OutboundPolicy) -> OutboundPolicy {
    let protocol = match policy.protocol {
        OutboundProtocol::Detect { http1, http2, opaque } => OutboundProtocol::Detect {
            http1: plain(&http1),
            http2: plain(&http2),
            opaque,
        },
        OutboundProtocol::Http1(table) => OutboundProtocol::Http1(plain(&table)),
        OutboundProtocol::Http2(table) => OutboundProtocol::Http2(plain(&table)),
        OutboundProtocol::Grpc(table) => OutboundProtocol::Grpc(plain(&table)),
        other @ (OutboundProtocol::Opaque(_) | OutboundProtocol::Tls(_) | OutboundProtocol::Invalid(_)) => {
            other
        }
    };
    OutboundPolicy { protocol, ..policy }
}

fn plain(table: &RouteTable<OutboundRule>) -> RouteTable<OutboundRule> {
    table.map(|route, rule| match extended(rule) {
        Some(what) => refused(route, what),
        None => rule.clone(),
    })
}

/// What of a rule has a field of our own only.
fn extended(rule: &OutboundRule) -> Option<&'static str> {
    let filter = rule.filters.iter().find_map(|filter| match filter {
        Filter::Rewrite(_) => Some("rewrites"),
        Filter::Delay(_) => Some("delays"),
        _ => None,
    });
    filter.or_else(|| (!rule.mirrors.is_empty()).then_some("mirrors"))
}

fn refused(route: &ResourceRef, what: &str) -> OutboundRule {
    let reason = format!("{route}: a rule that {what} needs Outrigger's proxy beside the client");
    OutboundRule::new(Err(Unsupported::new(reason)))
}
