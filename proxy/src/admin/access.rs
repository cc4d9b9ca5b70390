//! Who may ask the admin server: the inbound policy of its port decides, as for any other (spec §7).

use std::net::SocketAddr;

use http::{Request, StatusCode, header};
use outrigger_policy::authz::ClientTls;
use outrigger_policy::port::{PortPolicy, Refusal};
use outrigger_policy::route::request::Head;

/// Who is asking.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Their address.
    pub(super) addr: SocketAddr,
    /// What they proved.
    pub(super) tls: ClientTls,
}

impl Peer {
    /// Whether a peer is in this pod, by its own address: no header can make anybody local. IPv4 may come as IPv6.
    pub(super) fn is_local(&self) -> bool {
        self.addr.ip().to_canonical().is_loopback()
    }

    /// The status that refuses a request. The pod itself may always ask: it could do so past the proxy as well.
    pub(super) fn refused<B>(&self, policy: &PortPolicy, request: &Request<B>) -> Option<StatusCode> {
        if self.is_local() {
            return None;
        }
        let host = request
            .headers()
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        let head = Head {
            host: authority.or(host).unwrap_or_default(),
            method: request.method(),
            path: request.uri().path(),
            query: request.uri().query(),
            headers: request.headers(),
        };
        // Pages are for exact paths: there is no other way to read them.
        let refusal = policy.request(&head, self.addr.ip(), &self.tls, false).err()?;
        tracing::info!(client.addr = %self.addr, server = %policy.meta, path = head.path, ?refusal, "Refused on the admin port");
        Some(match refusal {
            Refusal::NoRoute => StatusCode::NOT_FOUND,
            Refusal::Unauthorized(_) => StatusCode::FORBIDDEN,
            Refusal::Invalid | Refusal::AmbiguousPath(..) | Refusal::Unenforced(..) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use outrigger_policy::authz::{Authentication, Authorization, Network};
    use outrigger_policy::inbound::{InboundPolicy, InboundProtocol, InboundRule};
    use outrigger_policy::name::ResourceRef;
    use outrigger_policy::route::RouteTable;

    use super::*;

    fn peer(addr: &str) -> Peer {
        Peer {
            addr: addr.parse().unwrap(),
            tls: ClientTls::None,
        }
    }

    #[test]
    fn only_loopback_addresses_are_local() {
        for addr in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(peer(addr).is_local(), "{addr}");
        }
        for addr in [
            "10.0.0.1:1",
            "0.0.0.0:1",
            "[::ffff:10.0.0.1]:1",
            "[::127.0.0.1]:1",
            "[::]:1",
        ] {
            assert!(!peer(addr).is_local(), "{addr}");
        }
    }

    #[test]
    fn the_policy_of_the_port_decides_for_all_but_the_pod_itself() {
        let meta = Arc::new(ResourceRef::of_default("test"));
        let authorizations: Arc<[_]> = Arc::new([Authorization {
            meta: meta.clone(),
            networks: vec![Network {
                net: "10.0.0.0/8".parse().unwrap(),
                except: vec![],
            }],
            authentication: Authentication::Unauthenticated,
        }]);
        let routes = [
            RouteTable::catch_all(meta.clone(), InboundRule::new(authorizations.clone())),
            RouteTable { routes: vec![] },
        ];
        let asked = routes.map(|table| {
            let policy = PortPolicy::new(InboundPolicy {
                meta: meta.clone(),
                protocol: InboundProtocol::Http1(table),
                authorizations: authorizations.clone(),
                rate_limit: None,
            });
            let request = Request::get("/ready").body(()).unwrap();
            ["10.0.0.1:1", "192.0.2.1:1", "127.0.0.1:1"].map(|addr| peer(addr).refused(&policy, &request))
        });
        assert_eq!(asked[0], [None, Some(StatusCode::FORBIDDEN), None]);
        assert_eq!(
            asked[1],
            [Some(StatusCode::NOT_FOUND), Some(StatusCode::NOT_FOUND), None]
        );
    }
}
