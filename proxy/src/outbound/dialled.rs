//! What leads to a destination: an address, or a name.

use std::fmt;
use std::net::SocketAddr;

use outrigger_policy::name::NameAddr;

/// What leads to a destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dialled {
    /// The address that the application dialled.
    Addr(SocketAddr),
    /// A name, which a request or a peer proxy gave.
    Name(NameAddr),
}

impl fmt::Display for Dialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}
