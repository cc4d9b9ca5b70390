//! Inbound policies: what a pod's port accepts.

use std::sync::Arc;

use outrigger_policy::authz::Authorization;
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol, InboundRule};
use outrigger_policy::name::ResourceRef;
use outrigger_policy::route::path::PathMatch;
use outrigger_policy::route::request::RequestMatch;
use outrigger_policy::route::{Route, RouteTable, Rule};

use crate::compile::authorization::{self, localhost};
use crate::compile::client::Client;
use crate::compile::endpoints::is_listed_opaque;
use crate::compile::refusal::Refusal;
use crate::compile::server::{self, DETECT_TIMEOUT};
use crate::compile::settings::Settings;
use crate::index::cluster::Cluster;
use crate::index::pod::Pod;

/// What a port of a workload accepts. Pods outside this control plane's mesh have no policies.
pub fn of_port(
    cluster: &Cluster,
    settings: &Settings,
    workload: &Client,
    port: u16,
) -> Result<InboundPolicy, Refusal> {
    let (Some(namespace), Some(name)) = (&workload.namespace, &workload.pod) else {
        return Err(Refusal::Invalid(
            "a workload is {\"ns\": <namespace>, \"pod\": <name>}".into(),
        ));
    };
    let pod = cluster
        .pod(namespace, name)
        .filter(|pod| is_labelled(pod, settings))
        .ok_or_else(|| {
            let label = format!("linkerd.io/control-plane-ns={}", settings.namespace);
            Refusal::NotFound(format!(
                "no Pod {namespace}/{name} with the label {label} is defined"
            ))
        })?;
    if let Some(by) = pod.denied(port) {
        return Ok(server::denied(&by.id, by.to_string()));
    }
    Ok(match cluster.selection.server(&pod.id, port) {
        Some(selects) => server::policy(cluster, settings, selects, |authorizations| {
            routes(pod, settings, port, authorizations)
        }),
        None => by_default(pod, settings, port),
    })
}

/// A pod whose proxy can't be reached has to know what to accept all the same.
fn is_labelled(pod: &Pod, settings: &Settings) -> bool {
    pod.labels
        .get("linkerd.io/control-plane-ns")
        .is_some_and(|namespace| **namespace == *settings.namespace)
}

fn by_default(pod: &Pod, settings: &Settings, port: u16) -> InboundPolicy {
    let mut policy = pod.default_policy.unwrap_or(settings.default_policy);
    if pod.require_identity.contains(port) {
        policy = policy.authenticated();
    }
    let granted = authorization::by_default(policy, settings).into_iter();
    let authorizations: Arc<[Authorization]> = granted.chain([localhost()]).collect();
    let protocol = match is_listed_opaque(settings, pod, port) {
        true => InboundProtocol::Opaque,
        false => InboundProtocol::Detect {
            timeout: DETECT_TIMEOUT,
            routes: routes(pod, settings, port, &authorizations),
        },
    };
    InboundPolicy {
        meta: Arc::new(ResourceRef::of_default(policy.as_str())),
        protocol,
        authorizations,
        rate_limit: None,
    }
}

/// Everything under the server's own authorizations; what the kubelet probes, under `probe` besides.
fn routes(
    pod: &Pod,
    settings: &Settings,
    port: u16,
    granted: &Arc<[Authorization]>,
) -> RouteTable<InboundRule> {
    let mut table = server::everything(granted);
    let (Some(paths), Some(probe)) = (pod.probes.get(&port), authorization::probe(settings)) else {
        return table;
    };
    let authorizations = std::iter::once(probe).chain(granted.iter().cloned()).collect();
    let matches = paths.iter().map(|path| RequestMatch {
        path: Some(PathMatch::Exact(path.clone())),
        method: Some(http::Method::GET),
        ..RequestMatch::default()
    });
    table.routes.push(Route {
        meta: Arc::new(ResourceRef::of_default("probe")),
        hosts: Vec::new(),
        rules: vec![Rule {
            matches: matches.collect(),
            then: InboundRule::new(authorizations),
        }],
    });
    table
}
