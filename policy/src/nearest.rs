//! `Nearest`: of authorizations that do not admit a client, the one that lacks the least.

use std::fmt;
use std::net::IpAddr;

use crate::authz::{Authorization, ClientTls};
use crate::name::ResourceRef;

/// The authorization that comes closest to admitting a client, and what the client lacks for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nearest<'a> {
    by: &'a ResourceRef,
    client: IpAddr,
    tls: &'a ClientTls,
    network: bool,
    authentication: bool,
}

impl<'a> Nearest<'a> {
    /// The first of those that lack the least. That of the pod itself (`default:localhost`) is for nobody else.
    pub fn of(list: &'a [Authorization], client: IpAddr, tls: &'a ClientTls) -> Option<Self> {
        let others = list
            .iter()
            .filter(|a| !(a.meta.is_default() && &*a.meta.name == "localhost"));
        let near = others.map(|a| Self {
            by: &a.meta,
            client,
            tls,
            network: a.networks.iter().any(|network| network.contains(client)),
            authentication: a.authentication.admits(tls),
        });
        near.min_by_key(|near| u8::from(!near.network) + u8::from(!near.authentication))
    }
}

impl fmt::Display for Nearest<'_> {
    /// What would have to change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, client, tls, .. } = self;
        write!(f, "{by} would admit it")?;
        if !self.network {
            write!(f, ", if it named the network of {client}")?;
        }
        if self.authentication {
            return Ok(());
        }
        let and = if self.network { "," } else { " and" };
        match tls {
            ClientTls::None => write!(f, "{and} if the client were in the mesh"),
            ClientTls::Terminated(None) => write!(f, "{and} if the client proved an identity"),
            ClientTls::Terminated(Some(id)) => write!(f, "{and} if it named the identity {id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::authz::{Authentication, Network};
    use crate::name::Identity;

    fn authorization(name: &str, net: &str, id: Option<&str>) -> Authorization {
        let identities = id.into_iter().map(|id| Identity::parse(id).unwrap()).collect();
        Authorization {
            meta: Arc::new(ResourceRef::of_default(name)),
            networks: vec![Network {
                net: net.parse().unwrap(),
                except: vec![],
            }],
            authentication: Authentication::TlsAuthenticated {
                identities,
                suffixes: vec![],
            },
        }
    }

    fn nearest(list: &[Authorization], tls: &ClientTls) -> Option<String> {
        Nearest::of(list, "10.0.0.1".parse().unwrap(), tls).map(|near| near.to_string())
    }

    #[test]
    fn the_first_that_lacks_the_least_is_named_with_what_it_lacks() {
        let web = ClientTls::Terminated(Some(Identity::parse("web.ns").unwrap()));
        let list = [
            authorization("far", "192.0.2.0/24", Some("api.ns")),
            authorization("near", "10.0.0.0/8", Some("api.ns")),
            authorization("elsewhere", "192.0.2.0/24", Some("web.ns")),
        ];
        let text = |tls| nearest(&list, tls).unwrap();
        assert_eq!(
            text(&web),
            "default.near would admit it, if it named the identity web.ns"
        );
        assert_eq!(
            text(&ClientTls::None),
            "default.near would admit it, if the client were in the mesh"
        );
        assert_eq!(
            nearest(&list[..1], &web).unwrap(),
            "default.far would admit it, if it named the network of 10.0.0.1 and if it named the identity web.ns"
        );
    }

    #[test]
    fn what_is_for_the_pod_itself_is_nobodys_nearest() {
        assert_eq!(
            nearest(
                &[authorization("localhost", "127.0.0.1/32", None)],
                &ClientTls::None
            ),
            None
        );
    }
}
