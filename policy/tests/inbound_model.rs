//! Who may enter a port, decided again by a small model that is written from the protocol's description: every combination
//! of protocols, policies, routes, identities, networks and requests.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};
use outrigger_policy::Unsupported;
use outrigger_policy::authz::{Authentication, Authorization, ClientTls, Network, Suffix};
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol, InboundRule};
use outrigger_policy::name::{Identity, ResourceRef};
use outrigger_policy::port::{PortPolicy, Refusal};
use outrigger_policy::route::host::HostMatch;
use outrigger_policy::route::path::PathMatch;
use outrigger_policy::route::request::{Head, RequestMatch};
use outrigger_policy::route::{Route, RouteTable, Rule};

/// An authorization, as a person would write it: its name, the networks and what is not of them, whom it admits.
type Grant = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    Who,
);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Anyone,
    AnyTls,
    Id(&'static str),
    Below(&'static str),
    AnyId,
}

const EVERYWHERE: &[&str] = &["0.0.0.0/0", "::/0"];
const CLUSTER: &[&str] = &["10.0.0.0/8"];
const LOCALHOST: Grant = ("localhost", &["127.0.0.1/32", "::1/32"], &[], Who::Anyone);

/// The authorizations of servers: each protocol is tried with each of these lists.
const SERVERS: [&[Grant]; 9] = [
    &[],
    &[("all-unauthenticated", EVERYWHERE, &[], Who::Anyone)],
    &[("all-authenticated", EVERYWHERE, &[], Who::AnyId)],
    &[("cluster-tls", CLUSTER, &[], Who::AnyTls)],
    &[("one", EVERYWHERE, &[], Who::Id("web.a.example"))],
    &[("spiffe", EVERYWHERE, &[], Who::Id("spiffe://root/web"))],
    &[("below", EVERYWHERE, &[], Who::Below("a.example"))],
    &[("but", CLUSTER, &["10.1.0.0/16"], Who::Anyone)],
    // The order decides which of those that admit is named.
    &[
        ("first", CLUSTER, &["10.1.0.0/16"], Who::AnyId),
        ("second", EVERYWHERE, &[], Who::Id("web.a.example")),
        ("third", &["10.1.2.3/32"], &[], Who::Anyone),
        ("fourth", CLUSTER, &[], Who::AnyTls),
    ],
];

/// A route: its name, hosts, path prefix, and its own authorizations.
type Way = (
    &'static str,
    &'static [&'static str],
    Option<&'static str>,
    &'static [Grant],
);

const ROUTES: [&[Way]; 5] = [
    &[("default", &[], None, &[])],
    &[],
    &[
        (
            "admin",
            &[],
            Some("/admin"),
            &[("admins", EVERYWHERE, &[], Who::Id("api.b.example"))],
        ),
        ("rest", &[], Some("/"), &[]),
    ],
    &[(
        "admin",
        &[],
        Some("/admin"),
        &[("probe", CLUSTER, &[], Who::Anyone)],
    )],
    &[
        (
            "by-host",
            &["web.example"],
            None,
            &[("host", EVERYWHERE, &[], Who::Anyone)],
        ),
        ("rest", &[], Some("/public"), &[]),
    ],
];

const PROTOCOLS: [&str; 7] = ["detect", "http1", "http2", "grpc", "opaque", "tls", "invalid"];

const ADDRESSES: [&str; 7] = [
    "10.1.2.3",
    "10.2.0.1",
    "::ffff:10.1.2.3",
    "192.0.2.1",
    "2001:db8::1",
    "127.0.0.1",
    "::1",
];

/// Not of the mesh, without an identity, with one.
const CLIENTS: [Option<Option<&str>>; 6] = [
    None,
    Some(None),
    Some(Some("web.a.example")),
    Some(Some("api.b.example")),
    Some(Some("a.example")),
    Some(Some("spiffe://root/web")),
];

const REQUESTS: [(&str, &str); 7] = [
    ("web.example", "/"),
    ("web.example", "/admin/users"),
    ("other.example", "/admin"),
    ("other.example", "/administrator"),
    ("other.example", "/public"),
    ("other.example", "/x/../admin"),
    ("WEB.example:8080", "/%2e"),
];

/// What the model says: the name of what lets the request in, or why it stays outside.
type Verdict = Result<String, &'static str>;

#[test]
fn every_connection_is_decided_as_the_model_says() {
    let mut decided = 0;
    for protocol in PROTOCOLS {
        for server in SERVERS {
            let policy = policy(protocol, server, ROUTES[0]);
            for (address, client) in arrivals() {
                let (ip, tls) = (address.parse().unwrap(), arrived(client));
                let said = policy
                    .connection(ip, &tls)
                    .map(|permit| permit.by.name.to_string());
                let expected = model::connection(protocol, &with_localhost(server), address, client);
                assert_eq!(
                    said.map_err(|_| "denied"),
                    expected,
                    "{protocol} {server:?} {address} {client:?}"
                );
                decided += 1;
            }
        }
    }
    assert_eq!(decided, 7 * 9 * 7 * 6);
}

#[test]
fn every_request_is_decided_as_the_model_says() {
    let mut decided = [0, 0];
    for protocol in PROTOCOLS {
        for (server, routes) in SERVERS
            .into_iter()
            .flat_map(|server| ROUTES.map(|routes| (server, routes)))
        {
            let policy = policy(protocol, server, routes);
            for (address, client) in arrivals() {
                for (host, path) in REQUESTS {
                    let said = ask(&policy, address, client, host, path);
                    let expected = model::request(
                        protocol,
                        &with_localhost(server),
                        routes,
                        (address, client),
                        host,
                        path,
                    );
                    assert_eq!(
                        said, expected,
                        "{protocol} {server:?} {routes:?} {address} {client:?} {host}{path}"
                    );
                    decided[usize::from(said.is_ok())] += 1;
                }
            }
        }
    }
    assert_eq!(decided[0] + decided[1], 7 * 9 * 5 * 7 * 6 * 7);
    assert!(decided.iter().all(|some| *some > 10_000), "{decided:?}");
}

#[test]
fn the_order_of_authorizations_says_who_is_named_and_never_who_is_let_in() {
    let all: Vec<Grant> = SERVERS.concat();
    let mut turned = all.clone();
    for _ in &all {
        turned.rotate_left(1);
        for (list, back) in [(&all, &turned), (&turned, &all)] {
            let (one, other) = (policy("opaque", list, &[]), policy("opaque", back, &[]));
            for (address, client) in arrivals() {
                let (ip, tls) = (address.parse().unwrap(), arrived(client));
                let (a, b) = (one.connection(ip, &tls), other.connection(ip, &tls));
                assert_eq!(a.is_ok(), b.is_ok(), "{address} {client:?}");
                let named = list
                    .iter()
                    .chain([&LOCALHOST])
                    .find(|grant| model::grants(grant, address, client));
                assert_eq!(a.ok().map(|permit| &*permit.by.name), named.map(|grant| grant.0));
            }
        }
    }
}

/// The description in `spec` §3.2, §3.3, §3.5 and §3.7, and the decision about paths, in as few words as possible.
mod model {
    use super::*;

    /// Bytes are for ports that may speak anything: the first grant that holds is named.
    pub(super) fn connection(
        protocol: &str,
        server: &[Grant],
        address: &str,
        client: Option<Option<&str>>,
    ) -> Verdict {
        match protocol {
            "detect" | "opaque" | "tls" => first(server, address, client),
            _ => Err("denied"),
        }
    }

    /// Route, then authorization (the route's own before the server's), then the path.
    pub(super) fn request(
        protocol: &str,
        server: &[Grant],
        routes: &[Way],
        (address, client): (&str, Option<Option<&str>>),
        host: &str,
        path: &str,
    ) -> Verdict {
        match protocol {
            "invalid" => return Err("invalid"),
            // Bytes, whoever takes them for HTTP.
            "opaque" | "tls" => {
                let by = first(server, address, client).map_err(|_| "unauthorized")?;
                return Ok(format!("default by {by}"));
            }
            _ => {}
        }
        let lists = |way: &Way| [way.3, server].concat();
        let route = taken(routes, host, path).ok_or("no route")?;
        let by = first(&lists(route), address, client).map_err(|_| "unauthorized")?;
        let two_ways = path.contains("..") || path.contains("%2e");
        let asks_for_path = routes.iter().any(|way| way.2.is_some());
        let takes_all = routes
            .iter()
            .any(|way| way.1.is_empty() && matches!(way.2, None | Some("/")));
        let admitted_to_all = takes_all
            && routes
                .iter()
                .all(|way| first(&lists(way), address, client).is_ok());
        if two_ways && asks_for_path && !admitted_to_all {
            return Err("ambiguous path");
        }
        Ok(format!("{} by {by}", route.0))
    }

    /// The closest host, then the longest prefix of whole segments.
    fn taken<'a>(routes: &'a [Way], host: &str, path: &str) -> Option<&'a Way> {
        let host = host.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let fits = |way: &&Way| {
            let prefix = way.2.unwrap_or("/").trim_end_matches('/');
            let of_path = path == prefix || path.starts_with(&format!("{prefix}/"));
            (way.1.is_empty() || way.1.contains(&&*host)) && of_path
        };
        let closeness = |way: &&Way| (!way.1.is_empty(), way.2.map_or(0, str::len));
        routes.iter().filter(fits).rev().max_by_key(closeness)
    }

    fn first(list: &[Grant], address: &str, client: Option<Option<&str>>) -> Verdict {
        let grant = list.iter().find(|grant| grants(grant, address, client));
        grant.map(|grant| grant.0.to_owned()).ok_or("denied")
    }

    pub(super) fn grants(
        (_, networks, except, who): &Grant,
        address: &str,
        client: Option<Option<&str>>,
    ) -> bool {
        let inside = |list: &[&str]| list.iter().any(|network| holds(network, address));
        let proved = match (who, client) {
            (Who::Anyone, _) | (Who::AnyTls, Some(_)) => true,
            (Who::AnyId, Some(Some(_))) => true,
            (Who::Id(id), Some(Some(proved))) => *id == proved,
            (Who::Below(suffix), Some(Some(proved))) => {
                !proved.contains("://") && proved.ends_with(&format!(".{suffix}"))
            }
            _ => false,
        };
        inside(networks) && !inside(except) && proved
    }

    /// The networks of this test, by their text.
    fn holds(network: &str, address: &str) -> bool {
        let address = address.strip_prefix("::ffff:").unwrap_or(address);
        match network {
            "0.0.0.0/0" => !address.contains(':'),
            "::/0" => address.contains(':'),
            "10.0.0.0/8" => address.starts_with("10."),
            "10.1.0.0/16" => address.starts_with("10.1."),
            one => one.split('/').next() == Some(address),
        }
    }
}

fn arrivals() -> impl Iterator<Item = (&'static str, Option<Option<&'static str>>)> {
    ADDRESSES
        .into_iter()
        .flat_map(|address| CLIENTS.map(|client| (address, client)))
}

fn ask(policy: &PortPolicy, address: &str, client: Option<Option<&str>>, host: &str, path: &str) -> Verdict {
    let headers = HeaderMap::new();
    let head = Head {
        host,
        method: &Method::GET,
        path,
        query: None,
        headers: &headers,
    };
    let ip: IpAddr = address.parse().unwrap();
    match policy.request(&head, ip, &arrived(client), true) {
        Ok(admitted) => Ok(format!(
            "{} by {}",
            admitted.found.meta.name, admitted.permit.by.name
        )),
        Err(Refusal::Invalid) => Err("invalid"),
        Err(Refusal::NoRoute) => Err("no route"),
        Err(Refusal::Unauthorized(_)) => Err("unauthorized"),
        Err(Refusal::AmbiguousPath(..)) => Err("ambiguous path"),
        Err(Refusal::Unenforced(..)) => Err("not enforced"),
    }
}

fn with_localhost(server: &[Grant]) -> Vec<Grant> {
    [server, &[LOCALHOST]].concat()
}

fn arrived(client: Option<Option<&str>>) -> ClientTls {
    match client {
        None => ClientTls::None,
        Some(id) => ClientTls::Terminated(id.map(|id| Identity::parse(id).unwrap())),
    }
}

/// The policy as it is decoded: routes have their own authorizations, then the server's, of which localhost is the last.
fn policy(protocol: &str, server: &[Grant], routes: &[Way]) -> PortPolicy {
    let authorizations: Arc<[Authorization]> = with_localhost(server).iter().map(authorization).collect();
    let route = |(name, hosts, path, own): &Way| {
        let list = own
            .iter()
            .map(authorization)
            .chain(authorizations.iter().cloned());
        let matches = path.map(|path| RequestMatch {
            path: Some(PathMatch::Prefix(path.into())),
            ..RequestMatch::default()
        });
        Route {
            meta: meta(name),
            hosts: hosts.iter().map(|host| HostMatch::exact(host)).collect(),
            rules: vec![Rule {
                matches: matches.into_iter().collect(),
                then: InboundRule::new(list.collect()),
            }],
        }
    };
    let table = RouteTable {
        routes: routes.iter().map(route).collect(),
    };
    let protocol = match protocol {
        "detect" => InboundProtocol::Detect {
            timeout: Duration::from_secs(10),
            routes: table,
        },
        "http1" => InboundProtocol::Http1(table),
        "http2" => InboundProtocol::Http2(table),
        "grpc" => InboundProtocol::Grpc(table),
        "opaque" => InboundProtocol::Opaque,
        "tls" => InboundProtocol::Tls,
        _ => InboundProtocol::Invalid(Unsupported::new("of the test")),
    };
    PortPolicy::new(InboundPolicy {
        meta: meta("server"),
        protocol,
        authorizations,
        rate_limit: None,
    })
}

fn authorization((name, networks, except, who): &Grant) -> Authorization {
    let except: Vec<_> = except.iter().map(|net| net.parse().unwrap()).collect();
    let network = |net: &&str| Network {
        net: net.parse().unwrap(),
        except: except.clone(),
    };
    let ids = |identities: Vec<Identity>, suffixes: Vec<Suffix>| Authentication::TlsAuthenticated {
        identities,
        suffixes,
    };
    Authorization {
        meta: meta(name),
        networks: networks.iter().map(network).collect(),
        authentication: match who {
            Who::Anyone => Authentication::Unauthenticated,
            Who::AnyTls => Authentication::TlsUnauthenticated,
            Who::Id(id) => ids(vec![Identity::parse(id).unwrap()], vec![]),
            Who::Below(suffix) => {
                let labels: Vec<_> = suffix.split('.').collect();
                ids(vec![], vec![Suffix::new(&labels).unwrap()])
            }
            Who::AnyId => ids(vec![], vec![Suffix::new::<&str>(&[]).unwrap()]),
        },
    }
}

fn meta(name: &str) -> Arc<ResourceRef> {
    Arc::new(ResourceRef::of_default(name))
}
