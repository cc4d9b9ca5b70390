//! Objects: one manifest, read into the type of its kind.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use serde_json::Value;

use crate::resources::refused::{self, Refused};
use crate::resources::report::{ObjectId, Origin};

/// An object, and where it is written.
#[derive(Clone, Debug)]
pub struct Located {
    /// Which object.
    pub id: ObjectId,
    /// Where.
    pub origin: Origin,
    /// What it says.
    pub object: Object,
}

/// What an object says, for the kinds that matter to a mesh.
#[derive(Clone, Debug)]
pub enum Object {
    /// `v1` Namespace: its annotations are inherited.
    Namespace(Box<Namespace>),
    /// `v1` Service.
    Service(Box<Service>),
    /// `v1` Pod.
    Pod(Box<Pod>),
    /// `v1` ServiceAccount.
    ServiceAccount(Box<ServiceAccount>),
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice(Box<EndpointSlice>),
    /// A kind that says something about a mesh and that this version does not enforce.
    Refused(Refused),
}

/// The part that every manifest has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a Kubernetes object")]
struct Head {
    api_version: String,
    kind: String,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize, Default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
}

/// Reads a manifest. `None`: a kind that is none of a mesh's business (`Deployment`, `ConfigMap`, …).
pub fn read(manifest: &Value) -> Result<Option<(ObjectId, Object)>, serde_json::Error> {
    let head = Head::deserialize(manifest)?;
    let (group, version) = head
        .api_version
        .split_once('/')
        .unwrap_or(("", &head.api_version));
    let object = match (group, version, head.kind.as_str()) {
        ("", "v1", "Namespace") => Object::Namespace(Deserialize::deserialize(manifest)?),
        ("", "v1", "Service") => Object::Service(Deserialize::deserialize(manifest)?),
        ("", "v1", "Pod") => Object::Pod(Deserialize::deserialize(manifest)?),
        ("", "v1", "ServiceAccount") => Object::ServiceAccount(Deserialize::deserialize(manifest)?),
        ("discovery.k8s.io", "v1", "EndpointSlice") => {
            Object::EndpointSlice(Deserialize::deserialize(manifest)?)
        }
        (group, _, kind) if refused::concerns_a_mesh(group, kind) => {
            let namespace = head.metadata.namespace.as_deref().unwrap_or("default");
            let name = head.metadata.name.as_deref().unwrap_or_default();
            Object::Refused(refused::read(kind, namespace, name, manifest)?)
        }
        _ => return Ok(None),
    };
    let id = identify(group, &head, &object)?;
    Ok(Some((id, object)))
}

/// The object's identity; a namespaced object without a namespace belongs to `default`, as with kubectl.
fn identify(group: &str, head: &Head, object: &Object) -> Result<ObjectId, serde_json::Error> {
    let name = head.metadata.name.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Err(serde::de::Error::custom(
            "metadata.name is missing: give the object a name",
        ));
    }
    let namespace = match object {
        Object::Namespace(_) => "",
        _ => head
            .metadata
            .namespace
            .as_deref()
            .filter(|ns| !ns.is_empty())
            .unwrap_or("default"),
    };
    Ok(ObjectId {
        group: group.into(),
        kind: Arc::from(head.kind.as_str()),
        namespace: namespace.into(),
        name: name.into(),
    })
}
