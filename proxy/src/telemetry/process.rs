//! The process as `/metrics` shows it: looked up in `/proc` when scraped, left out where that can't be read.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::telemetry::metric::Counter;
use crate::telemetry::registry::{Collect, Registry};
use crate::telemetry::text::{Description, Document, EncodeLabels, Kind, LabelWriter, Name, Series};

/// What was built, when and by whom. Filled in by the build's environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Build {
    /// `release` or `debug`.
    pub profile: &'static str,
    /// Version of the proxy.
    pub version: &'static str,
    /// The commit.
    pub git_sha: &'static str,
    /// Who built it.
    pub vendor: &'static str,
    /// When, RFC 3339.
    pub date: &'static str,
}

/// This build.
pub const BUILD: Build = Build {
    profile: if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    },
    version: match option_env!("OUTRIGGER_VERSION") {
        Some(version) => version,
        None => env!("CARGO_PKG_VERSION"),
    },
    git_sha: match option_env!("OUTRIGGER_GIT_SHA") {
        Some(sha) => sha,
        None => "unknown",
    },
    vendor: match option_env!("OUTRIGGER_VENDOR") {
        Some(vendor) => vendor,
        None => "outrigger",
    },
    date: match option_env!("OUTRIGGER_BUILD_DATE") {
        Some(date) => date,
        None => "unknown",
    },
};

/// User-visible clock ticks per second: 100 on every Linux, whatever its timer runs at (`proc_pid_stat(5)`).
const TICKS_PER_SECOND: f64 = 100.0;

/// What the process reports about itself beyond `/proc`.
#[derive(Clone, Debug)]
pub struct ProcessMetrics {
    /// Panics, each of which ended one task.
    pub panics: Arc<Counter>,
}

/// Answers from `/proc`.
#[derive(Debug)]
struct Process {
    started: Instant,
    started_at: SystemTime,
}

impl ProcessMetrics {
    /// Registers the families; the process counts as started now.
    pub fn register(registry: &mut Registry) -> Self {
        let panics = registry
            .counter(
                "outrigger_panics_total",
                "Panics; each ended one connection or task, and is a bug",
            )
            .handle(());
        registry.collector(Process {
            started: Instant::now(),
            started_at: SystemTime::now(),
        });
        Self { panics }
    }

    /// Counts and logs each panic from now on, besides what happened to it before.
    pub fn count_panics(&self) {
        let panics = self.panics.clone();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            panics.inc();
            tracing::error!(%panic, "A task has panicked; please report this");
            before(panic);
        }));
    }
}

/// The families, in the order of [`Process::values`].
const FAMILIES: [(&str, Kind, &str); 12] = [
    ("proxy_build_info", Kind::Gauge, "Proxy build info"),
    (
        "process_start_time_seconds",
        Kind::Gauge,
        "Time that the process started (in seconds since the UNIX epoch)",
    ),
    (
        "process_clock_time_seconds",
        Kind::Gauge,
        "Current system time (in seconds since the UNIX epoch)",
    ),
    (
        "process_uptime_seconds_total",
        Kind::Counter,
        "Total time since the process started (in seconds)",
    ),
    (
        "process_cpu_seconds_total",
        Kind::Counter,
        "Total user and system CPU time spent in seconds",
    ),
    (
        "process_virtual_memory_bytes",
        Kind::Gauge,
        "Virtual memory size in bytes",
    ),
    (
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Resident memory size in bytes",
    ),
    ("process_open_fds", Kind::Gauge, "Number of open file descriptors"),
    (
        "process_max_fds",
        Kind::Gauge,
        "Maximum number of open file descriptors",
    ),
    (
        "process_threads",
        Kind::Gauge,
        "Number of OS threads in the process",
    ),
    (
        "process_network_receive_bytes_total",
        Kind::Counter,
        "Number of bytes received by the pod's network, loopback excepted",
    ),
    (
        "process_network_transmit_bytes_total",
        Kind::Counter,
        "Number of bytes sent by the pod's network, loopback excepted",
    ),
];

impl Process {
    /// One value per family; none where it can't be known.
    fn values(&self, now: Instant) -> [Option<f64>; FAMILIES.len()] {
        let status = read("/proc/self/status");
        let field = |name: &str| status.as_deref().and_then(|text| number_after(text, name));
        let network = read("/proc/self/net/dev").map(|text| network_bytes(&text));
        let since_epoch = |time: SystemTime| {
            time.duration_since(UNIX_EPOCH)
                .ok()
                .map(|since| since.as_secs_f64())
        };
        [
            Some(1.0),
            since_epoch(self.started_at),
            since_epoch(SystemTime::now()),
            Some(now.saturating_duration_since(self.started).as_secs_f64()),
            read("/proc/self/stat").and_then(|text| cpu_seconds(&text)),
            field("VmSize:").map(|kib| kib * 1024.0),
            field("VmRSS:").map(|kib| kib * 1024.0),
            open_fds(),
            read("/proc/self/limits").and_then(|text| number_after(&text, "Max open files")),
            field("Threads:"),
            network.map(|(received, _)| received),
            network.map(|(_, sent)| sent),
        ]
    }
}

impl Collect for Process {
    fn describe(&self) -> Vec<Description> {
        FAMILIES
            .iter()
            .map(|&(name, kind, help)| Description {
                name: Name::open(name),
                kind,
                help,
                labels: if name == "proxy_build_info" {
                    Build::DOC
                } else {
                    ""
                },
            })
            .collect()
    }

    fn collect(&self, now: Instant, out: &mut Document) {
        let mut build = String::new();
        BUILD.encode(&mut LabelWriter::new(&mut build));
        for (family, value) in self.describe().iter().zip(self.values(now)) {
            if let Some(value) = value {
                family.encode(out);
                let labels = if family.labels.is_empty() { "" } else { &build };
                Series::new(out, &family.name, labels).sample(value);
            }
        }
    }
}

impl EncodeLabels for Build {
    const DOC: &'static str = "date, git_sha, profile, vendor, version";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("date", self.date);
        out.label("git_sha", self.git_sha);
        out.label("profile", self.profile);
        out.label("vendor", self.vendor);
        out.label("version", self.version);
    }
}

fn read(path: &str) -> Option<String> {
    // Not there on other platforms and in some sandboxes: the family is left out.
    std::fs::read_to_string(path).ok()
}

fn open_fds() -> Option<f64> {
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    // One of them is the directory being read.
    Some(entries.count().saturating_sub(1) as f64)
}

/// The first number of the line that starts with `name`.
fn number_after(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time in a `stat` line. The program's name may hold spaces and parentheses, so fields are counted
/// from the last one: `utime` and `stime` are the 14th and 15th of all.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

/// Bytes received and sent by all interfaces but loopback.
fn network_bytes(dev: &str) -> (f64, f64) {
    let rows = dev.lines().skip(2).filter_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        let mut numbers = numbers.split_whitespace().map(str::parse::<f64>);
        let (received, sent) = (numbers.next()?.ok()?, numbers.nth(7)?.ok()?);
        (name.trim() != "lo").then_some((received, sent))
    });
    rows.fold((0.0, 0.0), |(r, s), (received, sent)| (r + received, s + sent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_program_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b) (c)) S 1 2 3 4 5 6 7 8 9 10 250 150 0";
        assert_eq!(cpu_seconds(stat), Some(4.0));
        assert_eq!(cpu_seconds("7"), None);
    }

    #[test]
    fn loopback_is_not_counted_as_network() {
        let dev = "Inter-|\n face |\n  lo: 9 0 0 0 0 0 0 0 9 0\n eth0: 5 0 0 0 0 0 0 0 7 0\n  x: 1 0 0 0 0 0 0 0 1 0\n";
        assert_eq!(network_bytes(dev), (6.0, 8.0));
    }

    #[test]
    fn what_can_not_be_read_is_left_out() {
        assert_eq!(read("/proc/self/no-such-file"), None);
        assert_eq!(number_after("VmSize: 5 kB", "VmRSS:"), None);
        assert_eq!(number_after("VmRSS: many", "VmRSS:"), None);
    }

    #[test]
    fn a_counted_panic_is_printed() {
        let mut registry = Registry::new(Duration::from_secs(60));
        let process = ProcessMetrics::register(&mut registry);
        process.panics.inc();
        let text = registry.encode(Instant::now());
        assert!(text.contains("outrigger_panics_total 1\n"), "{text}");
        assert!(text.contains("# TYPE process_uptime_seconds counter\n"), "{text}");
        assert!(text.contains("vendor=\"outrigger\","), "{text}");
    }
}
