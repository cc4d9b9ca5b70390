//! Outbound policies: how a destination is used.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use outrigger_policy::Unsupported;
use outrigger_policy::budget::BudgetPolicy;
use outrigger_policy::endpoint::Endpoint;
use outrigger_policy::name::ResourceRef;
use outrigger_policy::outbound::{
    Backend, Dispatch, Distribution, LoadParams, OpaqueAction, OpaqueRoute, OutboundPolicy, OutboundProtocol,
    OutboundRule,
};
use outrigger_policy::profile::forward;
use outrigger_policy::route::RouteTable;

use crate::compile::client::Client;
use crate::compile::refusal::Refusal;
use crate::compile::service_name::ServiceName;
use crate::compile::settings::Settings;
use crate::index::cluster::Cluster;
use crate::index::service::{Service, ServicePort};
use crate::resources::refused::{ParentKind, RefusedBy};

/// How an address is used.
///
/// Inside the cluster's networks only Services have policies; what is outside is forwarded to as it stands.
pub fn to_address(
    cluster: &Cluster,
    settings: &Settings,
    addr: SocketAddr,
    client: &Client,
) -> Result<OutboundPolicy, Refusal> {
    let addr = dialled(addr)?;
    if let Some(service) = service_at(cluster, addr.ip())? {
        return Ok(to_service(cluster, settings, service, addr.port(), client));
    }
    if settings.is_in_cluster(addr.ip()) {
        return Err(Refusal::NotFound(format!(
            "{addr} is in the cluster and is no Service's address"
        )));
    }
    Ok(egress(cluster, addr, client))
}

/// How a name is used. A Service that is not defined yet gets the policy that it will have by default.
pub fn to_name(
    cluster: &Cluster,
    settings: &Settings,
    name: &ServiceName,
    client: &Client,
) -> OutboundPolicy {
    match cluster.service(&name.namespace, &name.name) {
        Some(service) => to_service(cluster, settings, service, name.port, client),
        None => {
            let meta = service_ref(&name.namespace, &name.name, name.port);
            balanced(settings, meta, Spoken::Unknown, None)
        }
    }
}

/// An address that a client dialled: IPv4 in IPv6's clothes (RFC 4291 §2.5.5.2) is IPv4.
pub fn dialled(addr: SocketAddr) -> Result<SocketAddr, Refusal> {
    match addr.port() {
        0 => Err(Refusal::Invalid(format!("{addr} has no port"))),
        port => Ok(SocketAddr::new(addr.ip().to_canonical(), port)),
    }
}

/// The Service at an address.
pub fn service_at(cluster: &Cluster, ip: IpAddr) -> Result<Option<&Service>, Refusal> {
    match cluster.services_at(ip) {
        [] => Ok(None),
        [service] => Ok(Some(service)),
        [first, second, ..] => {
            let (first, second) = (&first.id, &second.id);
            Err(Refusal::Ambiguous(format!(
                "{first} and {second} have the same address {ip}: change one of them"
            )))
        }
    }
}

/// Whether a Service's port is not to be looked into. What `appProtocol` says goes before the list of ports.
pub fn is_opaque(settings: &Settings, service: &Service, port: &ServicePort) -> bool {
    spoken(settings, service, port) == Spoken::Opaque
}

/// A Service's port, as the parent of a policy.
pub fn service_ref(namespace: &str, name: &str, port: u16) -> ResourceRef {
    ResourceRef {
        group: "core".into(),
        kind: "Service".into(),
        namespace: namespace.into(),
        name: name.into(),
        section: "".into(),
        port: Some(port),
    }
}

/// What is spoken at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoken {
    Unknown,
    Http1,
    Http2,
    Opaque,
}

fn spoken(settings: &Settings, service: &Service, port: &ServicePort) -> Spoken {
    match port.app_protocol.as_deref() {
        Some("http") => Spoken::Http1,
        Some("kubernetes.io/h2c") => Spoken::Http2,
        // Every other protocol is not looked into: `linkerd.io/tcp`, `linkerd.io/opaque`, `https`, …
        Some(_) => Spoken::Opaque,
        None => {
            let opaque = service.opaque.as_ref().unwrap_or(&settings.default_opaque_ports);
            if opaque.contains(port.port) {
                Spoken::Opaque
            } else {
                Spoken::Unknown
            }
        }
    }
}

fn to_service(
    cluster: &Cluster,
    settings: &Settings,
    service: &Service,
    port: u16,
    client: &Client,
) -> OutboundPolicy {
    let id = &service.id;
    let meta = service_ref(&id.namespace, &id.name, port);
    let Some(declared) = service.port(port) else {
        return undefined_port(meta);
    };
    let client = client.namespace.as_deref();
    let refused_by = cluster.refused(ParentKind::Service, &id.namespace, &id.name, Some(port), client);
    let refused = match &service.refused {
        Some(reason) => Some(Unsupported::new(reason.as_str())),
        None => refused_by.map(not_enforced),
    };
    balanced(settings, meta, spoken(settings, service, declared), refused)
}

fn not_enforced(by: &RefusedBy) -> Unsupported {
    Unsupported::new(by.to_string())
}

/// A policy that balances over a Service's endpoints, or that says why nothing is sent to them.
fn balanced(
    settings: &Settings,
    meta: ResourceRef,
    spoken: Spoken,
    refused: Option<Unsupported>,
) -> OutboundPolicy {
    let name = ServiceName::full(&meta.namespace, &meta.name, settings);
    let path: Arc<str> = format!("{name}:{}", meta.port.unwrap_or(80)).into();
    let meta = Arc::new(meta);
    let dispatch = Dispatch::Balance {
        path: path.clone(),
        load: LoadParams::default(),
        breaker: None,
    };
    let backend = Arc::new(Backend::new(meta.clone(), dispatch));
    let backends = refused.map_or_else(|| Ok(Distribution::FirstAvailable(vec![backend])), Err);
    OutboundPolicy {
        parent: meta,
        protocol: protocol(spoken, backends),
        authority: path,
        budget: Some(BudgetPolicy::default()),
    }
}

fn protocol(spoken: Spoken, backends: Result<Distribution, Unsupported>) -> OutboundProtocol {
    let action = match backends.clone() {
        Ok(distribution) => OpaqueAction::Forward(distribution),
        Err(reason) => OpaqueAction::Invalid(reason),
    };
    let opaque = OpaqueRoute {
        meta: Arc::new(ResourceRef::of_default("opaq")),
        action,
    };
    let http = RouteTable::catch_all(
        Arc::new(ResourceRef::of_default("http")),
        OutboundRule::new(backends),
    );
    match spoken {
        Spoken::Unknown => OutboundProtocol::Detect {
            http1: http.clone(),
            http2: http,
            opaque,
        },
        Spoken::Http1 => OutboundProtocol::Http1(http),
        Spoken::Http2 => OutboundProtocol::Http2(http),
        Spoken::Opaque => OutboundProtocol::Opaque(opaque),
    }
}

/// The policy of a port that the Service does not have.
fn undefined_port(meta: ResourceRef) -> OutboundPolicy {
    let route = ResourceRef::of_default("undefined-port");
    let route = OpaqueRoute {
        meta: Arc::new(route),
        action: OpaqueAction::Forbid,
    };
    OutboundPolicy {
        parent: Arc::new(meta),
        protocol: OutboundProtocol::Opaque(route),
        authority: "".into(),
        budget: Some(BudgetPolicy::default()),
    }
}

fn egress(cluster: &Cluster, addr: SocketAddr, client: &Client) -> OutboundPolicy {
    match cluster.egress_refused_by(addr.ip(), client.namespace.as_deref()) {
        None => forward("egress-fallback", Endpoint::bare(addr)),
        Some(by) => OutboundPolicy {
            parent: Arc::new(ResourceRef::of_default("egress-fallback")),
            protocol: protocol(Spoken::Unknown, Err(not_enforced(by))),
            authority: "".into(),
            budget: Some(BudgetPolicy::default()),
        },
    }
}
