//! Both sides of a connection, against h2, each other, and peers that write frames by hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are tests too"
)]

mod client;
mod drops;
mod endings;
mod flow;
mod hostile_client;
mod hostile_server;
mod memory;
mod messages;
mod server;
mod support;
