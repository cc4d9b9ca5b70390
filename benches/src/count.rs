//! Instructions per unit of work, counted by callgrind: they depend neither on the machine nor on its load.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

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
    /// Messages of 64 bytes there and back on one connection, for so many seconds.
    Messages(usize),
}

/// Every case: one thing at a time, as at low rates, and many at once, as at saturation.
pub const CASES: &[Case] = &[
    requests("h1-one", Protocol::Http1, (1, 1, 2_000, "/")),
    requests("h1-32", Protocol::Http1, (32, 1, 4_000, "/")),
    requests("h2-one", Protocol::Http2, (1, 1, 2_000, "/")),
    requests("h2-64", Protocol::Http2, (4, 16, 4_000, "/")),
    requests("h1-64k", Protocol::Http1, (1, 1, 400, "/64k")),
    Case {
        name: "tcp-one",
        traffic: Protocol::Tcp,
        work: Work::Messages(4),
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

/// Instructions by function, and in all.
type Spent = BTreeMap<String, f64>;

const TOTAL: &str = "PROGRAM TOTALS";

/// What starts a proxy whose instructions are counted.
pub fn tool(dir: &Path) -> Result<Vec<String>, BoxError> {
    // The proxies of a mesh have a user of their own.
    fs::set_permissions(dir, Permissions::from_mode(0o1777))?;
    let out = format!("--callgrind-out-file={}/instructions.%p", dir.display());
    let words = ["valgrind", "--quiet", "--tool=callgrind", &out];
    Ok(words.map(str::to_owned).into())
}

/// Counts what a case costs a system: a run that does much, less one that does little, so that neither the start nor the
/// end is in it. Which functions spend it stands in files named like `h1-one-ours-client`.
pub fn once(case: &Case, system: System, site: &Site) -> Result<Counted, BoxError> {
    let (few, before) = run(case.work.fifth(), case, system, site)?;
    let (many, after) = run(case.work, case, system, site)?;
    let units = many.saturating_sub(few).max(1) as f64;
    let mut counted = [0.0; 2];
    for (side, counted) in ["client", "server"].iter().zip(&mut counted) {
        let at = usize::from(*side == "server");
        let mut spent = after[at].clone();
        for (function, instructions) in &mut spent {
            *instructions -= before[at].get(function).unwrap_or(&0.0);
            *instructions /= units;
        }
        *counted = spent.get(TOTAL).copied().unwrap_or_default();
        let name = format!("{}-{}-{side}", case.name, system.name());
        fs::write(site.dir.join(name), list(&spent)?)?;
    }
    Ok(Counted(counted))
}

/// The functions that spend most, first.
fn list(spent: &Spent) -> Result<String, fmt::Error> {
    let mut functions: Vec<_> = spent.iter().filter(|(_, each)| **each >= 1.0).collect();
    functions.sort_by(|one, other| other.1.total_cmp(one.1));
    let mut text = String::new();
    for (function, instructions) in functions {
        writeln!(text, "{instructions:>9.0}  {function}")?;
    }
    Ok(text)
}

/// Starts a system, does the work, and ends it: how many units it was, and what each proxy has spent in its life.
fn run(work: Work, case: &Case, system: System, site: &Site) -> Result<(u64, Vec<Spent>), BoxError> {
    let pair = systems::start(system, case.traffic, site)?;
    rows::wait(&pair, case.traffic, site)?;
    let done = work.run(case.traffic, &pair, site)?;
    let spent = pair.proxies.iter().map(|proxy| end(*proxy, site));
    Ok((done, spent.collect::<Result<_, _>>()?))
}

impl Work {
    /// A fifth of it.
    fn fifth(self) -> Self {
        match self {
            Self::Requests(connections, streams, requests, path) => {
                Self::Requests(connections, streams, requests / 5, path)
            }
            Self::Messages(seconds) => Self::Messages((seconds / 5).max(1)),
        }
    }

    /// Does it; how many units it was.
    fn run(self, traffic: Protocol, pair: &Pair, site: &Site) -> Result<u64, BoxError> {
        match self {
            Self::Requests(connections, streams, requests, path) => {
                let count = rows::Count::Requests(requests);
                let sample = rows::h2load(traffic, pair, count, (connections, streams, path))?;
                match sample.failed {
                    0 => Ok(sample.done),
                    failed => Err(format!("{failed} requests failed").into()),
                }
            }
            Self::Messages(seconds) => {
                let args = ["--connections", "1", "--seconds", &seconds.to_string()];
                let report = process::json(rows::load(site, "pingpong", pair, &args))?;
                report["done"].as_u64().ok_or_else(|| "nothing was done".into())
            }
        }
    }
}

/// How long a proxy may take to end, and to write down what it has spent.
const END: Duration = Duration::from_secs(60);

/// Ends a proxy, and reads what it has spent.
fn end(proxy: u32, site: &Site) -> Result<Spent, BoxError> {
    let mut kill = Command::new("kill");
    kill.arg(proxy.to_string());
    process::output(kill)?;
    let dump = site.dir.join(format!("instructions.{proxy}"));
    let begun = Instant::now();
    while !fs::read_to_string(&dump).is_ok_and(|text| text.contains("\ntotals:")) {
        if begun.elapsed() > END {
            return Err(format!("{} is not complete after {END:?}", dump.display()).into());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut annotate = Command::new("callgrind_annotate");
    annotate.args(["--auto=no", "--threshold=100"]).arg(&dump);
    Ok(by_function(&process::output(annotate)?))
}

/// Reads lines like `1,234 (56.7%)  file.rs:path::function [program]`.
fn by_function(text: &str) -> Spent {
    let mut spent = Spent::new();
    for line in text.lines() {
        let Some((count, rest)) = line.trim_start().split_once(" (") else {
            continue;
        };
        let (Ok(count), Some((_share, place))) =
            (count.replace(',', "").parse::<f64>(), rest.split_once(')'))
        else {
            continue;
        };
        let place = place.split(" [").next().unwrap_or_default().trim();
        let function = match place.split_once(".rs:").or_else(|| place.split_once(".c:")) {
            Some((_file, function)) => function,
            None => place,
        };
        *spent.entry(function.to_owned()).or_default() += count;
    }
    spent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_function_are_added_and_others_are_passed_over() {
        let text = "Profile data file 'x'\n\
                    20,300 (100.0%)  PROGRAM TOTALS\n\
                    1,200 ( 5.91%)  /a/b.rs:<c::D as e::F>::poll [/bin/g]\n\
                    \x20 100 ( 0.49%)  /a/h.rs:<c::D as e::F>::poll [/bin/g]\n";
        let spent = by_function(text);
        assert_eq!(spent[TOTAL], 20_300.0);
        assert_eq!(spent["<c::D as e::F>::poll"], 1_300.0);
        assert_eq!(spent.len(), 2);
    }
}
