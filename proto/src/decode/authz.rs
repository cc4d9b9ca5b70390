//! Authorizations: networks and identities.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use outrigger_policy::authz::{Authentication, Authorization, Network, Suffix};
use outrigger_policy::name::{DnsName, Identity, ResourceRef};

use super::endpoint::ip;
use super::error::{DecodeError, each, required};
use super::meta;
use crate::inbound::authn::{Permit, permit_mesh_tls};
use crate::inbound::{self, Authn, Authz, IdentitySuffix};
use crate::net::IpNetwork;

/// Networks and identities accepted in the authorizations of one message, counted again for each route that adds
/// authorizations of its own to the server's.
pub const MAX_AUTHORIZATIONS: usize = 100_000;

pub(super) fn authorization(authz: &Authz) -> Result<Authorization, DecodeError> {
    if authz.networks.is_empty() {
        return Err(DecodeError::new("networks", "empty"));
    }
    Ok(Authorization {
        meta: match &authz.metadata {
            Some(_) => meta::inbound("metadata", &authz.metadata)?,
            None => meta::labelled(&authz.labels, "serverauthorization")?,
        },
        networks: each("networks", &authz.networks, network)?,
        authentication: authentication(required("authentication", &authz.authentication)?)
            .map_err(|e| e.within("authentication"))?,
    })
}

/// `default:localhost`, which every server of the control plane allows besides its own list: the workload itself.
pub fn localhost() -> Authorization {
    let nets = [
        IpNet::from(Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 32)),
        IpNet::from(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    ];
    Authorization {
        meta: Arc::new(ResourceRef::of_default("localhost")),
        networks: nets
            .map(|net| Network {
                net,
                except: Vec::new(),
            })
            .into(),
        authentication: Authentication::Unauthenticated,
    }
}

/// How much a list of authorizations holds, in the unit of [`MAX_AUTHORIZATIONS`].
pub(super) fn size(list: &[Authorization]) -> usize {
    let names = |authentication: &Authentication| match authentication {
        Authentication::TlsAuthenticated { identities, suffixes } => identities.len() + suffixes.len(),
        Authentication::Unauthenticated | Authentication::TlsUnauthenticated => 0,
    };
    let nets = |networks: &[Network]| networks.iter().map(|n| 1 + n.except.len()).sum::<usize>();
    list.iter()
        .map(|a| nets(&a.networks) + names(&a.authentication))
        .sum()
}

fn network(network: &inbound::Network) -> Result<Network, DecodeError> {
    Ok(Network {
        net: ip_net(required("net", &network.net)?).map_err(|e| e.within("net"))?,
        except: each("except", &network.except, ip_net)?,
    })
}

fn ip_net(net: &IpNetwork) -> Result<IpNet, DecodeError> {
    let ip = ip(required("ip", &net.ip)?).map_err(|e| e.within("ip"))?;
    u8::try_from(net.prefix_len)
        .ok()
        .and_then(|length| IpNet::new(ip, length).ok())
        .ok_or_else(|| DecodeError::new("prefix_len", format!("{} is too long", net.prefix_len)))
}

fn authentication(authn: &Authn) -> Result<Authentication, DecodeError> {
    let tls = match required("permit", &authn.permit)? {
        Permit::Unauthenticated(_) => return Ok(Authentication::Unauthenticated),
        Permit::MeshTls(tls) => tls,
    };
    match required("meshTLS.clients", &tls.clients)? {
        permit_mesh_tls::Clients::Unauthenticated(_) => Ok(Authentication::TlsUnauthenticated),
        permit_mesh_tls::Clients::Identities(list) => Ok(Authentication::TlsAuthenticated {
            identities: each("meshTLS.identities.identities", &list.identities, identity)?,
            suffixes: each("meshTLS.identities.suffixes", &list.suffixes, suffix)?,
        }),
    }
}

pub(super) fn identity(identity: &inbound::Identity) -> Result<Identity, DecodeError> {
    Identity::parse(&identity.name).map_err(|_| {
        let reason = format!("{:?} is neither a DNS name nor an absolute URI", identity.name);
        DecodeError::new("name", reason)
    })
}

fn suffix(suffix: &IdentitySuffix) -> Result<Suffix, DecodeError> {
    if suffix.parts.is_empty() {
        return Ok(Suffix("".into()));
    }
    let name = suffix.parts.join(".");
    match DnsName::parse(&name) {
        Ok(name) => Ok(Suffix(format!(".{name}").into())),
        Err(error) => Err(DecodeError::new("parts", format!("{name:?} is {error}"))),
    }
}
