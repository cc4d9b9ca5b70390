//! The rows of the table: what is done, by which generator, and what is read off.

use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::BoxError;
use crate::args::Protocol;
use crate::process::{self, Running};
use crate::systems::{Pair, Site};

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// As `performance.md` calls it.
    pub name: &'static str,
    /// What one figure is.
    pub unit: &'static str,
    /// What is spoken.
    pub traffic: Protocol,
    /// What is done.
    pub load: Load,
}

/// What is done.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// As many requests as go: `h2load` with these connections and streams.
    Most {
        /// Connections.
        connections: usize,
        /// Streams on each.
        streams: usize,
        /// What is asked for.
        path: &'static str,
    },
    /// A fixed number of requests per second.
    Rate(usize),
    /// `load` with this command and width.
    Command(&'static str, &'static str, usize),
    /// Nothing at all, after one exchange: memory, or CPU.
    Idle(Figure),
    /// So many connections that have carried something.
    Hold(usize),
}

/// What is read off a system that does nothing.
#[derive(Clone, Copy, Debug)]
pub enum Figure {
    /// Resident memory.
    Memory,
    /// CPU time.
    Cpu,
}

/// One measurement.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sample {
    /// The figure of the row, in its unit.
    pub figure: f64,
    /// The parts that the figure is the sum of: the client's proxy, then the server's.
    pub by_proxy: Vec<f64>,
    /// Units of work done.
    pub done: u64,
    /// Units of work that failed.
    pub failed: u64,
    /// Units of work per second.
    pub rate: f64,
    /// Latencies in microseconds, where the generator takes them.
    pub p50: Option<u64>,
    /// The 99th percentile.
    pub p99: Option<u64>,
    /// The 99.9th percentile.
    pub p999: Option<u64>,
    /// Share of all CPU time that the host took away meanwhile, in percent.
    pub stolen: f64,
}

const US: &str = "µs CPU/request";

/// Every row.
pub const ROWS: &[Row] = &[
    http("h1-max", Protocol::Http1, most(32, 1, "/")),
    http("h2-max", Protocol::Http2, most(4, 16, "/")),
    http("h1-500", Protocol::Http1, Load::Rate(500)),
    http("h1-2000", Protocol::Http1, Load::Rate(2_000)),
    http("h2-2000", Protocol::Http2, Load::Rate(2_000)),
    http("h1-64k", Protocol::Http1, most(8, 1, "/64k")),
    http(
        "h1-newconn",
        Protocol::Http1,
        Load::Command("requests", "--at-once", 8),
    ),
    stream("tcp-up", "up"),
    stream("tcp-down", "down"),
    Row {
        name: "tcp-pingpong",
        unit: "µs CPU/round trip",
        traffic: Protocol::Tcp,
        load: Load::Command("pingpong", "--connections", 16),
    },
    Row {
        name: "tcp-conns",
        unit: "µs CPU/connection",
        traffic: Protocol::Tcp,
        load: Load::Command("connections", "--at-once", 8),
    },
    memory("memory-idle", Protocol::Http1, Load::Idle(Figure::Memory)),
    memory("memory-1000-h1", Protocol::Http1, Load::Hold(1_000)),
    memory("memory-1000-tcp", Protocol::Tcp, Load::Hold(1_000)),
    Row {
        name: "cpu-idle",
        unit: "ms CPU/s",
        traffic: Protocol::Http1,
        load: Load::Idle(Figure::Cpu),
    },
];

const fn http(name: &'static str, traffic: Protocol, load: Load) -> Row {
    Row {
        name,
        unit: US,
        traffic,
        load,
    }
}

const fn stream(name: &'static str, command: &'static str) -> Row {
    Row {
        name,
        unit: "µs CPU/MiB",
        traffic: Protocol::Tcp,
        load: Load::Command(command, "--connections", 1),
    }
}

const fn memory(name: &'static str, traffic: Protocol, load: Load) -> Row {
    Row {
        name,
        unit: "MiB RSS",
        traffic,
        load,
    }
}

const fn most(connections: usize, streams: usize, path: &'static str) -> Load {
    Load::Most {
        connections,
        streams,
        path,
    }
}

/// Waits until a system carries something.
pub fn wait(pair: &Pair, traffic: Protocol, site: &Site) -> Result<(), BoxError> {
    let command = if traffic == Protocol::Tcp {
        "connections"
    } else {
        "requests"
    };
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(15) {
        let probe = process::json(load(
            site,
            command,
            pair,
            &["--at-once", "1", "--seconds", "0.02"],
        ));
        if probe.is_ok_and(|report| report["done"].as_u64() > Some(0)) {
            return Ok(());
        }
        if !pair.proxies.iter().all(|id| process::is_running(*id)) {
            return Err("a proxy has ended: see the logs".into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err("it carries nothing within 15 s: see the logs".into())
}

/// Measures one row on a system that is ready.
pub fn measure(row: &Row, pair: &Pair, site: &Site, length: Duration) -> Result<Sample, BoxError> {
    let stolen = process::stolen()?;
    let mut sample = match row.load {
        Load::Idle(Figure::Memory) => memory_of(pair)?,
        Load::Idle(Figure::Cpu) => idle_cpu(pair, length)?,
        Load::Hold(connections) => {
            let (protocol, connections) = (word(row.traffic), connections.to_string());
            let args = ["--protocol", protocol, "--connections", &connections];
            let _held = Running::start_and_wait(load(site, "hold", pair, &args))?;
            std::thread::sleep(Duration::from_millis(300));
            memory_of(pair)?
        }
        _ => working(row, pair, site, length)?,
    };
    let now = process::stolen()?;
    sample.stolen = 100.0 * (now.0 - stolen.0) as f64 / (now.1 - stolen.1).max(1) as f64;
    Ok(sample)
}

fn working(row: &Row, pair: &Pair, site: &Site, length: Duration) -> Result<Sample, BoxError> {
    // Connections are made and buffers have grown before anything counts.
    generate(row, pair, site, length.min(Duration::from_millis(300)))?;
    let before = cpu(pair)?;
    let begun = Instant::now();
    let mut sample = generate(row, pair, site, length)?;
    sample.rate = sample.done as f64 / begun.elapsed().as_secs_f64();
    let spent = cpu(pair)?;
    let per_unit = |(before, after): (&Duration, &Duration)| {
        (*after - *before).as_secs_f64() * 1e6 / sample.done.max(1) as f64
    };
    sample.by_proxy = before.iter().zip(&spent).map(per_unit).collect();
    sample.figure = sum(&sample.by_proxy);
    Ok(sample)
}

fn cpu(pair: &Pair) -> Result<Vec<Duration>, BoxError> {
    pair.proxies.iter().map(|id| process::cpu(*id)).collect()
}

fn idle_cpu(pair: &Pair, length: Duration) -> Result<Sample, BoxError> {
    let before = cpu(pair)?;
    std::thread::sleep(length);
    let spent = cpu(pair)?;
    let share = |(before, after): (&Duration, &Duration)| {
        (*after - *before).as_secs_f64() * 1e3 / length.as_secs_f64()
    };
    Ok(summed(before.iter().zip(&spent).map(share).collect()))
}

fn memory_of(pair: &Pair) -> Result<Sample, BoxError> {
    let resident = |id: &u32| process::memory(*id).map(|memory| memory.resident as f64 / 1024.0);
    Ok(summed(
        pair.proxies.iter().map(resident).collect::<Result<_, _>>()?,
    ))
}

fn summed(by_proxy: Vec<f64>) -> Sample {
    let figure = sum(&by_proxy);
    Sample {
        figure,
        by_proxy,
        ..Sample::default()
    }
}

/// The sum of nothing is 0, not the −0 of the standard library.
fn sum(parts: &[f64]) -> f64 {
    parts.iter().fold(0.0, |sum, part| sum + part)
}

fn generate(row: &Row, pair: &Pair, site: &Site, length: Duration) -> Result<Sample, BoxError> {
    let seconds = length.as_secs_f64().to_string();
    match row.load {
        Load::Most {
            connections,
            streams,
            path,
        } => {
            // It counts time in whole seconds only.
            let count = match length.as_secs() {
                0 => Count::Requests(connections * streams * 20),
                seconds => Count::Seconds(seconds),
            };
            h2load(row.traffic, pair, count, (connections, streams, path))
        }
        Load::Rate(rate) => {
            let (connections, streams) = if row.traffic == Protocol::Http2 {
                ("4", "16")
            } else {
                ("32", "1")
            };
            let (rate, protocol) = (rate.to_string(), word(row.traffic));
            let args = [
                "--protocol",
                protocol,
                "--connections",
                connections,
                "--streams",
                streams,
                "--rate",
                &rate,
                "--seconds",
                &seconds,
            ];
            Ok(sample(&process::json(load(site, "rate", pair, &args))?))
        }
        Load::Command(command, width, value) => {
            let args = [width, &value.to_string(), "--seconds", &seconds];
            Ok(sample(&process::json(load(site, command, pair, &args))?))
        }
        Load::Idle(_) | Load::Hold(_) => Ok(Sample::default()),
    }
}

/// Our own generator.
pub fn load(site: &Site, command: &str, pair: &Pair, args: &[&str]) -> Command {
    let mut process = pair.client.command(site.programs.join("load"));
    process.args([command, "--to", &pair.to.to_string()]).args(args);
    process
}

fn sample(report: &Value) -> Sample {
    let field = |name: &str| report[name].as_u64();
    Sample {
        done: field("done").unwrap_or(0),
        failed: field("failed").unwrap_or(0),
        p50: field("p50"),
        p99: field("p99"),
        p999: field("p999"),
        ..Sample::default()
    }
}

/// How much `h2load` does.
#[derive(Clone, Copy, Debug)]
pub enum Count {
    /// As much as goes in these seconds.
    Seconds(u64),
    /// So many requests.
    Requests(usize),
}

/// `h2load` with so many connections, streams on each, and this path.
pub fn h2load(
    traffic: Protocol,
    pair: &Pair,
    count: Count,
    (connections, streams, path): (usize, usize, &str),
) -> Result<Sample, BoxError> {
    let mut command = pair.client.command("h2load");
    command.args(["-t1", "-c", &connections.to_string(), "-m", &streams.to_string()]);
    if traffic == Protocol::Http1 {
        command.arg("--h1");
    }
    match count {
        Count::Requests(requests) => command.args(["-n", &requests.to_string()]),
        Count::Seconds(seconds) => command.args(["-D", &seconds.to_string()]),
    };
    command.arg(format!("http://{}{path}", pair.to));
    let text = process::output(command)?;
    // Not "succeeded": its parser does not know a status line without a reason, as HAProxy writes it.
    let count = |line: &str, what: &str| {
        let line = text.lines().find_map(|found| found.strip_prefix(line));
        let item = line.and_then(|line| line.split(", ").find_map(|item| item.strip_suffix(what)));
        item.and_then(|number| number.trim().parse::<u64>().ok())
    };
    let of = |line, what| count(line, what).ok_or_else(|| format!("h2load does not say how many{what}"));
    Ok(Sample {
        done: of("requests: ", " done")?,
        failed: of("requests: ", " errored")?
            + of("requests: ", " timeout")?
            + of("status codes: ", " 4xx")?
            + of("status codes: ", " 5xx")?,
        ..Sample::default()
    })
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http1 => "h1",
        Protocol::Http2 => "h2",
        Protocol::Tcp => "tcp",
    }
}
