//! The cluster as last seen, indexed by what proxies ask for: addresses and names.
//!
//! A [`Cluster`](cluster::Cluster) never changes; a change makes a new one. What each stream answers is compiled from it
//! anew, and sent only if it differs from what was sent before.

pub mod annotations;
pub mod cluster;
pub mod pod;
pub mod policies;
pub mod references;
pub mod selection;
pub mod service;
pub mod slice;
