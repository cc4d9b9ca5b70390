//! Makes a plan true in the network namespace of this process, one transaction per family, and checks that it is.

use crate::check::Saved;
use crate::config::Config;
use crate::rules::{Family, Plan, Rule, plan};
use std::io::{self, Write};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::{fs, thread};

/// Why the rules do not stand.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is not there, or cannot be started.
    #[error("cannot run {tool}: is iptables 1.8 or newer with its nft variant installed and on PATH?")]
    Start {
        /// The program.
        tool: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("{tool} failed ({status}): {output}{hint}")]
    Failed {
        /// The program.
        tool: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        output: String,
        /// What to do, where that can be known.
        hint: &'static str,
    },
    /// The table holds rules that iptables cannot show, so nothing could be checked.
    #[error(
        "{tool} cannot show table nat: it holds rules made by another program (nft?); \
         remove them from the pod's namespace"
    )]
    Foreign {
        /// The program.
        tool: &'static str,
    },
    /// The rules were accepted, yet are not what was asked for.
    #[error("{tool} shows other rules than those just set: {}", .differences.join("; "))]
    Differs {
        /// The program.
        tool: &'static str,
        /// A sentence each.
        differences: Vec<String>,
    },
}

/// Programs every family of the configuration.
///
/// # Errors
/// Nothing has changed if a family's table cannot be read. A failed transaction changes nothing in its family; the
/// other family may be programmed already, and the next run converges.
pub fn all(config: &Config) -> Result<(), Error> {
    if config.redirection.proxy_uid.is_none() && config.redirection.proxy_gid.is_none() {
        tracing::warn!(
            "neither --proxy-uid nor --proxy-gid is given: the proxy's own connections will be redirected to itself"
        );
    }
    let ipv6 = Ipv6::at(IPV6_ADDRESSES);
    let mut changes = Vec::new();
    for family in Family::of(config.ipv6) {
        if (*family, ipv6) == (Family::V6, Ipv6::Absent) {
            tracing::warn!("this kernel has no IPv6: ip6tables is left alone");
            continue;
        }
        let plan = plan(&config.redirection, *family);
        if let Some(saved) = tolerate(save(*family), *family, ipv6)? {
            changes.push((saved.missing_jumps(&plan), plan));
        }
    }
    for (missing, plan) in changes {
        let stands = restore(&plan, &missing, config.wait).and_then(|()| verify(&plan));
        if tolerate(stands, plan.family, ipv6)?.is_some() {
            tracing::info!(family = ?plan.family, rules = plan.rules.len(), "redirection stands");
        }
    }
    Ok(())
}

/// Without an IPv6 address nothing can pass by the proxy over IPv6: a node without ip6tables must not stop such a pod.
fn tolerate<T>(result: Result<T, Error>, family: Family, ipv6: Ipv6) -> Result<Option<T>, Error> {
    match result {
        Err(error) if (family, ipv6) == (Family::V6, Ipv6::Unused) => {
            tracing::warn!("no interface has an IPv6 address, so IPv6 goes without redirection: {error}");
            Ok(None)
        }
        result => result.map(Some),
    }
}

/// The addresses in the namespace of this thread.
const IPV6_ADDRESSES: &str = "/proc/thread-self/net/if_inet6";

/// Whether the pod has IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ipv6 {
    /// The kernel does not know the protocol.
    Absent,
    /// Not even `lo` has an address.
    Unused,
    InUse,
}

impl Ipv6 {
    fn at(addresses: &str) -> Self {
        match fs::read(addresses) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Absent,
            Ok(addresses) if addresses.is_empty() => Self::Unused,
            _ => Self::InUse,
        }
    }
}

fn save(family: Family) -> Result<Saved, Error> {
    let tool = family.save();
    let output = run(family, tool, &["-t", "nat"], "")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // iptables then prints a comment in place of the table, and says success.
    if text.contains("is incompatible, use 'nft' tool") {
        return Err(Error::Foreign { tool });
    }
    Ok(Saved::parse(&text))
}

fn restore(plan: &Plan, missing: &[Rule], wait: bool) -> Result<(), Error> {
    let tool = plan.family.restore();
    let input = plan.restore_input(missing);
    for line in input.lines() {
        tracing::info!("{tool}: {line}");
    }
    let args: &[&str] = if wait {
        &["--noflush", "--wait"]
    } else {
        &["--noflush"]
    };
    let output = run(plan.family, tool, args, &input)?;
    let said = printed(&output);
    if !said.is_empty() {
        tracing::info!("{tool}: {said}");
    }
    Ok(())
}

fn verify(plan: &Plan) -> Result<(), Error> {
    let differences = save(plan.family)?.differences(plan);
    match differences.is_empty() {
        true => Ok(()),
        false => Err(Error::Differs {
            tool: plan.family.save(),
            differences,
        }),
    }
}

fn run(family: Family, tool: &'static str, args: &[&str], input: &str) -> Result<Output, Error> {
    tracing::debug!("running {tool} {}", args.join(" "));
    let output = pipe(tool, args, input).map_err(|source| Error::Start { tool, source })?;
    if output.status.success() {
        return Ok(output);
    }
    let said = printed(&output);
    let hint = hint(family, &said);
    Err(Error::Failed {
        tool,
        status: output.status,
        output: said,
        hint,
    })
}

fn pipe(tool: &str, args: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new(tool)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdin = child.stdin.take();
    thread::scope(|scope| {
        // Beside the reading of its output: neither pipe can then fill up and stop the other.
        scope.spawn(move || {
            // A program that ends before it has read all says why by its status and stderr.
            let _ = stdin.map(|mut stdin| stdin.write_all(input.as_bytes()));
        });
        child.wait_with_output()
    })
}

/// What a program printed to either stream, for a log line. `save`'s table on stdout is not wanted there.
fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr)
        .trim()
        .replace('\n', " | ")
}

fn hint(family: Family, said: &str) -> &'static str {
    let said = said.to_ascii_lowercase();
    if said.contains("permission denied") || said.contains("not permitted") || said.contains("must be root") {
        return " (it needs the capabilities NET_ADMIN and NET_RAW: add them to the container's securityContext)";
    }
    match family {
        Family::V4 => "",
        Family::V6 => {
            " (if the node's kernel has no IPv6 NAT, load nft_chain_nat and nf_tables on it; \
             if the pod needs no IPv6, pass --ipv6=false)"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_ipv6_and_a_pod_without_an_address_are_told_apart() {
        assert_eq!(Ipv6::at("/proc/thread-self/net/no-such-protocol"), Ipv6::Absent);
        assert_eq!(Ipv6::at("/dev/null"), Ipv6::Unused);
        assert_eq!(Ipv6::at("/proc/thread-self/stat"), Ipv6::InUse);
    }

    #[test]
    fn input_larger_than_a_pipe_arrives_whole() {
        let input = "x".repeat(1 << 20);
        assert_eq!(pipe("cat", &[], &input).unwrap().stdout.len(), input.len());
    }

    #[test]
    fn a_program_that_does_not_read_its_input_still_says_how_it_ended() {
        let error = run(Family::V6, "false", &[], &"x".repeat(1 << 20))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("false failed (exit status: 1)"), "{error}");
        assert!(error.contains("--ipv6=false"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_what_to_do() {
        let error = run(Family::V4, "no-such-iptables", &[], "")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no-such-iptables") && error.contains("installed"),
            "{error}"
        );
    }
}
