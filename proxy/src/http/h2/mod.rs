//! HTTP/2 on the h2 crate itself: what a stream receives, what is sent on one, what its resets say, and what a peer may
//! cost us.

pub mod flood;
pub mod frames;
pub mod guard;
pub mod reason;
pub mod recv;
pub mod send;

#[cfg(test)]
mod tests;
