//! The systems compared: how each pair is configured and started.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::BoxError;
use crate::args::Protocol;
use crate::mesh::Mesh;
use crate::namespaces::{Inside, Namespaces, Pod};
use crate::process::Running;

/// A pair of proxies, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum System {
    /// No proxy at all.
    Direct,
    /// HAProxy, HTTP/1.1 between the pair.
    HaproxyH1,
    /// HAProxy, HTTP/2 between the pair.
    HaproxyH2,
    /// nginx, HTTP/1.1 between the pair.
    Nginx,
    /// Our floor, HTTP/1.1 between the pair.
    BareH1,
    /// Our floor, HTTP/2 between the pair.
    BareH2,
    /// The mesh as shipped.
    Ours,
}

impl System {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 7] = [
        Self::Direct,
        Self::HaproxyH1,
        Self::HaproxyH2,
        Self::Nginx,
        Self::BareH1,
        Self::BareH2,
        Self::Ours,
    ];

    /// As the table and `ONLY` call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::HaproxyH1 => "haproxy-h1",
            Self::HaproxyH2 => "haproxy-h2",
            Self::Nginx => "nginx",
            Self::BareH1 => "bare-h1",
            Self::BareH2 => "bare-h2",
            Self::Ours => "ours",
        }
    }

    /// Whether it is somebody else's.
    pub fn is_peer(self) -> bool {
        matches!(self, Self::HaproxyH1 | Self::HaproxyH2 | Self::Nginx)
    }

    /// Whether it is our floor.
    pub fn is_floor(self) -> bool {
        matches!(self, Self::BareH1 | Self::BareH2)
    }

    /// Whether it takes part for this traffic: bytes have one variant only, and nginx 1.22 has no HTTP/2 to servers.
    pub fn carries(self, traffic: Protocol) -> bool {
        match traffic {
            Protocol::Tcp => !matches!(self, Self::HaproxyH2 | Self::BareH2),
            Protocol::Http2 => self != Self::Nginx,
            Protocol::Http1 => true,
        }
    }
}

/// Where things are.
#[derive(Debug)]
pub struct Site {
    /// The pods.
    pub namespaces: Namespaces,
    /// Configuration, certificates and logs.
    pub dir: PathBuf,
    /// Our own programs.
    pub programs: PathBuf,
    /// What our own proxies are started by, if by anything.
    pub tool: Vec<String>,
    /// TCP's congestion control in the pods, a name that the kernel knows.
    pub congestion: String,
}

/// A system under test.
#[derive(Debug)]
pub struct Pair {
    /// Where the client connects.
    pub to: SocketAddr,
    /// Where the client is.
    pub client: Inside,
    /// Where the application is.
    pub server: Inside,
    /// The processes of the proxies: the client's, then the server's.
    pub proxies: Vec<u32>,
    /// What ends with it.
    pub keep: Keep,
}

/// What has to live as long as a system is under test.
#[derive(Debug)]
pub enum Keep {
    /// The proxies.
    Proxies(Vec<Running>),
    /// The mesh.
    Mesh(Box<Mesh>),
}

/// Where the client's proxy listens.
const NEAR: &str = "127.0.0.1:4140";
/// Where the server's proxy listens, on the bridge.
const FAR_PORT: u16 = 4143;
/// Where the application serves HTTP.
pub const HTTP_PORT: u16 = 8080;
/// Where the application echoes bytes: MySQL's port, which the mesh takes for opaque unless told otherwise.
pub const ECHO_PORT: u16 = 3306;
/// The first byte on that port from who wants its bytes to be swallowed.
pub const SWALLOW: u8 = b'<';
/// The first byte from who wants bytes without end.
pub const MAKE: u8 = b'>';

/// The first of more ports where it serves HTTP, if that is asked for.
pub const MORE_PORTS: u16 = 10_000;

/// The application, started inside a pod, with so many more ports.
pub fn start_application(site: &Site, pod: &Inside, more: usize) -> Result<Running, BoxError> {
    let mut command = pod.command(site.programs.join("app"));
    command.args(["serve", "--http", &format!("0.0.0.0:{HTTP_PORT}")]);
    command.args([
        "--echo",
        &format!("0.0.0.0:{ECHO_PORT}"),
        "--more",
        &more.to_string(),
    ]);
    Running::start(command, &site.dir.join("app.log"))
}

/// Starts a system for this traffic, with the application already running.
pub fn start(system: System, traffic: Protocol, site: &Site) -> Result<Pair, BoxError> {
    let pair = start_pair(system, traffic, site)?;
    let congestion = format!("net.ipv4.tcp_congestion_control={}", site.congestion);
    for pod in [&pair.client, &pair.server] {
        // Ports that wait for late segments are used again after a second. By itself the kernel does so on loopback only,
        // where some of the systems listen: elsewhere a client that connects for every request runs out of ports.
        let mut command = pod.command("sysctl");
        let set = command
            .args(["-q", "-w", "net.ipv4.tcp_tw_reuse=1", &congestion])
            .status()?;
        if !set.success() {
            return Err(format!("sysctl {congestion}: {set}").into());
        }
    }
    Ok(pair)
}

fn start_pair(system: System, traffic: Protocol, site: &Site) -> Result<Pair, BoxError> {
    let near: SocketAddr = NEAR.parse()?;
    let proxies = match system {
        System::Direct => Vec::new(),
        System::HaproxyH1 => haproxy(site, traffic, Protocol::Http1)?,
        System::HaproxyH2 => haproxy(site, traffic, Protocol::Http2)?,
        System::Nginx => nginx(site, traffic)?,
        System::BareH1 => bare(site, traffic, Protocol::Http1)?,
        System::BareH2 => bare(site, traffic, Protocol::Http2)?,
        System::Ours => return ours(site, traffic),
    };
    let to = match system {
        System::Direct => application(Pod::Server.address(), traffic),
        _ => near,
    };
    Ok(Pair {
        to,
        client: site.namespaces.inside(Pod::Client),
        server: site.namespaces.inside(Pod::Server),
        proxies: proxies.iter().map(Running::id).collect(),
        keep: Keep::Proxies(proxies),
    })
}

fn ours(site: &Site, traffic: Protocol) -> Result<Pair, BoxError> {
    let port = application(Pod::Server.address(), traffic).port();
    let mesh = Mesh::start(site, port)?;
    Ok(Pair {
        to: mesh.service(),
        client: mesh.client(),
        server: mesh.server(),
        proxies: mesh.proxies(),
        keep: Keep::Mesh(Box::new(mesh)),
    })
}

fn application(host: std::net::IpAddr, traffic: Protocol) -> SocketAddr {
    let port = if traffic == Protocol::Tcp {
        ECHO_PORT
    } else {
        HTTP_PORT
    };
    SocketAddr::new(host, port)
}

fn local_application(traffic: Protocol) -> SocketAddr {
    application([127, 0, 0, 1].into(), traffic)
}

fn far() -> SocketAddr {
    SocketAddr::new(Pod::Server.address(), FAR_PORT)
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "h1",
        Protocol::Http2 => "h2",
        Protocol::Tcp => "tcp",
    }
}

fn bare(site: &Site, traffic: Protocol, between: Protocol) -> Result<Vec<Running>, BoxError> {
    let between = if traffic == Protocol::Tcp {
        traffic
    } else {
        between
    };
    let start = |pod| {
        let program = site.programs.join("bare").into_os_string();
        let mut line: Vec<_> = site.tool.iter().map(Into::into).chain([program]).collect();
        let mut command = site.namespaces.inside(pod).command(line.remove(0));
        command.args(line);
        command
    };
    let mut client = start(Pod::Client);
    client.args(["client", "--listen", NEAR, "--to", &far().to_string()]);
    let mut server = start(Pod::Server);
    server.args(["server", "--listen", &format!("0.0.0.0:{FAR_PORT}"), "--to"]);
    server.args([&local_application(traffic).to_string(), "--app", word(traffic)]);
    for command in [&mut client, &mut server] {
        command
            .args(["--between", word(between), "--certs"])
            .arg(&site.dir);
    }
    let log = site.dir.join("bare.log");
    Ok(vec![Running::start(client, &log)?, Running::start(server, &log)?])
}

fn haproxy(site: &Site, traffic: Protocol, between: Protocol) -> Result<Vec<Running>, BoxError> {
    let dir = site.dir.display();
    let (mode, limits) = match traffic {
        Protocol::Tcp => ("tcp", ""),
        _ => ("http", "  http-reuse always\n  option http-keep-alive\n"),
    };
    let head = format!(
        "global\n  nbthread 1\n  maxconn 9000\n  tune.ssl.cachesize 0\n  ssl-server-verify required\n\
         defaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n{limits}"
    );
    let (alpn, offer, app) = match (traffic, between) {
        (Protocol::Tcp, _) => ("", "", ""),
        (Protocol::Http2, Protocol::Http2) => ("alpn h2", "alpn h2", "proto h2"),
        (_, Protocol::Http2) => ("alpn h2", "alpn h2", ""),
        _ => ("alpn http/1.1", "alpn http/1.1", ""),
    };
    let name = crate::certs::SERVER;
    let client = format!(
        "{head}listen near\n  bind {NEAR}\n  server far {far} ssl ssl-min-ver TLSv1.3 no-ssl-reuse sni str({name}) \
         verify required verifyhost {name} ca-file {dir}/ca.pem crt {dir}/client.both {offer}\n",
        far = far()
    );
    let server = format!(
        "{head}listen far\n  bind 0.0.0.0:{FAR_PORT} ssl ssl-min-ver TLSv1.3 no-tls-tickets crt {dir}/server.both \
         ca-file {dir}/ca.pem verify required {alpn}\n  server app {app_addr} {app}\n",
        app_addr = local_application(traffic)
    );
    let start = |pod, name: &str, text: String| {
        let path = site.dir.join(format!("haproxy-{name}.cfg"));
        fs::write(&path, text)?;
        let mut command = site.namespaces.inside(pod).command("haproxy");
        command.args(["-db", "-q", "-f"]).arg(&path);
        Running::start(command, &site.dir.join("haproxy.log"))
    };
    Ok(vec![
        start(Pod::Client, "client", client)?,
        start(Pod::Server, "server", server)?,
    ])
}

fn nginx(site: &Site, traffic: Protocol) -> Result<Vec<Running>, BoxError> {
    let dir = site.dir.display();
    let name = crate::certs::SERVER;
    let tls_out = format!(
        "proxy_ssl_certificate {dir}/client.pem; proxy_ssl_certificate_key {dir}/client.key; proxy_ssl_verify on; \
         proxy_ssl_trusted_certificate {dir}/ca.pem; proxy_ssl_protocols TLSv1.3; proxy_ssl_session_reuse off; \
         proxy_ssl_server_name on; proxy_ssl_name {name};"
    );
    let tls_in = format!(
        "ssl_certificate {dir}/server.pem; ssl_certificate_key {dir}/server.key; ssl_protocols TLSv1.3; \
         ssl_client_certificate {dir}/ca.pem; ssl_verify_client on; ssl_session_tickets off; ssl_session_cache off;"
    );
    let (far, app) = (far(), local_application(traffic));
    let (client, server) = match traffic {
        Protocol::Tcp => (
            format!("stream {{ server {{ listen {NEAR}; proxy_pass {far}; proxy_ssl on; {tls_out} }} }}"),
            format!("stream {{ server {{ listen {FAR_PORT} ssl; proxy_pass {app}; {tls_in} }} }}"),
        ),
        _ => (
            nginx_http(NEAR, &format!("https://{name}"), name, &far.to_string(), &tls_out),
            nginx_http(
                &format!("{FAR_PORT} ssl"),
                "http://app",
                "app",
                &app.to_string(),
                &tls_in,
            ),
        ),
    };
    let start = |pod, name: &str, text: String| {
        let path = site.dir.join(format!("nginx-{name}.conf"));
        fs::write(&path, nginx_frame(&site.dir, name, traffic, &text))?;
        let mut command = site.namespaces.inside(pod).command("nginx");
        command
            .arg("-c")
            .arg(&path)
            .arg("-e")
            .arg(site.dir.join("nginx.log"));
        Running::start(command, &site.dir.join("nginx.log"))
    };
    Ok(vec![
        start(Pod::Client, "client", client)?,
        start(Pod::Server, "server", server)?,
    ])
}

/// One process without a master: what it costs is then in one place.
fn nginx_frame(dir: &Path, name: &str, traffic: Protocol, text: &str) -> String {
    let dir = dir.display();
    let module = match traffic {
        Protocol::Tcp => "load_module /usr/lib/nginx/modules/ngx_stream_module.so;",
        _ => "",
    };
    format!(
        "{module}\ndaemon off; master_process off; pid {dir}/nginx-{name}.pid;\n\
         events {{ worker_connections 20000; multi_accept on; }}\n{text}\n"
    )
}

fn nginx_http(listen: &str, pass: &str, upstream: &str, to: &str, tls: &str) -> String {
    format!(
        "http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 1h; tcp_nodelay on;\n\
         upstream {upstream} {{ server {to}; keepalive 128; keepalive_requests 100000000; keepalive_timeout 1h; }}\n\
         server {{ listen {listen}; {tls}\n\
         location / {{ proxy_pass {pass}; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
         proxy_set_header Host $host; proxy_buffers 8 32k; }} }} }}"
    )
}
