//! The decisions of the mesh: which route, which endpoint, allowed or not. No I/O, no clock, no randomness of its own.
//!
//! | module | answers |
//! |---|---|
//! | [`name`] | who is this, and which Kubernetes object is meant |
//! | [`endpoint`] | where a request can be sent, and how to speak there |
//! | [`outbound`], [`inbound`] | what the control plane said about a destination, about a port |
//! | [`profile`] | what a service profile adds, lowered to an outbound policy |
//! | [`route`] | which route a request takes, what is done to it, and which of several backends it goes to |
//! | [`authz`], [`rate_limit`] | may this client do this, and so often |
//! | [`timeouts`], [`overrides`] | how long it may take, and what the request says about that itself |
//! | [`balance`] | which of two endpoints is less loaded |
//! | [`breaker`], [`hint`] | may this endpoint be tried, and what it says about that itself |
//! | [`classify`] | was that a success |
//! | [`retry`], [`budget`], [`backoff`] | may it be tried again, is there enough left for that, and when |
//!
//! A policy element that this version does not enforce is decoded to [`Unsupported`] and refused where it stands.

pub mod authz;
pub mod backoff;
pub mod balance;
pub mod breaker;
pub mod budget;
pub mod classify;
pub mod endpoint;
pub mod hint;
pub mod inbound;
pub mod name;
pub mod nearest;
pub mod outbound;
pub mod overrides;
pub mod port;
pub mod profile;
pub mod rate_limit;
pub mod retry;
pub mod route;
pub mod timeouts;
mod unenforced;

use std::sync::Arc;

/// Why an element of a policy is refused: it is invalid, or this version does not enforce it.
///
/// The text names the element and says what to do; it is shown in logs and in `l5d-proxy-error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported(pub Arc<str>);

impl Unsupported {
    /// A refusal with its reason.
    pub fn new(reason: impl Into<Arc<str>>) -> Self {
        Self(reason.into())
    }
}

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
