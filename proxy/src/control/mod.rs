//! How knowledge arrives: policies, endpoints and certificates, over Linkerd's gRPC APIs.
//!
//! | file | does |
//! |---|---|
//! | `dns` | where a service of the control plane is, asked again when the answer expires |
//! | [`channel`] | HTTP/2 to it, for gRPC |
//! | `keeper` | dials its addresses, and dials again when a connection fails |
//! | `lines` | the connections, and the streams that still fit on them |
//! | [`stream`] | one watch over it, re-opened when it ends |
//! | [`discovery`] | what is known of destinations and ports, as `Live` values |
//! | [`identity`] | the proxy's certificate, renewed in time |
//!
//! Losing the control plane stops nothing that runs: every `Live` keeps its last good value.

pub mod channel;
pub mod discovery;
mod dns;
pub mod identity;
mod keeper;
mod lines;
pub mod metrics;
mod requests;
pub mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod waits;

pub use self::channel::Channel;
pub use self::discovery::{Discovery, DiscoveryError, Endpoints, Join};
pub use self::metrics::Metrics;
pub(crate) use self::waits::backoff;
