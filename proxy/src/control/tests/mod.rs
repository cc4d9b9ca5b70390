//! The control wing against a control plane that does its worst.

mod channel;
mod discovery;
mod dns;
mod identity;
mod lines;
mod stream;
