//! Protobuf to policy: what the control plane sends is checked here once, and nowhere behind.
//!
//! A message that breaks the contract is a [`DecodeError`]. One that keeps it, and asks for what this version does
//! not enforce, gives a policy that carries [`outrigger_policy::Unsupported`] where it would have been enforced.
//!
//! What a message can make this process hold is bounded: see [`MAX_ROUTES`], [`MAX_RULES`], [`MAX_PATTERNS`],
//! [`MAX_ENDPOINTS`], [`MAX_AUTHORIZATIONS`] and [`MAX_LABELS`].

mod authz;
mod backend;
pub mod endpoint;
mod error;
mod filter;
pub mod inbound;
mod meta;
pub mod outbound;
pub mod profile;
mod rate_limit;
mod retry;
mod route;

pub use authz::{MAX_AUTHORIZATIONS, localhost};
pub use endpoint::{MAX_ENDPOINTS, MAX_LABELS};
pub use error::DecodeError;
pub use route::{MAX_PATTERNS, MAX_ROUTES, MAX_RULES};
