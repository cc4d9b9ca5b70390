//! HTTP/1: what is taken as a message and what is not, connections of clients, and answers of servers.
//!
//! hyper reads leniently: it takes a bare LF for a line end, and drops a `Content-Length` beside a `Transfer-Encoding`
//! before anybody could see it. So a [`guard`] stands between the socket and hyper. Hyper gets whole heads only, and
//! only those that every reader takes the same way; in place of any other it gets a request that stands for the refusal.
//!
//! What hyper does not let through goes past it: interim answers and trailers are written in their places among its bytes
//! ([`own`]). `Expect: 100-continue` is hidden from it, which would answer that itself. The names of header fields are
//! written in small letters, here as in Linkerd's proxy.
//!
//! Towards servers there is no hyper: the [`client`] is our own.

pub mod chunks;
pub mod client;
pub mod expect;
pub mod field;
pub mod gate;
pub mod guard;
pub mod head;
pub mod ledger;
pub mod own;
pub mod server;
pub mod trailers;

#[cfg(test)]
mod pair;
#[cfg(test)]
mod tests;
