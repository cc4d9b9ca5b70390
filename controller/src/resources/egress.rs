//! EgressNetworks: destinations outside the cluster.

use serde::Deserialize;

use crate::resources::values::NetworkRange;

/// Addresses outside the cluster, and what happens to traffic for which there is no route.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressNetwork {
    /// Without a route.
    pub traffic_policy: TrafficPolicy,
    /// The addresses; everything outside the cluster's networks where nothing is said.
    pub networks: Option<Vec<NetworkRange>>,
}

/// What happens to traffic for which there is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum TrafficPolicy {
    /// It is forwarded.
    Allow,
    /// It is refused.
    Deny,
}
