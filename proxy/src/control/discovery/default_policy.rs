//! What a port accepts until the control plane has spoken: the configured default.

use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use outrigger_policy::authz::{Authentication, Authorization, Network, Suffix};
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol, InboundRule};
use outrigger_policy::name::ResourceRef;
use outrigger_policy::route::RouteTable;

use crate::config::{DefaultInbound, DefaultPolicy};

/// The default for one port. Unlike a server of the control plane it does not add an authorization for localhost.
pub fn of_port(default: &DefaultInbound, port: u16) -> InboundPolicy {
    let meta = Arc::new(ResourceRef::of_default(name(default.policy)));
    let authorizations: Arc<[Authorization]> = authorization(default, &meta).into_iter().collect();
    let opaque = default.policy == DefaultPolicy::Deny || default.opaque_ports.contains(port);
    let protocol = match opaque {
        true => InboundProtocol::Opaque,
        false => InboundProtocol::Detect {
            timeout: default.detect_timeout,
            routes: RouteTable::catch_all(
                Arc::new(ResourceRef::of_default("default")),
                InboundRule::new(authorizations.clone()),
            ),
        },
    };
    InboundPolicy {
        meta,
        protocol,
        authorizations,
        rate_limit: None,
    }
}

/// The name as it is configured and as metrics show it.
fn name(policy: DefaultPolicy) -> &'static str {
    match policy {
        DefaultPolicy::Deny => "deny",
        DefaultPolicy::AllAuthenticated => "all-authenticated",
        DefaultPolicy::AllUnauthenticated => "all-unauthenticated",
        DefaultPolicy::ClusterAuthenticated => "cluster-authenticated",
        DefaultPolicy::ClusterUnauthenticated => "cluster-unauthenticated",
        DefaultPolicy::Audit => "audit",
    }
}

fn authorization(default: &DefaultInbound, meta: &Arc<ResourceRef>) -> Option<Authorization> {
    // The empty suffix admits every identity.
    let meshed = || Authentication::TlsAuthenticated {
        identities: Vec::new(),
        suffixes: vec![Suffix("".into())],
    };
    let everywhere = || vec![Ipv4Net::default().into(), Ipv6Net::default().into()];
    let cluster = || default.cluster_networks.0.to_vec();
    let (networks, authentication) = match default.policy {
        DefaultPolicy::Deny => return None,
        DefaultPolicy::AllAuthenticated => (everywhere(), meshed()),
        DefaultPolicy::AllUnauthenticated | DefaultPolicy::Audit => {
            (everywhere(), Authentication::Unauthenticated)
        }
        DefaultPolicy::ClusterAuthenticated => (cluster(), meshed()),
        DefaultPolicy::ClusterUnauthenticated => (cluster(), Authentication::Unauthenticated),
    };
    let network = |net: IpNet| Network {
        net,
        except: Vec::new(),
    };
    Some(Authorization {
        meta: meta.clone(),
        networks: networks.into_iter().map(network).collect(),
        authentication,
    })
}
