//! HTTP/2 for a proxy (RFC 9113, RFC 7541, RFC 8441): connections, streams, flow control.
//!
//! A message crosses with as little work as it takes. Fields go straight from the wire into the map that the request
//! keeps, and from the map onto the wire; tables of the compression hold them parsed. Whoever sends puts frames into the
//! one buffer that leaves next, as far as windows and a bound allow, and keeps the rest itself: there is no queue of
//! frames. The task that drives the connection writes all that was put there since it last ran at once.

mod connection;
mod error;
mod frame;
mod handles;
mod hpack;
mod message;
mod outgoing;
mod reader;
mod receive;
mod settings;
mod state;
mod stream;

pub mod client;
pub mod server;

pub use error::{Error, Reason};
pub use handles::{Pings, Recv, Send};
pub use message::Protocol;
pub use state::Spread;

/// Bytes of DATA that wait to be written on a connection, unless it is said otherwise.
pub const SEND_BUFFER: usize = 128 << 10;
