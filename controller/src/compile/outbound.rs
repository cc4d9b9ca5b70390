//! Outbound policies: how a destination is used.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use outrigger_policy::Unsupported;
use outrigger_policy::budget::BudgetPolicy;
use outrigger_policy::name::ResourceRef;
use outrigger_policy::outbound::{Distribution, OpaqueAction, OpaqueRoute, OutboundPolicy, OutboundProtocol};
use outrigger_policy::route::RouteTable;

use crate::compile::attached::Parent;
use crate::compile::backends::{Carries, Destination};
use crate::compile::client::Client;
use crate::compile::refusal::Refusal;
use crate::compile::service_name::ServiceName;
use crate::compile::settings::Settings;
use crate::compile::{egress, routes};
use crate::index::cluster::Cluster;
use crate::index::policies::{Policies, Resource};
use crate::index::service::{Service, ServicePort};
use crate::resources::refused::ParentKind;
use crate::resources::report::ObjectId;
use crate::resources::route::{GrpcRule, HttpRule, Route, StreamRule};
use crate::resources::traffic::Traffic;

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
    Ok(egress::policy(cluster, settings, addr, client))
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
        None => unknown(cluster, settings, name),
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
    let to = Destination {
        cluster,
        settings,
        meta: Arc::new(meta),
        address: None,
        traffic: &service.traffic,
    };
    let namespace = client.namespace.as_deref();
    let refused_by = cluster.refused(
        ParentKind::Service,
        &id.namespace,
        &id.name,
        Some(port),
        namespace,
    );
    let refused = service
        .refused
        .clone()
        .or_else(|| refused_by.map(ToString::to_string));
    let routes = Routes::of(&cluster.policies, Parent::service(id, port), client);
    let protocol = match refused {
        Some(reason) => Err(reason),
        None => spoken_with_routes(&to, spoken(settings, service, declared), &routes),
    };
    let name = ServiceName::full(&id.namespace, &id.name, settings);
    OutboundPolicy {
        protocol: protocol.unwrap_or_else(|reason| OutboundProtocol::Invalid(Unsupported::new(reason))),
        authority: format!("{name}:{port}").into(),
        parent: to.meta,
        budget: Some(BudgetPolicy::default()),
    }
}

/// A Service that is not defined yet.
fn unknown(cluster: &Cluster, settings: &Settings, name: &ServiceName) -> OutboundPolicy {
    let traffic = Traffic::default();
    let to = Destination {
        cluster,
        settings,
        meta: Arc::new(service_ref(&name.namespace, &name.name, name.port)),
        address: None,
        traffic: &traffic,
    };
    let authority = ServiceName::full(&name.namespace, &name.name, settings);
    OutboundPolicy {
        protocol: by_default(&to, Spoken::Unknown),
        authority: format!("{authority}:{}", name.port).into(),
        parent: to.meta,
        budget: Some(BudgetPolicy::default()),
    }
}

/// The routes that are attached to a destination and hold for a client.
struct Routes<'a> {
    http: Vec<&'a Arc<Resource<Route<HttpRule>>>>,
    grpc: Vec<&'a Arc<Resource<Route<GrpcRule>>>>,
    tls: Vec<&'a Arc<Resource<Route<StreamRule>>>>,
    tcp: Vec<&'a Arc<Resource<Route<StreamRule>>>>,
}

impl<'a> Routes<'a> {
    fn of(policies: &'a Policies, parent: Parent<'a>, client: &Client) -> Self {
        Self {
            http: parent.routes(&policies.http_routes, client),
            grpc: parent.routes(&policies.grpc_routes, client),
            tls: parent.routes(&policies.tls_routes, client),
            tcp: parent.routes(&policies.tcp_routes, client),
        }
    }

    /// The first route of kinds that a port does not take.
    fn misplaced(&self, spoken: Spoken) -> Option<&ObjectId> {
        let http = self.http.first().map(|route| &route.id);
        let grpc = self.grpc.first().map(|route| &route.id);
        let tls = self.tls.first().map(|route| &route.id);
        let tcp = self.tcp.first().map(|route| &route.id);
        match spoken {
            // Of several kinds the most specific counts, as the report of the others says.
            Spoken::Unknown => None,
            Spoken::Http1 => grpc.or(tls).or(tcp),
            Spoken::Http2 => tls.or(tcp),
            Spoken::Opaque => http.or(grpc).or(tls),
        }
    }
}

/// What is spoken to a Service's port, by the routes that are attached to it. The most specific kind counts.
fn spoken_with_routes(
    to: &Destination<'_>,
    spoken: Spoken,
    routes: &Routes<'_>,
) -> Result<OutboundProtocol, String> {
    if let Some(route) = routes.misplaced(spoken) {
        return Err(format!(
            "{route} is attached to a port that speaks something else: change appProtocol or opaque-ports, or remove \
             the route"
        ));
    }
    Ok(match spoken {
        Spoken::Unknown | Spoken::Http2 if !routes.grpc.is_empty() => {
            OutboundProtocol::Grpc(routes::grpc(to, &routes.grpc))
        }
        Spoken::Unknown if !routes.http.is_empty() => {
            let table = routes::http(to, &routes.http);
            OutboundProtocol::Detect {
                http1: table.clone(),
                http2: table,
                opaque: default_opaque(to, Carries::Http),
            }
        }
        Spoken::Http1 if !routes.http.is_empty() => OutboundProtocol::Http1(routes::http(to, &routes.http)),
        Spoken::Http2 if !routes.http.is_empty() => OutboundProtocol::Http2(routes::http(to, &routes.http)),
        Spoken::Unknown if !routes.tls.is_empty() => OutboundProtocol::Tls(routes::tls(to, &routes.tls)),
        spoken => match routes::tcp(to, &routes.tcp) {
            Some(route) => OutboundProtocol::Opaque(route),
            None => by_default(to, spoken),
        },
    })
}

/// What is spoken where there are no routes: everything goes to the destination itself.
fn by_default(to: &Destination<'_>, spoken: Spoken) -> OutboundProtocol {
    let http = || {
        let rule = routes::default_rule(to, Carries::Http);
        RouteTable::catch_all(Arc::new(ResourceRef::of_default("http")), rule)
    };
    match spoken {
        Spoken::Unknown => OutboundProtocol::Detect {
            http1: http(),
            http2: http(),
            opaque: default_opaque(to, Carries::Http),
        },
        Spoken::Http1 => OutboundProtocol::Http1(http()),
        Spoken::Http2 => OutboundProtocol::Http2(http()),
        Spoken::Opaque => OutboundProtocol::Opaque(default_opaque(to, Carries::Bytes)),
    }
}

/// Where bytes go that are not HTTP. Beside HTTP they share its backend.
fn default_opaque(to: &Destination<'_>, beside: Carries) -> OpaqueRoute {
    OpaqueRoute {
        meta: Arc::new(ResourceRef::of_default("opaq")),
        action: OpaqueAction::Forward(Distribution::FirstAvailable(vec![to.itself(beside)])),
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
