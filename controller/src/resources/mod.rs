//! The Kubernetes kinds that the controller understands, and what is refused because of those that can't be used.

pub mod authorization;
pub mod default_policy;
pub mod egress;
pub mod object;
pub mod policy;
pub mod ports;
pub mod profile;
pub mod refused;
pub mod report;
pub mod route;
pub mod server;
pub mod traffic;
pub mod values;
