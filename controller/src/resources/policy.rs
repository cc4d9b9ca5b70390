//! Policies: the kinds that say what may be done, each read strictly into its type.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::resources::authorization::{
    AuthorizationPolicy, MeshTlsAuthentication, NetworkAuthentication, ServerAuthorization,
};
use crate::resources::egress::EgressNetwork;
use crate::resources::profile::{ServiceProfile, TrafficSplit};
use crate::resources::route::{GrpcRule, HttpRule, Route, StreamRule};
use crate::resources::server::{RateLimit, Server};
use crate::resources::traffic::{self, Bearer, Traffic};

/// A policy that was read whole.
#[derive(Clone, Debug, PartialEq)]
pub enum Policy {
    /// `policy.linkerd.io` Server.
    Server(Manifest<Server>),
    /// `policy.linkerd.io` ServerAuthorization.
    ServerAuthorization(Manifest<ServerAuthorization>),
    /// `policy.linkerd.io` AuthorizationPolicy.
    AuthorizationPolicy(Manifest<AuthorizationPolicy>),
    /// `policy.linkerd.io` MeshTLSAuthentication.
    MeshTlsAuthentication(Manifest<MeshTlsAuthentication>),
    /// `policy.linkerd.io` NetworkAuthentication.
    NetworkAuthentication(Manifest<NetworkAuthentication>),
    /// `policy.linkerd.io` HTTPLocalRateLimitPolicy.
    RateLimit(Manifest<RateLimit>),
    /// `policy.linkerd.io` EgressNetwork.
    EgressNetwork(Manifest<EgressNetwork>),
    /// HTTPRoute, of Linkerd's group or the Gateway API's.
    HttpRoute(Manifest<Route<HttpRule>>),
    /// `gateway.networking.k8s.io` GRPCRoute.
    GrpcRoute(Manifest<Route<GrpcRule>>),
    /// `gateway.networking.k8s.io` TLSRoute.
    TlsRoute(Manifest<Route<StreamRule>>),
    /// `gateway.networking.k8s.io` TCPRoute.
    TcpRoute(Manifest<Route<StreamRule>>),
    /// `linkerd.io` ServiceProfile.
    ServiceProfile(Manifest<ServiceProfile>),
    /// `split.smi-spec.io` TrafficSplit.
    TrafficSplit(Manifest<TrafficSplit>),
}

/// What a policy says, and what its metadata says about it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Manifest<S> {
    /// Labels, annotations, age.
    #[serde(default)]
    pub metadata: Metadata,
    /// What it says.
    pub spec: S,
}

/// Labels, annotations, age.
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// Labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations.
    pub annotations: Option<BTreeMap<String, String>>,
    /// When a cluster took it; manifests written by hand have none, and count as the youngest.
    pub creation_timestamp: Option<Created>,
}

/// A time as Kubernetes writes it (RFC 3339, UTC, whole seconds): the order of the texts is that of the times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Created(String);

/// Reads a manifest as the type that it should have: from its values, or from its text, to know the line of an error.
pub trait ManifestReader {
    /// What does not fit.
    type Error;

    /// Reads it.
    fn manifest<S: DeserializeOwned>(&self) -> Result<Manifest<S>, Self::Error>;
}

impl ManifestReader for &Value {
    type Error = serde_json::Error;

    fn manifest<S: DeserializeOwned>(&self) -> Result<Manifest<S>, serde_json::Error> {
        Manifest::deserialize(*self)
    }
}

/// Reads a policy. `None`: the kind, or this version of it, is not known.
pub fn read<R: ManifestReader>(
    group: &str,
    version: &str,
    kind: &str,
    from: &R,
) -> Option<Result<Policy, R::Error>> {
    let known = |versions: &[&str]| versions.contains(&version);
    Some(match (group, kind) {
        ("policy.linkerd.io", "Server") if known(&["v1alpha1", "v1beta1", "v1beta2", "v1beta3"]) => {
            from.manifest().map(Policy::Server)
        }
        ("policy.linkerd.io", "ServerAuthorization") if known(&["v1alpha1", "v1beta1"]) => {
            from.manifest().map(Policy::ServerAuthorization)
        }
        ("policy.linkerd.io", "AuthorizationPolicy") if known(&["v1alpha1"]) => {
            from.manifest().map(Policy::AuthorizationPolicy)
        }
        ("policy.linkerd.io", "MeshTLSAuthentication") if known(&["v1alpha1"]) => {
            from.manifest().map(Policy::MeshTlsAuthentication)
        }
        ("policy.linkerd.io", "NetworkAuthentication") if known(&["v1alpha1"]) => {
            from.manifest().map(Policy::NetworkAuthentication)
        }
        ("policy.linkerd.io", "HTTPLocalRateLimitPolicy") if known(&["v1alpha1"]) => {
            from.manifest().map(Policy::RateLimit)
        }
        ("policy.linkerd.io", "EgressNetwork") if known(&["v1alpha1"]) => {
            from.manifest().map(Policy::EgressNetwork)
        }
        ("policy.linkerd.io", "HTTPRoute") if known(&["v1alpha1", "v1beta1", "v1beta2", "v1beta3"]) => {
            from.manifest().map(Policy::HttpRoute)
        }
        ("gateway.networking.k8s.io", "HTTPRoute") if known(&["v1", "v1beta1"]) => {
            from.manifest().map(Policy::HttpRoute)
        }
        ("gateway.networking.k8s.io", "GRPCRoute") if known(&["v1", "v1alpha2"]) => {
            from.manifest().map(Policy::GrpcRoute)
        }
        ("gateway.networking.k8s.io", "TLSRoute") if known(&["v1", "v1alpha2", "v1alpha3"]) => {
            from.manifest().map(Policy::TlsRoute)
        }
        ("gateway.networking.k8s.io", "TCPRoute") if known(&["v1", "v1alpha2"]) => {
            from.manifest().map(Policy::TcpRoute)
        }
        ("linkerd.io", "ServiceProfile") if known(&["v1alpha1", "v1alpha2"]) => {
            from.manifest().map(Policy::ServiceProfile)
        }
        ("split.smi-spec.io", "TrafficSplit") if known(&["v1alpha1", "v1alpha2"]) => {
            from.manifest().map(Policy::TrafficSplit)
        }
        _ => return None,
    })
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

impl Policy {
    /// What the types of its fields can't say. The error is what is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Server(m) => m.spec.check(),
            Self::ServerAuthorization(m) => m.spec.check(),
            Self::AuthorizationPolicy(m) => m.spec.check(),
            Self::MeshTlsAuthentication(m) => m.spec.check(),
            Self::NetworkAuthentication(m) => m.spec.check(),
            Self::RateLimit(m) => m.spec.check(),
            Self::HttpRoute(m) => m.spec.check(),
            Self::GrpcRoute(m) => m.spec.check(),
            Self::TlsRoute(m) | Self::TcpRoute(m) => m.spec.check_one_rule(),
            Self::ServiceProfile(m) => m.spec.check(),
            Self::EgressNetwork(_) | Self::TrafficSplit(_) => Ok(()),
        }
    }
}

impl Policy {
    /// What its annotations say about how requests are sent.
    pub fn traffic(&self) -> Result<Traffic, String> {
        let (metadata, bearer) = match self {
            Self::HttpRoute(m) => (&m.metadata, Bearer::Route),
            Self::GrpcRoute(m) => (&m.metadata, Bearer::Route),
            Self::EgressNetwork(m) => (&m.metadata, Bearer::Destination),
            _ => return Ok(Traffic::default()),
        };
        match &metadata.annotations {
            Some(annotations) => traffic::read(annotations, bearer),
            None => Ok(Traffic::default()),
        }
    }
}

impl TryFrom<String> for Created {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let shape = text.bytes().map(|b| if b.is_ascii_digit() { b'0' } else { b });
        match shape.eq(*b"0000-00-00T00:00:00Z") {
            true => Ok(Self(text)),
            false => Err(format!("{text:?} is no time as 2026-01-31T12:00:00Z")),
        }
    }
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
