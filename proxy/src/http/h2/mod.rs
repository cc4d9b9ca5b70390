//! HTTP/2 for the proxy: servers and clients, what streams receive and send, what resets say, flow control, and
//! what a peer may cost us.

pub mod answer;
pub mod backlog;
pub mod client;
pub mod flood;
pub mod frames;
pub mod guard;
pub mod head;
pub mod keep_alive;
pub mod reason;
pub mod recv;
pub mod send;
pub mod server;
pub mod slots;
pub mod window;

#[cfg(test)]
mod tests;
