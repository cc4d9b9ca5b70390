//! Services: their addresses, their ports, and what clients have to know about them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service as Manifest, ServiceSpec};

use crate::index::annotations::{Context, is_tcp, port};
use crate::resources::ports::PortSet;
use crate::resources::report::ObjectId;
use crate::resources::traffic::{self, Bearer, Traffic};

/// A Service, as the mesh sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Which Service.
    pub id: ObjectId,
    /// A name outside the cluster stands for it: it has no endpoints.
    pub external: bool,
    /// Its addresses, the primary family first; none when it is headless.
    pub cluster_ips: Vec<IpAddr>,
    /// Its TCP ports.
    pub ports: Vec<ServicePort>,
    /// Ports not to be looked into; `None` leaves it to the default list.
    pub opaque: Option<PortSet>,
    /// Only endpoints on the client's own node (`internalTrafficPolicy: Local`).
    pub local: bool,
    /// Endpoints in the client's own zone, where there are some (`trafficDistribution`).
    pub same_zone: bool,
    /// What its annotations say about how requests are sent.
    pub traffic: Traffic,
    /// Why nothing may be sent to it: it asks for what this version does not enforce.
    pub refused: Option<String>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The number.
    pub port: u16,
    /// The name, by which EndpointSlices mean it; empty where there is only one.
    pub name: Arc<str>,
    /// What is spoken there, in lower case.
    pub app_protocol: Option<String>,
}

const OPAQUE_PORTS: &str = "config.linkerd.io/opaque-ports";

/// The values of `trafficDistribution` that keep traffic in its zone; the first is the older name.
const PREFERENCES: [&str; 2] = ["PreferClose", "PreferSameZone"];

/// Annotations and labels of Services whose endpoints are in other clusters.
const MULTICLUSTER: [&str; 2] = [
    "multicluster.linkerd.io/remote-discovery",
    "multicluster.linkerd.io/local-discovery",
];

/// Reads a Service.
pub fn read(manifest: &Manifest, context: &mut Context<'_>) -> Service {
    let no_spec = ServiceSpec::default();
    let spec = manifest.spec.as_ref().unwrap_or(&no_spec);
    let annotations = manifest.metadata.annotations.clone().unwrap_or_default();
    let ports = ports(spec);
    let named = |name: &str| {
        ports
            .iter()
            .filter(|port| &*port.name == name)
            .map(|port| port.port)
            .collect()
    };
    let cluster_ips = spec
        .cluster_ip
        .as_deref()
        .into_iter()
        .chain(spec.cluster_ips.iter().flatten().map(|ip| ip.as_str()));
    let (traffic, bad_annotation) = match traffic(&annotations, context) {
        Ok(traffic) => (traffic, None),
        Err(reason) => (Traffic::default(), Some(reason)),
    };
    let distribution = spec.traffic_distribution.as_deref();
    if distribution.is_some_and(|d| !PREFERENCES.contains(&d)) {
        context.warn("spec.trafficDistribution is not known and not followed: use PreferSameZone");
    }
    let service = Service {
        id: context.id.clone(),
        external: spec.type_.as_deref() == Some("ExternalName"),
        cluster_ips: context.addresses(cluster_ips.filter(|ip| *ip != "None")),
        opaque: context.ports(&annotations, OPAQUE_PORTS, named),
        local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        same_zone: distribution.is_some_and(|d| PREFERENCES.contains(&d)),
        refused: multicluster(manifest, &annotations, context).or(bad_annotation),
        traffic,
        ports,
    };
    if service.cluster_ips.is_empty() && !service.external && spec.cluster_ip.as_deref() != Some("None") {
        context.warn("spec.clusterIP is missing: proxies know it by name only; give it an address, or None");
    }
    service
}

impl Service {
    /// A port by number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.port == number)
    }
}

fn ports(spec: &ServiceSpec) -> Vec<ServicePort> {
    let declared = spec
        .ports
        .iter()
        .flatten()
        .filter(|declared| is_tcp(declared.protocol.as_deref()));
    declared
        .filter_map(|declared| {
            Some(ServicePort {
                port: port(declared.port)?,
                name: declared.name.as_deref().unwrap_or_default().into(),
                app_protocol: declared.app_protocol.as_deref().map(str::to_lowercase),
            })
        })
        .collect()
}

/// What a Service's annotations say, or why it can't be followed.
fn traffic(annotations: &BTreeMap<String, String>, context: &mut Context<'_>) -> Result<Traffic, String> {
    traffic::read(annotations, Bearer::Destination).inspect_err(|reason| {
        context.error(format!("{reason}; until then requests to it are refused"));
    })
}

fn multicluster(
    manifest: &Manifest,
    annotations: &BTreeMap<String, String>,
    context: &mut Context<'_>,
) -> Option<String> {
    let no_labels = BTreeMap::new();
    let labels = manifest.metadata.labels.as_ref().unwrap_or(&no_labels);
    let key = annotations
        .keys()
        .chain(labels.keys())
        .find(|key| MULTICLUSTER.contains(&key.as_str()))?;
    let reason = format!(
        "{key} is not enforced by this version: remove it from {}",
        context.id
    );
    context.error(format!("{reason}; until then requests to it are refused"));
    Some(reason)
}
