//! A pod: a thread that lives in a network and mount namespace of its own. What it starts lives there too, and ends with it.

use crate::dns::{Dns, RESOLV_CONF};
use crate::process::Process;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{User, gettid};
use outrigger_sys::netns;
use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

/// Where a pod finds its own directory, whatever the path of this checkout: other users may not enter that.
pub const HOME: &str = "/run/outrigger/pod";
/// Where a pod finds the programs that were built.
pub const PROGRAMS: &str = "/run/outrigger/bin";
/// Where a pod finds the applications of the testkit.
pub const APPS: &str = "/run/outrigger/apps";
/// Where a pod finds the conformance suites, which `make suites` puts there.
pub const TOOLS: &str = "/run/outrigger/tools";

/// How long a connection may take to fail when nobody answers.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// The machine that pods run on: a bridge in a namespace of its own, their way to each other, and DNS.
#[derive(Debug)]
pub struct Node {
    pod: Pod,
    dns: Dns,
    cables: AtomicU32,
}

/// A network namespace with one address, a default route to its node, and a directory.
#[derive(Clone, Debug)]
pub struct Pod {
    name: Arc<str>,
    ip: Ipv4Addr,
    dir: PathBuf,
    tid: i32,
    work: mpsc::Sender<Work>,
}

type Work = Box<dyn FnOnce() + Send>;

impl Node {
    /// A node with the bridge 10.77.0.1/16, whose files are in this directory.
    pub fn new(dir: &Path) -> Self {
        let pod = Pod::in_namespaces("node", Ipv4Addr::new(10, 77, 0, 1), &dir.join("node"));
        pod.sh("ip link set lo up
            ip link add br0 type bridge && ip addr add 10.77.0.1/16 dev br0 && ip link set br0 up
            ip addr add fd77::1/64 dev br0 nodad
            echo 1 >/proc/sys/net/ipv4/ip_forward");
        let socket = pod.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53))).unwrap();
        Self {
            pod,
            dns: Dns::serve(socket),
            cables: AtomicU32::new(0),
        }
    }

    /// A pod with this address on the bridge, and the IPv6 address that ends in the same four bytes.
    pub fn pod(&self, name: &str, ip: Ipv4Addr, dir: &Path) -> Pod {
        let pod = Pod::in_namespaces(name, ip, dir);
        let (cable, tid) = (self.cables.fetch_add(1, Ordering::Relaxed), pod.tid);
        self.pod.sh(&format!(
            "ip link add cable{cable} type veth peer name eth0 netns {tid}
            ip link set cable{cable} master br0 up
            ip route add {ip}/32 dev br0"
        ));
        pod.sh(&format!(
            "ip link set lo up && ip link set eth0 up
            ip addr add {ip}/16 dev eth0 && ip route add default via 10.77.0.1 dev eth0 onlink
            ip addr add {}/64 dev eth0 nodad",
            pod.ip6()
        ));
        pod
    }

    /// Gives an address a name that all pods can resolve.
    pub fn name_host(&self, name: &str, ip: Ipv4Addr) {
        self.dns.name(name, ip);
    }

    /// The node's own namespace: from there everything on the bridge can be reached, and nothing is redirected.
    pub fn outside(&self) -> &Pod {
        &self.pod
    }
}

impl Pod {
    fn in_namespaces(name: &str, ip: Ipv4Addr, dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        // Its applications run as different users, and each may write here.
        fs::set_permissions(dir, Permissions::from_mode(0o1777)).unwrap();
        let (work, todo) = mpsc::channel::<Work>();
        let (ready, is_ready) = mpsc::channel();
        let (home, built) = (dir.to_owned(), crate::process::programs());
        thread::Builder::new()
            .name(format!("pod {name}"))
            .spawn(move || {
                let entered = enter_namespaces(&home, &built).map(|()| gettid().as_raw());
                // Nobody waits only if this process is ending.
                let _ = ready.send(entered);
                todo.into_iter().for_each(|work| work());
            })
            .unwrap();
        let tid = is_ready.recv().unwrap();
        Self {
            name: name.into(),
            ip,
            dir: dir.to_owned(),
            tid: tid.unwrap_or_else(|error| panic!("no namespaces for pod {name} (not root?): {error}")),
            work,
        }
    }

    /// The pod's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pod's IPv4 address.
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// The pod's IPv6 address.
    pub fn ip6(&self) -> Ipv6Addr {
        let [a, b, c, d] = self.ip.octets().map(u16::from);
        Ipv6Addr::new(0xfd77, 0, 0, 0, a, b, c, d)
    }

    /// The pod's address with a port.
    pub fn addr(&self, port: u16) -> SocketAddr {
        (self.ip, port).into()
    }

    /// The thread whose namespaces are the pod's, for `nsenter`.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// The pod's directory, as this process sees it; the pod itself sees it as [`HOME`].
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes a file into the pod's directory and answers where the pod finds it.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.dir.join(name), content).unwrap();
        format!("{HOME}/{name}")
    }

    /// Does something in the pod's namespaces.
    pub fn run<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let work = move || {
            let outcome = panic::catch_unwind(AssertUnwindSafe(what));
            // Nobody waits only if the caller's thread has ended.
            let _ = done.send(outcome);
        };
        self.work
            .send(Box::new(work))
            .expect("a pod's thread ends with its last handle");
        result
            .recv()
            .expect("a pod's thread answers every piece of work")
            .unwrap_or_else(|cause| panic::resume_unwind(cause))
    }

    /// Runs a line of shell as root, which must succeed, and answers its output.
    pub fn sh(&self, line: &str) -> String {
        let output = self.output("root", &["sh", "-ec", line]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "in pod {}: {line}: {}\n{text}{}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// Runs a program as this user (name or number), to its end.
    pub fn output(&self, user: &str, argv: &[&str]) -> Output {
        let mut command = command(user, argv);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.run(move || command.spawn()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Starts a program as this user, whose output goes to `<name>.log` in the pod's directory.
    pub fn start(&self, name: &str, user: &str, argv: &[&str], env: &[(&str, String)]) -> Process {
        let mut command = command(user, argv);
        command.envs(env.iter().map(|(name, value)| (name, value)));
        Process::start(self, name, command)
    }

    /// Connects from the pod, as root: to the pod's proxy this is an application.
    pub fn connect(&self, addr: impl Into<SocketAddr>) -> io::Result<TcpStream> {
        let addr = addr.into();
        let stream = self.run(move || TcpStream::connect_timeout(&addr, CONNECT_TIMEOUT))?;
        stream.set_read_timeout(Some(crate::wait::BOUND))?;
        stream.set_write_timeout(Some(crate::wait::BOUND))?;
        Ok(stream)
    }

    /// Listens in the pod, on all addresses.
    pub fn listen(&self, port: u16) -> TcpListener {
        self.run(move || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))
            .unwrap_or_else(|error| panic!("pod {} can not listen on {port}: {error}", self.name))
    }
}

fn enter_namespaces(home: &Path, built: &Path) -> io::Result<()> {
    netns::isolate()?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let apps = Path::new(env!("CARGO_MANIFEST_DIR")).join("apps");
    let tools = built.with_file_name("tools");
    fs::create_dir_all(&tools)?;
    for (inside, outside) in [(HOME, home), (PROGRAMS, built), (APPS, &apps), (TOOLS, &tools)] {
        fs::create_dir_all(inside)?;
        mount(Some(outside), inside, none, MsFlags::MS_BIND, none)?;
    }
    for (name, content) in [("hosts", HOSTS), ("resolv.conf", RESOLV_CONF)] {
        let file = home.join(name);
        fs::write(&file, content)?;
        mount(
            Some(&file),
            &*format!("/etc/{name}"),
            none,
            MsFlags::MS_BIND,
            none,
        )?;
    }
    Ok(())
}

const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost\n";

/// A program that runs as this user, and ends when the thread of its pod ends.
fn command(user: &str, argv: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if user != "root" {
        let known = User::from_name(user).unwrap();
        let group = known.map_or_else(|| user.to_owned(), |user| user.gid.to_string());
        command.args(["--reuid", user, "--regid", &group, "--clear-groups"]);
    }
    command.arg("--").args(argv).env_clear();
    command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8");
    command.current_dir(HOME);
    command
}
