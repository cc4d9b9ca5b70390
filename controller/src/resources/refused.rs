//! Policies that can't be used: what they would have changed is refused, never left as it was.
//!
//! | kind | what is refused while it is there |
//! |---|---|
//! | Server | the port that it selects, on the pods that it selects: everybody is denied |
//! | HTTPRoute, GRPCRoute, HTTPLocalRateLimitPolicy of a Server | that Server's ports |
//! | HTTPRoute, GRPCRoute, TLSRoute, TCPRoute of a Service | that Service (that port): its policy is invalid |
//! | ServiceProfile, TrafficSplit | the Service that it names |
//! | EgressNetwork, and routes of it | addresses outside the cluster that it covers, for the clients that it applies to |
//! | everything else | nothing: it could only grant what a Server denies, or add endpoints |
//!
//! What selects (pods, a port, parents) is read apart from the rest, and where it can't be read it selects everything.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;
use serde_json::Value;

use crate::resources::report::ObjectId;
use crate::resources::values::{NetworkRange, Selector};

/// A policy that can't be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Unusable {
    /// The line of what is wrong, where it is known better than the object's own.
    pub line: Option<u64>,
    /// What is wrong, and what to do.
    pub reason: String,
    /// What has to be refused because of it.
    pub refused: Refused,
}

/// What has to be refused because of a policy that can't be used.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    /// A port of some pods of its namespace.
    Port {
        /// The pods; `None` selects none (external workloads).
        pods: Option<Selector>,
        /// The port, or the name of a container's port; `None` stands for all.
        port: Option<IntOrString>,
    },
    /// What a route or a limit is attached to.
    Parents(Vec<RefusedParent>),
    /// Addresses outside the cluster, for the clients of the object's namespace.
    Egress {
        /// The networks, each with its exceptions; none stands for every address outside the cluster.
        networks: Vec<(IpNet, Vec<IpNet>)>,
    },
    /// Nothing: without it less is allowed, not more.
    Nothing,
}

/// Because of which policy something is refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedBy {
    /// The policy that can't be used.
    pub id: ObjectId,
    /// What is wrong with it, and what to do.
    pub reason: Arc<str>,
}

/// A parent that is refused because of something attached to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedParent {
    /// Of which kind.
    pub kind: ParentKind,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// One port of it, or all.
    pub port: Option<u16>,
    /// The clients concerned: those of one namespace, or all.
    pub clients: Option<Arc<str>>,
}

/// What can be refused because of something attached to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParentKind {
    /// A Server: its ports.
    Server,
    /// A Service.
    Service,
    /// An EgressNetwork.
    EgressNetwork,
}

/// What has to be refused because of this object.
pub fn read(kind: &str, namespace: &str, name: &str, manifest: &Value) -> Refused {
    let spec = &manifest["spec"];
    match kind {
        "Server" => server(spec),
        "HTTPRoute" | "GRPCRoute" | "TLSRoute" | "TCPRoute" => {
            let parents = spec["parentRefs"].as_array().into_iter().flatten();
            Refused::Parents(
                parents
                    .filter_map(|parent| parent_of(parent, namespace))
                    .collect(),
            )
        }
        "HTTPLocalRateLimitPolicy" => {
            let name = spec["targetRef"]["name"].as_str();
            let limited = name.map(|name| whole(ParentKind::Server, namespace, name));
            Refused::Parents(limited.into_iter().collect())
        }
        "ServiceProfile" => Refused::Parents(profiled(name, namespace).into_iter().collect()),
        "TrafficSplit" => {
            let service = spec["service"].as_str().unwrap_or_default();
            let service = service.split('.').next().unwrap_or_default();
            Refused::Parents(vec![whole(ParentKind::Service, namespace, service)])
        }
        "EgressNetwork" => {
            let ranges = Option::<Vec<NetworkRange>>::deserialize(&spec["networks"]);
            let ranges = ranges.ok().flatten().unwrap_or_default();
            let networks = ranges.into_iter().map(|range| {
                let except = range.except.unwrap_or_default();
                (range.cidr.0, except.into_iter().map(|cidr| cidr.0).collect())
            });
            Refused::Egress {
                networks: networks.collect(),
            }
        }
        _ => Refused::Nothing,
    }
}

impl Refused {
    /// What follows, for the report.
    pub fn consequence(&self) -> &'static str {
        match self {
            Self::Port { .. } => "the port that it selects denies everybody",
            Self::Parents(parents) if parents.is_empty() => "it selects nothing, and nothing changes",
            Self::Parents(_) => "what it is attached to refuses requests",
            Self::Egress { .. } => "connections to the addresses that it covers are refused",
            Self::Nothing => "it has no effect (nothing is allowed by it)",
        }
    }
}

impl fmt::Display for RefusedBy {
    /// `Server demo/web can't be used: what is wrong`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} can't be used: {}", self.id, self.reason)
    }
}

fn server(spec: &Value) -> Refused {
    let pods = match spec.get("podSelector") {
        Some(selector) => Some(Selector::deserialize(selector).unwrap_or_default()),
        // What selects neither, selects all: it can't be known what was meant.
        None if spec.get("externalWorkloadSelector").is_none() => Some(Selector::default()),
        None => None,
    };
    Refused::Port {
        pods,
        port: IntOrString::deserialize(&spec["port"]).ok(),
    }
}

/// The parent meant, if it is one that this controller serves. A consumer's route (of another namespace than the
/// Service) concerns that namespace's clients.
fn parent_of(parent: &Value, route_namespace: &str) -> Option<RefusedParent> {
    let group = parent["group"].as_str().unwrap_or("gateway.networking.k8s.io");
    let kind = match (group, parent["kind"].as_str()?) {
        ("" | "core", "Service") => ParentKind::Service,
        ("policy.linkerd.io", "Server") => ParentKind::Server,
        ("policy.linkerd.io", "EgressNetwork") => ParentKind::EgressNetwork,
        _ => return None,
    };
    let namespace = parent["namespace"].as_str().unwrap_or(route_namespace);
    let port = parent["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    let consumer = kind != ParentKind::Server && namespace != route_namespace;
    Some(RefusedParent {
        port,
        clients: consumer.then(|| route_namespace.into()),
        ..whole(kind, namespace, parent["name"].as_str()?)
    })
}

fn whole(kind: ParentKind, namespace: &str, name: &str) -> RefusedParent {
    RefusedParent {
        kind,
        namespace: namespace.into(),
        name: name.into(),
        port: None,
        clients: None,
    }
}

/// The Service that a profile's name means: `<service>.<namespace>.svc.<domain>`.
fn profiled(name: &str, profile_namespace: &str) -> Option<RefusedParent> {
    let mut labels = name.split('.');
    let (service, namespace) = (labels.next()?, labels.next()?);
    (labels.next() == Some("svc")).then(|| RefusedParent {
        clients: (namespace != profile_namespace).then(|| profile_namespace.into()),
        ..whole(ParentKind::Service, namespace, service)
    })
}
