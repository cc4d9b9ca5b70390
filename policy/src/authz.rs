//! Authorization: networks × identities → [`Permit`] or [`Deny`], naming the policy that said so.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::name::{Identity, ResourceRef};

/// Who may do something, by network and identity (`Authz`).
#[derive(Clone, Debug, PartialEq)]
pub struct Authorization {
    /// The object or default that grants it (metric labels `authz_*`).
    pub meta: Arc<ResourceRef>,
    /// The client's address must lie in one of these.
    pub networks: Vec<Network>,
    /// What the client must have proved.
    pub authentication: Authentication,
}

/// A network with exceptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The network.
    pub net: IpNet,
    /// Parts of it that do not count.
    pub except: Vec<IpNet>,
}

/// What a client must have proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Nothing.
    Unauthenticated,
    /// Mesh TLS, with or without a client certificate.
    TlsUnauthenticated,
    /// Mesh TLS with one of these identities.
    TlsAuthenticated {
        /// Exact identities.
        identities: Vec<Identity>,
        /// Suffixes of identities.
        suffixes: Vec<Suffix>,
    },
}

/// `.suffix` of DNS identities, in lower case with its leading dot; empty matches every identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suffix(pub Arc<str>);

/// How a client arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientTls {
    /// Without mesh TLS.
    None,
    /// Through mesh TLS, with the identity it proved, if any.
    Terminated(Option<Identity>),
}

/// Allowed, by this policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Permit<'a> {
    /// The authorization that said so.
    pub by: &'a Arc<ResourceRef>,
}

/// Not allowed: no authorization matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deny;

/// The first authorization whose networks hold the client and whose authentication it satisfies.
pub fn authorize<'a>(list: &'a [Authorization], client: IpAddr, tls: &ClientTls) -> Result<Permit<'a>, Deny> {
    let client = client.to_canonical();
    list.iter()
        .find(|a| a.networks.iter().any(|n| n.contains(client)) && a.authentication.admits(tls))
        .map(|a| Permit { by: &a.meta })
        .ok_or(Deny)
}

impl Network {
    /// Whether the address lies in the network and in none of its exceptions. Families never mix.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.net.contains(&addr) && !self.except.iter().any(|net| net.contains(&addr))
    }
}

impl Authentication {
    /// Whether a client that arrived like this has proved enough.
    pub fn admits(&self, tls: &ClientTls) -> bool {
        match (self, tls) {
            (Self::Unauthenticated, _) | (Self::TlsUnauthenticated, ClientTls::Terminated(_)) => true,
            (Self::TlsAuthenticated { identities, suffixes }, ClientTls::Terminated(Some(id))) => {
                identities.contains(id) || suffixes.iter().any(|s| s.matches(id))
            }
            _ => false,
        }
    }
}

impl Suffix {
    /// An empty suffix admits every identity, SPIFFE URIs too; any other looks at DNS names.
    pub fn matches(&self, id: &Identity) -> bool {
        if self.0.is_empty() {
            return true;
        }
        matches!(id, Identity::Dns(name) if name.as_str().len() > self.0.len() && name.as_str().ends_with(&*self.0))
    }
}
