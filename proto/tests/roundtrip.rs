//! What is written is read again: `decode ∘ encode` is the identity for everything that this version enforces.

#![allow(clippy::unwrap_used, reason = "what fails here is the test")]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use outrigger_policy::Unsupported;
use outrigger_policy::authz::{Authentication, Authorization, Network, Suffix};
use outrigger_policy::endpoint::{Endpoint, EndpointTls, Http2Params, ProtocolHint};
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol, InboundRule};
use outrigger_policy::name::{DnsName, Identity, ResourceRef};
use outrigger_policy::outbound::{
    Backend, Dispatch, Distribution, LoadParams, OpaqueAction, OpaqueRoute, OutboundPolicy, OutboundProtocol,
    OutboundRule, TlsRoute,
};
use outrigger_policy::profile::Profile;
use outrigger_policy::route::header::{HeaderMatch, QueryMatch, ValueMatch};
use outrigger_policy::route::host::HostMatch;
use outrigger_policy::route::path::PathMatch;
use outrigger_policy::route::request::{RequestMatch, RpcMatch};
use outrigger_policy::route::{Route, RouteTable, Rule};
use outrigger_proto::destination::update;
use outrigger_proto::{decode, encode};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use prost::Message;

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 32,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_outbound_policy_comes_back(policy in outbound()) {
        let mut back = decode::outbound::policy(encode::outbound::policy(&policy).unwrap()).unwrap();
        back.authority = policy.authority.clone();
        prop_assert_eq!(back, policy);
    }

    #[test]
    fn an_inbound_policy_comes_back(policy in inbound()) {
        let back = decode::inbound::server(encode::inbound::server(&policy).unwrap()).unwrap();
        prop_assert_eq!(back, policy);
    }

    #[test]
    fn endpoints_come_back_with_the_labels_of_their_set(
        endpoints in vec(endpoint(), 0..4),
        set in btree_map("[a-z]{1,8}", "[a-z]{0,8}", 0..4),
    ) {
        let set: HashMap<String, String> = set.into_iter().collect();
        let Some(update::Update::Add(add)) = encode::endpoint::update_add(&endpoints, set.clone()).update else {
            panic!("not an add");
        };
        let mut expected = endpoints;
        for endpoint in &mut expected {
            let labels = set.clone().into_iter().chain((*endpoint.labels).clone());
            endpoint.labels = Arc::new(labels.collect());
        }
        prop_assert_eq!(decode::endpoint::weighted_addr_set(&add).unwrap(), expected);
    }

    #[test]
    fn a_profile_comes_back(profile in profile(), parent in reference()) {
        let message = encode::endpoint::profile(&profile, Some(&parent), None);
        prop_assert_eq!(decode::outbound::profile(message).unwrap(), profile);
    }

    #[test]
    fn what_is_refused_stays_refused_and_keeps_its_reason(mut policy in outbound(), why in "[a-z ]{1,20}") {
        policy.protocol = OutboundProtocol::Invalid(Unsupported::new(why.as_str()));
        let back = decode::outbound::policy(encode::outbound::policy(&policy).unwrap()).unwrap();
        let OutboundProtocol::Detect { http1, http2, opaque } = back.protocol else {
            panic!("not detected");
        };
        for rule in http1.routes.iter().chain(&http2.routes).flat_map(|route| &route.rules) {
            prop_assert!(rule.then.backends.as_ref().unwrap_err().0.contains(&why));
        }
        prop_assert_eq!(opaque.action, OpaqueAction::Invalid(Unsupported::new(why.as_str())));
    }

    #[test]
    fn a_port_that_is_refused_stays_refused(mut policy in inbound(), why in "[a-z ]{1,20}") {
        policy.protocol = InboundProtocol::Invalid(Unsupported::new(why.as_str()));
        let back = decode::inbound::server(encode::inbound::server(&policy).unwrap()).unwrap();
        let InboundProtocol::Detect { routes, .. } = back.protocol else {
            panic!("not detected");
        };
        prop_assert!(routes.routes[0].rules[0].then.unsupported.is_some());
        prop_assert_eq!(&back.authorizations[..], &[decode::localhost()][..]);
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_policy_with_a_changed_byte_is_read_to_its_end(
        policy in outbound(),
        port in inbound(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encode::outbound::policy(&policy).unwrap().encode_to_vec();
        let index = at.index(bytes.len());
        bytes[index] = byte;
        if let Ok(message) = Message::decode(&*bytes) {
            drop(decode::outbound::policy(message));
        }
        let mut bytes = encode::inbound::server(&port).unwrap().encode_to_vec();
        let index = at.index(bytes.len());
        bytes[index] = byte;
        if let Ok(message) = Message::decode(&*bytes) {
            drop(decode::inbound::server(message));
        }
    }
}

#[test]
fn a_route_without_the_servers_authorizations_cannot_be_written() {
    let everybody = Authorization {
        meta: Arc::new(ResourceRef::of_default("all-unauthenticated")),
        networks: vec![],
        authentication: Authentication::Unauthenticated,
    };
    let rule = InboundRule {
        authorizations: [].into(),
        unsupported: None,
    };
    let policy = InboundPolicy {
        meta: everybody.meta.clone(),
        protocol: InboundProtocol::Http1(RouteTable::catch_all(everybody.meta.clone(), rule)),
        authorizations: [everybody].into(),
    };
    assert!(encode::inbound::server(&policy).is_err());
}

fn label() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9-]{0,6}[a-z0-9]"
}

fn text() -> impl Strategy<Value = Arc<str>> {
    label().prop_map(Arc::from)
}

fn dns_name() -> impl Strategy<Value = DnsName> {
    vec(label(), 1..5).prop_map(|labels| DnsName::parse(&labels.join(".")).unwrap())
}

fn identity() -> impl Strategy<Value = Identity> {
    let uri = label().prop_map(|name| Identity::parse(&format!("spiffe://root/{name}")).unwrap());
    prop_oneof![dns_name().prop_map(Identity::Dns), uri]
}

fn reference() -> impl Strategy<Value = ResourceRef> {
    let port = option::of(1..=u16::MAX);
    let resource = (text(), text(), text(), text(), option::of(text()), port).prop_map(
        |(group, kind, namespace, name, section, port)| ResourceRef {
            group,
            kind,
            namespace,
            name,
            section: section.unwrap_or_default(),
            port,
        },
    );
    prop_oneof![label().prop_map(ResourceRef::of_default), resource]
}

fn inbound_reference() -> impl Strategy<Value = Arc<ResourceRef>> {
    let resource = (text(), text(), text()).prop_map(|(group, kind, name)| ResourceRef {
        group,
        kind,
        ..ResourceRef::of_default(name)
    });
    prop_oneof![label().prop_map(ResourceRef::of_default), resource].prop_map(Arc::new)
}

fn duration() -> impl Strategy<Value = Duration> {
    (0..100_000u64, 1..1_000_000_000u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let hint = prop_oneof![
        Just(ProtocolHint::Unknown),
        Just(ProtocolHint::Http2),
        Just(ProtocolHint::Opaque)
    ];
    let tls = option::of((identity(), dns_name())).prop_map(|tls| {
        tls.map(|(identity, server_name)| EndpointTls {
            identity,
            server_name,
        })
    });
    let authority = option::of(dns_name().prop_map(|name| Arc::from(format!("{name}:8080"))));
    (
        (any::<IpAddr>(), 1..=u16::MAX, any::<u32>(), tls, hint),
        (
            option::of(1..=u16::MAX),
            authority,
            http2(),
            btree_map("[a-z]{1,8}", "[a-z]{0,8}", 0..4),
        ),
    )
        .prop_map(
            |((ip, port, weight, tls, hint), (transport_port, authority_override, http2, labels))| Endpoint {
                addr: SocketAddr::new(ip, port),
                weight,
                tls,
                hint,
                transport_port: transport_port.and_then(NonZeroU16::new),
                authority_override,
                http2,
                labels: Arc::new(labels),
            },
        )
}

fn http2() -> impl Strategy<Value = Http2Params> {
    let windows = option::of((1..1u32 << 31, 1..1u32 << 31));
    let keep_alive = (option::of((duration(), duration())), any::<bool>());
    let sizes = (
        option::of(1..1000usize),
        option::of(1 << 14..1u32 << 24),
        option::of(1..1000usize),
    );
    (windows, any::<bool>(), keep_alive, sizes).prop_map(
        |(windows, adaptive_window, (keep_alive, while_idle), (resets, frame, buffer))| Http2Params {
            stream_window: windows.map(|w| w.0),
            connection_window: windows.map(|w| w.1),
            adaptive_window,
            keep_alive,
            keep_alive_while_idle: while_idle,
            max_concurrent_reset_streams: resets,
            max_frame_size: frame,
            max_send_buf_size: buffer,
        },
    )
}

fn profile() -> impl Strategy<Value = Profile> {
    (option::of(text()), any::<bool>(), option::of(endpoint())).prop_map(|(name, opaque, endpoint)| Profile {
        fully_qualified_name: name,
        opaque,
        endpoint,
        unsupported: None,
    })
}

fn host() -> impl Strategy<Value = HostMatch> {
    let suffix = dns_name().prop_map(|name| HostMatch::suffix(name.as_str()));
    prop_oneof![
        dns_name().prop_map(|name| HostMatch::exact(name.as_str())),
        suffix
    ]
}

/// A value; in a query it is text, in a header any bytes.
fn value(exact: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = ValueMatch> {
    let regex = "[a-z]{1,4}[.][*]".prop_map(|pattern| ValueMatch::regex(&pattern).unwrap());
    prop_oneof![exact.prop_map(|bytes| ValueMatch::Exact(bytes.into())), regex]
}

fn header() -> impl Strategy<Value = HeaderMatch> {
    let value = value(vec(any::<u8>(), 0..8));
    (label(), value).prop_map(|(name, value)| HeaderMatch {
        name: name.parse().unwrap(),
        value,
    })
}

fn http_match() -> impl Strategy<Value = RequestMatch> {
    let path = prop_oneof![
        "/[a-z/]{0,8}".prop_map(|path| PathMatch::Exact(path.into())),
        "/[a-z/]{0,8}".prop_map(|path| PathMatch::Prefix(path.into())),
        "/[a-z]{0,4}[.][*]".prop_map(|pattern| PathMatch::regex(&pattern).unwrap()),
    ];
    let query = (text(), value(".{0,8}".prop_map(String::into_bytes)));
    let query = query.prop_map(|(name, value)| QueryMatch { name, value });
    let method = prop_oneof![Just("GET"), Just("POST"), Just("TRACE"), Just("PURGE")];
    let method = method.prop_map(|name| name.parse().unwrap());
    (
        option::of(path),
        vec(header(), 0..3),
        vec(query, 0..3),
        option::of(method),
    )
        .prop_map(|(path, headers, query, method)| RequestMatch {
            path,
            rpc: None,
            headers,
            query,
            method,
        })
}

fn grpc_match() -> impl Strategy<Value = RequestMatch> {
    let rpc = (option::of(text()), option::of(text()));
    (rpc, vec(header(), 0..3)).prop_map(|((service, method), headers)| RequestMatch {
        rpc: Some(RpcMatch { service, method }),
        headers,
        ..RequestMatch::default()
    })
}

fn table<R: Clone + std::fmt::Debug>(
    meta: impl Strategy<Value = Arc<ResourceRef>>,
    matches: impl Strategy<Value = RequestMatch>,
    then: impl Strategy<Value = R>,
) -> impl Strategy<Value = RouteTable<R>> {
    let rule = (vec(matches, 0..3), then).prop_map(|(matches, then)| Rule { matches, then });
    let route = (meta, vec(host(), 0..3), vec(rule, 1..3));
    let route = route.prop_map(|(meta, hosts, rules)| Route { meta, hosts, rules });
    vec(route, 1..3).prop_map(|routes| RouteTable { routes })
}

fn backend() -> impl Strategy<Value = Arc<Backend>> {
    let balance = (label(), 1..=u16::MAX, duration(), duration()).prop_map(|(name, port, rtt, decay)| {
        let load = LoadParams {
            default_rtt: rtt,
            decay,
        };
        Some(Dispatch::Balance {
            path: format!("{name}.ns.svc.cluster.local:{port}").into(),
            load,
        })
    });
    let forward = endpoint().prop_map(|endpoint| Some(Dispatch::Forward(endpoint)));
    (reference(), prop_oneof![balance, forward, Just(None)]).prop_map(|(meta, dispatch)| {
        let namespace = if meta.namespace.is_empty() {
            String::new()
        } else {
            format!("{}/", meta.namespace)
        };
        let missing = format!(
            "backend for {} {namespace}{} has no dispatcher",
            meta.kind, meta.name
        );
        let dispatch = dispatch.unwrap_or_else(|| Dispatch::Missing(Unsupported::new(missing)));
        Arc::new(Backend {
            meta: Arc::new(meta),
            dispatch,
        })
    })
}

fn distribution() -> impl Strategy<Value = Distribution> {
    prop_oneof![
        Just(Distribution::Empty),
        vec(backend(), 1..3).prop_map(Distribution::FirstAvailable),
        vec((backend(), 1..1000u32), 1..3).prop_map(Distribution::RandomAvailable),
    ]
}

fn opaque() -> impl Strategy<Value = OpaqueRoute> {
    let action = prop_oneof![
        distribution().prop_map(OpaqueAction::Forward),
        Just(OpaqueAction::Forbid),
        "[a-z]{1,9}".prop_map(|why| OpaqueAction::Invalid(Unsupported::new(why))),
    ];
    let route = (reference(), action).prop_map(|(meta, action)| OpaqueRoute {
        meta: Arc::new(meta),
        action,
    });
    let none = Arc::new(ResourceRef::of_default("none"));
    prop_oneof![
        route,
        Just(OpaqueRoute {
            meta: none,
            action: OpaqueAction::NoRoute
        })
    ]
}

fn outbound() -> impl Strategy<Value = OutboundPolicy> {
    let rule = || {
        distribution().prop_map(|backends| OutboundRule {
            backends: Ok(backends),
        })
    };
    let http = move || table(reference().prop_map(Arc::new), http_match(), rule());
    let grpc = table(reference().prop_map(Arc::new), grpc_match(), rule());
    let tls = (vec(host(), 0..3), opaque()).prop_map(|(snis, route)| TlsRoute { snis, route });
    let protocol = prop_oneof![
        (http(), http(), opaque()).prop_map(|(http1, http2, opaque)| OutboundProtocol::Detect {
            http1,
            http2,
            opaque
        }),
        http().prop_map(OutboundProtocol::Http1),
        http().prop_map(OutboundProtocol::Http2),
        grpc.prop_map(OutboundProtocol::Grpc),
        opaque().prop_map(OutboundProtocol::Opaque),
        vec(tls, 0..3).prop_map(OutboundProtocol::Tls),
    ];
    (reference(), protocol).prop_map(|(parent, protocol)| OutboundPolicy {
        parent: Arc::new(parent),
        protocol,
        authority: "".into(),
    })
}

fn authorization() -> impl Strategy<Value = Authorization> {
    let net = (any::<IpAddr>(), 0..=32u8).prop_map(|(ip, length)| IpNet::new(ip, length).unwrap());
    let network = (net.clone(), vec(net, 0..3)).prop_map(|(net, except)| Network { net, except });
    let suffix = option::of(dns_name());
    let suffix =
        suffix.prop_map(|name| Suffix(name.map_or_else(|| "".into(), |name| format!(".{name}").into())));
    let named = (vec(identity(), 0..3), vec(suffix, 0..3))
        .prop_map(|(identities, suffixes)| Authentication::TlsAuthenticated { identities, suffixes });
    let authentication = prop_oneof![
        Just(Authentication::Unauthenticated),
        Just(Authentication::TlsUnauthenticated),
        named
    ];
    (inbound_reference(), vec(network, 1..3), authentication).prop_map(|(meta, networks, authentication)| {
        Authorization {
            meta,
            networks,
            authentication,
        }
    })
}

/// A table whose routes allow what is drawn here, and then what the server allows.
fn inbound_table(
    matches: impl Strategy<Value = RequestMatch>,
) -> impl Strategy<Value = RouteTable<Vec<Authorization>>> {
    let own = vec(authorization(), 0..3);
    (table(inbound_reference(), matches, Just(())), vec(own, 3)).prop_map(|(table, own)| RouteTable {
        routes: std::iter::zip(table.routes, own)
            .map(|(route, own)| Route {
                meta: route.meta,
                hosts: route.hosts,
                rules: route
                    .rules
                    .into_iter()
                    .map(|rule| Rule {
                        matches: rule.matches,
                        then: own.clone(),
                    })
                    .collect(),
            })
            .collect(),
    })
}

fn inbound() -> impl Strategy<Value = InboundPolicy> {
    let tables = (inbound_table(http_match()), inbound_table(grpc_match()));
    (
        inbound_reference(),
        vec(authorization(), 0..3),
        tables,
        0..6,
        duration(),
    )
        .prop_map(|(meta, mut servers, (http, grpc), kind, timeout)| {
            servers.push(decode::localhost());
            let complete = |table: RouteTable<Vec<Authorization>>| {
                table.map(|_, own| InboundRule {
                    authorizations: own.iter().chain(&servers).cloned().collect(),
                    unsupported: None,
                })
            };
            let protocol = match kind {
                0 => InboundProtocol::Detect {
                    timeout,
                    routes: complete(http),
                },
                1 => InboundProtocol::Http1(complete(http)),
                2 => InboundProtocol::Http2(complete(http)),
                3 => InboundProtocol::Grpc(complete(grpc)),
                4 => InboundProtocol::Opaque,
                _ => InboundProtocol::Tls,
            };
            InboundPolicy {
                meta,
                protocol,
                authorizations: servers.into(),
            }
        })
}
