//! EndpointSlices: the addresses behind a Service.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice as Manifest};
use outrigger_policy::name::DnsName;

use crate::index::annotations::{Context, is_tcp, port};

/// A part of the addresses behind a Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// Namespace of the slice and of its Service.
    pub namespace: Arc<str>,
    /// The Service.
    pub service: Arc<str>,
    /// Name and number of each TCP port.
    pub ports: Vec<(Arc<str>, u16)>,
    /// The endpoints that are ready.
    pub endpoints: Vec<SliceEndpoint>,
}

/// A multicluster gateway that the endpoints of a mirrored Service are.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// The gateway's identity.
    pub identity: DnsName,
    /// The Service as its own cluster calls it.
    pub service: Option<DnsName>,
}

/// An endpoint that is ready.
#[derive(Clone, Debug, PartialEq)]
pub struct SliceEndpoint {
    /// Its address.
    pub ip: IpAddr,
    /// The pod behind it (namespace, name).
    pub pod: Option<(Arc<str>, Arc<str>)>,
    /// The gateway that it is, where it is no pod.
    pub gateway: Option<Arc<Gateway>>,
    /// Its host name within a StatefulSet.
    pub hostname: Option<Arc<str>>,
    /// Its node.
    pub node: Option<Arc<str>>,
    /// Its zone.
    pub zone: Option<Arc<str>>,
    /// The zones whose clients it is meant for; empty where nothing is said.
    pub for_zones: Vec<Arc<str>>,
}

const SERVICE: &str = "kubernetes.io/service-name";
const GATEWAY_IDENTITY: &str = "mirror.linkerd.io/remote-gateway-identity";
const GATEWAY_SERVICE: &str = "mirror.linkerd.io/remote-svc-fq-name";

/// Reads a slice. `None`: it belongs to no Service, or can't be served.
pub fn read(manifest: &Manifest, context: &mut Context<'_>) -> Option<Slice> {
    let Some(service) = manifest
        .metadata
        .labels
        .iter()
        .flatten()
        .find(|(key, _)| *key == SERVICE)
    else {
        context.warn(format!(
            "without the label {SERVICE} it belongs to no Service and is left out"
        ));
        return None;
    };
    let gateway = match gateway(manifest) {
        Ok(gateway) => gateway.map(Arc::new),
        Err(why) => {
            context.error(why);
            return None;
        }
    };
    if manifest.address_type == "FQDN" {
        context.error("addressType FQDN is not supported and is left out: write addresses");
        return None;
    }
    let ports = manifest
        .ports
        .iter()
        .flatten()
        .filter(|declared| is_tcp(declared.protocol.as_deref()));
    let ports = ports.filter_map(|declared| {
        Some((
            declared.name.as_deref().unwrap_or_default().into(),
            port(declared.port?)?,
        ))
    });
    Some(Slice {
        namespace: context.id.namespace.clone(),
        service: service.1.as_str().into(),
        ports: ports.collect(),
        endpoints: manifest
            .endpoints
            .iter()
            .filter_map(|endpoint| read_endpoint(endpoint, gateway.as_ref(), context))
            .collect(),
    })
}

/// The gateway that a mirrored Service is reached through.
fn gateway(manifest: &Manifest) -> Result<Option<Gateway>, String> {
    let annotation = |wanted: &str| {
        let mut all = manifest.metadata.annotations.iter().flatten();
        all.find(|(key, _)| *key == wanted).map(|(_, value)| value)
    };
    let name = |key: &str| {
        let parse = |text: &String| {
            DnsName::parse(text).map_err(|_| {
                format!("annotation {key}: {text:?} is no DNS name, and the slice is left out: write the gateway's own")
            })
        };
        annotation(key).map(parse).transpose()
    };
    let (identity, service) = (name(GATEWAY_IDENTITY)?, name(GATEWAY_SERVICE)?);
    Ok(identity.map(|identity| Gateway { identity, service }))
}

/// The endpoint, if it is ready; nothing said counts as ready. All its addresses are the same, so one is enough.
fn read_endpoint(
    endpoint: &Endpoint,
    gateway: Option<&Arc<Gateway>>,
    context: &mut Context<'_>,
) -> Option<SliceEndpoint> {
    if endpoint
        .conditions
        .as_ref()
        .and_then(|conditions| conditions.ready)
        == Some(false)
    {
        return None;
    }
    let ip = *context
        .addresses(endpoint.addresses.first().map(String::as_str))
        .first()?;
    let target = endpoint.target_ref.as_ref();
    let kind = target.and_then(|target| target.kind.as_deref());
    if kind == Some("ExternalWorkload") {
        context.error(format!(
            "endpoint {ip}: ExternalWorkload is not supported by this version; it is left out"
        ));
        return None;
    }
    let pod = target.filter(|_| kind == Some("Pod")).and_then(|target| {
        let namespace = target.namespace.as_deref().unwrap_or(&context.id.namespace);
        Some((namespace.into(), target.name.as_deref()?.into()))
    });
    Some(SliceEndpoint {
        ip,
        gateway: gateway.filter(|_| pod.is_none()).cloned(),
        pod,
        hostname: endpoint.hostname.as_deref().map(Arc::from),
        node: endpoint.node_name.as_deref().map(Arc::from),
        zone: endpoint.zone.as_deref().map(Arc::from),
        for_zones: hinted_zones(endpoint),
    })
}

fn hinted_zones(endpoint: &Endpoint) -> Vec<Arc<str>> {
    let hints = endpoint.hints.as_ref().and_then(|hints| hints.for_zones.as_ref());
    hints
        .into_iter()
        .flatten()
        .map(|zone| zone.name.as_str().into())
        .collect()
}
