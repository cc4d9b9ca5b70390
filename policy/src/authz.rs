//! Authorization: networks × identities → [`Permit`] or [`Deny`], naming the policy that said so.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::name::{DnsName, Identity, InvalidDnsName, ResourceRef};

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

impl Permit<'_> {
    /// Whether it was given by the default policy `audit`: everybody is let in, and each is to be logged.
    pub fn is_audit(&self) -> bool {
        &*self.by.name == "audit" && self.by.is_default()
    }
}

/// Not allowed: no authorization matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deny;

/// The first authorization whose networks hold the client and whose authentication it satisfies.
pub fn authorize<'a>(list: &'a [Authorization], client: IpAddr, tls: &ClientTls) -> Result<Permit<'a>, Deny> {
    list.iter()
        .find(|a| a.networks.iter().any(|n| n.contains(client)) && a.authentication.admits(tls))
        .map(|a| Permit { by: &a.meta })
        .ok_or(Deny)
}

impl Network {
    /// Whether the address lies in the network and in none of its exceptions. Families never mix; an IPv4 address
    /// that arrived on an IPv6 socket (`::ffff:0:0/96`, RFC 4291 §2.5.5.2) counts as IPv4.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
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
    /// Joins the labels of a suffix, given in the order in which they are written; no labels admit every identity.
    pub fn new<S: AsRef<str>>(labels: &[S]) -> Result<Self, InvalidDnsName> {
        if labels.is_empty() {
            return Ok(Self("".into()));
        }
        let labels: Vec<&str> = labels.iter().map(AsRef::as_ref).collect();
        let name = DnsName::parse(&labels.join("."))?;
        Ok(Self(format!(".{name}").into()))
    }

    /// An empty suffix admits every identity, SPIFFE URIs too; any other admits DNS names with at least one label more.
    pub fn matches(&self, id: &Identity) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let Identity::Dns(name) = id else { return false };
        let suffix = self.0.strip_prefix('.').unwrap_or(&self.0);
        let labels = name.as_str().strip_suffix(suffix);
        labels.is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(net: &str, except: &[&str]) -> Network {
        Network {
            net: net.parse().unwrap(),
            except: except.iter().map(|net| net.parse().unwrap()).collect(),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn id(text: &str) -> Identity {
        Identity::parse(text).unwrap()
    }

    fn authorization(name: &str, net: &str, authentication: Authentication) -> Authorization {
        Authorization {
            meta: Arc::new(ResourceRef::of_default(name)),
            networks: vec![network(net, &[])],
            authentication,
        }
    }

    #[test]
    fn families_never_mix() {
        assert!(!network("0.0.0.0/0", &[]).contains(ip("::1")));
        assert!(!network("::/0", &[]).contains(ip("127.0.0.1")));
        assert!(network("::/0", &[]).contains(ip("2001:db8::1")));
    }

    #[test]
    fn a_mapped_address_counts_as_ipv4() {
        assert!(network("10.0.0.0/8", &[]).contains(ip("::ffff:10.1.2.3")));
        assert!(!network("::/0", &[]).contains(ip("::ffff:10.1.2.3")));
        assert!(!network("10.0.0.0/8", &["10.1.0.0/16"]).contains(ip("::ffff:10.1.2.3")));
    }

    #[test]
    fn an_exception_takes_its_part_away() {
        let net = network("10.0.0.0/8", &["10.1.0.0/16", "10.2.0.1/32"]);
        assert!(net.contains(ip("10.0.0.1")) && net.contains(ip("10.2.0.2")));
        assert!(!net.contains(ip("10.1.255.255")) && !net.contains(ip("10.2.0.1")));
    }

    #[test]
    fn a_suffix_needs_a_label_more() {
        let suffix = Suffix::new(&["NS", "serviceaccount", "example"]).unwrap();
        assert!(suffix.matches(&id("web.ns.serviceaccount.example")));
        for other in [
            "ns.serviceaccount.example",
            "xns.serviceaccount.example",
            "spiffe://a.ns.serviceaccount.example",
        ] {
            assert!(!suffix.matches(&id(other)), "{other}");
        }
    }

    #[test]
    fn a_suffix_without_its_dot_does_not_match_half_labels() {
        assert!(!Suffix("cluster.local".into()).matches(&id("web.evilcluster.local")));
        assert!(Suffix("cluster.local".into()).matches(&id("web.cluster.local")));
    }

    #[test]
    fn the_suffix_without_labels_admits_every_identity() {
        let all = Suffix::new::<&str>(&[]).unwrap();
        assert!(all.matches(&id("spiffe://root/web")) && all.matches(&id("web.ns")));
        assert!(Suffix::new(&[""]).is_err() && Suffix::new(&["a", "", "b"]).is_err());
    }

    #[test]
    fn each_authentication_admits_what_was_proved() {
        let proved = ClientTls::Terminated(Some(id("web.ns")));
        let anonymous = ClientTls::Terminated(None);
        let authenticated = Authentication::TlsAuthenticated {
            identities: vec![id("web.ns")],
            suffixes: vec![],
        };
        let admits = |a: &Authentication| [&ClientTls::None, &anonymous, &proved].map(|tls| a.admits(tls));
        assert_eq!(admits(&Authentication::Unauthenticated), [true, true, true]);
        assert_eq!(admits(&Authentication::TlsUnauthenticated), [false, true, true]);
        assert_eq!(admits(&authenticated), [false, false, true]);
        assert!(!authenticated.admits(&ClientTls::Terminated(Some(id("api.ns")))));
    }

    #[test]
    fn the_first_that_matches_is_named() {
        let list = [
            authorization("mtls", "10.0.0.0/8", Authentication::TlsUnauthenticated),
            authorization("local", "127.0.0.0/8", Authentication::Unauthenticated),
            authorization("anyone", "127.0.0.0/8", Authentication::Unauthenticated),
        ];
        let by = |addr| authorize(&list, ip(addr), &ClientTls::None).map(|permit| &*permit.by.name);
        assert_eq!(by("127.0.0.1"), Ok("local"));
        assert_eq!(by("10.0.0.1"), Err(Deny));
        assert_eq!(size_of::<Deny>(), 0);
    }

    #[test]
    fn only_the_default_named_audit_audits() {
        let default = |name: &str| Arc::new(ResourceRef::of_default(name));
        assert!(
            Permit {
                by: &default("audit")
            }
            .is_audit()
        );
        assert!(
            !Permit {
                by: &default("all-unauthenticated")
            }
            .is_audit()
        );
        let object = Arc::new(ResourceRef {
            kind: "server".into(),
            ..ResourceRef::of_default("audit")
        });
        assert!(!Permit { by: &object }.is_audit());
    }
}
