//! The control plane: identity, destination and policy APIs over a directory of Kubernetes manifests.

pub mod admin;
pub mod app;
pub mod cli;
pub mod compile;
pub mod ending;
pub mod explain;
pub mod identity;
pub mod index;
pub mod resources;
pub mod serve;
pub mod source;
pub mod tls;
