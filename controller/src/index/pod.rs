//! Pods: their addresses, their place in the mesh, and what their ports accept.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod as Manifest, PodSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::index::annotations::{Context, is_tcp, port};
use crate::resources::default_policy::DefaultPolicy;
use crate::resources::ports::PortSet;
use crate::resources::refused::RefusedBy;
use crate::resources::report::ObjectId;

/// A pod, as the mesh sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Which pod.
    pub id: ObjectId,
    /// Its service account: with the namespace, the identity.
    pub service_account: Arc<str>,
    /// Its own addresses; none when it uses its host's network.
    pub ips: Vec<IpAddr>,
    /// Ports of its host that lead to ports of its containers.
    pub host_ports: Vec<(SocketAddr, u16)>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What made it: label key (`deployment`, `k8s_job`) and name.
    pub owner: Option<(String, String)>,
    /// Its node.
    pub node: Option<Arc<str>>,
    /// Its place in the mesh.
    pub mesh: Mesh,
    /// Ports not to be looked into; `None` leaves it to the default list.
    pub opaque: Option<PortSet>,
    /// Ports that bypass its proxy.
    pub skip_inbound: PortSet,
    /// What its ports accept; `None` leaves it to the controller's default.
    pub default_policy: Option<DefaultPolicy>,
    /// Ports that ask every client for an identity.
    pub require_identity: PortSet,
    /// HTTP paths that the kubelet probes, by port.
    pub probes: BTreeMap<u16, BTreeSet<Arc<str>>>,
    /// Its containers' ports by name.
    pub named_ports: BTreeMap<String, Vec<u16>>,
    /// Ports that deny everybody, and why.
    pub denied: Vec<(PortSet, RefusedBy)>,
}

/// A pod's place in the mesh (label `linkerd.io/control-plane-ns`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mesh {
    /// It has no proxy.
    Outside,
    /// It has a proxy of this control plane's namespace, listening there.
    Inside(Arc<str>, ProxyPorts),
    /// It is labelled, but its proxy's container does not tell where it listens.
    Unreadable,
}

/// Where a pod's proxy listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyPorts {
    /// Connections from the mesh.
    pub inbound: u16,
    /// The admin server.
    pub admin: u16,
    /// Tap.
    pub control: u16,
}

impl Default for ProxyPorts {
    fn default() -> Self {
        Self {
            inbound: 4143,
            admin: 4191,
            control: 4190,
        }
    }
}

const OPAQUE_PORTS: &str = "config.linkerd.io/opaque-ports";
const SKIP_INBOUND_PORTS: &str = "config.linkerd.io/skip-inbound-ports";
const REQUIRE_IDENTITY: &str = "config.linkerd.io/proxy-require-identity-inbound-ports";
const DEFAULT_POLICY: &str = "config.linkerd.io/default-inbound-policy";

/// Reads a pod. `None`: it has ended, and nothing of it listens any more.
pub fn read(manifest: &Manifest, context: &mut Context<'_>) -> Option<Pod> {
    let no_spec = PodSpec::default();
    let spec = manifest.spec.as_ref().unwrap_or(&no_spec);
    let phase = manifest
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let labels = manifest.metadata.labels.clone().unwrap_or_default();
    let annotations = manifest.metadata.annotations.clone().unwrap_or_default();
    let named_ports = named_ports(spec);
    let named = |name: &str| named_ports.get(name).cloned().unwrap_or_default();
    let (ips, host_ips) = addresses(manifest, context);
    let host_network = spec.host_network.unwrap_or(false);
    Some(Pod {
        id: context.id.clone(),
        service_account: spec.service_account_name.as_deref().unwrap_or("default").into(),
        host_ports: host_ports(spec, &host_ips),
        ips: if host_network { Vec::new() } else { ips },
        owner: owner(manifest, &labels),
        node: spec.node_name.as_deref().map(Arc::from),
        mesh: mesh(spec, &labels, context),
        opaque: context.ports(&annotations, OPAQUE_PORTS, named),
        skip_inbound: context
            .ports(&annotations, SKIP_INBOUND_PORTS, named)
            .unwrap_or_default(),
        default_policy: default_policy(&annotations, context),
        require_identity: require_identity(&annotations, context),
        probes: probes(spec, &named_ports),
        denied: Vec::new(),
        labels,
        named_ports,
    })
}

impl Pod {
    /// The ports that a Server's `port` means on this pod.
    pub fn ports_of(&self, port: &IntOrString) -> PortSet {
        self.numbers_of(port).into_iter().collect()
    }

    /// The same, as numbers.
    pub fn numbers_of(&self, by: &IntOrString) -> Vec<u16> {
        match by {
            IntOrString::Int(number) => port(*number).into_iter().collect(),
            IntOrString::String(name) => self.named_ports.get(name).cloned().unwrap_or_default(),
        }
    }

    /// Why a port is denied to everybody.
    pub fn denied(&self, port: u16) -> Option<&RefusedBy> {
        self.denied
            .iter()
            .find(|(ports, _)| ports.contains(port))
            .map(|(_, by)| by)
    }
}

/// The containers that can hold ports, probes and the proxy: sidecars may be init containers.
fn containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn named_ports(spec: &PodSpec) -> BTreeMap<String, Vec<u16>> {
    let mut named: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    for declared in containers(spec).flat_map(|container| container.ports.iter().flatten()) {
        if let (Some(name), Some(number)) = (&declared.name, port(declared.container_port))
            && is_tcp(declared.protocol.as_deref())
        {
            named.entry(name.clone()).or_default().push(number);
        }
    }
    named
}

/// The pod's addresses and its host's.
fn addresses(manifest: &Manifest, context: &mut Context<'_>) -> (Vec<IpAddr>, Vec<IpAddr>) {
    let Some(status) = &manifest.status else {
        return Default::default();
    };
    let pod_ips = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let host_ips = status.host_ips.iter().flatten().map(|ip| ip.ip.as_str());
    (
        context.addresses(status.pod_ip.as_deref().into_iter().chain(pod_ips)),
        context.addresses(status.host_ip.as_deref().into_iter().chain(host_ips)),
    )
}

fn host_ports(spec: &PodSpec, host_ips: &[IpAddr]) -> Vec<(SocketAddr, u16)> {
    let declared = containers(spec).flat_map(|container| container.ports.iter().flatten());
    let mapped = declared
        .filter(|declared| is_tcp(declared.protocol.as_deref()))
        .filter_map(|declared| {
            let container_port = port(declared.container_port)?;
            let host_port = match declared.host_port {
                None if spec.host_network == Some(true) => container_port,
                host_port => port(host_port?)?,
            };
            Some((host_port, container_port))
        });
    mapped
        .flat_map(|(host_port, container_port)| {
            host_ips
                .iter()
                .map(move |ip| (SocketAddr::new(*ip, host_port), container_port))
        })
        .collect()
}

/// The metric label of the pod's owner. A ReplicaSet's name is its Deployment's and the hash of the template.
fn owner(manifest: &Manifest, labels: &BTreeMap<String, String>) -> Option<(String, String)> {
    let owner = manifest
        .metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))?;
    let hash = labels.get("pod-template-hash").map(|hash| format!("-{hash}"));
    let deployment = hash.and_then(|hash| owner.name.strip_suffix(&hash).map(str::to_owned));
    Some(match (owner.kind.as_str(), deployment) {
        ("ReplicaSet", Some(deployment)) => ("deployment".into(), deployment),
        ("Job", _) => ("k8s_job".into(), owner.name.clone()),
        (kind, _) => (kind.to_lowercase(), owner.name.clone()),
    })
}

fn mesh(spec: &PodSpec, labels: &BTreeMap<String, String>, context: &mut Context<'_>) -> Mesh {
    let Some(control_plane) = labels.get("linkerd.io/control-plane-ns") else {
        return Mesh::Outside;
    };
    let Some(proxy) = containers(spec).find(|container| container.name == "linkerd-proxy") else {
        // A manifest written by hand, where something else starts the proxy: the defaults.
        return Mesh::Inside(control_plane.as_str().into(), ProxyPorts::default());
    };
    let listens = |name: &str| {
        let variable = proxy
            .env
            .iter()
            .flatten()
            .find(|variable| variable.name == name)?;
        let address: SocketAddr = variable.value.as_deref()?.parse().ok()?;
        port(address.port().into())
    };
    let ports = (
        listens("LINKERD2_PROXY_INBOUND_LISTEN_ADDR"),
        listens("LINKERD2_PROXY_ADMIN_LISTEN_ADDR"),
        listens("LINKERD2_PROXY_CONTROL_LISTEN_ADDR"),
    );
    let (Some(inbound), Some(admin), Some(control)) = ports else {
        context.error(
            "container linkerd-proxy: LINKERD2_PROXY_{INBOUND,ADMIN,CONTROL}_LISTEN_ADDR must be given as \
             address:port; until then the pod is left out of discovery",
        );
        return Mesh::Unreadable;
    };
    Mesh::Inside(
        control_plane.as_str().into(),
        ProxyPorts {
            inbound,
            admin,
            control,
        },
    )
}

/// A policy that can't be read denies: what its author wanted to forbid is not known.
fn default_policy(
    annotations: &BTreeMap<String, String>,
    context: &mut Context<'_>,
) -> Option<DefaultPolicy> {
    let text = context.annotation(annotations, DEFAULT_POLICY)?.to_owned();
    match text.parse() {
        Ok(policy) => Some(policy),
        Err(reason) => {
            context.error(format!(
                "annotation {DEFAULT_POLICY}: {reason}; until then everybody is denied"
            ));
            Some(DefaultPolicy::Deny)
        }
    }
}

/// A list that can't be read asks on every port.
fn require_identity(annotations: &BTreeMap<String, String>, context: &mut Context<'_>) -> PortSet {
    let Some(text) = context
        .annotation(annotations, REQUIRE_IDENTITY)
        .map(str::to_owned)
    else {
        return PortSet::default();
    };
    text.parse().unwrap_or_else(|reason| {
        context.error(format!(
            "annotation {REQUIRE_IDENTITY}: {reason}; until then every port asks"
        ));
        PortSet::all()
    })
}

/// The paths that the kubelet asks for, as it writes them, without a query.
fn probes(spec: &PodSpec, named: &BTreeMap<String, Vec<u16>>) -> BTreeMap<u16, BTreeSet<Arc<str>>> {
    let mut paths: BTreeMap<u16, BTreeSet<Arc<str>>> = BTreeMap::new();
    let probes = containers(spec).flat_map(|container| {
        [
            &container.liveness_probe,
            &container.readiness_probe,
            &container.startup_probe,
        ]
        .into_iter()
        .flatten()
    });
    for http in probes.filter_map(|probe| probe.http_get.as_ref()) {
        let path = http
            .path
            .as_deref()
            .unwrap_or("/")
            .split(['?', '#'])
            .next()
            .unwrap_or("/");
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        let ports = match &http.port {
            IntOrString::Int(number) => port(*number).into_iter().collect(),
            IntOrString::String(name) => named.get(name).cloned().unwrap_or_default(),
        };
        for port in ports {
            paths.entry(port).or_default().insert(path.as_str().into());
        }
    }
    paths
}
