//! The Kubernetes kinds that the controller understands, and what is said about those that it does not enforce.

pub mod default_policy;
pub mod object;
pub mod ports;
pub mod refused;
pub mod report;
