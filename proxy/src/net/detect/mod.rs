//! Detection: what a connection speaks, from as many first bytes as it takes, and who speaks first.

pub mod first;
pub mod http;
pub mod read;
pub mod tls;

pub use self::read::{Seen, client_hello, preface};
