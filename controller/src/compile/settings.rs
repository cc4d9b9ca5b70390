//! Settings: what is the same for the whole cluster.

use std::sync::Arc;

use ipnet::IpNet;
use outrigger_policy::name::{DnsName, InvalidDnsName};

use crate::resources::default_policy::DefaultPolicy;
use crate::resources::ports::PortSet;

/// What is the same for the whole cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The control plane's namespace: pods labelled with it are in its mesh.
    pub namespace: Arc<str>,
    /// The cluster's DNS domain.
    pub cluster_domain: Arc<str>,
    /// The domain in which identities are issued.
    pub trust_domain: Arc<str>,
    /// Addresses that belong to the cluster.
    pub cluster_networks: Vec<IpNet>,
    /// What ports accept where nothing else is said.
    pub default_policy: DefaultPolicy,
    /// Ports that are not looked into where nothing else is said.
    pub default_opaque_ports: PortSet,
    /// Where kubelets ask from.
    pub probe_networks: Vec<IpNet>,
    /// Whether requests may set their own timeouts and retries by `l5d-*` headers.
    pub allow_l5d_request_headers: bool,
}

/// The private networks (RFC 1918, RFC 6598, RFC 4193).
const CLUSTER_NETWORKS: [&str; 5] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fd00::/8",
];

impl Default for Settings {
    /// As Linkerd's chart has them.
    fn default() -> Self {
        Self {
            namespace: "linkerd".into(),
            cluster_domain: "cluster.local".into(),
            trust_domain: "cluster.local".into(),
            cluster_networks: networks(&CLUSTER_NETWORKS),
            default_policy: DefaultPolicy::AllUnauthenticated,
            default_opaque_ports: [25, 587, 3306, 4444, 5432, 6379, 9300, 11211]
                .into_iter()
                .collect(),
            probe_networks: everywhere(),
            allow_l5d_request_headers: false,
        }
    }
}

impl Settings {
    /// The identity of a service account.
    pub fn identity(&self, namespace: &str, service_account: &str) -> Result<DnsName, InvalidDnsName> {
        let (control_plane, domain) = (&self.namespace, &self.trust_domain);
        let name = format!("{service_account}.{namespace}.serviceaccount.identity.{control_plane}.{domain}");
        DnsName::parse(&name)
    }

    /// Whether an address belongs to the cluster.
    pub fn is_in_cluster(&self, ip: std::net::IpAddr) -> bool {
        self.cluster_networks.iter().any(|net| net.contains(&ip))
    }
}

/// Every address.
pub fn everywhere() -> Vec<IpNet> {
    networks(&["0.0.0.0/0", "::/0"])
}

/// Networks that are written in this program.
fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts
        .iter()
        .map(|text| {
            text.parse()
                .expect("networks written in this file are well-formed")
        })
        .collect()
}
