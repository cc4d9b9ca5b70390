//! Profiles: what is at an address.

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_policy::Unsupported;
use outrigger_policy::budget::BudgetPolicy;
use outrigger_policy::classify::{Class, ResponseClass, ResponseCondition};
use outrigger_policy::endpoint::Endpoint;
use outrigger_policy::name::ResourceRef;
use outrigger_policy::profile::{Override, Profile, ProfileRoute};
use outrigger_policy::route::condition::Condition;

use crate::compile::attached;
use crate::compile::client::Client;
use crate::compile::endpoints;
use crate::compile::outbound::{dialled, is_opaque, service_at, service_ref};
use crate::compile::refusal::Refusal;
use crate::compile::service_name::ServiceName;
use crate::compile::settings::Settings;
use crate::index::cluster::Cluster;
use crate::index::policies::Resource;
use crate::index::service::Service;
use crate::resources::profile::{self as written, RequestCondition, ServiceProfile, TrafficSplit};
use crate::resources::refused::ParentKind;

/// Weights are sent in ten thousandths, and written in thousandths.
const WEIGHT_OF_A_THOUSANDTH: u32 = 10;

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
        Ok(addr) => at_address(cluster, settings, addr, client),
        Err(_) => at_name(cluster, settings, &ServiceName::parse(target, settings)?, client),
    }
}

fn at_address(
    cluster: &Cluster,
    settings: &Settings,
    addr: SocketAddr,
    client: &Client,
) -> Result<Destination, Refusal> {
    let addr = dialled(addr)?;
    if let Some(service) = service_at(cluster, addr.ip())? {
        return Ok(at_service(cluster, settings, service, addr.port(), client));
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
        return at_address(cluster, settings, addr.ok_or_else(missing)?, client);
    }
    let service = cluster.service(&name.namespace, &name.name);
    let missing = || Refusal::NotFound(format!("Service {}/{} is not defined", name.namespace, name.name));
    Ok(at_service(
        cluster,
        settings,
        service.ok_or_else(missing)?,
        name.port,
        client,
    ))
}

fn at_service(
    cluster: &Cluster,
    settings: &Settings,
    service: &Service,
    port: u16,
    client: &Client,
) -> Destination {
    let id = &service.id;
    let Some(declared) = service.port(port) else {
        return Destination::NoSuchPort;
    };
    let name = ServiceName::full(&id.namespace, &id.name, settings);
    let profile = Profile {
        fully_qualified_name: Some(name.into()),
        opaque: is_opaque(settings, service, declared),
        budget: Some(BudgetPolicy::default()),
        ..Profile::default()
    };
    let namespace = client.namespace.as_deref();
    let refused = cluster.refused(
        ParentKind::Service,
        &id.namespace,
        &id.name,
        Some(port),
        namespace,
    );
    let parent = service_ref(&id.namespace, &id.name, port);
    if let Some(by) = refused {
        let profile = Profile {
            unsupported: Some(Unsupported::new(by.to_string())),
            ..profile
        };
        return Destination::Service(profile, parent);
    }
    let written = attached::profile(&cluster.policies, settings, id, client);
    let split = attached::split(&cluster.policies, settings, id);
    let profile = match written {
        Some(written) => with_profile(profile, &written.spec, port),
        None => profile,
    };
    match split.filter(|_| profile.overrides.is_empty()) {
        Some(split) => Destination::Service(with_split(profile, split, settings, port), parent),
        None => Destination::Service(profile, parent),
    }
}

/// What a ServiceProfile says.
fn with_profile(profile: Profile, written: &ServiceProfile, port: u16) -> Profile {
    let routes = written.routes.iter().flatten().map(|route| ProfileRoute {
        condition: request_condition(&route.condition),
        classes: route
            .response_classes
            .iter()
            .flatten()
            .map(response_class)
            .collect(),
        labels: Arc::new([("route".to_owned(), route.name.clone())].into()),
        retryable: route.is_retryable,
        timeout: route
            .timeout
            .map(|timeout| timeout.0)
            .filter(|timeout| !timeout.is_zero()),
    });
    let overrides = written.dst_overrides.iter().flatten().map(|over| Override {
        authority: with_port(&over.authority, port),
        weight: over.weight.0 * WEIGHT_OF_A_THOUSANDTH,
    });
    // The budget was checked when it was read.
    let budget = written
        .retry_budget
        .and_then(|b| BudgetPolicy::try_new(b.retry_ratio, b.min_retries_per_second, b.ttl.0).ok());
    Profile {
        routes: routes.collect(),
        overrides: overrides.collect(),
        budget: budget.or(profile.budget),
        ..profile
    }
}

/// What a TrafficSplit says: its backends are Services of its own namespace.
fn with_split(profile: Profile, split: &Resource<TrafficSplit>, settings: &Settings, port: u16) -> Profile {
    let overrides = split.spec.backends.iter().map(|backend| {
        let name = ServiceName::full(&split.id.namespace, &backend.service, settings);
        Override {
            authority: format!("{name}:{port}").into(),
            weight: backend.weight.0 * WEIGHT_OF_A_THOUSANDTH,
        }
    });
    Profile {
        overrides: overrides.collect(),
        ..profile
    }
}

fn with_port(authority: &str, port: u16) -> Arc<str> {
    match authority.rsplit_once(':') {
        Some(_) => authority.into(),
        None => format!("{authority}:{port}").into(),
    }
}

/// All that is given; one thing alone stands for itself.
fn request_condition(written: &RequestCondition) -> Condition {
    let list = |list: &[RequestCondition]| list.iter().map(request_condition).collect();
    let parts = [
        written.all.as_deref().map(|all| Condition::All(list(all))),
        written.any.as_deref().map(|any| Condition::Any(list(any))),
        written
            .not
            .as_deref()
            .map(|not| Condition::Not(Box::new(request_condition(not)))),
        written
            .path_regex
            .as_ref()
            .map(|path| Condition::Path(path.0.clone())),
        written
            .method
            .as_ref()
            .map(|method| Condition::Method(method.0.clone())),
    ];
    let mut parts: Vec<_> = parts.into_iter().flatten().collect();
    match parts.len() {
        1 => parts.remove(0),
        _ => Condition::All(parts),
    }
}

fn response_class(written: &written::ResponseClass) -> ResponseClass {
    ResponseClass {
        condition: response_condition(&written.condition),
        class: if written.is_failure {
            Class::Failure
        } else {
            Class::Success
        },
    }
}

fn response_condition(written: &written::ResponseCondition) -> ResponseCondition {
    let list = |list: &[written::ResponseCondition]| list.iter().map(response_condition).collect();
    let parts = [
        written
            .all
            .as_deref()
            .map(|all| ResponseCondition::All(list(all))),
        written
            .any
            .as_deref()
            .map(|any| ResponseCondition::Any(list(any))),
        written
            .not
            .as_deref()
            .map(|not| ResponseCondition::Not(Box::new(response_condition(not)))),
        written
            .status
            .as_ref()
            .map(|status| ResponseCondition::Status(status.0.clone())),
    ];
    let mut parts: Vec<_> = parts.into_iter().flatten().collect();
    match parts.len() {
        1 => parts.remove(0),
        _ => ResponseCondition::All(parts),
    }
}

fn at_endpoint(endpoint: Endpoint, opaque: bool) -> Destination {
    Destination::Endpoint(Profile {
        endpoint: Some(endpoint),
        opaque,
        budget: Some(BudgetPolicy::default()),
        ..Profile::default()
    })
}
