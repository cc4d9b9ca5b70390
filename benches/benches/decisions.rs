//! What the decisions cost: routes, authorization, balancing, and the first bytes of a connection.

#![allow(clippy::unwrap_used, reason = "a bench ends where its set-up fails")]

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method};
use outrigger_policy::authz::{Authentication, Authorization, ClientTls, Network, Suffix, authorize};
use outrigger_policy::backoff::Backoff;
use outrigger_policy::balance::ewma::PeakEwma;
use outrigger_policy::balance::p2c::{self, Weights};
use outrigger_policy::breaker::{Accrual, Breaker, BreakerPolicy, Outcome};
use outrigger_policy::budget::{BudgetPolicy, RetryBudget};
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol, InboundRule};
use outrigger_policy::name::{Identity, ResourceRef};
use outrigger_policy::outbound::LoadParams;
use outrigger_policy::port::PortPolicy;
use outrigger_policy::rate_limit::{RateLimitPolicy, RateLimiter};
use outrigger_policy::route::host::HostMatch;
use outrigger_policy::route::index::Indexed;
use outrigger_policy::route::path::PathMatch;
use outrigger_policy::route::request::RequestMatch;
use outrigger_policy::route::{Head, Route, RouteTable, Rule};
use outrigger_proxy::net::detect;
use rustls::pki_types::ServerName;

criterion_group!(decisions, routes, authorization, balancing, limits, first_bytes);
criterion_main!(decisions);

fn routes(c: &mut Criterion) {
    let mut headers = HeaderMap::new();
    headers.insert("user-agent", HeaderValue::from_static("curl/8.5.0"));
    let head = Head {
        host: "web.emojivoto.svc.cluster.local:8080",
        method: &Method::GET,
        path: "/api/v1/7/items",
        query: Some("page=2"),
        headers: &headers,
    };
    let meta = Arc::new(ResourceRef::of_default("bench"));
    let catch_all = RouteTable::catch_all(meta.clone(), 0);
    let tables = [
        ("catch-all", catch_all),
        ("1 route", table(&meta, 1)),
        ("100 routes", table(&meta, 100)),
        ("1,000 routes", table(&meta, 1000)),
        ("10,000 routes", table(&meta, 10_000)),
    ];
    let mut group = c.benchmark_group("route find");
    for (name, table) in tables {
        let table = Indexed::new(table);
        assert!(table.find(&head).is_some());
        group.bench_function(name, |b| {
            b.iter(|| black_box(&table).find(black_box(&head)).map(|found| *found.then))
        });
    }
}

/// Routes for one host, by path prefix; the request takes the eighth, or the first of one.
fn table(meta: &Arc<ResourceRef>, len: usize) -> RouteTable<usize> {
    let route = |then| {
        let prefix = format!("/api/v1/{}", if len == 1 { 7 } else { then });
        let path = Some(PathMatch::Prefix(prefix.into()));
        let matches = vec![RequestMatch {
            path,
            ..RequestMatch::default()
        }];
        Route {
            meta: meta.clone(),
            hosts: vec![HostMatch::exact("web.emojivoto.svc.cluster.local")],
            rules: vec![Rule { matches, then }],
        }
    };
    RouteTable {
        routes: (0..len).map(route).collect(),
    }
}

fn authorization(c: &mut Criterion) {
    let authorization = |name: &str, net: &str, authentication| Authorization {
        meta: Arc::new(ResourceRef::of_default(name)),
        networks: vec![Network {
            net: net.parse().unwrap(),
            except: vec![],
        }],
        authentication,
    };
    let identity = |name: &str| Identity::parse(name).unwrap();
    let exact = Authentication::TlsAuthenticated {
        identities: vec![identity("other.ns.serviceaccount.identity.linkerd.cluster.local")],
        suffixes: vec![],
    };
    let suffix = Authentication::TlsAuthenticated {
        identities: vec![],
        suffixes: vec![Suffix::new(&["identity", "linkerd", "cluster", "local"]).unwrap()],
    };
    let list = [
        authorization("exact", "0.0.0.0/0", exact),
        authorization("suffix", "10.0.0.0/8", suffix),
        authorization("localhost", "127.0.0.0/8", Authentication::Unauthenticated),
    ];
    let client = "10.42.0.17".parse().unwrap();
    let tls = ClientTls::Terminated(Some(identity(
        "web.ns.serviceaccount.identity.linkerd.cluster.local",
    )));
    assert!(authorize(&list, client, &tls).is_ok());
    c.bench_function("authorize", |b| {
        b.iter(|| authorize(black_box(&list), black_box(client), black_box(&tls)).is_ok());
    });
    let headers = HeaderMap::new();
    let head = Head {
        host: "web.emojivoto.svc.cluster.local",
        method: &Method::GET,
        path: "/api/v1/7/items",
        query: None,
        headers: &headers,
    };
    let meta = Arc::new(ResourceRef::of_default("bench"));
    for (name, routes) in [("1 route", 1), ("100 routes", 100), ("1,000 routes", 1000)] {
        let authorizations: Arc<[Authorization]> = list.iter().cloned().collect();
        let policy = PortPolicy::new(InboundPolicy {
            meta: meta.clone(),
            protocol: InboundProtocol::Http1(
                table(&meta, routes).map(|_, _| InboundRule::new(authorizations.clone())),
            ),
            authorizations: authorizations.clone(),
            rate_limit: None,
        });
        assert!(policy.request(&head, client, &tls, true).is_ok());
        c.bench_function(&format!("inbound request, {name}"), |b| {
            b.iter(|| {
                black_box(&policy)
                    .request(black_box(&head), client, &tls, true)
                    .is_ok()
            });
        });
    }
    let mut number = 0u32;
    for clients in [1, 10, 100] {
        let list: Vec<_> = (0..clients)
            .map(|_| {
                number += 1;
                let id = format!("client{number}.ns.serviceaccount.identity.linkerd.cluster.local");
                let only = Authentication::TlsAuthenticated {
                    identities: vec![identity(&id)],
                    suffixes: vec![],
                };
                authorization(&id, "0.0.0.0/0", only)
            })
            .collect();
        c.bench_function(&format!("authorize nobody of {clients}"), |b| {
            b.iter(|| authorize(black_box(&list), black_box(client), black_box(&tls)).is_err());
        });
    }
}

fn balancing(c: &mut Criterion) {
    let loads: Vec<_> = (0..100u32).map(|i| (i % 10 != 0).then(|| f64::from(i))).collect();
    let mut rng = fastrand::Rng::with_seed(1);
    c.bench_function("p2c choose of 100, 90 ready", |b| {
        b.iter(|| p2c::choose(loads.len(), &mut rng, |i| black_box(&loads)[i]));
    });
    for len in [1000, 10_000] {
        c.bench_function(&format!("p2c choose of {len}, all ready"), |b| {
            b.iter(|| p2c::choose(len, &mut rng, |i| Some(black_box(i) as f64)));
        });
        let weights = Weights::new((0..len).map(|i| if i % 3 == 0 { 1000 } else { 10_000 })).unwrap();
        c.bench_function(&format!("p2c choose by weight of {len}, all ready"), |b| {
            b.iter(|| weights.choose(&mut rng, |i, _| Some(black_box(i) as f64)));
        });
    }
    let mut now = Duration::from_secs(1);
    let mut ewma = PeakEwma::new(LoadParams::default(), now);
    c.bench_function("ewma observe", |b| {
        b.iter(|| {
            now += Duration::from_micros(50);
            ewma.observe(black_box(Duration::from_millis(2)), now);
        });
    });
    c.bench_function("ewma load", |b| {
        b.iter(|| black_box(&ewma).load(black_box(now), black_box(3)))
    });
}

fn limits(c: &mut Criterion) {
    let mut now = Duration::from_secs(1);
    let budget = RetryBudget::new(BudgetPolicy::default());
    c.bench_function("budget deposit", |b| {
        b.iter(|| {
            now += Duration::from_micros(50);
            budget.deposit(black_box(now));
        });
    });
    c.bench_function("budget withdraw", |b| {
        b.iter(|| {
            now += Duration::from_micros(50);
            budget.withdraw(black_box(now))
        });
    });
    let policy = BreakerPolicy {
        accrual: Accrual::Unified {
            max_consecutive: 7,
            threshold: 8000,
            min_requests: 20,
            window: Duration::from_secs(10),
        },
        backoff: Backoff::try_new(Duration::from_secs(1), Duration::from_secs(60), 0.5).unwrap(),
        respect_hints: false,
        min_ready_endpoints: 0,
    };
    let mut breaker = Breaker::new(policy);
    let mut rng = fastrand::Rng::with_seed(1);
    c.bench_function("breaker admit and record", |b| {
        b.iter(|| {
            now += Duration::from_micros(50);
            let ticket = breaker.admit(black_box(now)).unwrap();
            breaker.record(ticket, Outcome::Success, None, now, || 1, &mut rng)
        });
    });
    let limit = RateLimiter::new(RateLimitPolicy {
        meta: Arc::new(ResourceRef::of_default("bench")),
        total: NonZeroU32::new(1_000_000_000),
        identity: NonZeroU32::new(1_000_000_000),
        overrides: vec![],
    });
    let client = Identity::parse("web.ns.serviceaccount.identity.linkerd.cluster.local").unwrap();
    c.bench_function("rate limit, total and by identity", |b| {
        b.iter(|| {
            now += Duration::from_micros(50);
            limit.admit(black_box(Some(&client)), now).is_ok()
        });
    });
}

fn first_bytes(c: &mut Criterion) {
    let hello = client_hello();
    c.bench_function("client_hello", |b| {
        b.iter(|| detect::tls::client_hello(black_box(&hello)))
    });
    let mut group = c.benchmark_group("preface");
    for (name, bytes) in [
        (
            "HTTP/1",
            &b"GET /api/v1/items?page=2 HTTP/1.1\r\nhost: web\r\n\r\n"[..],
        ),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("neither", b"\x00\x00\x00\x08\x04\xd2\x16\x2f"),
    ] {
        group.bench_function(name, |b| b.iter(|| detect::http::preface(black_box(bytes))));
    }
}

/// What rustls sends first, with a post-quantum key share.
fn client_hello() -> Vec<u8> {
    let name = ServerName::try_from("web.ns.serviceaccount.identity.linkerd.cluster.local").unwrap();
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}
