//! Kinds that this version does not enforce: what they would have changed is refused, never left as it was.
//!
//! | kind | what is refused while it is there |
//! |---|---|
//! | Server | the port that it selects, on the pods that it selects: everybody is denied |
//! | HTTPRoute, GRPCRoute, TLSRoute, TCPRoute with a Service as parent | that Service (that port): its policy is invalid |
//! | ServiceProfile, TrafficSplit | the Service that it names |
//! | EgressNetwork | addresses outside the cluster that it covers, for the clients that it applies to |
//! | everything else | nothing: it could only grant what a Server denies, or add endpoints |

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;
use serde_json::Value;

/// An object that is not enforced, and what has to be refused because of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Refused {
    /// A port of some pods.
    Port {
        /// The pods; `None` selects none (external workloads).
        pods: Option<LabelSelector>,
        /// The port, or the name of a container's port.
        port: IntOrString,
    },
    /// Services.
    Services(Vec<RefusedService>),
    /// Addresses outside the cluster, for the clients of the object's namespace.
    Egress {
        /// The networks, each with its exceptions; none stands for every address outside the cluster.
        networks: Vec<(IpNet, Vec<IpNet>)>,
    },
    /// Nothing: without it less is allowed, not more.
    Nothing,
}

/// A Service that is refused because of another object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedService {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// One port of it, or all.
    pub port: Option<u16>,
    /// The clients concerned: those of one namespace, or all.
    pub clients: Option<String>,
}

/// Whether objects of this kind say something about a mesh.
pub fn concerns_a_mesh(group: &str, kind: &str) -> bool {
    match group {
        "policy.linkerd.io" | "linkerd.io" | "split.smi-spec.io" | "workload.linkerd.io" => true,
        // Gateways and their classes concern ingress controllers.
        "gateway.networking.k8s.io" => kind.ends_with("Route"),
        _ => false,
    }
}

/// What has to be refused because of this object.
pub fn read(kind: &str, namespace: &str, name: &str, manifest: &Value) -> Result<Refused, serde_json::Error> {
    Ok(match kind {
        "Server" => {
            let spec = Spec::<Server>::deserialize(manifest)?.spec;
            Refused::Port {
                pods: spec.pod_selector,
                port: spec.port,
            }
        }
        "HTTPRoute" | "GRPCRoute" | "TLSRoute" | "TCPRoute" => {
            let spec = Spec::<Route>::deserialize(manifest)?.spec;
            Refused::Services(
                spec.parent_refs
                    .iter()
                    .filter_map(|parent| parent.service(namespace))
                    .collect(),
            )
        }
        "ServiceProfile" => Refused::Services(profiled(name, namespace).into_iter().collect()),
        "TrafficSplit" => {
            let spec = Spec::<TrafficSplit>::deserialize(manifest)?.spec;
            let service = spec.service.split('.').next().unwrap_or_default();
            Refused::Services(vec![RefusedService {
                namespace: namespace.into(),
                name: service.into(),
                port: None,
                clients: None,
            }])
        }
        "EgressNetwork" => {
            let spec = Spec::<EgressNetwork>::deserialize(manifest)?.spec;
            let blocks = spec.networks.unwrap_or_default();
            Refused::Egress {
                networks: blocks
                    .iter()
                    .map(EgressBlock::networks)
                    .collect::<Result<_, _>>()?,
            }
        }
        _ => Refused::Nothing,
    })
}

impl Refused {
    /// What follows, for the report.
    pub fn consequence(&self) -> &'static str {
        match self {
            Self::Port { .. } => "the port that it selects denies everybody",
            Self::Services(services) if services.is_empty() => "it selects no Service, and nothing changes",
            Self::Services(_) => "requests to the Service that it names are refused",
            Self::Egress { .. } => "connections to the addresses that it covers are refused",
            Self::Nothing => "it has no effect (nothing is allowed by it)",
        }
    }
}

#[derive(Deserialize)]
struct Spec<T> {
    spec: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Server {
    pod_selector: Option<LabelSelector>,
    port: IntOrString,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Route {
    #[serde(default)]
    parent_refs: Vec<ParentRef>,
}

#[derive(Deserialize)]
struct ParentRef {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    port: Option<u16>,
}

#[derive(Deserialize)]
struct TrafficSplit {
    service: String,
}

#[derive(Deserialize)]
struct EgressNetwork {
    networks: Option<Vec<EgressBlock>>,
}

#[derive(Deserialize)]
struct EgressBlock {
    cidr: String,
    #[serde(default)]
    except: Vec<String>,
}

impl EgressBlock {
    fn networks(&self) -> Result<(IpNet, Vec<IpNet>), serde_json::Error> {
        let except = self
            .except
            .iter()
            .map(|net| network(net))
            .collect::<Result<_, _>>()?;
        Ok((network(&self.cidr)?, except))
    }
}

fn network(text: &str) -> Result<IpNet, serde_json::Error> {
    text.parse()
        .map_err(|_| serde::de::Error::custom(format!("{text:?} is no network (address/length)")))
}

impl ParentRef {
    /// The Service meant, if it is one. A consumer's route (of another namespace) concerns that namespace's clients.
    fn service(&self, route_namespace: &str) -> Option<RefusedService> {
        let group = self.group.as_deref().unwrap_or("gateway.networking.k8s.io");
        if self.kind.as_deref() != Some("Service") || !matches!(group, "" | "core") {
            return None;
        }
        let namespace = self.namespace.as_deref().unwrap_or(route_namespace);
        Some(RefusedService {
            namespace: namespace.into(),
            name: self.name.clone(),
            port: self.port,
            clients: (namespace != route_namespace).then(|| route_namespace.into()),
        })
    }
}

/// The Service that a profile's name means: `<service>.<namespace>.svc.<domain>`.
fn profiled(name: &str, profile_namespace: &str) -> Option<RefusedService> {
    let mut labels = name.split('.');
    let (service, namespace) = (labels.next()?, labels.next()?);
    (labels.next() == Some("svc")).then(|| RefusedService {
        namespace: namespace.into(),
        name: service.into(),
        port: None,
        clients: (namespace != profile_namespace).then(|| profile_namespace.into()),
    })
}
