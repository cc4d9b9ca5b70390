//! What one request costs in the outbound half of the proxy, over pipes in memory: no kernel, no TLS, no other thread.
//!
//! `direct` is the same client and the same server without a proxy between them; the difference is ours (and that of
//! hyper's second client and server).

#![allow(clippy::unwrap_used, reason = "a bench ends where its set-up fails")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::server::conn as server;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_policy::endpoint::Endpoint;
use outrigger_policy::name::{DnsName, Identity, ResourceRef};
use outrigger_policy::outbound::{
    Backend, Dispatch, Distribution, OutboundPolicy, OutboundProtocol, OutboundRule,
};
use outrigger_policy::route::RouteTable;
use outrigger_proxy::config::Config;
use outrigger_proxy::control::{self, Discovery};
use outrigger_proxy::drain::{self, Drainer};
use outrigger_proxy::http::h2::backlog;
use outrigger_proxy::http::http1::client::Http1;
use outrigger_proxy::http::pool;
use outrigger_proxy::live::Live;
use outrigger_proxy::net::io::Io;
use outrigger_proxy::outbound::builder::Builder;
use outrigger_proxy::outbound::dialled::Dialled;
use outrigger_proxy::outbound::memory::Memories;
use outrigger_proxy::outbound::metrics::Metrics;
use outrigger_proxy::outbound::report::Report;
use outrigger_proxy::outbound::router::Protocol;
use outrigger_proxy::outbound::shared::Outbound;
use outrigger_proxy::outbound::target::Target;
use outrigger_proxy::room::Rooms;
use outrigger_proxy::telemetry::Registry;
use outrigger_proxy::telemetry::balancer::BalancerMetrics;
use outrigger_proxy::telemetry::http::HttpMetrics;
use outrigger_proxy::telemetry::labels::Direction;
use outrigger_proxy::telemetry::route::RouteMetrics;
use outrigger_proxy::telemetry::tcp_route::TcpRouteMetrics;
use outrigger_proxy::telemetry::transport::TransportMetrics;
use outrigger_proxy::tls::{Credentials, TrustAnchors};
use outrigger_proxy::{balance, outbound};
use tokio::io::{DuplexStream, duplex};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

criterion_group!(request, each);
criterion_main!(request);

/// Bytes that fit into a pipe.
const PIPE: usize = 64 * 1024;
/// Connections that there is room for.
const CONNECTIONS: usize = 100;
const NAME: &str = "web.emojivoto.svc.cluster.local";

fn each(c: &mut Criterion) {
    let runtime = current_thread();
    let mut group = c.benchmark_group("request");
    for (name, version) in [("HTTP/1", Version::HTTP_11), ("HTTP/2", Version::HTTP_2)] {
        let mut direct = runtime.block_on(async {
            let (ours, theirs) = duplex(PIPE);
            serve(theirs, version);
            Client::on(ours, version).await
        });
        group.bench_function(format!("{name} direct"), |b| {
            b.iter(|| runtime.block_on(direct.send()));
        });
        let proxy = Proxy::new(version);
        let mut proxied = runtime.block_on(proxy.client(version));
        group.bench_function(format!("{name} outbound"), |b| {
            b.iter(|| runtime.block_on(proxied.send()));
        });
    }
}

/// The outbound half with one destination, whose only endpoint is at the other end of a pipe.
struct Proxy {
    outbound: Arc<Outbound>,
    target: Arc<Target>,
    /// Never driven: what the control plane would say is said already.
    _control: Runtime,
    _drainer: Drainer,
}

impl Proxy {
    fn new(version: Version) -> Self {
        let control = current_thread();
        let config = config();
        let mut registry = Registry::new(Duration::from_secs(60));
        let metrics = control::Metrics::register(&mut registry);
        let report = Report {
            metrics: Metrics::register(&mut registry),
            http: HttpMetrics::register(&mut registry),
            routes: RouteMetrics::register(&mut registry),
            transport: TransportMetrics::register(&mut registry),
            pools: pool::metrics::Metrics::register(&mut registry).pools(Direction::Outbound),
            tcp_routes: TcpRouteMetrics::register(&mut registry),
            balancers: BalancerMetrics::register(&mut registry),
            unread: backlog::Metrics::register(&mut registry).of(Direction::Outbound),
        };
        let credentials = credentials();
        let discovery = Discovery::start(&config.control, &credentials, &metrics, control.handle()).unwrap();
        let (drainer, drain) = drain::channel();
        let rooms = Rooms::new(CONNECTIONS);
        let memories = Memories::new(&config.outbound);
        let builder = Builder::new(
            config.outbound.clone(),
            memories.clone(),
            credentials,
            discovery.clone(),
            report.clone(),
            rooms.opened.clone(),
            control.handle().clone(),
        );
        let addr = SocketAddr::from(([10, 0, 0, 1], 80));
        let target = Arc::new(Target::new(Dialled::Addr(addr), policy(addr, version), &builder));
        Self {
            outbound: Outbound::new(
                config.outbound,
                discovery,
                builder,
                memories,
                report,
                rooms,
                drain,
            ),
            target,
            _control: control,
            _drainer: drainer,
        }
    }

    /// A client whose requests cross the proxy, to a server whose connection the endpoint's pool has already.
    async fn client(&self, version: Version) -> Client {
        let (to_server, server) = duplex(PIPE);
        serve(server, version);
        self.adopt(to_server, version).await;
        let (ours, theirs) = duplex(PIPE);
        let (outbound, target) = (self.outbound.clone(), self.target.clone());
        tokio::spawn(async move {
            let io = Io::pipe(theirs);
            match version {
                Version::HTTP_2 => outbound::http2(&outbound, target, io).await,
                _ => outbound::http1(&outbound, target, io).await,
            }
        });
        Client::on(ours, version).await
    }

    async fn adopt(&self, pipe: DuplexStream, version: Version) {
        let router = self.target.router();
        let (Protocol::Http1(routes) | Protocol::Http2(routes)) = &router.protocol else {
            unreachable!("the policy says so");
        };
        let backends = routes.rules().next().unwrap().1.backends().unwrap();
        let backend = backends.choose().unwrap();
        let balancer: &balance::Balancer = backend.balancer().unwrap();
        let picked = balancer
            .pick(
                tokio::time::Instant::now(),
                Duration::from_secs(1),
                &backend.waits,
            )
            .await
            .unwrap();
        let pool = picked.endpoint().pool();
        let io = Io::pipe(pipe);
        if version == Version::HTTP_2 {
            pool.adopt_http2(io).await.unwrap();
        } else {
            pool.adopt_http1(Http1::on(io));
        }
    }
}

/// A client with one connection.
enum Client {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Client {
    async fn on(pipe: DuplexStream, version: Version) -> Self {
        let io = TokioIo::new(pipe);
        if version == Version::HTTP_2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            Self::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            Self::Http1(sender)
        }
    }

    /// One request, and the whole answer.
    async fn send(&mut self) {
        let request = Request::get("http://web.emojivoto.svc.cluster.local/api/v1/items?page=2")
            .header("user-agent", "curl/8.5.0")
            .header("accept", "*/*");
        let response = match self {
            Self::Http1(sender) => {
                sender.ready().await.unwrap();
                let request = request.header("host", NAME);
                sender.send_request(request.body(Empty::new()).unwrap()).await
            }
            Self::Http2(sender) => {
                sender.ready().await.unwrap();
                sender.send_request(request.body(Empty::new()).unwrap()).await
            }
        };
        let response = response.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    }
}

/// A server at one end of a pipe.
fn serve(pipe: DuplexStream, version: Version) {
    let io = TokioIo::new(pipe);
    if version == Version::HTTP_2 {
        tokio::spawn(
            server::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service_fn(answer)),
        );
    } else {
        tokio::spawn(server::http1::Builder::new().serve_connection(io, service_fn(answer)));
    }
}

async fn answer(_request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(b"hello"))))
}

/// Everything goes to one endpoint.
fn policy(addr: SocketAddr, version: Version) -> Live<OutboundPolicy> {
    let meta = Arc::new(ResourceRef::of_default("bench"));
    let backend = Backend::new(meta.clone(), Dispatch::Forward(Endpoint::bare(addr)));
    let rule = OutboundRule::to(Distribution::FirstAvailable(vec![Arc::new(backend)]));
    let routes = RouteTable::catch_all(meta.clone(), rule);
    Live::fixed(OutboundPolicy {
        parent: meta,
        protocol: match version {
            Version::HTTP_2 => OutboundProtocol::Http2(routes),
            _ => OutboundProtocol::Http1(routes),
        },
        authority: NAME.into(),
        budget: None,
    })
}

fn current_thread() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

const IDENTITY: &str = "web.emojivoto.serviceaccount.identity.linkerd.cluster.local";

/// The defaults, and addresses at which nobody is.
fn config() -> Config {
    let anchors = anchors();
    let lookup = |name: &str| {
        let name = name.strip_prefix("LINKERD2_PROXY_")?;
        let value = match name {
            "DESTINATION_SVC_ADDR" | "POLICY_SVC_ADDR" | "IDENTITY_SVC_ADDR" => "127.0.0.1:1",
            "POLICY_WORKLOAD" => "{}",
            "IDENTITY_DIR" | "IDENTITY_TOKEN_FILE" => "/nowhere",
            "IDENTITY_TRUST_ANCHORS" => &anchors,
            "IDENTITY_LOCAL_NAME" => IDENTITY,
            _ => return None,
        };
        Some(value.into())
    };
    Config::from_env(&lookup).unwrap().0
}

fn credentials() -> Live<Credentials> {
    let anchors = TrustAnchors::from_pem(&anchors()).unwrap();
    let (identity, name) = (
        Identity::parse(IDENTITY).unwrap(),
        DnsName::parse(IDENTITY).unwrap(),
    );
    Live::fixed(Credentials::anchors_only(&anchors, identity, name).unwrap())
}

fn anchors() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&key).unwrap().pem()
}
