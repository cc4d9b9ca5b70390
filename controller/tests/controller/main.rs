//! The controller as its clients meet it.

#![allow(
    clippy::unwrap_used,
    reason = "these are tests, and clippy sees only `#[test]` functions as such"
)]

mod identity;
mod streams;
mod support;
