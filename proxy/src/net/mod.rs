//! Bytes: listening, connecting, detecting, copying.

pub mod connect;
pub mod copy;
pub mod detect;
pub mod header;
pub mod io;
pub mod listen;
pub mod scratch;
