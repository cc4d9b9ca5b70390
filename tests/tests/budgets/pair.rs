//! Two proxies and a control plane in this process, each proxy's traffic on a thread of its own.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, SystemTime};

use outrigger_controller::app::{self, Addresses, Running};
use outrigger_controller::cli::{self, Cli};
use outrigger_controller::identity::{ServiceAccount, State};
use outrigger_proxy::app::App;
use outrigger_proxy::config::Config;
use outrigger_proxy::net::listen::OriginalDst;
use outrigger_sys::alloc::{self, Counts};
use outrigger_sys::netns;
use tempfile::TempDir;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;

use crate::echo;

/// The service that clients dial; its port 80 leads to HTTP.
const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// The pod behind it.
const POD_IP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// What every identity ends in.
const TRUST: &str = "serviceaccount.identity.linkerd.cluster.local";
/// Where its application speaks HTTP.
const HTTP: u16 = 8080;
/// Where its application speaks something else, which is known to be opaque.
const OPAQUE: u16 = 3306;
/// Where its proxy listens.
const PROXY: u16 = 4143;

const MANIFESTS: &str = include_str!("mesh.yaml");
/// Retries, timeouts, routes, authorizations and limits, none of which an ordinary request needs.
const POLICIES: &str = include_str!("policies.yaml");
/// What begins the service, and what gives its endpoints a breaker.
const SERVICE: &str = "kind: Service\nmetadata: { name: server, namespace: demo";
const BREAKER: &str = ", annotations: { balancer.linkerd.io/failure-accrual: consecutive }";

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// HTTP, of either version.
    Http,
    /// The same under policies.
    HttpUnderPolicies,
    /// Bytes.
    Opaque,
}

/// A client's proxy and a server's.
#[derive(Debug)]
pub(crate) struct Pair {
    /// The client's.
    pub(crate) outbound: Proxy,
    /// The server's.
    pub(crate) inbound: Proxy,
    /// Everything else: the control plane, the proxies' control sides, the application, the client.
    pub(crate) rest: Runtime,
    _controller: Running,
    _dir: TempDir,
}

/// A proxy whose traffic has a thread of its own.
#[derive(Debug)]
pub(crate) struct Proxy {
    /// Asks its thread for the counts.
    asked: Arc<Notify>,
    counts: mpsc::Receiver<Counts>,
    /// Where its own application connects to.
    pub(crate) listen: SocketAddr,
}

impl Pair {
    /// Moves this thread into a network namespace of its own, and starts everything in it.
    pub(crate) fn start(traffic: Traffic) -> Self {
        isolate();
        let rest = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (controller, state) = rest.block_on(control_plane(dir.path(), traffic));
        let setting = Setting {
            dir: dir.path(),
            state: &state,
            control: controller.addresses,
            rest: rest.handle(),
        };
        for port in [HTTP, OPAQUE] {
            rest.block_on(echo::serve((POD_IP, port).into()));
        }
        // Peers dial the proxy's own port, and say in a transport header which port they mean: nothing is redirected.
        let inbound = Proxy::start(&setting, "server", (POD_IP, PROXY).into(), OriginalDst::Local);
        let unused = (Ipv4Addr::LOCALHOST, 0).into();
        let service = match traffic {
            Traffic::Opaque => (CLUSTER_IP, OPAQUE),
            _ => (CLUSTER_IP, 80),
        };
        let outbound = Proxy::start(&setting, "client", unused, OriginalDst::Fixed(service.into()));
        Self {
            outbound,
            inbound,
            rest,
            _controller: controller,
            _dir: dir,
        }
    }

    /// What both proxies' threads ask of the allocator while `run` runs: the client's, then the server's.
    pub(crate) fn spent(&self, run: impl FnOnce()) -> [Counts; 2] {
        let before = self.counts();
        run();
        self.since(before)
    }

    /// What they have asked for so far.
    pub(crate) fn counts(&self) -> [Counts; 2] {
        [self.outbound.counts(), self.inbound.counts()]
    }

    /// What they have asked for since.
    pub(crate) fn since(&self, [outbound, inbound]: [Counts; 2]) -> [Counts; 2] {
        let now = self.counts();
        [now[0].since(outbound), now[1].since(inbound)]
    }
}

/// What both proxies are given.
struct Setting<'a> {
    dir: &'a Path,
    state: &'a State,
    control: Addresses,
    rest: &'a Handle,
}

impl Proxy {
    fn start(setting: &Setting<'_>, name: &'static str, inbound: SocketAddr, dst: OriginalDst) -> Self {
        let env = environment(setting, name, inbound);
        let (config, _warnings) = Config::from_env(&|name| env.get(name).map(Into::into)).unwrap();
        let control = setting.rest.clone();
        let (started, proxy) = mpsc::channel();
        let run = move || {
            let traffic = Builder::new_current_thread().enable_all().build().unwrap();
            traffic.block_on(async {
                let app = App::new(config, dst, &control).unwrap();
                let listen = app.addrs.outbound[0];
                started.send(Self::counting(listen)).unwrap();
                app.run(std::future::pending(), std::future::pending()).await;
            });
        };
        thread::Builder::new().name(name.to_owned()).spawn(run).unwrap();
        proxy.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    /// Listens here; its thread, this one, counts when it is asked.
    fn counting(listen: SocketAddr) -> Self {
        let asked = Arc::<Notify>::default();
        // A bounded channel is made whole at once: neither to ask nor to answer takes or gives back memory.
        let (counted, counts) = mpsc::sync_channel(1);
        let asking = asked.clone();
        tokio::spawn(async move {
            loop {
                asking.notified().await;
                counted.send(alloc::counts()).unwrap();
            }
        });
        Self {
            listen,
            asked,
            counts,
        }
    }

    /// What its thread has asked of the allocator so far.
    pub(crate) fn counts(&self) -> Counts {
        self.asked.notify_one();
        self.counts.recv().unwrap()
    }
}

/// A namespace with the addresses of all pods on its loopback interface.
fn isolate() {
    netns::isolate().expect("run the tests as root");
    let script = format!("ip link set lo up && ip addr add {POD_IP}/32 dev lo");
    let done = Command::new("sh").args(["-c", &script]).status().unwrap();
    assert!(done.success(), "{script}");
}

async fn control_plane(dir: &Path, traffic: Traffic) -> (Running, State) {
    let (manifests, state) = (dir.join("manifests"), dir.join("state"));
    fs::create_dir(&manifests).unwrap();
    let mut mesh = MANIFESTS.to_owned();
    if traffic == Traffic::HttpUnderPolicies {
        fs::write(manifests.join("policies.yaml"), POLICIES).unwrap();
        mesh = mesh.replace(SERVICE, &[SERVICE, BREAKER].concat());
        assert_ne!(mesh, MANIFESTS, "the service has its breaker");
    }
    fs::write(manifests.join("mesh.yaml"), mesh).unwrap();
    let mut line = vec!["outrigger".to_owned(), "controller".to_owned()];
    line.push(format!("--manifests={}", manifests.display()));
    line.push(format!("--state-dir={}", state.display()));
    for api in ["identity", "destination", "policy", "admin"] {
        line.push(format!("--{api}-addr=127.0.0.1:0"));
    }
    let cli::Command::Controller(options) = Cli::read(line).unwrap().command else {
        unreachable!("the line says so");
    };
    let running = app::start(*options).await.unwrap();
    (running, State::open(&state).unwrap())
}

/// What an injector would set.
fn environment(
    setting: &Setting<'_>,
    name: &'static str,
    inbound: SocketAddr,
) -> HashMap<&'static str, String> {
    let dir = setting.dir.join(name);
    fs::create_dir(&dir).unwrap();
    let token_file = dir.join("token");
    let account = ServiceAccount::new("demo", name).unwrap();
    let lifetime = Duration::from_secs(3600);
    let token = setting
        .state
        .tokens
        .mint(&account, lifetime, SystemTime::now())
        .unwrap();
    fs::write(&token_file, token).unwrap();
    let workload = format!("{{\"ns\":\"demo\",\"pod\":\"{name}\"}}");
    let control = &setting.control;
    let anchors = setting.state.trust_anchors.clone();
    HashMap::from([
        ("LINKERD2_PROXY_OUTBOUND_LISTEN_ADDR", "127.0.0.1:0".to_owned()),
        ("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", inbound.to_string()),
        ("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", "127.0.0.1:0".to_owned()),
        (
            "LINKERD2_PROXY_DESTINATION_SVC_ADDR",
            control.destination.to_string(),
        ),
        (
            "LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS",
            "10.0.0.0/8".to_owned(),
        ),
        ("LINKERD2_PROXY_DESTINATION_CONTEXT", workload.clone()),
        ("LINKERD2_PROXY_POLICY_SVC_ADDR", control.policy.to_string()),
        ("LINKERD2_PROXY_POLICY_WORKLOAD", workload),
        ("LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS", "10.0.0.0/8".to_owned()),
        (
            "LINKERD2_PROXY_INBOUND_DEFAULT_POLICY",
            "all-unauthenticated".to_owned(),
        ),
        ("LINKERD2_PROXY_IDENTITY_DIR", dir.display().to_string()),
        ("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", anchors),
        (
            "LINKERD2_PROXY_IDENTITY_TOKEN_FILE",
            token_file.display().to_string(),
        ),
        ("LINKERD2_PROXY_IDENTITY_SVC_ADDR", control.identity.to_string()),
        (
            "LINKERD2_PROXY_IDENTITY_LOCAL_NAME",
            format!("{name}.demo.{TRUST}"),
        ),
    ])
}
