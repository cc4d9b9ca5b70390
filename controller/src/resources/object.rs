//! Objects: one manifest, read into the type of its kind.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Deserialize;
use serde_json::Value;

use crate::resources::policy::{self, Policy};
use crate::resources::refused::{self, Unusable};
use crate::resources::report::{ObjectId, Origin};
use crate::resources::traffic::Traffic;

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
    /// `v1` Node: its zone.
    Node(Box<Node>),
    /// `v1` Service.
    Service(Box<Service>),
    /// `v1` Pod.
    Pod(Box<Pod>),
    /// `v1` ServiceAccount.
    ServiceAccount(Box<ServiceAccount>),
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice(Box<EndpointSlice>),
    /// A policy, and what its annotations say about how requests are sent.
    Policy(Arc<Policy>, Traffic),
    /// A policy that can't be used.
    Unusable(Unusable),
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
        ("", "v1", "Node") => Object::Node(Deserialize::deserialize(manifest)?),
        ("", "v1", "Service") => Object::Service(Deserialize::deserialize(manifest)?),
        ("", "v1", "Pod") => Object::Pod(Deserialize::deserialize(manifest)?),
        ("", "v1", "ServiceAccount") => Object::ServiceAccount(Deserialize::deserialize(manifest)?),
        ("discovery.k8s.io", "v1", "EndpointSlice") => {
            Object::EndpointSlice(Deserialize::deserialize(manifest)?)
        }
        (group, _, kind) if policy::concerns_a_mesh(group, kind) => {
            read_policy(group, version, &head, manifest)
        }
        _ => return Ok(None),
    };
    let id = identify(group, &head, &object)?;
    Ok(Some((id, object)))
}

/// Reads a policy. One that can't be read takes nothing else down.
fn read_policy(group: &str, version: &str, head: &Head, manifest: &Value) -> Object {
    let kind = head.kind.as_str();
    let reason = match policy::read(group, version, kind, &manifest) {
        Some(Ok(policy)) => match policy.check().and_then(|()| policy.traffic()) {
            Ok(traffic) => return Object::Policy(Arc::new(policy), traffic),
            Err(reason) => reason,
        },
        Some(Err(error)) => error.to_string(),
        None => format!("{kind} of {group}/{version} is not known to this version: remove it"),
    };
    let name = head.metadata.name.as_deref().unwrap_or_default();
    Object::Unusable(Unusable {
        line: None,
        reason,
        refused: refused::read(kind, namespace_of(head), name, manifest),
    })
}

fn namespace_of(head: &Head) -> &str {
    let namespace = head.metadata.namespace.as_deref();
    namespace.filter(|ns| !ns.is_empty()).unwrap_or("default")
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
        Object::Namespace(_) | Object::Node(_) => "",
        _ => namespace_of(head),
    };
    Ok(ObjectId {
        group: group.into(),
        kind: Arc::from(head.kind.as_str()),
        namespace: namespace.into(),
        name: name.into(),
    })
}
