//! Endpoints: the addresses behind a Service, and how to speak to each.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use outrigger_policy::endpoint::{Endpoint, EndpointTls, Http2Params, ProtocolHint};
use outrigger_policy::name::{DnsName, Identity};

use crate::compile::client::Client;
use crate::compile::refusal::Refusal;
use crate::compile::service_name::ServiceName;
use crate::compile::settings::Settings;
use crate::index::cluster::Cluster;
use crate::index::pod::{Mesh, Pod};
use crate::index::service::Service;
use crate::index::slice::{Gateway, SliceEndpoint};
use crate::resources::server::ProxyProtocol;

/// The addresses behind a Service.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Endpoints {
    /// Labels that all share.
    pub labels: BTreeMap<String, String>,
    /// By address.
    pub by_address: BTreeMap<SocketAddr, Endpoint>,
}

/// The endpoints of a Service's port, or of one pod behind it.
pub fn of_service(
    cluster: &Cluster,
    settings: &Settings,
    name: &ServiceName,
    client: &Client,
) -> Result<Endpoints, Refusal> {
    let ServiceName {
        instance,
        name: service_name,
        namespace,
        port,
    } = name;
    let service = cluster
        .service(namespace, service_name)
        .ok_or_else(|| Refusal::NotFound(format!("Service {namespace}/{service_name} is not defined")))?;
    if service.external {
        return Err(Refusal::Invalid(format!(
            "{} stands for a name outside the cluster",
            service.id
        )));
    }
    let wanted = |endpoint: &SliceEndpoint| {
        let near = !service.local || (client.node.is_some() && client.node == endpoint.node);
        near && instance
            .as_deref()
            .is_none_or(|instance| is_instance(endpoint, instance))
    };
    let mut addresses = addresses(cluster, service, *port);
    addresses.retain(|(_, endpoint)| wanted(endpoint));
    let zone = client.node.as_deref().and_then(|node| cluster.zone(node));
    if let Some(zone) = zone.filter(|_| !service.local) {
        keep_zone(&mut addresses, zone, service.same_zone);
    }
    let by_address = addresses.into_iter().filter_map(|(addr, endpoint)| {
        Some((
            addr,
            slice_endpoint(cluster, settings, (addr, *port), endpoint, zone)?,
        ))
    });
    let labels = [("service", service_name), ("namespace", namespace)];
    Ok(Endpoints {
        labels: labels.map(|(key, value)| (key.into(), value.to_string())).into(),
        by_address: by_address.collect(),
    })
}

/// How to speak to a port of a pod. `None`: its proxy does not tell where it listens.
pub fn of_pod(
    cluster: &Cluster,
    settings: &Settings,
    pod: &Pod,
    addr: SocketAddr,
    port: u16,
) -> Option<Endpoint> {
    let mut endpoint = Endpoint {
        labels: Arc::new(labels(pod)),
        ..Endpoint::bare(addr)
    };
    let (control_plane, proxy) = match &pod.mesh {
        Mesh::Unreadable => return None,
        Mesh::Inside(control_plane, proxy) => (control_plane, proxy),
        Mesh::Outside => return Some(endpoint),
    };
    // The proxies of another control plane trust another authority; skipped ports lead past the proxy.
    if *control_plane != settings.namespace || pod.skip_inbound.contains(port) {
        return Some(endpoint);
    }
    let identity = settings.identity(&pod.id.namespace, &pod.service_account).ok()?;
    endpoint.tls = Some(EndpointTls {
        identity: Identity::Dns(identity.clone()),
        server_name: identity,
    });
    endpoint.hint = match is_opaque(cluster, settings, pod, port) {
        true => ProtocolHint::Opaque,
        false => ProtocolHint::Http2,
    };
    if port != proxy.admin && port != proxy.control {
        endpoint.transport_port = NonZeroU16::new(proxy.inbound);
    }
    endpoint.http2 = kept_alive();
    Some(endpoint)
}

/// Whether a pod's port is not to be looked into, because a Server says so or the pod's list of ports.
pub fn is_opaque(cluster: &Cluster, settings: &Settings, pod: &Pod, port: u16) -> bool {
    let server = cluster.selection.server(&pod.id, port);
    server.is_some_and(|server| server.spec.proxy_protocol == ProxyProtocol::Opaque)
        || is_listed_opaque(settings, pod, port)
}

/// Whether a pod's port is in its list of ports that are not to be looked into.
pub fn is_listed_opaque(settings: &Settings, pod: &Pod, port: u16) -> bool {
    pod.opaque
        .as_ref()
        .unwrap_or(&settings.default_opaque_ports)
        .contains(port)
}

/// The addresses behind a port. A pod with addresses of both families counts once, with the Service's primary one.
fn addresses<'a>(cluster: &'a Cluster, service: &Service, port: u16) -> Vec<(SocketAddr, &'a SliceEndpoint)> {
    let declared = service.port(port);
    let mut all = Vec::new();
    for slice in cluster.slices(&service.id.namespace, &service.id.name) {
        let target = match declared {
            Some(declared) => slice
                .ports
                .iter()
                .find(|(name, _)| *name == declared.name)
                .map(|(_, port)| *port),
            // A port that the Service does not have is taken as the pods' own.
            None => Some(port),
        };
        let Some(target) = target else { continue };
        all.extend(
            slice
                .endpoints
                .iter()
                .map(|endpoint| (SocketAddr::new(endpoint.ip, target), endpoint)),
        );
    }
    let primary_is_v6 = service.cluster_ips.first().is_some_and(|ip| ip.is_ipv6());
    let mut has_primary: HashMap<_, bool> = HashMap::new();
    for (addr, endpoint) in &all {
        if let Some(pod) = &endpoint.pod {
            *has_primary.entry(pod).or_default() |= addr.is_ipv6() == primary_is_v6;
        }
    }
    all.retain(|(addr, endpoint)| {
        let counted = endpoint
            .pod
            .as_ref()
            .is_some_and(|pod| has_primary.get(pod) == Some(&true));
        addr.is_ipv6() == primary_is_v6 || !counted
    });
    all
}

/// Leaves the endpoints for a zone: where all carry hints, those hinted; else, where the Service asks for it, those in
/// the zone itself. Where there are none, all stay.
fn keep_zone(addresses: &mut Vec<(SocketAddr, &SliceEndpoint)>, zone: &Arc<str>, same_zone: bool) {
    let hinted = addresses
        .iter()
        .all(|(_, endpoint)| !endpoint.for_zones.is_empty());
    let is_for = |endpoint: &SliceEndpoint| match hinted {
        true => endpoint.for_zones.contains(zone),
        false => same_zone && endpoint.zone.as_ref() == Some(zone),
    };
    if addresses.iter().any(|(_, endpoint)| is_for(endpoint)) {
        addresses.retain(|(_, endpoint)| is_for(endpoint));
    }
}

fn is_instance(endpoint: &SliceEndpoint, instance: &str) -> bool {
    let pod = endpoint.pod.as_ref().map(|(_, name)| name);
    endpoint
        .hostname
        .as_ref()
        .or(pod)
        .is_some_and(|name| **name == *instance)
}

/// How to speak to an endpoint of a slice. One that names a pod is left out while the pod is not defined.
fn slice_endpoint(
    cluster: &Cluster,
    settings: &Settings,
    (addr, service_port): (SocketAddr, u16),
    endpoint: &SliceEndpoint,
    client_zone: Option<&Arc<str>>,
) -> Option<Endpoint> {
    let mut read = match (&endpoint.pod, &endpoint.gateway) {
        (Some((namespace, name)), _) => of_pod(
            cluster,
            settings,
            cluster.pod(namespace, name)?,
            addr,
            addr.port(),
        )?,
        (None, Some(gateway)) => at_gateway(gateway, addr, service_port),
        (None, None) => Endpoint::bare(addr),
    };
    let labels = Arc::make_mut(&mut read.labels);
    let locality = match (client_zone, &endpoint.zone) {
        (Some(client), Some(own)) if client == own => "local",
        (Some(_), Some(_)) => "remote",
        _ => "unknown",
    };
    labels.insert("zone_locality".into(), locality.into());
    if let Some(zone) = endpoint.zone.as_ref().filter(|_| endpoint.pod.is_some()) {
        labels.insert("zone".into(), zone.to_string());
    }
    Some(read)
}

/// A multicluster gateway, which is told whom requests on this port of the mirrored Service are for.
fn at_gateway(gateway: &Gateway, addr: SocketAddr, service_port: u16) -> Endpoint {
    let override_by = |service: &DnsName| format!("{service}:{service_port}").into();
    Endpoint {
        tls: Some(EndpointTls {
            identity: Identity::Dns(gateway.identity.clone()),
            server_name: gateway.identity.clone(),
        }),
        hint: ProtocolHint::Http2,
        authority_override: gateway.service.as_ref().map(override_by),
        http2: kept_alive(),
        ..Endpoint::bare(addr)
    }
}

/// Connections to other proxies are probed, so that one whose peer has vanished is noticed.
fn kept_alive() -> Http2Params {
    Http2Params {
        keep_alive: Some((Duration::from_secs(10), Duration::from_secs(3))),
        keep_alive_while_idle: true,
        ..Http2Params::default()
    }
}

fn labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("pod".to_owned(), pod.id.name.to_string()),
        ("serviceaccount".to_owned(), pod.service_account.to_string()),
    ]);
    labels.extend(pod.owner.clone());
    let copied = [
        ("control_plane_ns", "linkerd.io/control-plane-ns"),
        ("pod_template_hash", "pod-template-hash"),
    ];
    for (key, label) in copied {
        if let Some(value) = pod.labels.get(label) {
            labels.insert(key.into(), value.clone());
        }
    }
    labels
}
