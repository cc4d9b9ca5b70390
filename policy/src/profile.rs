//! Service profiles, and the policy that a profile and a policy lookup give together.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::Unsupported;
use crate::endpoint::Endpoint;
use crate::name::ResourceRef;
use crate::outbound::{
    Backend, Dispatch, Distribution, OpaqueAction, OpaqueRoute, OutboundPolicy, OutboundProtocol,
    OutboundRule,
};
use crate::route::RouteTable;

/// What `Destination.GetProfile` said about a destination.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Profile {
    /// The service's name without a port; `None` for a single endpoint or an unknown address.
    pub fully_qualified_name: Option<Arc<str>>,
    /// The destination must not be looked into.
    pub opaque: bool,
    /// The one endpoint behind the address, when it is no service.
    pub endpoint: Option<Endpoint>,
    /// What the profile asks for that this version does not enforce (routes, overrides): refused.
    pub unsupported: Option<Unsupported>,
}

/// What `OutboundPolicies.Watch` said about a destination.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// A policy.
    Found(OutboundPolicy),
    /// The controller knows none (NotFound, Unimplemented).
    NotFound,
}

/// Joins profile and policy to the one policy that the data path follows.
///
/// Without a policy the destination is forwarded to: the profile's endpoint (`default:endpoint`), or the
/// address that the application dialled (`default:fallback` without a profile).
pub fn effective(dialled: SocketAddr, profile: Option<&Profile>, lookup: &Lookup) -> OutboundPolicy {
    let mut policy = match (lookup, profile) {
        (Lookup::Found(policy), _) => policy.clone(),
        (Lookup::NotFound, Some(profile)) => {
            let endpoint = profile
                .endpoint
                .clone()
                .unwrap_or_else(|| Endpoint::bare(dialled));
            forward("endpoint", endpoint)
        }
        (Lookup::NotFound, None) => forward("fallback", Endpoint::bare(dialled)),
    };
    let Some(profile) = profile else { return policy };
    if let Some(unsupported) = &profile.unsupported {
        policy.protocol = OutboundProtocol::Invalid(unsupported.clone());
    } else if profile.opaque {
        policy.protocol = opaque(policy.protocol);
    }
    policy
}

/// A policy that forwards to one endpoint, whatever is spoken.
pub fn forward(name: &str, endpoint: Endpoint) -> OutboundPolicy {
    let meta = Arc::new(ResourceRef::of_default(name));
    let backend = Arc::new(Backend {
        meta: meta.clone(),
        dispatch: Dispatch::Forward(endpoint),
    });
    let distribution = Distribution::FirstAvailable(vec![backend]);
    let table = RouteTable::catch_all(
        meta.clone(),
        OutboundRule {
            backends: Ok(distribution.clone()),
        },
    );
    OutboundPolicy {
        parent: meta.clone(),
        protocol: OutboundProtocol::Detect {
            http1: table.clone(),
            http2: table,
            opaque: OpaqueRoute {
                meta,
                action: OpaqueAction::Forward(distribution),
            },
        },
        authority: "".into(),
    }
}

/// What is left of a policy when its destination is opaque: its opaque route.
fn opaque(protocol: OutboundProtocol) -> OutboundProtocol {
    match protocol {
        OutboundProtocol::Detect { opaque, .. } | OutboundProtocol::Opaque(opaque) => {
            OutboundProtocol::Opaque(opaque)
        }
        OutboundProtocol::Invalid(why) => OutboundProtocol::Invalid(why),
        OutboundProtocol::Http1(_)
        | OutboundProtocol::Http2(_)
        | OutboundProtocol::Grpc(_)
        | OutboundProtocol::Tls(_) => OutboundProtocol::Invalid(Unsupported::new(
            "the profile calls the port opaque, the policy gives it HTTP or TLS routes only: \
             remove the opaque-ports annotation or the routes",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALLED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80);

    fn policy(protocol: OutboundProtocol) -> Lookup {
        let found = forward("policy", Endpoint::bare(DIALLED));
        Lookup::Found(OutboundPolicy { protocol, ..found })
    }

    fn opaque_profile() -> Profile {
        Profile {
            opaque: true,
            ..Profile::default()
        }
    }

    #[test]
    fn without_policy_and_profile_the_dialled_address_is_forwarded_to() {
        let fallback = forward("fallback", Endpoint::bare(DIALLED));
        assert_eq!(effective(DIALLED, None, &Lookup::NotFound), fallback);
    }

    #[test]
    fn without_policy_the_endpoint_of_the_profile_is_forwarded_to() {
        let endpoint = Endpoint {
            weight: 1,
            ..Endpoint::bare(DIALLED)
        };
        let profile = Profile {
            endpoint: Some(endpoint.clone()),
            ..Profile::default()
        };
        let effective = |profile| effective(DIALLED, Some(profile), &Lookup::NotFound);
        assert_eq!(effective(&profile), forward("endpoint", endpoint));
        let bare = forward("endpoint", Endpoint::bare(DIALLED));
        assert_eq!(effective(&Profile::default()), bare);
    }

    #[test]
    fn a_policy_goes_before_the_endpoint_of_the_profile() {
        let profile = Profile {
            endpoint: Some(Endpoint::bare(DIALLED)),
            ..Profile::default()
        };
        let found = forward("policy", Endpoint::bare(DIALLED));
        let lookup = Lookup::Found(found.clone());
        assert_eq!(effective(DIALLED, Some(&profile), &lookup), found);
    }

    #[test]
    fn an_opaque_profile_leaves_the_opaque_route() {
        let effective = effective(DIALLED, Some(&opaque_profile()), &Lookup::NotFound);
        assert!(
            matches!(effective.protocol, OutboundProtocol::Opaque(_)),
            "{effective:?}"
        );
    }

    #[test]
    fn an_opaque_profile_with_http_routes_only_is_refused() {
        let http = policy(OutboundProtocol::Http1(RouteTable { routes: vec![] }));
        let effective = effective(DIALLED, Some(&opaque_profile()), &http);
        assert!(
            matches!(effective.protocol, OutboundProtocol::Invalid(_)),
            "{effective:?}"
        );
    }

    #[test]
    fn what_a_profile_asks_in_vain_is_refused_even_where_the_port_is_opaque() {
        let why = Unsupported::new("dst_overrides");
        let profile = Profile {
            unsupported: Some(why.clone()),
            ..opaque_profile()
        };
        let effective = effective(DIALLED, Some(&profile), &Lookup::NotFound);
        assert_eq!(effective.protocol, OutboundProtocol::Invalid(why));
    }
}
