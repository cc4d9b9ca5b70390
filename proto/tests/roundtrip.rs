//! What is written is read again: `decode ∘ encode` is the identity for everything that this version enforces.

#![allow(clippy::unwrap_used, reason = "what fails here is the test")]

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use outrigger_policy::Unsupported;
use outrigger_policy::authz::{Authentication, Authorization, Network, Suffix};
use outrigger_policy::backoff::Backoff;
use outrigger_policy::breaker::{Accrual, BreakerPolicy};
use outrigger_policy::budget::BudgetPolicy;
use outrigger_policy::classify::{Class, GrpcStatus, ResponseClass, ResponseCondition};
use outrigger_policy::endpoint::{Endpoint, EndpointTls, Http2Params, ProtocolHint};
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol, InboundRule};
use outrigger_policy::name::{DnsName, Identity, ResourceRef};
use outrigger_policy::outbound::{
    Backend, Dispatch, Distribution, LoadParams, Mirror, OpaqueAction, OpaqueRoute, OutboundPolicy,
    OutboundProtocol, OutboundRule, PenaltyParams, TlsRoute,
};
use outrigger_policy::profile::{self, Profile, ProfileRoute};
use outrigger_policy::rate_limit::{Override, RateLimitPolicy};
use outrigger_policy::retry::{GrpcCodes, RetryOn, RetryPolicy};
use outrigger_policy::route::condition::Condition;
use outrigger_policy::route::filter::{
    Delay, Filter, HeaderEdits, InjectedFailure, InjectedStatus, PathRewrite, Ratio, Redirect, Rewrite,
};
use outrigger_policy::route::header::{HeaderMatch, QueryMatch, ValueMatch};
use outrigger_policy::route::host::HostMatch;
use outrigger_policy::route::path::PathMatch;
use outrigger_policy::route::pattern::Pattern;
use outrigger_policy::route::request::{RequestMatch, RpcMatch};
use outrigger_policy::route::{Route, RouteTable, Rule};
use outrigger_policy::timeouts::Timeouts;
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
        let message = encode::profile::profile(&profile, Some(&parent), None);
        prop_assert_eq!(decode::profile::profile(message).unwrap(), profile);
    }

    #[test]
    fn what_is_refused_stays_refused_and_keeps_its_reason(mut policy in outbound(), why in "[a-z ]{1,20}") {
        policy.protocol = OutboundProtocol::Invalid(Unsupported::new(why.as_str()));
        let back = decode::outbound::policy(encode::outbound::policy(&policy).unwrap()).unwrap();
        let OutboundProtocol::Detect { http1, http2, opaque } = back.protocol else {
            panic!("not detected");
        };
        for (_, rule) in http1.rules().chain(http2.rules()) {
            let [Filter::Fail(failure)] = &rule.filters[..] else {
                panic!("does not fail: {rule:?}");
            };
            prop_assert_eq!(&*failure.message, &why);
            prop_assert_eq!((failure.ratio, rule.backends.clone()), (Ratio::ALWAYS, Ok(Distribution::Empty)));
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
        prop_assert!(matches!(&routes.routes[0].rules[0].then.filters[..], [Filter::Fail(_)]));
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
    let rule = InboundRule::new([].into());
    let policy = InboundPolicy {
        meta: everybody.meta.clone(),
        protocol: InboundProtocol::Http1(RouteTable::catch_all(everybody.meta.clone(), rule)),
        authorizations: [everybody].into(),
        rate_limit: None,
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
    let over = (dns_name(), 1..=u16::MAX, any::<u32>()).prop_map(|(name, port, weight)| profile::Override {
        authority: format!("{name}:{port}").into(),
        weight,
    });
    let what = (option::of(text()), any::<bool>(), option::of(endpoint()));
    let routes = (vec(profile_route(), 0..3), vec(over, 0..3), option::of(budget()));
    (what, routes).prop_map(
        |((fully_qualified_name, opaque, endpoint), (routes, overrides, budget))| Profile {
            fully_qualified_name,
            opaque,
            endpoint,
            routes,
            overrides,
            budget,
            unsupported: None,
        },
    )
}

fn profile_route() -> impl Strategy<Value = ProfileRoute> {
    let class = (response_condition(), any::<bool>()).prop_map(|(condition, failure)| ResponseClass {
        condition,
        class: if failure { Class::Failure } else { Class::Success },
    });
    let labels = btree_map("[a-z]{1,8}", "[a-z]{0,8}", 0..4);
    (
        condition(),
        vec(class, 0..3),
        labels,
        any::<bool>(),
        option::of(duration()),
    )
        .prop_map(|(condition, classes, labels, retryable, timeout)| ProfileRoute {
            condition,
            classes: classes.into(),
            labels: Arc::new(labels),
            retryable,
            timeout,
        })
}

fn condition() -> impl Strategy<Value = Condition> {
    let leaf = prop_oneof![
        "/[a-z]{0,4}[.][*]".prop_map(|pattern| Condition::Path(Pattern::new(&pattern).unwrap())),
        Just(Condition::Method(http::Method::GET)),
    ];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Condition::All),
            vec(inner.clone(), 0..3).prop_map(Condition::Any),
            inner.prop_map(|not| Condition::Not(Box::new(not))),
        ]
    })
}

fn response_condition() -> impl Strategy<Value = ResponseCondition> {
    let leaf = (100..=599u16, 0..100u16)
        .prop_map(|(min, more)| ResponseCondition::Status(min..=(min + more).min(599)));
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(ResponseCondition::All),
            vec(inner.clone(), 0..3).prop_map(ResponseCondition::Any),
            inner.prop_map(|not| ResponseCondition::Not(Box::new(not))),
        ]
    })
}

fn budget() -> impl Strategy<Value = BudgetPolicy> {
    (0..8000u16, any::<u32>(), 1..=60u64).prop_map(|(ratio, min, ttl)| {
        BudgetPolicy::try_new(f32::from(ratio) / 8.0, min, Duration::from_secs(ttl)).unwrap()
    })
}

fn backoff() -> impl Strategy<Value = Backoff> {
    (duration(), duration(), 0..800u16)
        .prop_map(|(min, more, jitter)| Backoff::try_new(min, min + more, f64::from(jitter) / 8.0).unwrap())
}

fn breaker() -> impl Strategy<Value = BreakerPolicy> {
    let unified = (any::<u32>(), 0..=10_000u16, 0..=1_000_000u32, 1..1000u64).prop_map(
        |(max_consecutive, threshold, min_requests, seconds)| Accrual::Unified {
            max_consecutive,
            threshold,
            min_requests,
            window: Duration::from_secs(seconds),
        },
    );
    let accrual = prop_oneof![any::<u32>().prop_map(Accrual::Consecutive), unified];
    (accrual, backoff(), any::<bool>(), any::<u32>()).prop_map(
        |(accrual, backoff, respect_hints, min_ready_endpoints)| BreakerPolicy {
            accrual,
            backoff,
            respect_hints,
            min_ready_endpoints,
        },
    )
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    let any = || option::of(duration());
    (any(), any(), any()).prop_map(|(request, response, idle)| Timeouts {
        request,
        response,
        idle,
        headers: None,
    })
}

fn retry(on: impl Strategy<Value = RetryOn>) -> impl Strategy<Value = Option<RetryPolicy>> {
    let retry = (
        on,
        1..=u32::MAX,
        any::<u32>(),
        option::of(duration()),
        option::of(backoff()),
    )
        .prop_map(|(on, max_retries, bytes, per_try, backoff)| RetryPolicy {
            on,
            max_retries,
            max_request_bytes: bytes as usize,
            per_try,
            backoff,
        });
    option::of(retry)
}

fn on_statuses() -> impl Strategy<Value = RetryOn> {
    let range = (100..600u16, 0..100u16).prop_map(|(start, more)| start..=start + more);
    vec(range, 0..3).prop_map(|http| RetryOn::Statuses {
        http,
        grpc: GrpcCodes::default(),
    })
}

fn on_codes() -> impl Strategy<Value = RetryOn> {
    let codes = prop::sample::subsequence(vec![1, 4, 8, 13, 14], 0..=5);
    codes.prop_map(|codes| RetryOn::Statuses {
        http: vec![],
        grpc: codes.into_iter().collect(),
    })
}

fn ratio() -> impl Strategy<Value = Ratio> {
    (0..100u32, 100..200u32).prop_map(|(n, d)| Ratio::new(n, d).unwrap())
}

fn failure(status: impl Strategy<Value = InjectedStatus>) -> impl Strategy<Value = Filter> {
    (status, label(), ratio()).prop_map(|(status, message, ratio)| {
        Filter::Fail(InjectedFailure {
            status,
            message: message.into(),
            ratio,
        })
    })
}

fn http_failure() -> impl Strategy<Value = Filter> {
    failure((200..600u16).prop_map(|code| InjectedStatus::Http(http::StatusCode::from_u16(code).unwrap())))
}

fn grpc_failure() -> impl Strategy<Value = Filter> {
    failure((0..17u16).prop_map(|code| InjectedStatus::Grpc(GrpcStatus(code))))
}

fn header_edits() -> impl Strategy<Value = HeaderEdits> {
    let name = || "x-[a-z]{1,6}".prop_map(|name| name.parse::<http::HeaderName>().unwrap());
    let value = "[a-z]{0,6}".prop_map(|value| value.parse::<http::HeaderValue>().unwrap());
    let headers = move || vec((name(), value.clone()), 0..3);
    (headers(), headers(), vec(name(), 0..3)).prop_map(|(add, set, remove)| HeaderEdits { add, set, remove })
}

fn path_rewrite() -> impl Strategy<Value = Option<PathRewrite>> {
    let path = || "/[a-z/]{0,6}".prop_map(Arc::<str>::from);
    option::of(prop_oneof![
        path().prop_map(PathRewrite::Full),
        path().prop_map(PathRewrite::Prefix)
    ])
}

fn redirect() -> impl Strategy<Value = Filter> {
    let scheme = prop_oneof![Just("http"), Just("https"), Just("ws")].prop_map(|s| s.parse().unwrap());
    let host = option::of(text());
    (
        option::of(scheme),
        host,
        option::of(1..=u16::MAX),
        path_rewrite(),
        300..400u16,
    )
        .prop_map(|(scheme, host, port, path, status)| {
            let status = http::StatusCode::from_u16(status).unwrap();
            Filter::Redirect(Redirect {
                scheme,
                host,
                port,
                path,
                status,
            })
        })
}

/// Filters of the contract, then rewrites, then delays.
fn http_filters() -> impl Strategy<Value = Vec<Filter>> {
    let host = option::of(label().prop_map(|host| host.parse().unwrap()));
    let rewrite = (host, path_rewrite()).prop_map(|(host, path)| Filter::Rewrite(Rewrite { host, path }));
    (vec(http_filter(), 0..3), vec(rewrite, 0..2), vec(delay(), 0..2))
        .prop_map(|(theirs, rewrites, delays)| theirs.into_iter().chain(rewrites).chain(delays).collect())
}

fn http_filter() -> impl Strategy<Value = Filter> {
    prop_oneof![
        http_failure(),
        header_edits().prop_map(Filter::RequestHeaders),
        header_edits().prop_map(Filter::ResponseHeaders),
        redirect(),
    ]
}

fn grpc_filters() -> impl Strategy<Value = Vec<Filter>> {
    (vec(grpc_filter(), 0..3), vec(delay(), 0..2))
        .prop_map(|(theirs, delays)| theirs.into_iter().chain(delays).collect())
}

fn grpc_filter() -> impl Strategy<Value = Filter> {
    prop_oneof![grpc_failure(), header_edits().prop_map(Filter::RequestHeaders)]
}

fn delay() -> impl Strategy<Value = Filter> {
    (duration(), ratio()).prop_map(|(duration, ratio)| Filter::Delay(Delay { duration, ratio }))
}

fn rate_limit() -> impl Strategy<Value = Option<Arc<RateLimitPolicy>>> {
    let limit = || option::of((1..=u32::MAX).prop_map(|n| NonZeroU32::new(n).unwrap()));
    let over = (limit(), vec(identity(), 0..3)).prop_map(|(limit, clients)| Override { limit, clients });
    let policy = (inbound_reference(), limit(), limit(), vec(over, 0..3)).prop_map(
        |(meta, total, identity, overrides)| RateLimitPolicy {
            meta,
            total,
            identity,
            overrides,
        },
    );
    option::of(policy).prop_map(|policy| policy.filter(RateLimitPolicy::limits).map(Arc::new))
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
            condition: None,
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

fn load() -> impl Strategy<Value = LoadParams> {
    let penalty =
        (duration(), duration(), duration()).prop_map(|(penalty, max_retry_after, decay)| PenaltyParams {
            penalty,
            max_retry_after,
            decay,
        });
    (duration(), duration(), option::of(penalty)).prop_map(|(default_rtt, decay, penalty)| LoadParams {
        default_rtt,
        decay,
        penalty,
    })
}

/// A backend with these filters; the same breaker is for all of a policy.
fn backend(
    breaker: Option<BreakerPolicy>,
    filters: impl Strategy<Value = Vec<Filter>>,
) -> impl Strategy<Value = Arc<Backend>> {
    let balance = (label(), 1..=u16::MAX, load()).prop_map(move |(name, port, load)| {
        Some(Dispatch::Balance {
            path: format!("{name}.ns.svc.cluster.local:{port}").into(),
            load,
            breaker,
        })
    });
    let forward = endpoint().prop_map(|endpoint| Some(Dispatch::Forward(endpoint)));
    let dispatch = prop_oneof![balance, forward, Just(None)];
    (reference(), dispatch, filters).prop_map(|(meta, dispatch, filters)| {
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
            filters,
        })
    })
}

fn distribution(backend: impl Strategy<Value = Arc<Backend>>) -> impl Strategy<Value = Distribution> {
    let backends = vec((backend, 1..1000u32), 1..3);
    (backends, 0..3).prop_map(|(backends, kind)| match kind {
        0 => Distribution::Empty,
        1 => Distribution::FirstAvailable(backends.into_iter().map(|(backend, _)| backend).collect()),
        _ => Distribution::RandomAvailable(backends),
    })
}

fn opaque(breaker: Option<BreakerPolicy>) -> impl Strategy<Value = OpaqueRoute> {
    let action = prop_oneof![
        distribution(backend(breaker, Just(vec![]))).prop_map(OpaqueAction::Forward),
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

fn rule(
    breaker: Option<BreakerPolicy>,
    filters: impl Strategy<Value = Vec<Filter>>,
    of_backend: impl Strategy<Value = Vec<Filter>>,
    retry: impl Strategy<Value = Option<RetryPolicy>>,
) -> impl Strategy<Value = OutboundRule> {
    let mirror =
        (backend(breaker, Just(vec![])), ratio()).prop_map(|(backend, ratio)| Mirror { backend, ratio });
    (
        distribution(backend(breaker, of_backend)),
        filters,
        vec(mirror, 0..2),
        timeouts(),
        retry,
        any::<bool>(),
    )
        .prop_map(
            |(to, filters, mirrors, timeouts, retry, allow_overrides)| OutboundRule {
                filters,
                mirrors,
                timeouts,
                retry,
                allow_overrides,
                ..OutboundRule::to(to)
            },
        )
}

fn outbound() -> impl Strategy<Value = OutboundPolicy> {
    (reference(), option::of(breaker()), option::of(budget())).prop_flat_map(|(parent, breaker, budget)| {
        protocol(breaker).prop_map(move |protocol| OutboundPolicy {
            parent: Arc::new(parent.clone()),
            protocol,
            authority: "".into(),
            budget,
        })
    })
}

fn protocol(breaker: Option<BreakerPolicy>) -> impl Strategy<Value = OutboundProtocol> {
    let http = move || {
        let of_backend = vec(http_filter(), 0..2);
        let rule = rule(breaker, http_filters(), of_backend, retry(on_statuses()));
        table(reference().prop_map(Arc::new), http_match(), rule)
    };
    let grpc_rule = rule(
        breaker,
        grpc_filters(),
        vec(grpc_filter(), 0..2),
        retry(on_codes()),
    );
    let grpc = table(reference().prop_map(Arc::new), grpc_match(), grpc_rule);
    let opaque = move || opaque(breaker);
    let tls = (vec(host(), 0..3), opaque()).prop_map(|(snis, route)| TlsRoute { snis, route });
    prop_oneof![
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
    ]
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
    filter: impl Strategy<Value = Filter>,
) -> impl Strategy<Value = RouteTable<(Vec<Authorization>, Vec<Filter>)>> {
    let own = vec(authorization(), 0..3);
    let table = table(
        inbound_reference(),
        matches,
        vec(filter, 0..3).prop_map(Arc::<[Filter]>::from),
    );
    (table, vec(own, 3)).prop_map(|(table, own)| RouteTable {
        routes: std::iter::zip(table.routes, own)
            .map(|(route, own)| Route {
                meta: route.meta,
                hosts: route.hosts,
                rules: route
                    .rules
                    .into_iter()
                    .map(|rule| Rule {
                        matches: rule.matches,
                        then: (own.clone(), rule.then.to_vec()),
                    })
                    .collect(),
            })
            .collect(),
    })
}

fn inbound() -> impl Strategy<Value = InboundPolicy> {
    let http_filter = prop_oneof![
        http_failure(),
        header_edits().prop_map(Filter::RequestHeaders),
        redirect()
    ];
    let tables = (
        inbound_table(http_match(), http_filter),
        inbound_table(grpc_match(), grpc_filter()),
    );
    (
        inbound_reference(),
        vec(authorization(), 0..3),
        tables,
        0..6,
        duration(),
        rate_limit(),
    )
        .prop_map(|(meta, mut servers, (http, grpc), kind, timeout, limit)| {
            servers.push(decode::localhost());
            let complete = |table: RouteTable<(Vec<Authorization>, Vec<Filter>)>| {
                table.map(|_, (own, filters)| InboundRule {
                    filters: filters.clone(),
                    ..InboundRule::new(own.iter().chain(&servers).cloned().collect())
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
                rate_limit: limit.filter(|_| kind < 3),
            }
        })
}
