//! A mesh: a control plane with its manifests on a node of its own, and the pods that it knows.

use crate::pod::{HOME, Node, PROGRAMS, Pod};
use crate::process::{Process, programs};
use crate::{http, manifest, wait};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;

/// The user of the proxy, whose own connections are not redirected.
pub const PROXY_USER: &str = "2102";
/// Where the control plane is.
pub const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// What every identity ends in.
pub const TRUST: &str = "serviceaccount.identity.linkerd.cluster.local";

const CLUSTER_NETWORKS: &str = "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8";

/// A control plane and a node for pods.
#[derive(Debug)]
pub struct Mesh {
    dir: PathBuf,
    manifests: PathBuf,
    node: Node,
    control: Pod,
    controller: Mutex<Option<Process>>,
    lives: AtomicU32,
    addresses: AtomicU8,
    cluster_ips: AtomicU8,
}

/// A pod of the mesh: still to be made.
#[derive(Debug)]
pub struct Plan<'a> {
    mesh: &'a Mesh,
    name: String,
    namespace: String,
    account: String,
    ip: Option<Ipv4Addr>,
    ports: Vec<u16>,
    annotations: Vec<(String, String)>,
    env: Vec<(&'static str, String)>,
    files: Option<u32>,
    tool: Vec<String>,
}

/// A pod with a proxy.
#[derive(Debug)]
pub struct Meshed {
    pod: Pod,
    identity: String,
    proxy: Mutex<Process>,
}

impl Mesh {
    /// A mesh whose manifests are written by the test.
    pub fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = scratch(&format!("{}-{count}", std::process::id()));
        let manifests = dir.join("manifests");
        fs::create_dir_all(&manifests).unwrap();
        Self::serving(&manifests, &dir)
    }

    /// A mesh whose control plane serves this directory of manifests, with its own files in another.
    pub fn serving(manifests: &Path, dir: &Path) -> Self {
        let node = Node::new(&dir.join("pods"));
        let mesh = Self {
            dir: dir.to_owned(),
            manifests: manifests.to_owned(),
            control: node.pod("controller", CONTROL_PLANE, &dir.join("pods/controller")),
            node,
            controller: Mutex::new(None),
            lives: AtomicU32::new(0),
            addresses: AtomicU8::new(10),
            cluster_ips: AtomicU8::new(100),
        };
        mesh.start_controller();
        mesh
    }

    /// Starts the control plane, which must not run.
    pub fn start_controller(&self) {
        self.start_controller_on("state");
    }

    /// Starts the control plane with this state directory: another one means another authority.
    pub fn start_controller_on(&self, state: &str) {
        let life = self.lives.fetch_add(1, Ordering::Relaxed);
        let manifests = self.manifests.display().to_string();
        let state = self.state(state).display().to_string();
        let program = format!("{PROGRAMS}/outrigger");
        let addr = |port| format!("{CONTROL_PLANE}:{port}");
        let argv = [
            &*program,
            "controller",
            "--manifests",
            &manifests,
            "--state-dir",
            &state,
            "--identity-addr",
            &addr(8080),
            "--destination-addr",
            &addr(8086),
            "--policy-addr",
            &addr(8090),
            "--admin-addr",
            &addr(9990),
            "--log-level",
            "info,outrigger_controller=debug",
        ];
        let mut controller = self
            .control
            .start(&format!("controller-{life}"), "root", &argv, &[]);
        controller.until("the control plane is ready", || self.is_ready().then_some(()));
        *self.controller() = Some(controller);
    }

    fn is_ready(&self) -> bool {
        let ready = http::try_get(
            &self.control,
            (CONTROL_PLANE, 9990).into(),
            "controller",
            "/ready",
            &["connection: close"],
        );
        ready.is_ok_and(|response| response.status == 200)
    }

    /// Ends the control plane at once, as a crash would.
    pub fn kill_controller(&self) {
        self.controller().take().expect("a control plane runs").kill();
    }

    /// The running control plane.
    pub fn controller(&self) -> MutexGuard<'_, Option<Process>> {
        self.controller
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The node's own namespace, outside every pod.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The directory of everything that this mesh writes.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A state directory of the control plane, `state` being the one it starts with.
    pub fn state(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a manifest, or replaces one in one step, and waits until the control plane has read it.
    pub fn write(&self, file: &str, text: &str) {
        let hidden = self.dir.join(file);
        fs::write(&hidden, text).unwrap();
        self.reread(|| fs::rename(&hidden, self.manifests.join(file)).unwrap());
    }

    /// Does something to the manifests and waits until the control plane has read them again, if it runs.
    pub fn reread(&self, change: impl FnOnce()) {
        let reads = |controller: &Process| controller.log().matches("manifests read").count();
        let mut running = self.controller();
        let before = running.as_ref().map(&reads);
        change();
        if let Some(controller) = running.as_mut() {
            let log = controller.log_file().to_owned();
            controller.until("it has read the manifests again", || {
                let log = fs::read_to_string(&log).unwrap_or_default();
                (Some(log.matches("manifests read").count()) > before).then_some(())
            });
        }
    }

    /// Where a manifest is.
    pub fn manifest(&self, file: &str) -> PathBuf {
        self.manifests.join(file)
    }

    /// A pod in namespace `demo`, with a service account of its own by the same name.
    pub fn pod(&self, name: &str) -> Plan<'_> {
        Plan {
            mesh: self,
            name: name.to_owned(),
            namespace: "demo".to_owned(),
            account: name.to_owned(),
            ip: None,
            ports: Vec::new(),
            annotations: Vec::new(),
            env: Vec::new(),
            files: None,
            tool: Vec::new(),
        }
    }

    /// A service on this port whose endpoints are these ports of pods; its name is known in all pods.
    pub fn service(&self, name: &str, port: u16, endpoints: &[(&Pod, u16)]) -> SocketAddr {
        let ip = Ipv4Addr::new(10, 96, 0, self.cluster_ips.fetch_add(1, Ordering::Relaxed));
        self.node.name_host(&manifest::name(name, "demo"), ip);
        let to = endpoints.first().map_or(port, |(_, port)| *port);
        self.write(
            &format!("service-{name}.yaml"),
            &manifest::service(name, ip, port, to),
        );
        self.endpoints(name, to, endpoints);
        (ip, port).into()
    }

    /// A service on this port that mirrors another one, whose name is `of`, behind a gateway.
    pub fn mirror(&self, name: &str, port: u16, gateway: &Meshed, of: &str) -> SocketAddr {
        let addr = self.service(name, port, &[]);
        let slice = manifest::mirror(name, gateway, gateway.identity(), of);
        self.write(&format!("endpoints-{name}.yaml"), &slice);
        addr
    }

    /// Replaces the endpoints of a service.
    pub fn endpoints(&self, name: &str, port: u16, endpoints: &[(&Pod, u16)]) {
        let pods: Vec<_> = endpoints.iter().map(|(pod, _)| *pod).collect();
        self.write(
            &format!("endpoints-{name}.yaml"),
            &manifest::slice(name, port, &pods),
        );
    }

    /// A certificate token, as Kubernetes would project it into the pod.
    fn token(&self, namespace: &str, account: &str) -> String {
        let state = self.state("state").display().to_string();
        let argv = [
            "token",
            "--state-dir",
            &state,
            "--namespace",
            namespace,
            "--service-account",
            account,
        ];
        self.tool(&argv)
    }

    /// The mesh's trust anchors (PEM).
    pub fn trust_anchors(&self) -> String {
        let state = self.state("state").display().to_string();
        self.tool(&["trust-anchors", "--state-dir", &state])
    }

    fn tool(&self, args: &[&str]) -> String {
        let program = format!("{PROGRAMS}/outrigger");
        let output = self.control.output("root", &[&[&*program], args].concat());
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("what the pods logged is in {}", self.dir.display());
        } else if self.dir.starts_with(scratch_root()) {
            // The rest of a mesh that ran well; what can not be removed is removed by the next run.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

impl Plan<'_> {
    /// With this address, in place of the next free one.
    pub fn ip(mut self, ip: Ipv4Addr) -> Self {
        self.ip = Some(ip);
        self
    }

    /// With the service account of this name.
    pub fn account(mut self, name: &str) -> Self {
        name.clone_into(&mut self.account);
        self
    }

    /// With these container ports.
    pub fn ports(mut self, ports: &[u16]) -> Self {
        self.ports.extend(ports);
        self
    }

    /// With this annotation.
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.push((key.to_owned(), value.to_owned()));
        self
    }

    /// With this variable of the proxy set, or set differently.
    pub fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// With so few files that its proxy may have open.
    pub fn files(mut self, limit: u32) -> Self {
        self.files = Some(limit);
        self
    }

    /// With its proxy started by this tool: valgrind, strace.
    pub fn under(mut self, tool: &[String]) -> Self {
        self.tool = tool.to_vec();
        self
    }

    /// Makes the pod without a proxy, and tells the control plane about it.
    pub fn unmeshed(self) -> Pod {
        let pod = self.namespaces();
        self.write_manifest(&pod, false);
        pod
    }

    /// Makes the pod without a proxy, and tells the control plane that it has one.
    pub fn impostor(self) -> Pod {
        let pod = self.namespaces();
        self.write_manifest(&pod, true);
        pod
    }

    /// Makes the pod with a proxy, tells the control plane about it, and waits until the proxy is ready.
    pub fn meshed(self) -> Meshed {
        let meshed = self.starting();
        meshed.until_ready();
        meshed
    }

    /// The same without waiting for the proxy.
    pub fn starting(self) -> Meshed {
        let pod = self.namespaces();
        self.write_manifest(&pod, true);
        self.inject(pod)
    }

    /// A meshed pod whose manifest is there already.
    pub fn listed(self) -> Meshed {
        let pod = self.namespaces();
        let meshed = self.inject(pod);
        meshed.until_ready();
        meshed
    }

    fn namespaces(&self) -> Pod {
        let mesh = self.mesh;
        let ip = self
            .ip
            .unwrap_or_else(|| Ipv4Addr::new(10, 77, mesh.addresses.fetch_add(1, Ordering::Relaxed), 2));
        mesh.node
            .pod(&self.name, ip, &mesh.dir.join("pods").join(&self.name))
    }

    fn write_manifest(&self, pod: &Pod, meshed: bool) {
        let pod = manifest::Pod {
            name: &self.name,
            namespace: &self.namespace,
            account: &self.account,
            ips: [pod.ip().into(), pod.ip6().into()],
            ports: &self.ports,
            annotations: &self.annotations,
            meshed,
        };
        self.mesh.write(&format!("pod-{}.yaml", self.name), &pod.text());
    }

    /// What the injector adds to a pod: proxy-init's rules, then the proxy with its environment.
    fn inject(self, pod: Pod) -> Meshed {
        pod.sh(&format!(
            "{PROGRAMS}/outrigger-init --incoming-proxy-port 4143 --outgoing-proxy-port 4140 --proxy-uid {PROXY_USER} \
             --inbound-ports-to-ignore 4190,4191,4567,4568 --outbound-ports-to-ignore 4567,4568 >init.log"
        ));
        pod.sh(&format!(
            "mkdir -p identity && chown {PROXY_USER} identity && chmod 700 identity"
        ));
        pod.file("token", self.mesh.token(&self.namespace, &self.account));
        let program = format!("{PROGRAMS}/outrigger-proxy");
        let env = self.environment(&pod);
        let limit = self.files.map(|files| format!("--nofile={files}:{files}"));
        let limited = limit.iter().flat_map(|limit| ["prlimit", limit]);
        let tool = self.tool.iter().map(String::as_str);
        let argv: Vec<_> = limited.chain(tool).chain([&*program]).collect();
        let proxy = pod.start("proxy", PROXY_USER, &argv, &env);
        Meshed {
            identity: self.identity(),
            pod,
            proxy: Mutex::new(proxy),
        }
    }

    fn identity(&self) -> String {
        format!("{}.{}.{TRUST}", self.account, self.namespace)
    }

    /// The proxy's variables as the injector sets them, then those of the test.
    fn environment(&self, pod: &Pod) -> Vec<(&'static str, String)> {
        let (name, namespace) = (&self.name, &self.namespace);
        let service = |port| format!("{CONTROL_PLANE}:{port}");
        let ports: Vec<_> = self.ports.iter().map(u16::to_string).collect();
        let mut env = vec![
            ("LINKERD2_PROXY_CORES", "1".to_owned()),
            (
                "LINKERD2_PROXY_LOG",
                "warn,linkerd=info,hickory=error,[{headers}]=off,[{request}]=off".to_owned(),
            ),
            ("LINKERD2_PROXY_LOG_FORMAT", "plain".to_owned()),
            ("LINKERD2_PROXY_DESTINATION_SVC_ADDR", service(8086)),
            (
                "LINKERD2_PROXY_DESTINATION_SVC_NAME",
                format!("linkerd-destination.linkerd.{TRUST}"),
            ),
            (
                "LINKERD2_PROXY_DESTINATION_PROFILE_NETWORKS",
                CLUSTER_NETWORKS.to_owned(),
            ),
            (
                "LINKERD2_PROXY_DESTINATION_PROFILE_SUFFIXES",
                "svc.cluster.local.".to_owned(),
            ),
            (
                "LINKERD2_PROXY_DESTINATION_CONTEXT",
                format!("{{\"ns\":\"{namespace}\", \"nodeName\":\"node\", \"pod\":\"{name}\"}}\n"),
            ),
            ("LINKERD2_PROXY_POLICY_SVC_ADDR", service(8090)),
            (
                "LINKERD2_PROXY_POLICY_SVC_NAME",
                format!("linkerd-destination.linkerd.{TRUST}"),
            ),
            (
                "LINKERD2_PROXY_POLICY_WORKLOAD",
                format!("{{\"ns\":\"{namespace}\", \"pod\":\"{name}\"}}\n"),
            ),
            (
                "LINKERD2_PROXY_POLICY_CLUSTER_NETWORKS",
                CLUSTER_NETWORKS.to_owned(),
            ),
            (
                "LINKERD2_PROXY_INBOUND_DEFAULT_POLICY",
                "all-unauthenticated".to_owned(),
            ),
            ("LINKERD2_PROXY_INBOUND_PORTS", ports.join(",")),
            (
                "LINKERD2_PROXY_INBOUND_IPS",
                format!("{},{}", pod.ip(), pod.ip6()),
            ),
            ("LINKERD2_PROXY_CONTROL_STREAM_INITIAL_TIMEOUT", "3s".to_owned()),
            ("LINKERD2_PROXY_CONTROL_STREAM_IDLE_TIMEOUT", "5m".to_owned()),
            ("LINKERD2_PROXY_CONTROL_STREAM_LIFETIME", "1h".to_owned()),
            ("LINKERD2_PROXY_CONTROL_LISTEN_ADDR", "0.0.0.0:4190".to_owned()),
            ("LINKERD2_PROXY_ADMIN_LISTEN_ADDR", "0.0.0.0:4191".to_owned()),
            (
                "LINKERD2_PROXY_OUTBOUND_LISTEN_ADDRS",
                "127.0.0.1:4140,[::1]:4140".to_owned(),
            ),
            ("LINKERD2_PROXY_INBOUND_LISTEN_ADDR", "[::]:4143".to_owned()),
            ("LINKERD2_PROXY_IDENTITY_DIR", format!("{HOME}/identity")),
            ("LINKERD2_PROXY_IDENTITY_TRUST_ANCHORS", self.mesh.trust_anchors()),
            ("LINKERD2_PROXY_IDENTITY_TOKEN_FILE", format!("{HOME}/token")),
            ("LINKERD2_PROXY_IDENTITY_SVC_ADDR", service(8080)),
            (
                "LINKERD2_PROXY_IDENTITY_SVC_NAME",
                format!("linkerd-identity.linkerd.{TRUST}"),
            ),
            ("LINKERD2_PROXY_IDENTITY_LOCAL_NAME", self.identity()),
        ];
        for (name, value) in &self.env {
            env.retain(|(other, _)| other != name);
            env.push((name, value.clone()));
        }
        env
    }
}

impl Meshed {
    /// Waits until the proxy is ready.
    pub fn until_ready(&self) {
        self.proxy()
            .until("the proxy is ready", || self.is_ready().then_some(()));
    }

    /// Whether the proxy says that it is ready.
    pub fn is_ready(&self) -> bool {
        let admin = (Ipv4Addr::LOCALHOST, 4191).into();
        let ready = http::try_get(&self.pod, admin, "localhost", "/ready", &["connection: close"]);
        ready.is_ok_and(|response| response.status == 200)
    }

    /// The pod itself, to be moved to another thread.
    pub fn pod(&self) -> Pod {
        self.pod.clone()
    }

    /// The name in the proxy's certificate.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The proxy.
    pub fn proxy(&self) -> MutexGuard<'_, Process> {
        self.proxy
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Deref for Meshed {
    type Target = Pod;

    fn deref(&self) -> &Pod {
        &self.pod
    }
}

/// A new directory for one mesh; those of processes that have ended are removed.
fn scratch(name: &str) -> PathBuf {
    let root = scratch_root();
    fs::create_dir_all(&root).unwrap();
    for entry in fs::read_dir(&root).unwrap().flatten() {
        let owner = entry
            .file_name()
            .to_string_lossy()
            .split('-')
            .next()
            .map(str::to_owned);
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Another process may be doing the same.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let dir = root.join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn scratch_root() -> PathBuf {
    programs().with_file_name("mesh")
}

/// Waits until a request from this pod is answered with this status: for what the control plane brings about.
pub fn until_status(pod: &Pod, addr: SocketAddr, host: &str, status: u16) {
    wait::until(&format!("status {status} from {host}"), || {
        let response = http::try_get(pod, addr, host, "/", &["connection: close"]).ok()?;
        (response.status == status).then_some(())
    });
}
