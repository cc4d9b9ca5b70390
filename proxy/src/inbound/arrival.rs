//! A connection from the mesh, once its TLS has been dealt with.

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_policy::authz::ClientTls;

use crate::inbound::port::Port;
use crate::telemetry::labels::TlsAccept;

/// A connection whose TLS has been dealt with.
#[derive(Debug)]
pub(super) struct Arrival {
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
}
