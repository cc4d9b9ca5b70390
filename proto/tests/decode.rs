//! What decoding takes, refuses by field, and calls unsupported.

#![allow(clippy::unwrap_used, reason = "what fails here is the test")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use outrigger_policy::Unsupported;
use outrigger_policy::endpoint::Endpoint;
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol};
use outrigger_policy::name::ResourceRef;
use outrigger_policy::outbound::{
    Backend, Dispatch, Distribution, LoadParams, OpaqueAction, OpaqueRoute, OutboundPolicy, OutboundProtocol,
    OutboundRule,
};
use outrigger_policy::route::RouteTable;
use outrigger_proto::destination::{self, WeightedAddr};
use outrigger_proto::http_route::{HttpFailureInjector, PathMatch, Timeouts, path_match};
use outrigger_proto::inbound::{self, Server};
use outrigger_proto::meta::{self, Metadata};
use outrigger_proto::outbound::proxy_protocol::Kind;
use outrigger_proto::outbound::{self, http_route};
use outrigger_proto::{decode, encode, grpc_route, net};

fn some_duration() -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: 1, nanos: 0 })
}

fn resource(kind: &str, name: &str) -> Metadata {
    let resource = meta::Resource {
        group: "policy.linkerd.io".into(),
        kind: kind.into(),
        name: name.into(),
        namespace: "demo".into(),
        ..Default::default()
    };
    Metadata {
        kind: Some(meta::metadata::Kind::Resource(resource)),
    }
}

mod endpoints {
    use super::*;

    fn addr() -> WeightedAddr {
        encode::endpoint::weighted_addr(&Endpoint::bare("10.0.0.1:8080".parse().unwrap()))
    }

    fn refused(change: impl FnOnce(&mut WeightedAddr)) -> String {
        let mut addr = addr();
        change(&mut addr);
        decode::endpoint::weighted_addr(&addr, &HashMap::new())
            .unwrap_err()
            .field()
            .to_owned()
    }

    #[test]
    fn an_address_needs_an_ip_and_a_port() {
        assert_eq!(refused(|a| a.addr = None), "addr");
        assert_eq!(refused(|a| a.addr.as_mut().unwrap().port = 0), "addr.port");
        assert_eq!(refused(|a| a.addr.as_mut().unwrap().port = 65_536), "addr.port");
        assert_eq!(refused(|a| a.addr.as_mut().unwrap().ip = None), "addr.ip");
        assert_eq!(
            refused(|a| a.addr.as_mut().unwrap().ip = Some(net::IpAddress { ip: None })),
            "addr.ip.ip"
        );
    }

    #[test]
    fn octets_are_in_network_order() {
        let v4 = net::ip_address::Ip::Ipv4(0x0a00_0001);
        let v6 = net::ip_address::Ip::Ipv6(net::IPv6 {
            first: 0x2001_0db8_0000_0000,
            last: 1,
        });
        for (ip, text) in [(v4, "10.0.0.1:80"), (v6, "[2001:db8::1]:80")] {
            let message = net::TcpAddress {
                ip: Some(net::IpAddress { ip: Some(ip) }),
                port: 80,
            };
            assert_eq!(
                decode::endpoint::tcp_address(&message).unwrap(),
                text.parse().unwrap()
            );
        }
    }

    #[test]
    fn a_uri_identity_without_a_server_name_gives_no_tls() {
        use destination::tls_identity::{DnsLikeIdentity, Strategy, UriLikeIdentity};
        let mut addr = addr();
        let uri = UriLikeIdentity {
            uri: "spiffe://root/workload".into(),
        };
        addr.tls_identity = Some(destination::TlsIdentity {
            strategy: Some(Strategy::UriLikeIdentity(uri)),
            server_name: None,
        });
        let tls = |addr: &WeightedAddr| {
            decode::endpoint::weighted_addr(addr, &HashMap::new())
                .unwrap()
                .tls
        };
        assert_eq!(tls(&addr), None);
        addr.tls_identity.as_mut().unwrap().server_name = Some(DnsLikeIdentity {
            name: "web.demo".into(),
        });
        assert_eq!(tls(&addr).unwrap().identity.as_str(), "spiffe://root/workload");
    }

    #[test]
    fn a_dns_identity_stands_in_for_the_server_name() {
        use destination::tls_identity::{DnsLikeIdentity, Strategy};
        let mut addr = addr();
        addr.tls_identity = Some(destination::TlsIdentity {
            strategy: Some(Strategy::DnsLikeIdentity(DnsLikeIdentity {
                name: "Web.demo".into(),
            })),
            server_name: None,
        });
        let tls = decode::endpoint::weighted_addr(&addr, &HashMap::new())
            .unwrap()
            .tls
            .unwrap();
        assert_eq!(tls.server_name.as_str(), "web.demo");
    }

    #[test]
    fn an_identity_that_cannot_be_read_never_means_plaintext() {
        use destination::tls_identity::{DnsLikeIdentity, Strategy};
        let identity = |strategy| {
            Some(destination::TlsIdentity {
                strategy,
                server_name: None,
            })
        };
        assert_eq!(
            refused(|a| a.tls_identity = identity(None)),
            "tls_identity.strategy"
        );
        let bad = Strategy::DnsLikeIdentity(DnsLikeIdentity {
            name: "not a name".into(),
        });
        assert_eq!(
            refused(|a| a.tls_identity = identity(Some(bad))),
            "tls_identity.dns_like_identity.name"
        );
    }

    #[test]
    fn parameters_that_would_break_an_http2_client_are_refused() {
        use destination::Http2ClientParams;
        use destination::http2_client_params::{FlowControl, Internals};
        let window = FlowControl {
            initial_connection_window_size: 1 << 31,
            ..Default::default()
        };
        let frame = Internals {
            max_frame_size: 100,
            ..Default::default()
        };
        let params = |flow_control, internals| {
            Some(Http2ClientParams {
                flow_control,
                keep_alive: None,
                internals,
            })
        };
        assert_eq!(
            refused(|a| a.http2 = params(Some(window), None)),
            "http2.flow_control"
        );
        assert_eq!(
            refused(|a| a.http2 = params(None, Some(frame))),
            "http2.internals.max_frame_size"
        );
    }

    #[test]
    fn own_labels_win_over_those_of_the_set_and_both_are_bounded() {
        let mut addr = addr();
        addr.metric_labels.insert("zone".into(), "a".into());
        let set = HashMap::from([
            ("zone".to_owned(), "b".to_owned()),
            ("service".into(), "web".into()),
        ]);
        let labels = decode::endpoint::weighted_addr(&addr, &set).unwrap().labels;
        assert_eq!((&*labels["zone"], &*labels["service"]), ("a", "web"));
        let many = (0..=decode::MAX_LABELS)
            .map(|n| (n.to_string(), String::new()))
            .collect();
        assert_eq!(refused(|a| a.metric_labels = many), "metric_labels");
        assert_eq!(
            refused(|a| drop(a.metric_labels.insert("a".into(), "x".repeat(9000)))),
            "metric_labels"
        );
    }

    #[test]
    fn more_endpoints_than_the_limit_are_refused() {
        let set = destination::WeightedAddrSet {
            addrs: vec![addr(); decode::MAX_ENDPOINTS + 1],
            metric_labels: HashMap::new(),
        };
        let error = decode::endpoint::weighted_addr_set(&set).unwrap_err();
        assert!(error.to_string().contains("at most 10000"), "{error}");
    }
}

mod profiles {
    use super::*;

    #[test]
    fn a_budget_and_references_alone_ask_for_nothing() {
        let parent = ResourceRef::of_default("web");
        let message = encode::endpoint::profile(&Default::default(), Some(&parent), Some(&parent));
        assert!(message.retry_budget.is_some());
        assert_eq!(decode::outbound::profile(message).unwrap(), Default::default());
    }

    #[test]
    fn routes_and_overrides_are_unsupported() {
        let routes = destination::DestinationProfile {
            routes: vec![Default::default()],
            ..Default::default()
        };
        let overrides = destination::DestinationProfile {
            dst_overrides: vec![Default::default()],
            ..Default::default()
        };
        for (message, field) in [(routes, "routes"), (overrides, "dst_overrides")] {
            let Unsupported(why) = decode::outbound::profile(message).unwrap().unsupported.unwrap();
            assert!(why.contains(field) && why.contains("remove"), "{why}");
        }
    }
}

mod outbound_policies {
    use super::*;

    fn backend() -> Arc<Backend> {
        let dispatch = Dispatch::Balance {
            path: "web.demo.svc.cluster.local:80".into(),
            load: LoadParams::default(),
        };
        Arc::new(Backend {
            meta: Arc::new(ResourceRef::of_default("web")),
            dispatch,
        })
    }

    fn message(protocol: OutboundProtocol) -> outbound::OutboundPolicy {
        let parent = Arc::new(ResourceRef::of_default("web"));
        encode::outbound::policy(&OutboundPolicy {
            parent,
            protocol,
            authority: "".into(),
        })
        .unwrap()
    }

    fn http() -> outbound::OutboundPolicy {
        let rule = OutboundRule {
            backends: Ok(Distribution::FirstAvailable(vec![backend()])),
        };
        let mut message = message(OutboundProtocol::Http1(RouteTable::catch_all(
            backend().meta.clone(),
            rule,
        )));
        http1(&mut message).routes[0].metadata = Some(resource("HTTPRoute", "split"));
        message
    }

    fn http1(message: &mut outbound::OutboundPolicy) -> &mut outbound::proxy_protocol::Http1 {
        match message.protocol.as_mut().unwrap().kind.as_mut().unwrap() {
            Kind::Http1(http) => http,
            other => panic!("{other:?}"),
        }
    }

    fn changed(change: impl FnOnce(&mut http_route::Rule)) -> outbound::OutboundPolicy {
        let mut message = http();
        change(&mut http1(&mut message).routes[0].rules[0]);
        message
    }

    fn rule(message: outbound::OutboundPolicy) -> Result<Distribution, Unsupported> {
        match decode::outbound::policy(message).unwrap().protocol {
            OutboundProtocol::Http1(table) => table.routes[0].rules[0].then.backends.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn first(rule: &mut http_route::Rule) -> &mut http_route::RouteBackend {
        match rule.backends.as_mut().unwrap().kind.as_mut().unwrap() {
            http_route::distribution::Kind::FirstAvailable(first) => &mut first.backends[0],
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_enforced_makes_its_rule_unsupported_and_names_the_route() {
        let fault = http_route::filter::Kind::FailureInjector(HttpFailureInjector::default());
        let fault = http_route::Filter { kind: Some(fault) };
        let unknown = http_route::Filter { kind: None };
        let retry = http_route::Retry {
            max_retries: 1,
            ..Default::default()
        };
        let timeouts = Timeouts {
            idle: some_duration(),
            ..Default::default()
        };
        let refused = [
            ("failure_injector", changed(|r| r.filters.push(fault.clone()))),
            ("unknown kind", changed(|r| r.filters.push(unknown))),
            ("timeouts", changed(|r| r.request_timeout = some_duration())),
            ("timeouts", changed(|r| r.timeouts = Some(timeouts))),
            ("retry", changed(|r| r.retry = Some(retry))),
            (
                "allow_l5d_request_headers",
                changed(|r| r.allow_l5d_request_headers = true),
            ),
            (
                "backends.requestTimeout",
                changed(|r| first(r).request_timeout = some_duration()),
            ),
            (
                "backends.filters",
                changed(|r| first(r).filters.push(fault.clone())),
            ),
        ];
        for (field, message) in refused {
            let why = rule(message).unwrap_err().to_string();
            assert!(
                why.contains("HTTPRoute.demo.split") && why.contains(field),
                "{why}"
            );
        }
    }

    #[test]
    fn zeroes_ask_for_nothing() {
        let zero = Some(prost_types::Duration::default());
        let message = changed(|r| {
            r.request_timeout = zero;
            r.timeouts = Some(Timeouts {
                request: zero,
                response: zero,
                idle: zero,
            });
            r.retry = Some(http_route::Retry {
                timeout: some_duration(),
                ..Default::default()
            });
            first(r).request_timeout = zero;
        });
        assert!(matches!(rule(message), Ok(Distribution::FirstAvailable(_))));
    }

    #[test]
    fn failure_accrual_concerns_the_whole_policy() {
        let mut message = http();
        let kind = outbound::failure_accrual::Kind::ConsecutiveFailures(Default::default());
        http1(&mut message).failure_accrual = Some(outbound::FailureAccrual {
            ejection: None,
            kind: Some(kind),
        });
        let OutboundProtocol::Invalid(why) = decode::outbound::policy(message).unwrap().protocol else {
            panic!("not invalid");
        };
        assert!(why.0.contains("failure_accrual"), "{why}");
    }

    #[test]
    fn a_broken_message_is_an_error_that_names_the_field() {
        let refused = [
            (
                "protocol.http1.routes[0].rules[0].backends",
                changed(|r| r.backends = None),
            ),
            (
                "protocol.http1.routes[0].rules[0].backends.first_available.backends[0].backend",
                changed(|r| first(r).backend = None),
            ),
            ("protocol.http1.routes[0].rules[0].matches[0].path.regex", {
                let path = PathMatch {
                    kind: Some(path_match::Kind::Regex("(".into())),
                };
                changed(|r| {
                    r.matches.push(outrigger_proto::http_route::HttpRouteMatch {
                        path: Some(path),
                        ..Default::default()
                    })
                })
            }),
            (
                "metadata",
                outbound::OutboundPolicy {
                    metadata: None,
                    ..http()
                },
            ),
            (
                "protocol",
                outbound::OutboundPolicy {
                    protocol: None,
                    ..http()
                },
            ),
        ];
        for (field, message) in refused {
            assert_eq!(decode::outbound::policy(message).unwrap_err().field(), field);
        }
    }

    #[test]
    fn weights_that_are_all_zero_choose_nothing_and_their_sum_has_32_bits() {
        let random = |weights: [u32; 2]| {
            let backends = weights.map(|weight| http_route::WeightedRouteBackend {
                backend: Some(first(&mut http1(&mut http()).routes[0].rules[0]).clone()),
                weight,
            });
            let random = http_route::distribution::RandomAvailable {
                backends: backends.into(),
            };
            let kind = Some(http_route::distribution::Kind::RandomAvailable(random));
            changed(|r| r.backends = Some(http_route::Distribution { kind }))
        };
        assert_eq!(rule(random([0, 0])).unwrap(), Distribution::Empty);
        assert_eq!(rule(random([1, 0])).unwrap().backends().count(), 2);
        let error = decode::outbound::policy(random([u32::MAX, 1])).unwrap_err();
        assert!(
            error.field().ends_with("random_available.backends.weight"),
            "{error}"
        );
    }

    #[test]
    fn the_authority_is_the_path_of_the_balancer() {
        assert_eq!(
            &*decode::outbound::policy(http()).unwrap().authority,
            "web.demo.svc.cluster.local:80"
        );
    }

    #[test]
    fn a_backend_that_this_version_cannot_reach_is_missing() {
        use outbound::backend::{BalanceP2c, Kind, balance_p2c::Load};
        let with =
            |kind: Option<Kind>| rule(changed(|r| first(r).backend.as_mut().unwrap().kind = kind)).unwrap();
        let none = with(None);
        let mut penalty = first(&mut http1(&mut http()).routes[0].rules[0])
            .backend
            .clone()
            .unwrap();
        if let Some(Kind::Balancer(BalanceP2c { load, .. })) = &mut penalty.kind {
            *load = Some(Load::PenaltyPeakEwma(Default::default()));
        }
        for (distribution, reason) in [
            (none, "has no dispatcher"),
            (with(penalty.kind), "penalty_peak_ewma"),
        ] {
            let backend = distribution.backends().next().unwrap().clone();
            assert!(matches!(&backend.dispatch, Dispatch::Missing(why) if why.0.contains(reason)));
        }
    }

    #[test]
    fn a_balancer_needs_a_name_and_a_port() {
        use outbound::backend::{Kind, endpoint_discovery};
        for (path, good) in [
            ("web.demo:80", true),
            ("10.0.0.1:80", true),
            ("[::1]:80", true),
            ("web.demo", false),
            ("web.demo:0", false),
            (":80", false),
            ("a b:80", false),
        ] {
            let message = changed(|r| {
                let Some(Kind::Balancer(balancer)) = &mut first(r).backend.as_mut().unwrap().kind else {
                    panic!("no balancer");
                };
                let dst = endpoint_discovery::DestinationGet { path: path.into() };
                balancer.discovery.as_mut().unwrap().kind = Some(endpoint_discovery::Kind::Dst(dst));
            });
            assert_eq!(decode::outbound::policy(message).is_ok(), good, "{path:?}");
        }
    }

    #[test]
    fn the_filters_of_opaque_routes_are_enforced() {
        let opaque = |action: OpaqueAction| {
            let route = OpaqueRoute {
                meta: backend().meta.clone(),
                action,
            };
            match decode::outbound::policy(message(OutboundProtocol::Opaque(route)))
                .unwrap()
                .protocol
            {
                OutboundProtocol::Opaque(route) => route.action,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(opaque(OpaqueAction::Forbid), OpaqueAction::Forbid);
        assert_eq!(opaque(OpaqueAction::NoRoute), OpaqueAction::NoRoute);
        let why = OpaqueAction::Invalid(Unsupported::new("because"));
        assert_eq!(opaque(why.clone()), why);
    }

    #[test]
    fn more_regular_expressions_than_the_limit_are_refused() {
        let path = PathMatch {
            kind: Some(path_match::Kind::Regex("/a".into())),
        };
        let regex = outrigger_proto::http_route::HttpRouteMatch {
            path: Some(path),
            ..Default::default()
        };
        let with = |count: usize| changed(|r| r.matches = vec![regex.clone(); count]);
        assert!(rule(with(decode::MAX_PATTERNS)).is_ok());
        let error = decode::outbound::policy(with(decode::MAX_PATTERNS + 1)).unwrap_err();
        assert_eq!(error.field(), "protocol.http1.routes.rules.matches.regex");
    }

    #[test]
    fn more_routes_or_rules_than_the_limit_are_refused() {
        let mut message = http();
        let route = http1(&mut message).routes[0].clone();
        http1(&mut message).routes = vec![route.clone(); decode::MAX_ROUTES + 1];
        assert_eq!(
            decode::outbound::policy(message).unwrap_err().field(),
            "protocol.http1.routes"
        );
        let mut message = http();
        let rules = &mut http1(&mut message).routes[0].rules;
        *rules = vec![rules[0].clone(); decode::MAX_RULES + 1];
        assert_eq!(
            decode::outbound::policy(message).unwrap_err().field(),
            "protocol.http1.routes.rules"
        );
    }
}

mod inbound_policies {
    use super::*;

    fn everyone(name: &str) -> inbound::Authz {
        let server = encode::inbound::server(&InboundPolicy {
            meta: Arc::new(ResourceRef::of_default("x")),
            protocol: InboundProtocol::Opaque,
            authorizations: [decode::localhost(), decode::localhost()].into(),
        });
        let mut authz = server.unwrap().authorizations.remove(0);
        authz.metadata = Some(resource("authorizationpolicy", name));
        authz
    }

    fn detect(routes: Vec<inbound::HttpRoute>) -> Server {
        let detect = inbound::proxy_protocol::Detect {
            timeout: some_duration(),
            http_routes: routes,
            http_local_rate_limit: None,
        };
        Server {
            protocol: Some(inbound::ProxyProtocol {
                kind: Some(inbound::proxy_protocol::Kind::Detect(detect)),
            }),
            authorizations: vec![everyone("server")],
            labels: HashMap::from([("name".into(), "web".into())]),
            ..Default::default()
        }
    }

    fn route() -> inbound::HttpRoute {
        inbound::HttpRoute {
            metadata: Some(resource("HTTPRoute", "api")),
            authorizations: vec![everyone("route")],
            rules: vec![inbound::http_route::Rule::default()],
            ..Default::default()
        }
    }

    fn decoded(server: Server) -> InboundPolicy {
        decode::inbound::server(server).unwrap()
    }

    fn routes(server: Server) -> RouteTable<outrigger_policy::inbound::InboundRule> {
        match decoded(server).protocol {
            InboundProtocol::Detect { routes, timeout } => {
                assert_eq!(timeout, Duration::from_secs(1));
                routes
            }
            other => panic!("{other:?}"),
        }
    }

    fn granted(authorizations: &[outrigger_policy::authz::Authorization]) -> Vec<&str> {
        authorizations.iter().map(|a| &*a.meta.name).collect()
    }

    #[test]
    fn a_route_allows_its_own_then_the_servers_then_localhost() {
        let policy = decoded(detect(vec![]));
        assert_eq!(granted(&policy.authorizations), ["server", "localhost"]);
        let table = routes(detect(vec![route()]));
        let rule = &table.routes[0].rules[0].then;
        assert_eq!(granted(&rule.authorizations), ["route", "server", "localhost"]);
    }

    #[test]
    fn without_routes_there_is_a_default_that_takes_everything() {
        let table = routes(detect(vec![]));
        assert_eq!(*table.routes[0].meta, ResourceRef::of_default("default"));
        assert_eq!(
            granted(&table.routes[0].rules[0].then.authorizations),
            ["server", "localhost"]
        );
    }

    #[test]
    fn a_filter_makes_its_rule_unsupported_and_no_other() {
        let mut route = route();
        let mut filtered = inbound::http_route::Rule::default();
        filtered.filters.push(Default::default());
        route.rules.push(filtered);
        let table = routes(detect(vec![route]));
        let [plain, filtered] = &table.routes[0].rules[..] else {
            panic!("two rules")
        };
        assert_eq!(plain.then.unsupported, None);
        assert!(
            filtered
                .then
                .unsupported
                .as_ref()
                .unwrap()
                .0
                .contains("HTTPRoute.api")
        );
    }

    #[test]
    fn a_rate_limit_concerns_the_whole_port_unless_it_is_zero() {
        let limited = |requests_per_second| {
            let mut server = detect(vec![]);
            let kind = server.protocol.as_mut().unwrap().kind.as_mut().unwrap();
            if let inbound::proxy_protocol::Kind::Detect(detect) = kind {
                let total = Some(inbound::http_local_rate_limit::Limit { requests_per_second });
                detect.http_local_rate_limit = Some(inbound::HttpLocalRateLimit {
                    total,
                    ..Default::default()
                });
            }
            matches!(decoded(server).protocol, InboundProtocol::Invalid(_))
        };
        assert!(limited(1));
        assert!(!limited(0));
    }

    #[test]
    fn labels_spell_references_in_three_ways() {
        let meta = |labels: &[(&str, &str)]| {
            let labels = labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            decode::inbound::server(Server {
                labels,
                ..detect(vec![])
            })
            .map(|policy| (*policy.meta).clone())
        };
        let named = |group: &str, kind: &str, name: &str| ResourceRef {
            group: group.into(),
            kind: kind.into(),
            ..ResourceRef::of_default(name)
        };
        assert_eq!(
            meta(&[("name", "web")]).unwrap(),
            named("policy.linkerd.io", "server", "web")
        );
        assert_eq!(
            meta(&[("name", "default:deny")]).unwrap(),
            ResourceRef::of_default("deny")
        );
        assert_eq!(
            meta(&[("name", "k:n")]).unwrap(),
            named("policy.linkerd.io", "k", "n")
        );
        let default = [("group", ""), ("kind", "default"), ("name", "deny")];
        assert!(meta(&default).unwrap().is_default());
        assert_eq!(meta(&[("kind", "server")]).unwrap_err().field(), "labels");
    }

    #[test]
    fn a_broken_message_is_an_error_that_names_the_field() {
        let authz = |change: fn(&mut inbound::Authz)| {
            let mut server = detect(vec![]);
            change(&mut server.authorizations[0]);
            decode::inbound::server(server).unwrap_err().field().to_owned()
        };
        assert_eq!(authz(|a| a.networks.clear()), "authorizations[0].networks");
        assert_eq!(
            authz(|a| a.authentication = None),
            "authorizations[0].authentication"
        );
        assert_eq!(
            authz(|a| a.networks[0].net = None),
            "authorizations[0].networks[0].net"
        );
        let prefix = authz(|a| a.networks[0].net.as_mut().unwrap().prefix_len = 33);
        assert_eq!(prefix, "authorizations[0].networks[0].net.prefix_len");
        let none = Server {
            protocol: None,
            ..detect(vec![])
        };
        assert_eq!(decode::inbound::server(none).unwrap_err().field(), "protocol");
    }

    #[test]
    fn copies_of_the_servers_authorizations_are_bounded() {
        let mut server = detect(vec![route(); 1_000]);
        server.authorizations = vec![everyone("server"); 200];
        let error = decode::inbound::server(server).unwrap_err();
        assert!(error.to_string().contains("at most 100000"), "{error}");
    }

    #[test]
    fn a_grpc_match_needs_its_rpc() {
        let route = inbound::GrpcRoute {
            metadata: Some(resource("GRPCRoute", "api")),
            rules: vec![inbound::grpc_route::Rule {
                matches: vec![grpc_route::GrpcRouteMatch::default()],
                ..Default::default()
            }],
            ..Default::default()
        };
        let grpc = inbound::proxy_protocol::Grpc { routes: vec![route] };
        let kind = Some(inbound::proxy_protocol::Kind::Grpc(grpc));
        let server = Server {
            protocol: Some(inbound::ProxyProtocol { kind }),
            ..detect(vec![])
        };
        let error = decode::inbound::server(server).unwrap_err();
        assert_eq!(error.field(), "protocol.grpc.routes[0].rules[0].matches[0].rpc");
    }
}
