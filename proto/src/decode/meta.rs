//! References to Kubernetes objects, from metadata and from labels.

use std::collections::HashMap;
use std::sync::Arc;

use outrigger_policy::name::ResourceRef;

use super::error::{DecodeError, required};
use crate::meta::{Metadata, metadata};

/// A reference with all its parts, as outbound policies carry it.
pub(super) fn reference(field: &str, meta: &Option<Metadata>) -> Result<Arc<ResourceRef>, DecodeError> {
    let kind = required(field, &required(field, meta)?.kind)?;
    let resource = match kind {
        metadata::Kind::Default(name) => return Ok(Arc::new(ResourceRef::of_default(name.as_str()))),
        metadata::Kind::Resource(resource) => resource,
    };
    let port =
        u16::try_from(resource.port).map_err(|_| DecodeError::new("port", "above 65535").within(field))?;
    if resource.name.is_empty() {
        return Err(DecodeError::new("name", "empty").within(field));
    }
    Ok(Arc::new(ResourceRef {
        group: resource.group.as_str().into(),
        kind: resource.kind.as_str().into(),
        namespace: resource.namespace.as_str().into(),
        name: resource.name.as_str().into(),
        section: resource.section.as_str().into(),
        port: (port != 0).then_some(port),
    }))
}

/// A reference of an inbound policy, which is known by group, kind and name only.
pub(super) fn inbound(field: &str, meta: &Option<Metadata>) -> Result<Arc<ResourceRef>, DecodeError> {
    let full = reference(field, meta)?;
    Ok(Arc::new(named(&full.group, &full.kind, &full.name)))
}

/// The reference that labels spell: `group`, `kind` and `name`, or a `name` of the form `kind:name`.
pub(super) fn labelled(
    labels: &HashMap<String, String>,
    default_kind: &str,
) -> Result<Arc<ResourceRef>, DecodeError> {
    let label = |key| labels.get(key).map(String::as_str);
    let name = label("name").filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| DecodeError::new("labels", "no `name`"))?;
    let group = label("group").unwrap_or("policy.linkerd.io");
    let reference = match (label("kind"), name.split_once(':')) {
        (Some(kind), _) => named(group, kind, name),
        (None, Some(("default", name))) => ResourceRef::of_default(name),
        (None, Some((kind, name))) => named(group, kind, name),
        (None, None) => named(group, default_kind, name),
    };
    Ok(Arc::new(reference))
}

/// An empty group and the kind `default` make a default: that is how [`ResourceRef::is_default`] knows it.
fn named(group: &str, kind: &str, name: &str) -> ResourceRef {
    ResourceRef {
        group: group.into(),
        kind: kind.into(),
        ..ResourceRef::of_default(name)
    }
}
