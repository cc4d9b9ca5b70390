//! HTTP/1: what is taken as a message and what is not, connections of clients, and answers of servers.
//!
//! hyper reads leniently: it takes a bare LF for a line end, and drops a `Content-Length` beside a `Transfer-Encoding`
//! before anybody could see it. So a [`guard`] stands between the socket and hyper. Hyper gets whole heads only, and
//! only those that every reader takes the same way; in place of any other it gets a request that stands for the refusal.
//!
//! What hyper does not let through, here as in Linkerd's proxy: interim answers (103) are dropped, `100 Continue` is said
//! by the proxy when the body is wanted, trailers pass if a `Trailer` field names them (and `TE: trailers` asked for them),
//! and the names of header fields are written in small letters.

pub mod answer;
pub mod chunks;
pub mod gate;
pub mod guard;
pub mod head;
pub mod ledger;
pub mod server;

#[cfg(test)]
mod tests;
