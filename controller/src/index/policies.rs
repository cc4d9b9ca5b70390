//! Policies, by what they are attached to.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::index::pod::Pod;
use crate::resources::authorization::{
    AuthorizationPolicy, MeshTlsAuthentication, NetworkAuthentication, ServerAuthorization,
};
use crate::resources::egress::EgressNetwork;
use crate::resources::policy::{Created, Manifest, Policy};
use crate::resources::profile::{ServiceProfile, TrafficSplit};
use crate::resources::report::{ObjectId, Origin};
use crate::resources::route::{GrpcRule, HttpRule, Route, StreamRule};
use crate::resources::server::{RateLimit, Server};
use crate::resources::traffic::Traffic;

/// A policy of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource<S> {
    /// Which object.
    pub id: ObjectId,
    /// Where it is written.
    pub origin: Origin,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What its annotations say about how requests are sent.
    pub traffic: Traffic,
    /// When a cluster took it.
    pub created: Option<Created>,
    /// What it says.
    pub spec: S,
}

/// The policies of one kind, by namespace, the oldest first; those of the same age by name.
#[derive(Clone, Debug)]
pub struct ByNamespace<S>(HashMap<Arc<str>, Vec<Arc<Resource<S>>>>);

/// Every policy that can be used.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// Servers.
    pub servers: ByNamespace<Server>,
    /// ServerAuthorizations.
    pub server_authorizations: ByNamespace<ServerAuthorization>,
    /// AuthorizationPolicies.
    pub authorization_policies: ByNamespace<AuthorizationPolicy>,
    /// MeshTLSAuthentications.
    pub mesh_tls: ByNamespace<MeshTlsAuthentication>,
    /// NetworkAuthentications.
    pub networks: ByNamespace<NetworkAuthentication>,
    /// HTTPLocalRateLimitPolicies.
    pub rate_limits: ByNamespace<RateLimit>,
    /// EgressNetworks.
    pub egress_networks: ByNamespace<EgressNetwork>,
    /// HTTPRoutes of both groups.
    pub http_routes: ByNamespace<Route<HttpRule>>,
    /// GRPCRoutes.
    pub grpc_routes: ByNamespace<Route<GrpcRule>>,
    /// TLSRoutes.
    pub tls_routes: ByNamespace<Route<StreamRule>>,
    /// TCPRoutes.
    pub tcp_routes: ByNamespace<Route<StreamRule>>,
    /// ServiceProfiles.
    pub profiles: ByNamespace<ServiceProfile>,
    /// TrafficSplits.
    pub splits: ByNamespace<TrafficSplit>,
}

impl<S> Default for ByNamespace<S> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<S> ByNamespace<S> {
    /// Those of a namespace.
    pub fn of(&self, namespace: &str) -> &[Arc<Resource<S>>] {
        self.0.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// One, by name.
    pub fn named(&self, namespace: &str, name: &str) -> Option<&Arc<Resource<S>>> {
        self.of(namespace)
            .iter()
            .find(|resource| *resource.id.name == *name)
    }

    /// All, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Resource<S>>> {
        self.0.values().flatten()
    }

    fn add(&mut self, id: &ObjectId, origin: &Origin, manifest: &Manifest<S>, traffic: &Traffic)
    where
        S: Clone,
    {
        let metadata = manifest.metadata.clone();
        self.0
            .entry(id.namespace.clone())
            .or_default()
            .push(Arc::new(Resource {
                id: id.clone(),
                origin: origin.clone(),
                labels: metadata.labels.unwrap_or_default(),
                traffic: traffic.clone(),
                created: metadata.creation_timestamp,
                spec: manifest.spec.clone(),
            }));
    }

    fn sort(&mut self) {
        self.0
            .values_mut()
            .for_each(|list| list.sort_by(|a, b| by_age(a, b)));
    }
}

impl<S> Resource<S> {
    /// Where it stands among others of its kind: the older before the younger, without a time last, then by name.
    pub fn age(&self) -> impl Ord + '_ {
        (
            self.created.is_none(),
            &self.created,
            &self.id.name,
            &self.id.namespace,
            &self.id.group,
        )
    }
}

fn by_age<S>(a: &Arc<Resource<S>>, b: &Arc<Resource<S>>) -> Ordering {
    a.age().cmp(&b.age())
}

impl Policies {
    /// How many there are of each kind.
    pub fn sizes(&self) -> [(&'static str, usize); 13] {
        [
            ("Server", self.servers.all().count()),
            ("ServerAuthorization", self.server_authorizations.all().count()),
            ("AuthorizationPolicy", self.authorization_policies.all().count()),
            ("MeshTLSAuthentication", self.mesh_tls.all().count()),
            ("NetworkAuthentication", self.networks.all().count()),
            ("HTTPLocalRateLimitPolicy", self.rate_limits.all().count()),
            ("EgressNetwork", self.egress_networks.all().count()),
            ("HTTPRoute", self.http_routes.all().count()),
            ("GRPCRoute", self.grpc_routes.all().count()),
            ("TLSRoute", self.tls_routes.all().count()),
            ("TCPRoute", self.tcp_routes.all().count()),
            ("ServiceProfile", self.profiles.all().count()),
            ("TrafficSplit", self.splits.all().count()),
        ]
    }

    /// Takes a policy in.
    pub fn add(&mut self, id: &ObjectId, origin: &Origin, policy: &Policy, traffic: &Traffic) {
        match policy {
            Policy::Server(m) => self.servers.add(id, origin, m, traffic),
            Policy::ServerAuthorization(m) => self.server_authorizations.add(id, origin, m, traffic),
            Policy::AuthorizationPolicy(m) => self.authorization_policies.add(id, origin, m, traffic),
            Policy::MeshTlsAuthentication(m) => self.mesh_tls.add(id, origin, m, traffic),
            Policy::NetworkAuthentication(m) => self.networks.add(id, origin, m, traffic),
            Policy::RateLimit(m) => self.rate_limits.add(id, origin, m, traffic),
            Policy::EgressNetwork(m) => self.egress_networks.add(id, origin, m, traffic),
            Policy::HttpRoute(m) => self.http_routes.add(id, origin, m, traffic),
            Policy::GrpcRoute(m) => self.grpc_routes.add(id, origin, m, traffic),
            Policy::TlsRoute(m) => self.tls_routes.add(id, origin, m, traffic),
            Policy::TcpRoute(m) => self.tcp_routes.add(id, origin, m, traffic),
            Policy::ServiceProfile(m) => self.profiles.add(id, origin, m, traffic),
            Policy::TrafficSplit(m) => self.splits.add(id, origin, m, traffic),
        }
    }

    /// Puts them in order, once all are there.
    pub fn sort(&mut self) {
        self.servers.sort();
        self.server_authorizations.sort();
        self.authorization_policies.sort();
        self.mesh_tls.sort();
        self.networks.sort();
        self.rate_limits.sort();
        self.egress_networks.sort();
        self.http_routes.sort();
        self.grpc_routes.sort();
        self.tls_routes.sort();
        self.tcp_routes.sort();
        self.profiles.sort();
        self.splits.sort();
    }
}

impl Server {
    /// Whether it means this pod.
    pub fn takes(&self, pod: &Pod) -> bool {
        self.pod_selector
            .as_ref()
            .is_some_and(|by| by.selects(&pod.labels))
    }
}
