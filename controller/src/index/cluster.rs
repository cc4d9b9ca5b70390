//! The cluster: everything that is known, by the keys that proxies ask with.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

use crate::index::annotations::Context;
use crate::index::pod::{self, Pod};
use crate::index::policies::Policies;
use crate::index::references;
use crate::index::selection::Selection;
use crate::index::service::{self, Service};
use crate::index::slice::{self, Slice};
use crate::resources::object::{Located, Object};
use crate::resources::ports::PortSet;
use crate::resources::refused::{ParentKind, Refused, RefusedBy, RefusedParent, Unusable};
use crate::resources::report::{ObjectId, Report, Severity};

type Name = (Arc<str>, Arc<str>);

/// The cluster as last seen. It never changes.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// What is wrong with what was read.
    pub reports: Vec<Report>,
    services: HashMap<Name, Arc<Service>>,
    by_cluster_ip: HashMap<IpAddr, Vec<Arc<Service>>>,
    pods: HashMap<Name, Arc<Pod>>,
    by_pod_ip: HashMap<IpAddr, Arc<Pod>>,
    by_host_port: HashMap<SocketAddr, (Arc<Pod>, u16)>,
    slices: HashMap<Name, Vec<Slice>>,
    zones: HashMap<Arc<str>, Arc<str>>,
    refused_parents: HashMap<(ParentKind, Name), Vec<(RefusedParent, RefusedBy)>>,
    refused_egress: Vec<RefusedEgress>,
    /// The policies that can be used.
    pub policies: Policies,
    /// Which Server decides about which port.
    pub selection: Selection,
}

/// Addresses outside the cluster that some clients may not reach.
#[derive(Clone, Debug, PartialEq)]
struct RefusedEgress {
    by: RefusedBy,
    networks: Vec<(IpNet, Vec<IpNet>)>,
}

/// EgressNetworks of this namespace hold for the clients of all.
pub const GLOBAL_EGRESS_NAMESPACE: &str = "linkerd-egress";

/// The label of a node's zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Lookups.
impl Cluster {
    /// A Service by name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        self.services.get(&(namespace.into(), name.into()))
    }

    /// The Services at an address: more than one is a mistake in the manifests.
    pub fn services_at(&self, ip: IpAddr) -> &[Arc<Service>] {
        self.by_cluster_ip.get(&ip).map_or(&[], Vec::as_slice)
    }

    /// A pod by name.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Arc<Pod>> {
        self.pods.get(&(namespace.into(), name.into()))
    }

    /// Every pod, in no order.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    /// The pod at an address of its own or behind a port of its host, with the port of its container.
    pub fn pod_at(&self, address: SocketAddr) -> Option<(&Arc<Pod>, u16)> {
        let by_host = self.by_host_port.get(&address).map(|(pod, port)| (pod, *port));
        by_host.or_else(|| Some((self.by_pod_ip.get(&address.ip())?, address.port())))
    }

    /// The zone of a node.
    pub fn zone(&self, node: &str) -> Option<&Arc<str>> {
        self.zones.get(node)
    }

    /// The slices of a Service.
    pub fn slices(&self, namespace: &str, service: &str) -> &[Slice] {
        self.slices
            .get(&(namespace.into(), service.into()))
            .map_or(&[], Vec::as_slice)
    }

    /// Why clients of a namespace may not use a parent (its port), if something attached to it can't be used.
    pub fn refused(
        &self,
        kind: ParentKind,
        namespace: &str,
        name: &str,
        port: Option<u16>,
        client_namespace: Option<&str>,
    ) -> Option<&RefusedBy> {
        let refused = self
            .refused_parents
            .get(&(kind, (namespace.into(), name.into())))?;
        let concerned = refused.iter().find(|(refused, _)| {
            let same_port = port.is_none() || refused.port.is_none() || refused.port == port;
            let clients = refused.clients.as_deref();
            same_port && clients.is_none_or(|clients| Some(clients) == client_namespace)
        });
        concerned.map(|(_, by)| by)
    }

    /// Why clients of a namespace may not reach an address outside the cluster.
    ///
    /// A client that does not tell its namespace is under all of them.
    pub fn egress_refused_by(&self, ip: IpAddr, client_namespace: Option<&str>) -> Option<&RefusedBy> {
        let covers = |(net, except): &(IpNet, Vec<IpNet>)| {
            net.contains(&ip) && !except.iter().any(|except| except.contains(&ip))
        };
        let concerned = self.refused_egress.iter().find(|egress| {
            let namespace = &*egress.by.id.namespace;
            let client = client_namespace.is_none_or(|client| client == namespace);
            (client || namespace == GLOBAL_EGRESS_NAMESPACE)
                && (egress.networks.is_empty() || egress.networks.iter().any(covers))
        });
        concerned.map(|egress| &egress.by)
    }

    /// How many objects are served: Services, pods, slices.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (
            self.services.len(),
            self.pods.len(),
            self.slices.values().map(Vec::len).sum(),
        )
    }
}

/// Building.
impl Cluster {
    /// Indexes objects, in the order of their files; `reports` are those of reading them.
    pub fn build(objects: &[Located], reports: Vec<Report>) -> Self {
        let mut cluster = Self {
            reports,
            ..Self::default()
        };
        let objects = cluster.first_of_each(objects);
        let namespaces = namespace_annotations(&objects);
        let none = BTreeMap::new();
        let mut pods = Vec::new();
        for located in &objects {
            let mut context = Context {
                id: &located.id,
                origin: &located.origin,
                inherited: namespaces.get(&located.id.namespace).copied().unwrap_or(&none),
                reports: &mut cluster.reports,
            };
            match &located.object {
                Object::Pod(manifest) => pods.extend(pod::read(manifest, &mut context)),
                Object::Service(manifest) => {
                    let service = service::read(manifest, &mut context);
                    cluster.add_service(Arc::new(service));
                }
                Object::EndpointSlice(manifest) => {
                    if let Some(slice) = slice::read(manifest, &mut context) {
                        let name = (slice.namespace.clone(), slice.service.clone());
                        cluster.slices.entry(name).or_default().push(slice);
                    }
                }
                Object::Policy(policy, traffic) => {
                    cluster
                        .policies
                        .add(&located.id, &located.origin, policy, traffic);
                }
                Object::Node(manifest) => cluster.add_node(&located.id.name, manifest),
                Object::Unusable(_) | Object::Namespace(_) | Object::ServiceAccount(_) => {}
            }
        }
        cluster.policies.sort();
        for located in &objects {
            if let Object::Unusable(unusable) = &located.object {
                cluster.refuse(located, unusable, &mut pods);
            }
        }
        pods.into_iter().for_each(|pod| cluster.add_pod(Arc::new(pod)));
        cluster.selection = Selection::of(&cluster.policies.servers, cluster.pods.values());
        cluster.look_for_missing(&objects);
        references::check(&cluster)
            .into_iter()
            .for_each(|report| cluster.reports.push(report));
        cluster.reports.sort();
        cluster
    }

    /// Leaves out every object that was defined before; the first by path wins.
    fn first_of_each<'a>(&mut self, objects: &'a [Located]) -> Vec<&'a Located> {
        let mut seen: HashMap<&ObjectId, &Located> = HashMap::new();
        let mut first = Vec::new();
        for located in objects {
            if let Some(earlier) = seen.get(&located.id) {
                let reason = format!(
                    "defined at {} already, which counts: remove one of the two",
                    earlier.origin
                );
                self.reports.push(Report::about(
                    &located.origin,
                    &located.id,
                    Severity::Error,
                    reason,
                ));
            } else {
                seen.insert(&located.id, located);
                first.push(located);
            }
        }
        first
    }

    fn add_node(&mut self, name: &Arc<str>, manifest: &Node) {
        let labels = manifest.metadata.labels.iter().flatten();
        if let Some((_, zone)) = labels.into_iter().find(|(key, _)| *key == ZONE) {
            self.zones.insert(name.clone(), zone.as_str().into());
        }
    }

    fn add_service(&mut self, service: Arc<Service>) {
        for ip in &service.cluster_ips {
            self.by_cluster_ip.entry(*ip).or_default().push(service.clone());
        }
        self.services.insert(name_of(&service.id), service);
    }

    fn add_pod(&mut self, pod: Arc<Pod>) {
        for ip in &pod.ips {
            self.by_pod_ip.entry(*ip).or_insert_with(|| pod.clone());
        }
        for (address, port) in &pod.host_ports {
            self.by_host_port
                .entry(*address)
                .or_insert_with(|| (pod.clone(), *port));
        }
        self.pods.insert(name_of(&pod.id), pod);
    }

    /// Notes what has to be refused because of a policy that can't be used, and says so.
    fn refuse(&mut self, located: &Located, unusable: &Unusable, pods: &mut [Pod]) {
        let id = &located.id;
        let by = RefusedBy {
            id: id.clone(),
            reason: unusable.reason.as_str().into(),
        };
        match &unusable.refused {
            Refused::Port { pods: selector, port } => {
                let here = pods.iter_mut().filter(|pod| pod.id.namespace == id.namespace);
                let selected =
                    here.filter(|pod| selector.as_ref().is_some_and(|these| these.selects(&pod.labels)));
                selected.for_each(|pod| {
                    let ports = port.as_ref().map_or_else(PortSet::all, |port| pod.ports_of(port));
                    pod.denied.push((ports, by.clone()));
                });
            }
            Refused::Parents(parents) => {
                for parent in parents {
                    let name = (parent.namespace.clone(), parent.name.clone());
                    let entry = self.refused_parents.entry((parent.kind, name)).or_default();
                    entry.push((parent.clone(), by.clone()));
                }
            }
            Refused::Egress { networks } => {
                self.refused_egress.push(RefusedEgress {
                    by,
                    networks: networks.clone(),
                });
            }
            Refused::Nothing => {}
        }
        let reason = format!(
            "{}; until it is corrected, {}",
            unusable.reason,
            unusable.refused.consequence()
        );
        let mut origin = located.origin.clone();
        origin.line = unusable.line.unwrap_or(origin.line);
        self.reports
            .push(Report::about(&origin, id, Severity::Error, reason));
    }

    /// Endpoints of pods that nobody defined are left out: whether they are in the mesh is not known.
    fn look_for_missing(&mut self, objects: &[&Located]) {
        for located in objects {
            let Object::EndpointSlice(manifest) = &located.object else {
                continue;
            };
            let targets = manifest
                .endpoints
                .iter()
                .filter_map(|endpoint| endpoint.target_ref.as_ref());
            let missing: HashSet<_> = targets
                .filter(|target| target.kind.as_deref() == Some("Pod"))
                .filter_map(|target| {
                    let namespace = target.namespace.as_deref().unwrap_or(&located.id.namespace);
                    let name = target.name.as_deref()?;
                    self.pod(namespace, name)
                        .is_none()
                        .then(|| format!("{namespace}/{name}"))
                })
                .collect();
            for pod in missing {
                let reason = format!("endpoint left out: Pod {pod} is not defined, or has ended");
                self.reports.push(Report::about(
                    &located.origin,
                    &located.id,
                    Severity::Warning,
                    reason,
                ));
            }
        }
    }
}

fn name_of(id: &ObjectId) -> Name {
    (id.namespace.clone(), id.name.clone())
}

fn namespace_annotations<'a>(objects: &[&'a Located]) -> HashMap<Arc<str>, &'a BTreeMap<String, String>> {
    let annotations = objects.iter().filter_map(|located| match &located.object {
        Object::Namespace(manifest) => {
            Some((located.id.name.clone(), manifest.metadata.annotations.as_ref()?))
        }
        _ => None,
    });
    annotations.collect()
}
