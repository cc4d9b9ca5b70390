//! References to Kubernetes objects, durations.

use std::time::Duration;

use outrigger_policy::name::ResourceRef;

use crate::meta::{Metadata, Resource, metadata};

pub(super) fn reference(object: &ResourceRef) -> Metadata {
    let kind = if object.is_default() {
        metadata::Kind::Default(object.name.to_string())
    } else {
        metadata::Kind::Resource(Resource {
            group: object.group.to_string(),
            kind: object.kind.to_string(),
            name: object.name.to_string(),
            namespace: object.namespace.to_string(),
            section: object.section.to_string(),
            port: object.port.map_or(0, u32::from),
        })
    };
    Metadata { kind: Some(kind) }
}

/// A duration beyond what the contract can hold becomes the longest that it can (10,000 years).
pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    const LONGEST: prost_types::Duration = prost_types::Duration {
        seconds: 315_576_000_000,
        nanos: 0,
    };
    let exact = prost_types::Duration::try_from(duration).ok();
    exact.filter(|d| d.seconds < LONGEST.seconds).unwrap_or(LONGEST)
}
