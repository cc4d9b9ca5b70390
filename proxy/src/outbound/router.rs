//! An outbound policy made live: the same routes, with balancers and connections attached.

use std::sync::Arc;
use std::time::Duration;

use http::Version;
use outrigger_policy::Unsupported;
use outrigger_policy::budget::RetryBudget;
use outrigger_policy::name::ResourceRef;
use outrigger_policy::outbound::{OutboundPolicy, TlsRoute};
use outrigger_policy::route::index::Indexed;

use crate::error::{Fault, Kind, Side};
use crate::outbound::backends::{Backend, Backends};
use crate::outbound::rule::Rule;

/// An outbound policy made live.
#[derive(Debug)]
pub struct Router {
    /// The object the application connected to.
    pub parent: Arc<ResourceRef>,
    /// The `name:port` under which endpoint metrics report the destination; empty if none.
    pub authority: Arc<str>,
    /// What is spoken, with its routes.
    pub protocol: Protocol,
    /// Whether its routes are gRPC's.
    pub grpc: bool,
    /// What bounds the retries of all its routes together.
    pub budget: Option<Arc<RetryBudget>>,
}

/// What is spoken, with live routes.
#[derive(Debug)]
pub enum Protocol {
    /// Look at the first bytes.
    Detect {
        /// For HTTP/1.
        http1: Indexed<Arc<Rule>>,
        /// For HTTP/2.
        http2: Indexed<Arc<Rule>>,
        /// For anything else.
        opaque: Opaque,
    },
    /// HTTP/1.
    Http1(Indexed<Arc<Rule>>),
    /// HTTP/2 with prior knowledge, gRPC too.
    Http2(Indexed<Arc<Rule>>),
    /// Bytes.
    Opaque(Opaque),
    /// TLS of the application, by SNI.
    Tls(Vec<TlsRoute<Opaque>>),
    /// Nothing can be done for this destination.
    Invalid(Unsupported),
}

/// What an opaque route leads to.
#[derive(Debug)]
pub struct Opaque {
    /// The destination that it is a route of.
    pub(super) parent: Arc<ResourceRef>,
    /// The route.
    pub(super) meta: Arc<ResourceRef>,
    pub(in crate::outbound) backends: Result<Backends, Refusal>,
    /// How long a connection waits for an endpoint.
    pub(super) fail_fast: Duration,
}

/// Why an opaque route takes nothing.
#[derive(Debug)]
pub enum Refusal {
    /// The policy forbids it.
    Forbidden,
    /// There is no route.
    NoRoute,
    /// It can't be enforced.
    Invalid(Unsupported),
}

impl Router {
    /// The routes for requests of this version; `None` when the destination takes none of them.
    pub fn http(&self, version: Version) -> Option<&Indexed<Arc<Rule>>> {
        match &self.protocol {
            Protocol::Detect { http2, .. } if version == Version::HTTP_2 => Some(http2),
            Protocol::Detect { http1, .. } => Some(http1),
            Protocol::Http1(routes) | Protocol::Http2(routes) => Some(routes),
            Protocol::Opaque(_) | Protocol::Tls(_) | Protocol::Invalid(_) => None,
        }
    }
}

impl Router {
    /// Whether rules of this router may be those of a policy's router too: they report under the same names, and share
    /// the budget.
    pub(super) fn takes_rules_of(
        &self,
        policy: &OutboundPolicy,
        budget: Option<&Arc<RetryBudget>>,
        grpc: bool,
    ) -> bool {
        let same_budget = match (&self.budget, budget) {
            (Some(mine), Some(theirs)) => Arc::ptr_eq(mine, theirs),
            (mine, theirs) => mine.is_none() && theirs.is_none(),
        };
        same_budget && self.grpc == grpc && self.parent == policy.parent && self.authority == policy.authority
    }

    /// The route for what is not HTTP.
    pub(super) fn opaque(&self) -> Result<&Opaque, Fault> {
        match &self.protocol {
            Protocol::Detect { opaque, .. } | Protocol::Opaque(opaque) => Ok(opaque),
            _ => Err(Fault::because(
                Kind::Policy,
                Side::Control,
                "the destination takes nothing but HTTP or TLS",
            )),
        }
    }
}

impl Protocol {
    /// The `protocol` label of `outbound_tcp_protocol_connections_total`.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Detect { .. } | Self::Invalid(_) => "detect",
            Self::Http1(_) => "http/1",
            Self::Http2(_) => "http/2",
            Self::Opaque(_) => "opaq",
            Self::Tls(_) => "tls",
        }
    }
}

impl Opaque {
    /// The backend that a connection takes.
    pub(super) fn backend(&self) -> Result<&Backend, Fault> {
        match &self.backends {
            Ok(backends) => backends.choose(),
            Err(Refusal::Forbidden) => Err(Fault::because(
                Kind::Unauthorized,
                Side::Control,
                "forbidden TCP route",
            )),
            Err(Refusal::NoRoute) => Err(Fault::because(Kind::NoRoute, Side::Control, "no route")),
            Err(Refusal::Invalid(why)) => Err(Fault::because(
                Kind::Policy,
                Side::Control,
                format!("invalid TCP backend: {why}"),
            )),
        }
    }
}
