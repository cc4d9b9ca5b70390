//! Who is asking, and the certificates that say so: the state directory, the CA, and service-account tokens.

pub mod account;
pub mod ca;
pub mod csr;
pub mod state;
pub mod token;

pub use account::{ServiceAccount, Trust};
pub use ca::{Ca, IssueError, Issued};
pub use csr::{CsrError, Request};
pub use state::{State, StateError};
pub use token::{TokenError, TokenKey};
