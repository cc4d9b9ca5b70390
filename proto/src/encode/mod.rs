//! Policy to protobuf, for the controller and for tests: the inverse of [`crate::decode`].
//!
//! What this version refuses ([`outrigger_policy::Unsupported`]) is written so that every reader refuses it: as a
//! route that fails each request with its reason, or as an `invalid` filter.

pub mod endpoint;
mod error;
mod filter;
pub mod inbound;
mod meta;
pub mod outbound;
pub mod profile;
mod retry;
mod route;

pub use error::EncodeError;
