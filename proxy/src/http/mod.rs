//! How messages travel: bodies, servers, clients and their pools, header rules, answers to faults.

pub mod body;
pub mod closing;
pub mod deadline;
pub mod h2;
pub mod headers;
pub mod http1;
pub mod interim;
pub mod measured;
pub mod orig_proto;
pub mod peek;
pub mod pool;
pub mod rarely;
pub mod replay;
pub mod respond;
pub mod target;
pub mod upgrade;

#[cfg(test)]
mod tests;
