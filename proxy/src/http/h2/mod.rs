//! HTTP/2 on the h2 crate itself: servers, what their streams receive and send, what resets say, flow control, and what a
//! peer may cost us.

pub mod flood;
pub mod frames;
pub mod guard;
pub mod keep_alive;
pub mod reason;
pub mod recv;
pub mod send;
pub mod server;
pub mod window;

#[cfg(test)]
mod tests;
