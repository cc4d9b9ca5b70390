//! Two pods as network namespaces on one bridge, for the systems that need no mesh. They are gone when the value is dropped.

use std::net::IpAddr;
use std::process::Command;

use crate::BoxError;

/// The namespaces of one run.
#[derive(Debug)]
pub struct Namespaces {
    prefix: String,
}

/// How the names of namespaces begin; the process that made them follows.
const PREFIX: &str = "obench";

/// A namespace with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pod {
    /// The client and its proxy.
    Client,
    /// The application and its proxy.
    Server,
}

impl Pod {
    const ALL: [Self; 2] = [Self::Client, Self::Server];

    /// Its address on the bridge.
    pub fn address(self) -> IpAddr {
        IpAddr::from([10, 231, 0, self as u8 + 1])
    }

    fn name(self) -> &'static str {
        match self {
            Self::Client => "a",
            Self::Server => "b",
        }
    }
}

/// Where a command runs.
#[derive(Clone, Debug)]
pub enum Inside {
    /// In the network namespace of this name.
    Named(String),
    /// In the network namespace of this thread.
    Thread(i32),
}

impl Inside {
    /// A command there; it ends with this process, however that ends.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = match self {
            Self::Named(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]);
                command
            }
            Self::Thread(id) => {
                let mut command = Command::new("nsenter");
                command.args(["--net", "--target", &id.to_string()]);
                command
            }
        };
        command.args(["setpriv", "--pdeathsig", "KILL"]).arg(program);
        command
    }
}

impl Namespaces {
    /// Makes them. Needs root.
    pub fn new() -> Result<Self, BoxError> {
        let namespaces = Self {
            prefix: format!("{PREFIX}{}", std::process::id()),
        };
        remove_left_over()?;
        let net = namespaces.full_name("net");
        run(&format!("ip netns add {net}"))?;
        run(&format!("ip -n {net} link add bridge type bridge"))?;
        run(&format!("ip -n {net} link set bridge up"))?;
        for pod in Pod::ALL {
            let (name, address) = (namespaces.name_of(pod), pod.address());
            let port = format!("to-{}", pod.name());
            run(&format!("ip netns add {name}"))?;
            run(&format!(
                "ip -n {net} link add {port} type veth peer name eth0 netns {name}"
            ))?;
            run(&format!("ip -n {net} link set {port} master bridge up"))?;
            run(&format!("ip -n {name} link set lo up"))?;
            run(&format!("ip -n {name} address add {address}/24 dev eth0"))?;
            run(&format!("ip -n {name} link set eth0 up"))?;
        }
        Ok(namespaces)
    }

    /// The inside of a pod.
    pub fn inside(&self, pod: Pod) -> Inside {
        Inside::Named(self.name_of(pod))
    }

    fn name_of(&self, pod: Pod) -> String {
        self.full_name(pod.name())
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        let pods = Pod::ALL.map(|pod| self.name_of(pod));
        for name in pods.iter().chain([&self.full_name("net")]) {
            // What was never made can't be removed: the run that failed has said why.
            let _gone = run(&format!("ip netns delete {name}"));
        }
    }
}

/// A run that was killed could not clean up after itself: the next one does.
fn remove_left_over() -> Result<(), BoxError> {
    let list = Command::new("ip").args(["netns", "list"]).output()?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    for name in list.lines().filter_map(|line| line.split(' ').next()) {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let process: String = rest.chars().take_while(char::is_ascii_digit).collect();
        if !std::path::Path::new("/proc").join(process).exists() {
            run(&format!("ip netns delete {name}"))?;
        }
    }
    Ok(())
}

/// Runs a command without quoting: words are split at blanks.
fn run(line: &str) -> Result<(), BoxError> {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap_or_default())
        .args(words)
        .output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim()).into()),
    }
}
