//! The two pods of `examples/mesh`, their control plane, and the applications.

use crate::root::rootless;
use outrigger_e2e::app;
use outrigger_e2e::manifest;
use outrigger_e2e::mesh::{CONTROL_PLANE, Mesh, Meshed};
use outrigger_e2e::pod::Pod;
use outrigger_e2e::process::Process;
use std::env;
use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Everything that runs.
pub(crate) struct Stage {
    pub(crate) client: Meshed,
    pub(crate) server: Meshed,
    pub(crate) mesh: Mesh,
    applications: Vec<Process>,
}

impl Stage {
    /// Starts it all, and says what.
    pub(crate) fn set() -> Self {
        let dir = dir();
        // Of the last run; there may have been none.
        let _ = fs::remove_dir_all(&dir);
        let mesh = timed(
            "control plane",
            CONTROL_PLANE,
            "identity, destination and policy from examples/mesh",
            || Mesh::serving(&examples(), &dir),
        );
        for (service, last) in [("web", 10), ("greeter", 11), ("mariadb", 12)] {
            mesh.node()
                .name_host(&manifest::name(service, "demo"), Ipv4Addr::new(10, 96, 0, last));
        }
        let ip = Ipv4Addr::new(10, 77, 2, 2);
        let server = timed(
            "pod server",
            ip,
            "iptables rules by outrigger-init, the proxy as user 2102",
            || {
                mesh.pod("server")
                    .ip(ip)
                    .ports(&[8080, 8081, 8443, 50051, 3306])
                    .listed()
            },
        );
        let applications = timed(
            "",
            ip,
            "nginx, MariaDB and a gRPC service in it, each as its own user",
            || {
                vec![
                    app::nginx(&server),
                    app::greeter(&server, 50051),
                    app::mariadb(&server),
                ]
            },
        );
        let ip = Ipv4Addr::new(10, 77, 1, 2);
        let client = timed("pod client", ip, "the same rules, a proxy of its own", || {
            mesh.pod("client").ip(ip).listed()
        });
        Self {
            client,
            server,
            mesh,
            applications,
        }
    }

    /// Ends the proxies as Kubernetes does, which must succeed, then everything else.
    pub(crate) fn end(self) {
        for pod in [&self.client, &self.server] {
            let mut proxy = pod.proxy();
            proxy.terminate();
            let status = proxy.ended();
            assert!(
                status.success(),
                "the proxy of {} ended with {status}",
                pod.name()
            );
        }
        drop(self.applications);
    }

    /// Says where to look next, and makes commands for it.
    pub(crate) fn tell_where_to_look(&self) {
        let dir = dir();
        for pod in [&*self.client, &*self.server, self.mesh.node().outside()] {
            write_entrance(&dir, pod);
        }
        let here = env::current_dir().unwrap_or_default();
        let dir = dir.strip_prefix(&here).unwrap_or(&dir).display().to_string();
        println!("\nWhere to look next");
        for (command, what) in [
            (
                "client curl http://web/",
                "any command as an application of pod client; also: server, node",
            ),
            (
                "client curl http://localhost:4191/metrics",
                "what its proxy counted (also /ready, /live)",
            ),
            (
                "node curl http://10.77.0.2:9990/metrics",
                "what the control plane counted",
            ),
            (
                "node tcpdump -ni br0 -A port 4143",
                "what passes between the pods",
            ),
            (
                "server iptables-nft-save -t nat",
                "the rules that brought it there",
            ),
            ("pods/*/*.log", "what everybody has to say"),
        ] {
            println!("  {:53}  {what}", format!("{dir}/{command}"));
        }
        println!(
            "  {:53}  edit these: the control plane reads them again at once",
            "examples/mesh/*.yaml"
        );
    }
}

/// The logs' ends, for when something has failed.
pub(crate) fn print_logs() {
    let pods = fs::read_dir(dir().join("pods")).into_iter().flatten().flatten();
    for file in pods
        .filter_map(|pod| fs::read_dir(pod.path()).ok())
        .flatten()
        .flatten()
    {
        let path = file.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let text = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<_> = text.lines().collect();
            eprintln!("\n--- {} ends:", path.display());
            for line in &lines[lines.len().saturating_sub(15)..] {
                eprintln!("{line}");
            }
        }
    }
}

fn timed<T>(what: &str, ip: Ipv4Addr, more: &str, start: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let made = start();
    let place = if what.is_empty() {
        String::new()
    } else {
        ip.to_string()
    };
    println!(
        "  {what:13}  {place:9}  {more}; ready after {:.1} s",
        began.elapsed().as_secs_f32()
    );
    made
}

/// A command that runs another one in a pod.
fn write_entrance(dir: &Path, pod: &Pod) {
    let user = if rootless() {
        "--user --preserve-credentials "
    } else {
        ""
    };
    let file = dir.join(pod.name());
    let text = format!(
        "#!/bin/sh\nexec nsenter -t {} {user}--net --mount -- \"$@\"\n",
        pod.tid()
    );
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
}

/// Where everything of a run is: `try` beside the directory of this program.
fn dir() -> PathBuf {
    let program = env::current_exe().unwrap();
    program
        .ancestors()
        .nth(2)
        .expect("programs are in target/<profile>")
        .join("try")
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .with_file_name("examples")
        .join("mesh")
}
