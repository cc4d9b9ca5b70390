//! Servers, and the rate limits that are attached to them.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;

use crate::resources::default_policy::DefaultPolicy;
use crate::resources::route::LINKERD;
use crate::resources::values::{ObjectRef, Selector};

/// A port of some pods (`policy.linkerd.io` Server).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Server {
    /// The pods.
    pub pod_selector: Option<Selector>,
    /// Workloads outside the cluster, of which this controller knows none.
    pub external_workload_selector: Option<Selector>,
    /// The port, or the name of a container's port.
    pub port: IntOrString,
    /// What is spoken there.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
    /// Who may connect besides those whom authorizations name.
    pub access_policy: Option<DefaultPolicy>,
}

/// What a Server's port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
pub enum ProxyProtocol {
    /// Look at the first bytes.
    #[default]
    #[serde(rename = "unknown")]
    Unknown,
    /// HTTP/1.
    #[serde(rename = "HTTP/1")]
    Http1,
    /// HTTP/2.
    #[serde(rename = "HTTP/2")]
    Http2,
    /// gRPC.
    #[serde(rename = "gRPC")]
    Grpc,
    /// Bytes.
    #[serde(rename = "opaque")]
    Opaque,
    /// TLS of the application.
    #[serde(rename = "TLS")]
    Tls,
}

/// How many requests a Server takes (`policy.linkerd.io` HTTPLocalRateLimitPolicy).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// The Server.
    pub target_ref: ObjectRef,
    /// From all clients together.
    pub total: Option<Rate>,
    /// From each identity.
    pub identity: Option<Rate>,
    /// From some clients, in place of `identity`.
    pub overrides: Option<Vec<RateOverride>>,
}

/// Requests each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rate {
    /// How many; 0 is no limit.
    pub requests_per_second: u32,
}

/// A rate for some clients.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateOverride {
    /// How many requests each second; 0 is no limit.
    pub requests_per_second: u32,
    /// The clients: ServiceAccounts.
    pub client_refs: Vec<ObjectRef>,
}

impl Server {
    /// What the types of its fields can't say.
    pub fn check(&self) -> Result<(), String> {
        match (&self.pod_selector, &self.external_workload_selector) {
            (Some(_), None) | (None, Some(_)) => Ok(()),
            _ => Err("it needs either podSelector or externalWorkloadSelector".into()),
        }
    }
}

impl RateLimit {
    /// What the types of its fields can't say.
    pub fn check(&self) -> Result<(), String> {
        if !self.target_ref.is(LINKERD, "Server") {
            return Err(format!(
                "targetRef: {} is no Server of {LINKERD}",
                self.target_ref
            ));
        }
        let clients = self.overrides.iter().flatten().flat_map(|o| &o.client_refs);
        for client in clients {
            if !client.is("", "ServiceAccount") {
                return Err(format!("overrides: {client} is no ServiceAccount"));
            }
        }
        match self.total.is_none() && self.identity.is_none() && self.overrides.is_none() {
            true => Err("it limits nothing: give total, identity or overrides".into()),
            false => Ok(()),
        }
    }
}
