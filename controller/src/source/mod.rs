//! Where resources come from: a directory of manifests.

pub mod directory;
pub mod documents;
pub mod manifest;
pub mod metrics;
