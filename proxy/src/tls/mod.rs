//! Mutual TLS between proxies, and from a proxy to its control plane: TLS 1.3 only, identities in SANs.
//!
//! [`Credentials`] are built once per rotation and published as a `Live<Credentials>`; each handshake reads the
//! current ones. Nothing on the path of a request knows that rotation exists.

mod anchors;
pub mod client;
mod credentials;
pub mod dial;
mod error;
pub mod info;
pub mod server;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod turns;
mod verify;

pub use self::anchors::TrustAnchors;
pub use self::credentials::{Credentials, TRANSPORT_HEADER_ALPN};
pub use self::error::{Error, Refusal};
