//! HTTP/1 with clients and with servers: what is taken as a message and what is not.
//!
//! What two readers could take in two ways is refused, not repaired. The names of header fields are written in small
//! letters, here as in Linkerd's proxy.

pub mod buffered;
pub mod chunks;
pub mod client;
pub mod content;
pub mod field;
pub mod head;
pub mod send;
pub mod server;
mod spare;
pub mod trailers;

#[cfg(test)]
mod pair;
#[cfg(test)]
mod tests;
