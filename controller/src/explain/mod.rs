//! What proxies would be told and would decide, in words: `outrigger explain`.
//!
//! The decisions are those of the proxy itself: the matchers and authorizations of `outrigger_policy`.

pub mod inbound;
pub mod outbound;
pub mod request;
pub mod words;
