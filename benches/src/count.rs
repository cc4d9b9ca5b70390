//! Instructions per unit of work, counted by callgrind: they depend neither on the machine nor on its load.

use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::BoxError;
use crate::args::Protocol;
use crate::process;
use crate::rows;
use crate::systems::{self, Pair, Site, System};

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// As the table calls it.
    pub name: &'static str,
    /// What is spoken.
    pub traffic: Protocol,
    work: Work,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    /// `h2load`: connections, streams on each, requests, and what is asked for.
    Requests(usize, usize, usize, &'static str),
    /// Messages of 64 bytes there and back, on one connection.
    Messages,
}

/// Every case: one thing at a time, as at low rates, and many at once, as at saturation.
pub const CASES: &[Case] = &[
    requests("h1-one", Protocol::Http1, (1, 1, 2_000, "/")),
    requests("h1-32", Protocol::Http1, (32, 1, 6_400, "/")),
    requests("h2-one", Protocol::Http2, (1, 1, 2_000, "/")),
    requests("h2-64", Protocol::Http2, (4, 16, 6_400, "/")),
    requests("h1-64k", Protocol::Http1, (1, 1, 500, "/64k")),
    Case {
        name: "tcp-one",
        traffic: Protocol::Tcp,
        work: Work::Messages,
    },
];

const fn requests(
    name: &'static str,
    traffic: Protocol,
    (connections, streams, requests, path): (usize, usize, usize, &'static str),
) -> Case {
    Case {
        name,
        traffic,
        work: Work::Requests(connections, streams, requests, path),
    }
}

/// Instructions per unit of work, of the client's proxy and of the server's.
#[derive(Clone, Copy, Debug)]
pub struct Counted([f64; 2]);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [client, server] = self.0;
        write!(f, "{client:>9.0} + {server:>9.0} instructions")
    }
}

/// What starts a proxy whose instructions can be counted: none are yet, so that it is soon up.
pub fn tool(dir: &Path) -> Result<Vec<String>, BoxError> {
    // The proxies of a mesh have a user of their own.
    fs::set_permissions(dir, Permissions::from_mode(0o1777))?;
    let out = format!("--callgrind-out-file={}/instructions.%p", dir.display());
    let words = [
        "valgrind",
        "--quiet",
        "--tool=callgrind",
        "--instr-atstart=no",
        &out,
    ];
    Ok(words.map(str::to_owned).into())
}

/// Starts a system, and counts what a case costs it. Which functions spend it stands in files named like `h1-one-ours-client`.
pub fn once(case: &Case, system: System, site: &Site) -> Result<Counted, BoxError> {
    let pair = systems::start(system, case.traffic, site)?;
    rows::wait(&pair, case.traffic, site)?;
    for proxy in &pair.proxies {
        control(*proxy, "--instr=on")?;
    }
    // Warm, and translated.
    work(case, &pair, site)?;
    for proxy in &pair.proxies {
        control(*proxy, "--zero")?;
    }
    let done = work(case, &pair, site)?;
    let mut counted = [0.0; 2];
    for ((proxy, side), counted) in pair.proxies.iter().zip(["client", "server"]).zip(&mut counted) {
        control(*proxy, "--dump")?;
        let name = format!("{}-{}-{side}", case.name, system.name());
        *counted = total(*proxy, site, &name)? as f64 / done as f64;
    }
    Ok(Counted(counted))
}

/// Does the work once; how many units it was.
fn work(case: &Case, pair: &Pair, site: &Site) -> Result<u64, BoxError> {
    match case.work {
        Work::Requests(connections, streams, requests, path) => {
            let count = rows::Count::Requests(requests);
            let sample = rows::h2load(case.traffic, pair, count, (connections, streams, path))?;
            match sample.failed {
                0 => Ok(sample.done),
                failed => Err(format!("{failed} requests failed").into()),
            }
        }
        Work::Messages => {
            let args = ["--connections", "1", "--seconds", "3"];
            let report = process::json(rows::load(site, "pingpong", pair, &args))?;
            report["done"].as_u64().ok_or_else(|| "nothing was done".into())
        }
    }
}

/// Tells callgrind in this process to do something.
fn control(process: u32, what: &str) -> Result<(), BoxError> {
    let mut command = Command::new("callgrind_control");
    command.args([what, &process.to_string()]);
    process::output(command).map(drop)
}

/// What the process has just dumped, in all; the list by function is put into a file of this name.
fn total(process: u32, site: &Site, name: &str) -> Result<u64, BoxError> {
    let dump = site.dir.join(format!("instructions.{process}.1"));
    let dumped = fs::read_to_string(&dump)?;
    let mut command = Command::new("callgrind_annotate");
    command.args(["--inclusive=yes", "--threshold=99.9"]).arg(&dump);
    fs::write(site.dir.join(name), process::output(command)?)?;
    let total = dumped.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or("the dump has no total")?.trim().parse()?)
}
