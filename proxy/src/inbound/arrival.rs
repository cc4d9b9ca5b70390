//! A connection from the mesh, once its TLS has been dealt with.

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_policy::authz::{Authorization, ClientTls};
use outrigger_policy::inbound::InboundPolicy;
use outrigger_policy::name::{Identity, NameAddr};
use outrigger_policy::nearest::Nearest;

use crate::exchange::Limit;
use crate::inbound::port::Port;
use crate::net::header::Session;
use crate::net::io::Io;
use crate::telemetry::labels::TlsAccept;

/// A connection whose TLS has been dealt with.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Who connected.
    pub(super) client: SocketAddr,
    /// Where they meant to connect, and where their bytes go.
    pub(super) dst: SocketAddr,
    /// What they proved.
    pub(super) tls: ClientTls,
    /// The same, for metric labels.
    pub(super) labels: TlsAccept,
    /// The port that it is for.
    pub(super) port: Arc<Port>,
    /// What counts its requests in flight.
    pub(super) limit: Limit,
}

/// A connection of a peer proxy that is for somebody else, and is handed back to whoever can carry it on.
#[derive(Debug)]
pub(crate) struct Passage {
    /// It is under the policy of our own port.
    pub(crate) arrival: Arrival,
    pub(crate) io: Io,
    /// Whom it is for.
    pub(crate) to: NameAddr,
    /// What is spoken; `None` for bytes.
    pub(crate) session: Option<Session>,
}

impl Arrival {
    /// Who the client proved to be.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        match &self.tls {
            ClientTls::Terminated(id) => id.as_ref(),
            ClientTls::None => None,
        }
    }

    /// What would have to change for the client to be let in by one of these.
    pub(super) fn remedy(&self, list: &[Authorization], policy: &InboundPolicy) -> String {
        match Nearest::of(list, self.client.ip(), &self.tls) {
            Some(near) => near.to_string(),
            None => format!(
                "nothing admits anybody: write an AuthorizationPolicy for {}",
                policy.meta
            ),
        }
    }
}
