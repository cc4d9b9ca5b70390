//! How costs grow: with connections, routes, endpoints and destinations; and what a second processor brings.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use outrigger_e2e::mesh::{Mesh, Meshed};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::{http, manifest, wait};
use serde::Serialize;

use crate::BoxError;
use crate::args::Protocol;
use crate::namespaces::Inside;
use crate::process::{self, Running};
use crate::rows::{self, Count};
use crate::systems::{HTTP_PORT, Keep, MORE_PORTS, Pair, Site, start_application};

/// What there is more and more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dimension {
    /// Connections of clients.
    Connections,
    /// HTTPRoutes of the service; the last one is asked for.
    Routes,
    /// Endpoints of the service.
    Endpoints,
    /// Services that the client's proxy has found, one of which is asked.
    Destinations,
}

/// What a mesh costs at one size.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Point {
    /// What there is more and more of.
    pub dimension: Dimension,
    /// How many of it.
    pub size: usize,
    /// CPU time of both proxies for a request, µs.
    pub request: f64,
    /// CPU time of the client's proxy for a change to one of them, µs.
    pub update: f64,
    /// CPU time of the client's proxy for a scrape, µs.
    pub scrape: f64,
    /// Length of what is scraped, bytes.
    pub scraped: usize,
}

/// What a mesh reaches with so many processors.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Scale {
    /// Processors of each proxy.
    pub cores: usize,
    /// The load.
    pub load: &'static str,
    /// Requests per second.
    pub rate: f64,
    /// CPU time of both proxies for a request, µs.
    pub request: f64,
}

/// Clients' connections where their number is not what grows.
const CONNECTIONS: usize = 32;
/// Changes and scrapes over which a mean is taken.
const TURNS: usize = 10;
/// Long enough for a change to have arrived.
const SETTLED: Duration = Duration::from_millis(300);

/// A client and an application in a mesh.
struct Stage {
    mesh: Mesh,
    server: Meshed,
    client: Meshed,
    service: SocketAddr,
    _application: Running,
}

/// Measures each dimension at each size.
pub fn growth(site: &Site, sizes: &[usize], seconds: u64) -> Result<Vec<Point>, BoxError> {
    let dimensions = [
        Dimension::Connections,
        Dimension::Routes,
        Dimension::Endpoints,
        Dimension::Destinations,
    ];
    let mut points = Vec::new();
    for dimension in dimensions {
        for size in sizes {
            eprint!("{dimension:?} {size}: ");
            let point = told(|| point(site, dimension, *size, seconds))?;
            eprintln!("{:.1} µs CPU/request", point.request);
            points.push(point);
        }
    }
    Ok(points)
}

/// Measures one processor for each proxy beside two.
pub fn scale(site: &Site, seconds: u64) -> Result<Vec<Scale>, BoxError> {
    let loads = [
        ("32 HTTP/1.1 connections", Protocol::Http1, (32, 1, "/")),
        (
            "4 HTTP/2 connections, 16 streams each",
            Protocol::Http2,
            (4, 16, "/"),
        ),
        ("1 HTTP/2 connection, 64 streams", Protocol::Http2, (1, 64, "/")),
    ];
    let mut scales = Vec::new();
    for (load, protocol, shape) in loads {
        for cores in [1, 2] {
            let scale = told(|| {
                let stage = Stage::start(site, cores, 0)?;
                let (request, rate) = stage.requests(protocol, shape, seconds)?;
                Ok(Scale {
                    cores,
                    load,
                    rate,
                    request,
                })
            })?;
            eprintln!("{load}, {cores} processors: {:.0}/s", scale.rate);
            scales.push(scale);
        }
    }
    Ok(scales)
}

/// The table of growth, for people.
pub fn table(points: &[Point]) -> String {
    let mut text = String::from(
        "| | | µs CPU/request | µs CPU/change | µs CPU/scrape | scrape, KiB |\n|---|---|---|---|---|---|\n",
    );
    for point in points {
        let _infallible = writeln!(
            text,
            "| {:?} | {} | {:.1} | {:.0} | {:.0} | {} |",
            point.dimension,
            point.size,
            point.request,
            point.update,
            point.scrape,
            point.scraped >> 10
        );
    }
    text
}

/// The table of processors, for people.
pub fn scales(scales: &[Scale]) -> String {
    let mut text = String::from("| load | processors | requests/s | µs CPU/request |\n|---|---|---|---|\n");
    for Scale {
        cores,
        load,
        rate,
        request,
    } in scales
    {
        let _infallible = writeln!(text, "| {load} | {cores} | {rate:.0} | {request:.1} |");
    }
    text
}

/// The testkit panics where a test would fail.
fn told<T>(what: impl FnOnce() -> Result<T, BoxError>) -> Result<T, BoxError> {
    catch_unwind(AssertUnwindSafe(what)).map_err(|_| "the mesh failed: the panic above says why")?
}

fn point(site: &Site, dimension: Dimension, size: usize, seconds: u64) -> Result<Point, BoxError> {
    // One more to change to.
    let more = if dimension == Dimension::Endpoints {
        size + 1
    } else {
        1
    };
    let stage = Stage::start(site, 1, more)?;
    stage.write(dimension, size, 0);
    let last = if dimension == Dimension::Routes {
        size - 1
    } else {
        0
    };
    let path = format!("/{last}");
    match dimension {
        Dimension::Connections | Dimension::Routes => stage.until(stage.service, &path, |answer| {
            !answer.header("x-route").is_empty()
        }),
        // Each has got a connection.
        Dimension::Endpoints => stage
            .load(Protocol::Http1, Count::Requests(size * 50), (CONNECTIONS, 1, "/"))
            .map(drop)?,
        Dimension::Destinations => {
            (0..size).for_each(|n| stage.until((cluster_ip(n), HTTP_PORT).into(), "/", |_| true))
        }
    }
    let connections = if dimension == Dimension::Connections {
        size
    } else {
        CONNECTIONS
    };
    let (request, _rate) = stage.requests(Protocol::Http1, (connections, 1, &path), seconds)?;
    let update = stage.spent(|turn| {
        stage.write(dimension, size, turn);
        thread::sleep(SETTLED);
    })?;
    let scrape = stage.spent(|_turn| drop(Metrics::of(&stage.client)))?;
    Ok(Point {
        dimension,
        size,
        request,
        update,
        scrape,
        scraped: Metrics::of(&stage.client).text.len(),
    })
}

impl Stage {
    /// Proxies with so many processors, and an application that listens on so many more ports.
    fn start(site: &Site, cores: usize, more: usize) -> Result<Self, BoxError> {
        let mesh = Mesh::start();
        let pod = |name| mesh.pod(name).env("LINKERD2_PROXY_CORES", cores.to_string());
        let server = pod("server").ports(&[HTTP_PORT]).meshed();
        let client = pod("client").meshed();
        let application = start_application(site, &Inside::Thread(server.tid()), more)?;
        let service = mesh.service("app", HTTP_PORT, &[(&server, HTTP_PORT)]);
        let stage = Self {
            mesh,
            server,
            client,
            service,
            _application: application,
        };
        stage.until(service, "/", |_| true);
        Ok(stage)
    }

    /// Writes what there are many of; of the last of them something is different each turn.
    fn write(&self, dimension: Dimension, size: usize, turn: usize) {
        let ip = self.server.ip();
        let many = if dimension == Dimension::Connections {
            1
        } else {
            size
        };
        let changed = |n| if n + 1 == many { turn } else { 0 };
        let one = |n| match dimension {
            Dimension::Connections | Dimension::Routes => route(n, changed(n)),
            Dimension::Endpoints => slice("app", n, MORE_PORTS + (n + changed(n) % 2) as u16, ip),
            Dimension::Destinations => service(n, changed(n), ip),
        };
        let text: Vec<_> = (0..many).map(one).collect();
        self.mesh.write("many.yaml", &text.join("---\n"));
        if dimension == Dimension::Endpoints && turn == 0 {
            self.mesh.endpoints("app", HTTP_PORT, &[]);
        }
    }

    /// Asks until an answer is good, and is as it should be.
    fn until(&self, to: SocketAddr, path: &str, ask: impl Fn(&http::Response) -> bool) {
        wait::until("a good answer", || {
            let answer = http::try_get(&self.client, to, "app", path, &[]).ok()?;
            (answer.status == 200 && ask(&answer)).then_some(())
        });
    }

    /// CPU time of both proxies for a request, µs, and requests per second.
    fn requests(
        &self,
        protocol: Protocol,
        shape: (usize, usize, &str),
        seconds: u64,
    ) -> Result<(f64, f64), BoxError> {
        self.load(protocol, Count::Requests(2_000.max(shape.0 * 2)), shape)?;
        let before = self.cpu()?;
        let done = self.load(protocol, Count::Seconds(seconds), shape)?;
        let spent = self.cpu()? - before;
        Ok((
            spent.as_secs_f64() * 1e6 / done as f64,
            done as f64 / seconds as f64,
        ))
    }

    /// How many requests were answered; that all were.
    fn load(&self, protocol: Protocol, count: Count, shape: (usize, usize, &str)) -> Result<u64, BoxError> {
        let sample = rows::h2load(protocol, &self.pair(), count, shape)?;
        match sample.failed {
            0 => Ok(sample.done.max(1)),
            failed => Err(format!("{failed} requests failed").into()),
        }
    }

    /// CPU time of the client's proxy for one turn, µs.
    fn spent(&self, turn: impl Fn(usize)) -> Result<f64, BoxError> {
        let client = self.client.proxy().pid();
        let before = process::cpu(client)?;
        (1..=TURNS).for_each(turn);
        Ok((process::cpu(client)? - before).as_secs_f64() * 1e6 / TURNS as f64)
    }

    fn cpu(&self) -> Result<Duration, BoxError> {
        self.pair().proxies.into_iter().map(process::cpu).sum()
    }

    fn pair(&self) -> Pair {
        Pair {
            to: self.service,
            client: Inside::Thread(self.client.tid()),
            server: Inside::Thread(self.server.tid()),
            proxies: [&self.client, &self.server].map(|pod| pod.proxy().pid()).into(),
            keep: Keep::Proxies(Vec::new()),
        }
    }
}

/// An HTTPRoute of the service for one path; answers say which it was, and of which turn.
fn route(n: usize, turn: usize) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: route-{n}, namespace: demo }}
spec:
  parentRefs: [{{ group: core, kind: Service, name: app, port: {HTTP_PORT} }}]
  rules:
    - matches: [{{ path: {{ type: PathPrefix, value: /{n} }} }}]
      filters: [{{ type: ResponseHeaderModifier, responseHeaderModifier: {{ set: [{{ name: x-route, value: \"{n}-{turn}\" }}] }} }}]
      backendRefs: [{{ name: app, port: {HTTP_PORT} }}]
"
    )
}

/// A slice with one endpoint of a service.
fn slice(service: &str, n: usize, port: u16, ip: Ipv4Addr) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{ name: {service}-{n}, namespace: demo, labels: {{ kubernetes.io/service-name: {service} }} }}
addressType: IPv4
ports: [{{ name: main, port: {port} }}]
endpoints: [{{ addresses: [{ip}], conditions: {{ ready: true }}, targetRef: {{ kind: Pod, namespace: demo, name: server }} }}]
"
    )
}

/// A service with its only endpoint, which takes turns between two ports.
fn service(n: usize, turn: usize, ip: Ipv4Addr) -> String {
    let name = format!("app-{n}");
    let port = if turn.is_multiple_of(2) {
        HTTP_PORT
    } else {
        MORE_PORTS
    };
    let service = manifest::service(&name, cluster_ip(n), HTTP_PORT, HTTP_PORT);
    format!("{service}---\n{}", slice(&name, n, port, ip))
}

/// Where a service is found.
fn cluster_ip(n: usize) -> Ipv4Addr {
    let [.., high, low] = (n as u32 + 1).to_be_bytes();
    Ipv4Addr::new(10, 97, high, low)
}
