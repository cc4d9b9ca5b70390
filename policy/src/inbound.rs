//! Inbound policies: what a port accepts, and from whom.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::Unsupported;
use crate::authz::{Authorization, ClientTls, Deny, Permit, authorize};
use crate::name::ResourceRef;
use crate::rate_limit::RateLimitPolicy;
use crate::route::RouteTable;
use crate::route::filter::Filter;

/// What the control plane said about one port (`Server`).
#[derive(Clone, Debug, PartialEq)]
pub struct InboundPolicy {
    /// The Server object or the default (metric labels `srv_*`).
    pub meta: Arc<ResourceRef>,
    /// What the port speaks, with its routes.
    pub protocol: InboundProtocol,
    /// Who may connect: decides for connections that are not HTTP. The last is the localhost authorization.
    pub authorizations: Arc<[Authorization]>,
    /// How many HTTP requests it takes; `None` is no limit.
    pub rate_limit: Option<Arc<RateLimitPolicy>>,
}

impl InboundPolicy {
    /// Decides about a connection that is not HTTP, or not known to be.
    pub fn connection(&self, client: IpAddr, tls: &ClientTls) -> Result<Permit<'_>, Deny> {
        authorize(self.for_bytes(), client, tls)
    }

    /// Who may connect without speaking HTTP.
    pub fn for_bytes(&self) -> &[Authorization] {
        match &self.protocol {
            InboundProtocol::Opaque | InboundProtocol::Tls | InboundProtocol::Detect { .. } => {
                &self.authorizations
            }
            // What is not HTTP has no business on a port that speaks it.
            InboundProtocol::Http1(_)
            | InboundProtocol::Http2(_)
            | InboundProtocol::Grpc(_)
            | InboundProtocol::Invalid(_) => &[],
        }
    }
}

/// What a port speaks.
#[derive(Clone, Debug, PartialEq)]
pub enum InboundProtocol {
    /// Unknown: look at the first bytes.
    Detect {
        /// How long to wait for them.
        timeout: Duration,
        /// Routes for what turns out to be HTTP.
        routes: RouteTable<InboundRule>,
    },
    /// HTTP/1 (from a meshed client it may arrive as HTTP/2 with `l5d-orig-proto`).
    Http1(RouteTable<InboundRule>),
    /// HTTP/2 with prior knowledge.
    Http2(RouteTable<InboundRule>),
    /// gRPC over HTTP/2.
    Grpc(RouteTable<InboundRule>),
    /// Bytes; TLS is not looked for.
    Opaque,
    /// TLS of the application.
    Tls,
    /// The server can't be enforced: every connection and request is refused.
    Invalid(Unsupported),
}

impl InboundProtocol {
    /// Its name, in the words of the `Server` object.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Detect { .. } => "unknown",
            Self::Http1(_) => "HTTP/1",
            Self::Http2(_) => "HTTP/2",
            Self::Grpc(_) => "gRPC",
            Self::Opaque => "opaque",
            Self::Tls => "TLS",
            Self::Invalid(_) => "invalid",
        }
    }

    /// The routes for HTTP, where the port speaks it or may.
    pub fn routes(&self) -> Option<&RouteTable<InboundRule>> {
        match self {
            Self::Detect { routes, .. } | Self::Http1(routes) | Self::Http2(routes) | Self::Grpc(routes) => {
                Some(routes)
            }
            Self::Opaque | Self::Tls | Self::Invalid(_) => None,
        }
    }
}

/// What an inbound rule asks of a request that it matches.
#[derive(Clone, Debug, PartialEq)]
pub struct InboundRule {
    /// Who may send it: the route's own authorizations followed by the server's.
    pub authorizations: Arc<[Authorization]>,
    /// What is done to requests that were let in, in order.
    pub filters: Vec<Filter>,
    /// The rule can't be enforced: requests that match it are refused for this reason.
    pub unsupported: Option<Unsupported>,
}

impl InboundRule {
    /// A rule that lets these in, and does nothing else.
    pub fn new(authorizations: Arc<[Authorization]>) -> Self {
        Self {
            authorizations,
            filters: Vec::new(),
            unsupported: None,
        }
    }
}
