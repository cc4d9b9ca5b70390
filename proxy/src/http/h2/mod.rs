//! HTTP/2 on the h2 crate itself: what a stream receives, what is sent on one, and what its resets say.

pub mod reason;
pub mod recv;
pub mod send;

#[cfg(test)]
mod tests;
