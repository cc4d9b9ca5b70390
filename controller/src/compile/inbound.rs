//! Inbound policies: what a pod's port accepts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use outrigger_policy::Unsupported;
use outrigger_policy::authz::{Authentication, Authorization, Network, Suffix};
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol, InboundRule};
use outrigger_policy::name::ResourceRef;
use outrigger_policy::route::path::PathMatch;
use outrigger_policy::route::request::RequestMatch;
use outrigger_policy::route::{Route, RouteTable, Rule};

use crate::compile::client::Client;
use crate::compile::endpoints::is_opaque;
use crate::compile::refusal::Refusal;
use crate::compile::settings::{self, Settings};
use crate::index::cluster::Cluster;
use crate::index::pod::Pod;
use crate::resources::default_policy::DefaultPolicy;
use crate::resources::report::ObjectId;

/// How long a proxy waits for the first bytes of a connection.
const DETECT_TIMEOUT: Duration = Duration::from_secs(10);

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
    Ok(match pod.denied_by(port) {
        Some(by) => denied(by),
        None => by_default(pod, settings, port),
    })
}

/// A pod whose proxy can't be reached has to know what to accept all the same.
fn is_labelled(pod: &Pod, settings: &Settings) -> bool {
    pod.labels
        .get("linkerd.io/control-plane-ns")
        .is_some_and(|namespace| **namespace == *settings.namespace)
}

/// A port about which something is said that this version does not enforce: nobody may connect.
fn denied(by: &ObjectId) -> InboundPolicy {
    let reason = format!("{by} is not enforced by this version of the control plane: remove it");
    InboundPolicy {
        meta: Arc::new(ResourceRef {
            group: by.group.clone(),
            kind: by.kind.to_lowercase().into(),
            ..ResourceRef::of_default(by.name.clone())
        }),
        protocol: InboundProtocol::Invalid(Unsupported::new(reason)),
        authorizations: vec![localhost()].into(),
        rate_limit: None,
    }
}

fn by_default(pod: &Pod, settings: &Settings, port: u16) -> InboundPolicy {
    let mut policy = pod.default_policy.unwrap_or(settings.default_policy);
    if pod.require_identity.contains(port) {
        policy = policy.authenticated();
    }
    let granted = authorizations(policy, settings).into_iter();
    let authorizations: Arc<[Authorization]> = granted.chain([localhost()]).collect();
    let protocol = match is_opaque(settings, pod, port) {
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

fn authorizations(policy: DefaultPolicy, settings: &Settings) -> Option<Authorization> {
    let anybody = Authentication::Unauthenticated;
    let any_identity = Authentication::TlsAuthenticated {
        identities: Vec::new(),
        suffixes: vec![Suffix("".into())],
    };
    let cluster = settings.cluster_networks.clone();
    let (networks, authentication) = match policy {
        DefaultPolicy::Deny => return None,
        DefaultPolicy::AllUnauthenticated | DefaultPolicy::Audit => (settings::everywhere(), anybody),
        DefaultPolicy::AllAuthenticated => (settings::everywhere(), any_identity),
        DefaultPolicy::ClusterUnauthenticated => (cluster, anybody),
        DefaultPolicy::ClusterAuthenticated => (cluster, any_identity),
    };
    // An authorization without networks would be refused as a whole by proxies.
    (!networks.is_empty()).then(|| authorization(policy.as_str(), networks, authentication))
}

/// The workload may always talk to itself; proxies add this to what they are told.
fn localhost() -> Authorization {
    let hosts = [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::from(Ipv6Addr::LOCALHOST),
    ];
    authorization(
        "localhost",
        hosts.map(IpNet::from).into(),
        Authentication::Unauthenticated,
    )
}

fn authorization(name: &str, networks: Vec<IpNet>, authentication: Authentication) -> Authorization {
    let networks = networks
        .into_iter()
        .map(|net| Network {
            net,
            except: Vec::new(),
        })
        .collect();
    Authorization {
        meta: Arc::new(ResourceRef::of_default(name)),
        networks,
        authentication,
    }
}

/// Everything under the server's own authorizations; what the kubelet probes, under `probe` besides.
fn routes(
    pod: &Pod,
    settings: &Settings,
    port: u16,
    server: &Arc<[Authorization]>,
) -> RouteTable<InboundRule> {
    let everything = InboundRule::new(server.clone());
    let mut table = RouteTable::catch_all(Arc::new(ResourceRef::of_default("default")), everything);
    let Some(paths) = pod
        .probes
        .get(&port)
        .filter(|_| !settings.probe_networks.is_empty())
    else {
        return table;
    };
    let probe = authorization(
        "probe",
        settings.probe_networks.clone(),
        Authentication::Unauthenticated,
    );
    let authorizations = std::iter::once(probe).chain(server.iter().cloned()).collect();
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
