//! What decoding takes, refuses by field, and calls unsupported.

#![allow(clippy::unwrap_used, reason = "what fails here is the test")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use outrigger_policy::Unsupported;
use outrigger_policy::breaker::Accrual;
use outrigger_policy::budget::BudgetPolicy;
use outrigger_policy::endpoint::Endpoint;
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol};
use outrigger_policy::name::ResourceRef;
use outrigger_policy::outbound::{
    Backend, Dispatch, Distribution, LoadParams, OpaqueAction, OpaqueRoute, OutboundPolicy, OutboundProtocol,
    OutboundRule, PenaltyParams,
};
use outrigger_policy::route::RouteTable;
use outrigger_proto::decode::DecodeError;
use outrigger_proto::destination::{self, WeightedAddr};
use outrigger_proto::http_route::{HttpFailureInjector, PathMatch, RequestRedirect, Timeouts, path_match};
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
    use outrigger_proto::destination::request_match::Match;

    #[test]
    fn references_alone_ask_for_nothing() {
        let parent = ResourceRef::of_default("web");
        let message = encode::profile::profile(&Default::default(), Some(&parent), Some(&parent));
        assert_eq!(decode::profile::profile(message).unwrap(), Default::default());
    }

    fn refused(change: impl FnOnce(&mut destination::DestinationProfile)) -> String {
        let mut message = destination::DestinationProfile::default();
        change(&mut message);
        let error = decode::profile::profile(message).unwrap_err();
        error.field().to_owned()
    }

    fn condition(one: Option<Match>) -> Option<destination::RequestMatch> {
        Some(destination::RequestMatch { r#match: one })
    }

    fn route(one: Option<Match>) -> destination::Route {
        destination::Route {
            condition: condition(one),
            ..Default::default()
        }
    }

    fn path(regex: &str) -> Match {
        Match::Path(destination::PathMatch { regex: regex.into() })
    }

    #[test]
    fn a_route_without_a_condition_makes_the_profile_unsupported() {
        let message = destination::DestinationProfile {
            routes: vec![Default::default()],
            ..Default::default()
        };
        let Unsupported(why) = decode::profile::profile(message).unwrap().unsupported.unwrap();
        assert!(why.contains("route without a condition"), "{why}");
    }

    #[test]
    fn a_broken_profile_is_an_error_that_names_the_field() {
        let not = Match::Not(Box::new(condition(None).unwrap()));
        let status = |min, max| destination::ResponseClass {
            condition: Some(destination::ResponseMatch {
                r#match: Some(destination::response_match::Match::Status(
                    destination::HttpStatusRange { min, max },
                )),
            }),
            is_failure: true,
        };
        let classes = |class| destination::Route {
            response_classes: vec![class],
            ..route(Some(path("/")))
        };
        for (field, broken) in [
            ("routes[0].condition.match", route(None)),
            ("routes[0].condition.not.match", route(Some(not))),
            ("routes[0].condition.path.regex", route(Some(path("(")))),
            (
                "routes[0].response_classes[0].condition",
                classes(Default::default()),
            ),
            (
                "routes[0].response_classes[0].condition.status",
                classes(status(500, 499)),
            ),
            (
                "routes[0].response_classes[0].condition.status",
                classes(status(700, 0)),
            ),
        ] {
            assert_eq!(refused(|p| p.routes.push(broken)), field);
        }
        let dst = destination::WeightedDst {
            authority: "web".into(),
            ..Default::default()
        };
        assert_eq!(
            refused(|p| p.dst_overrides.push(dst)),
            "dst_overrides[0].authority"
        );
        let budget = |retry_ratio, ttl| {
            Some(destination::RetryBudget {
                retry_ratio,
                min_retries_per_second: 1,
                ttl,
            })
        };
        assert_eq!(
            refused(|p| p.retry_budget = budget(0.2, None)),
            "retry_budget.ttl"
        );
        let negative = budget(-1.0, some_duration());
        assert_eq!(refused(|p| p.retry_budget = negative), "retry_budget.retry_ratio");
    }

    #[test]
    fn more_conditions_or_patterns_than_the_limits_are_refused() {
        let nested = |one: Match, count| {
            let matches = vec![condition(Some(one)).unwrap(); count];
            route(Some(Match::Any(destination::request_match::Seq { matches })))
        };
        let all = Match::All(Default::default());
        assert_eq!(
            refused(|p| p.routes.push(nested(all, 10_000))),
            "routes.condition"
        );
        let patterns = nested(path("/"), decode::MAX_PATTERNS + 1);
        assert_eq!(
            refused(|p| p.routes.push(patterns)),
            "routes.condition.path.regex"
        );
    }
}

mod outbound_policies {
    use super::*;

    fn backend() -> Arc<Backend> {
        let dispatch = Dispatch::Balance {
            path: "web.demo.svc.cluster.local:80".into(),
            load: LoadParams::default(),
            breaker: None,
        };
        Arc::new(Backend::new(Arc::new(ResourceRef::of_default("web")), dispatch))
    }

    fn message(protocol: OutboundProtocol) -> outbound::OutboundPolicy {
        let parent = Arc::new(ResourceRef::of_default("web"));
        encode::outbound::policy(&OutboundPolicy {
            parent,
            protocol,
            authority: "".into(),
            budget: None,
        })
        .unwrap()
    }

    fn http() -> outbound::OutboundPolicy {
        let rule = OutboundRule::to(Distribution::FirstAvailable(vec![backend()]));
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

    fn decoded(message: outbound::OutboundPolicy) -> Result<OutboundRule, DecodeError> {
        match decode::outbound::policy(message)?.protocol {
            OutboundProtocol::Http1(table) => Ok(table.routes[0].rules[0].then.clone()),
            other => panic!("{other:?}"),
        }
    }

    fn rule(message: outbound::OutboundPolicy) -> Result<Distribution, Unsupported> {
        decoded(message).unwrap().backends
    }

    fn first(rule: &mut http_route::Rule) -> &mut http_route::RouteBackend {
        match rule.backends.as_mut().unwrap().kind.as_mut().unwrap() {
            http_route::distribution::Kind::FirstAvailable(first) => &mut first.backends[0],
            other => panic!("{other:?}"),
        }
    }

    fn filter(kind: http_route::filter::Kind) -> http_route::Filter {
        http_route::Filter { kind: Some(kind) }
    }

    fn fault(status: u32) -> http_route::Filter {
        filter(http_route::filter::Kind::FailureInjector(HttpFailureInjector {
            status,
            ..Default::default()
        }))
    }

    fn edit(name: &str) -> http_route::Filter {
        let edits = outrigger_proto::http_route::RequestHeaderModifier {
            remove: vec![name.into()],
            ..Default::default()
        };
        filter(http_route::filter::Kind::RequestHeaderModifier(edits))
    }

    #[test]
    fn what_is_not_enforced_refuses_its_rule_and_names_the_route() {
        let refused = [
            (
                "unknown kind",
                changed(|r| r.filters.push(http_route::Filter { kind: None })),
            ),
            (
                "transfer-encoding",
                changed(|r| r.filters.push(edit("Transfer-Encoding"))),
            ),
            (
                "backends.requestTimeout",
                changed(|r| first(r).request_timeout = some_duration()),
            ),
        ];
        for (field, message) in refused {
            let why = decoded(message).unwrap().backends.unwrap_err().to_string();
            assert!(
                why.contains("HTTPRoute.demo.split") && why.contains(field),
                "{why}"
            );
        }
        assert!(decoded(http()).unwrap().backends.is_ok());
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
        assert_eq!(decoded(message), decoded(http()));
    }

    #[test]
    fn the_older_request_timeout_stands_in_for_the_newer() {
        let both = |newer: Option<prost_types::Duration>| {
            let message = changed(|r| {
                r.request_timeout = some_duration();
                r.timeouts = Some(Timeouts {
                    request: newer,
                    ..Default::default()
                });
            });
            decoded(message).unwrap().timeouts.request.unwrap().as_secs()
        };
        assert_eq!(both(None), 1);
        assert_eq!(both(Some(prost_types::Duration { seconds: 7, nanos: 0 })), 7);
    }

    fn consecutive(max_failures: u32) -> Option<outbound::FailureAccrual> {
        let backoff = outbound::ExponentialBackoff {
            min_backoff: some_duration(),
            max_backoff: some_duration(),
            ..Default::default()
        };
        let consecutive = outbound::failure_accrual::ConsecutiveFailures {
            max_failures,
            backoff: Some(backoff),
        };
        Some(outbound::FailureAccrual {
            ejection: None,
            kind: Some(outbound::failure_accrual::Kind::ConsecutiveFailures(consecutive)),
        })
    }

    fn breakers(distribution: &Distribution) -> Vec<Option<Accrual>> {
        let breaker = |backend: &Arc<Backend>| match &backend.dispatch {
            Dispatch::Balance { breaker, .. } => breaker.map(|b| b.accrual),
            other => panic!("{other:?}"),
        };
        distribution.backends().map(breaker).collect()
    }

    #[test]
    fn failure_accrual_is_for_every_backend() {
        let mut message = http();
        http1(&mut message).failure_accrual = consecutive(7);
        let rule = decoded(message).unwrap();
        assert_eq!(
            breakers(rule.backends.as_ref().unwrap()),
            [Some(Accrual::Consecutive(7))]
        );
    }

    #[test]
    fn what_shuts_endpoints_for_http_shuts_them_for_bytes_too() {
        let forward = |b: &Arc<Backend>| Distribution::FirstAvailable(vec![b.clone()]);
        let table = RouteTable::catch_all(backend().meta.clone(), OutboundRule::to(forward(&backend())));
        let mut message = message(OutboundProtocol::Detect {
            http1: table.clone(),
            http2: table,
            opaque: OpaqueRoute {
                meta: backend().meta.clone(),
                action: OpaqueAction::Forward(forward(&backend())),
            },
        });
        let Some(Kind::Detect(detect)) = &mut message.protocol.as_mut().unwrap().kind else {
            panic!("not detected");
        };
        detect.http1.as_mut().unwrap().failure_accrual = consecutive(7);
        let OutboundProtocol::Detect { opaque, .. } = decode::outbound::policy(message).unwrap().protocol
        else {
            panic!("not detected");
        };
        let OpaqueAction::Forward(distribution) = &opaque.action else {
            panic!("{opaque:?}");
        };
        assert_eq!(breakers(distribution), [Some(Accrual::Consecutive(7))]);
    }

    #[test]
    fn broken_traffic_management_is_an_error_that_names_the_field() {
        let at = |e: DecodeError| {
            let field = e.field().strip_prefix("protocol.http1.routes[0].rules[0].");
            field.unwrap_or_else(|| e.field()).to_owned()
        };
        let retry = |change: fn(&mut http_route::Retry)| {
            let mut retry = http_route::Retry {
                max_retries: 1,
                ..Default::default()
            };
            change(&mut retry);
            at(decoded(changed(|r| r.retry = Some(retry))).unwrap_err())
        };
        assert_eq!(
            retry(|r| r.backoff = Some(Default::default())),
            "retry.backoff.min_backoff"
        );
        let ranges = "retry.conditions.status_ranges[0].start";
        assert_eq!(
            retry(|r| {
                let range = http_route::retry::conditions::StatusRange { start: 5, end: 4 };
                let status_ranges = vec![range];
                r.conditions = Some(http_route::retry::Conditions { status_ranges });
            }),
            ranges
        );
        let filtered = |filter| at(decoded(changed(|r| r.filters.push(filter))).unwrap_err());
        assert_eq!(filtered(fault(101)), "filters[0].failure_injector.status");
        assert_eq!(
            filtered(edit("a b")),
            "filters[0].request_header_modifier.remove[0].name"
        );
        let redirect = |change: fn(&mut RequestRedirect)| {
            let mut redirect = RequestRedirect::default();
            change(&mut redirect);
            filtered(filter(http_route::filter::Kind::Redirect(redirect)))
        };
        assert_eq!(redirect(|r| r.host = "a:1".into()), "filters[0].redirect.host");
        assert_eq!(redirect(|r| r.host = "a/b".into()), "filters[0].redirect.host");
        assert_eq!(redirect(|r| r.port = 65_536), "filters[0].redirect.port");
        assert_eq!(redirect(|r| r.status = 200), "filters[0].redirect.status");
        assert_eq!(
            redirect(|r| r.path = Some(Default::default())),
            "filters[0].redirect.path.replace"
        );
        let mut message = http();
        http1(&mut message).failure_accrual = consecutive(7);
        let Some(outbound::failure_accrual::Kind::ConsecutiveFailures(c)) =
            &mut http1(&mut message).failure_accrual.as_mut().unwrap().kind
        else {
            panic!("no accrual");
        };
        c.backoff = None;
        assert_eq!(
            at(decoded(message).unwrap_err()),
            "protocol.http1.failure_accrual.backoff"
        );
        let mirrors = changed(|r| {
            let backend = first(r).backend.clone();
            r.mirrors = vec![outbound::Mirror { backend, ratio: None }; decode::outbound::MAX_MIRRORS + 1];
        });
        assert_eq!(at(decoded(mirrors).unwrap_err()), "mirrors");
    }

    #[test]
    fn a_budget_that_is_absent_is_the_default_and_an_empty_one_is_none() {
        let budget = |retry_budget| {
            let message = outbound::OutboundPolicy {
                retry_budget,
                ..http()
            };
            decode::outbound::policy(message).unwrap().budget
        };
        assert_eq!(budget(None), Some(BudgetPolicy::default()));
        assert_eq!(budget(Some(Default::default())), None);
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
    fn a_backend_that_nothing_can_reach_is_missing() {
        let none = rule(changed(|r| first(r).backend.as_mut().unwrap().kind = None)).unwrap();
        let backend = none.backends().next().unwrap();
        assert!(matches!(&backend.dispatch, Dispatch::Missing(why) if why.0.contains("has no dispatcher")));
    }

    #[test]
    fn a_penalty_has_defaults() {
        use outbound::backend::balance_p2c::{Load, PenaltyPeakEwma};
        use outbound::backend::{BalanceP2c, Kind};
        let message = changed(|r| {
            let kind = &mut first(r).backend.as_mut().unwrap().kind;
            let Some(Kind::Balancer(BalanceP2c { load, .. })) = kind else {
                panic!("no balancer");
            };
            *load = Some(Load::PenaltyPeakEwma(PenaltyPeakEwma {
                default_rtt: some_duration(),
                decay: some_duration(),
                ..Default::default()
            }));
        });
        let rule = decoded(message).unwrap();
        match &rule.backends.unwrap().backends().next().unwrap().dispatch {
            Dispatch::Balance { load, .. } => assert_eq!(load.penalty, Some(PenaltyParams::default())),
            other => panic!("{other:?}"),
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
            rate_limit: None,
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
    fn an_unknown_filter_refuses_its_rule_and_no_other() {
        use inbound::http_route::filter::Kind;
        let rule = |kind: Option<Kind>| inbound::http_route::Rule {
            filters: vec![inbound::http_route::Filter { kind }],
            ..Default::default()
        };
        let mut route = route();
        route.rules.push(rule(None));
        route
            .rules
            .push(rule(Some(Kind::RequestHeaderModifier(Default::default()))));
        let table = routes(detect(vec![route]));
        let meta = &table.routes[0].meta;
        let why = table.rules().map(|(_, rule)| rule.unenforced(meta));
        let why: Vec<_> = why.map(|why| why.map(|why| why.to_string())).collect();
        let [None, Some(unknown), None] = &why[..] else {
            panic!("{why:?}");
        };
        assert!(
            unknown.contains("HTTPRoute.api") && unknown.contains("unknown kind"),
            "{unknown}"
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
            decoded(server)
        };
        assert_eq!(limited(1).rate_limit.as_ref().unwrap().total.unwrap().get(), 1);
        assert_eq!(limited(0).rate_limit, None);
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
