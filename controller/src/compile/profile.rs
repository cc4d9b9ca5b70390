//! Profiles: what is at an address.

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_policy::budget::BudgetPolicy;
use outrigger_policy::endpoint::Endpoint;
use outrigger_policy::name::ResourceRef;
use outrigger_policy::profile::Profile;

use crate::compile::client::Client;
use crate::compile::endpoints;
use crate::compile::outbound::{dialled, is_opaque, service_at, service_ref};
use crate::compile::refusal::Refusal;
use crate::compile::service_name::ServiceName;
use crate::compile::settings::Settings;
use crate::index::cluster::Cluster;
use crate::index::service::Service;

/// What is at an address.
#[derive(Clone, Debug, PartialEq)]
pub enum Destination {
    /// A port of a Service.
    Service(Profile, ResourceRef),
    /// An address of a Service, and a port that the Service does not have.
    NoSuchPort,
    /// One endpoint: a pod, or an address about which nothing is known.
    Endpoint(Profile),
}

/// What is at `ip:port` or `name:port`.
pub fn at(
    cluster: &Cluster,
    settings: &Settings,
    target: &str,
    client: &Client,
) -> Result<Destination, Refusal> {
    match target.parse::<SocketAddr>() {
        Ok(addr) => at_address(cluster, settings, addr),
        Err(_) => at_name(cluster, settings, &ServiceName::parse(target, settings)?, client),
    }
}

fn at_address(cluster: &Cluster, settings: &Settings, addr: SocketAddr) -> Result<Destination, Refusal> {
    let addr = dialled(addr)?;
    if let Some(service) = service_at(cluster, addr.ip())? {
        return Ok(at_service(settings, service, addr.port()));
    }
    let Some((pod, port)) = cluster.pod_at(addr) else {
        return Ok(at_endpoint(
            Endpoint::bare(addr),
            settings.default_opaque_ports.contains(addr.port()),
        ));
    };
    let mut endpoint = endpoints::of_pod(cluster, settings, pod, addr, port)
        .ok_or_else(|| Refusal::Ambiguous(format!("{} does not tell where its proxy listens", pod.id)))?;
    Arc::make_mut(&mut endpoint.labels).insert("namespace".into(), pod.id.namespace.to_string());
    Ok(at_endpoint(
        endpoint,
        endpoints::is_opaque(cluster, settings, pod, port),
    ))
}

fn at_name(
    cluster: &Cluster,
    settings: &Settings,
    name: &ServiceName,
    client: &Client,
) -> Result<Destination, Refusal> {
    if let Some(instance) = &name.instance {
        let endpoints = endpoints::of_service(cluster, settings, name, client)?;
        let addr = endpoints.by_address.first_key_value().map(|(addr, _)| *addr);
        let missing = || {
            Refusal::NotFound(format!(
                "no pod {instance} behind {}/{}",
                name.namespace, name.name
            ))
        };
        return at_address(cluster, settings, addr.ok_or_else(missing)?);
    }
    let service = cluster.service(&name.namespace, &name.name);
    let missing = || Refusal::NotFound(format!("Service {}/{} is not defined", name.namespace, name.name));
    Ok(at_service(settings, service.ok_or_else(missing)?, name.port))
}

fn at_service(settings: &Settings, service: &Service, port: u16) -> Destination {
    let Some(declared) = service.port(port) else {
        return Destination::NoSuchPort;
    };
    let name = ServiceName::full(&service.id.namespace, &service.id.name, settings);
    let opaque = is_opaque(settings, service, declared);
    let profile = Profile {
        fully_qualified_name: Some(name.into()),
        opaque,
        budget: Some(BudgetPolicy::default()),
        ..Profile::default()
    };
    Destination::Service(
        profile,
        service_ref(&service.id.namespace, &service.id.name, port),
    )
}

fn at_endpoint(endpoint: Endpoint, opaque: bool) -> Destination {
    Destination::Endpoint(Profile {
        endpoint: Some(endpoint),
        opaque,
        budget: Some(BudgetPolicy::default()),
        ..Profile::default()
    })
}
