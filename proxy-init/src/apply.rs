//! Makes a plan true in a network namespace, one transaction per family, and checks that it is.

use crate::check::Saved;
use crate::config::Config;
use crate::error::Error;
use crate::rules::{Plan, plan};
use crate::run::{find, printed, run};
use crate::sysctl::set_close_wait;
use crate::tools::{Backend, Family, Tools};
use outrigger_sys::netns;
use std::path::Path;
use std::{fs, io};

/// Programs every family of the configuration, in the namespace it names. This thread is in that namespace from then on.
///
/// # Errors
/// Nothing has changed if the namespace cannot be entered or a family's table cannot be read. A failed transaction changes
/// nothing in its family; the other family may be programmed already, and the next run converges.
pub fn all(config: &Config) -> Result<(), Error> {
    if config.redirection.proxy_uid.is_none() && config.redirection.proxy_gid.is_none() {
        tracing::warn!(
            "neither --proxy-uid nor --proxy-gid is given: the proxy's own connections will be redirected to itself"
        );
    }
    config.netns.as_deref().map_or(Ok(()), enter)?;
    let ipv6 = Ipv6::at(IPV6_ADDRESSES);
    let mut changes = Vec::new();
    for family in Family::of(config.ipv6) {
        if (*family, ipv6) == (Family::V6, Ipv6::Absent) {
            tracing::warn!("this kernel has no IPv6: ip6tables is left alone");
            continue;
        }
        changes.extend(tolerate(Change::prepare(config, *family), *family, ipv6)?);
    }
    for change in changes {
        if tolerate(change.make(config.wait), change.plan.family, ipv6)?.is_some() {
            tracing::info!(family = ?change.plan.family, rules = change.plan.rules.len(), "redirection stands");
        }
    }
    // Last, since a kernel may load connection tracking, and with it this value, for the first NAT rule only.
    config.close_wait.map_or(Ok(()), set_close_wait)
}

fn enter(path: &Path) -> Result<(), Error> {
    netns::enter(path).map_err(|source| Error::Netns {
        path: path.to_owned(),
        hint: match source.kind() {
            io::ErrorKind::PermissionDenied => {
                " (it needs the capability SYS_ADMIN, and to be allowed to read the path)"
            }
            io::ErrorKind::InvalidInput => " (it is not a network namespace)",
            io::ErrorKind::NotFound => " (write a path like /run/netns/<name> or /proc/<pid>/ns/net)",
            _ => "",
        },
        source,
    })
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

/// What one family takes, known in full before anything changes.
struct Change {
    plan: Plan,
    tools: Tools,
    input: String,
    /// What removes the rules of an earlier run from the other backend, if it has any.
    removal: Option<(Tools, String)>,
}

impl Change {
    fn prepare(config: &Config, family: Family) -> Result<Self, Error> {
        let (tools, backend) = find(config.mode, family)?;
        let plan = plan(&config.redirection, family);
        let saved = save(family, tools)?;
        Ok(Self {
            input: plan.restore_input(&saved.missing_jumps(&plan)),
            removal: left_behind(family, backend.other()),
            plan,
            tools,
        })
    }

    /// The new rules first: between the two transactions a connection may follow the old ones, but none passes by the proxy.
    fn make(&self, wait: bool) -> Result<(), Error> {
        let family = self.plan.family;
        restore(family, self.tools, &self.input, wait)?;
        let differences = save(family, self.tools)?.differences(&self.plan);
        if !differences.is_empty() {
            return Err(Error::Differs {
                tool: self.tools.save,
                differences,
            });
        }
        let Some((other, removal)) = &self.removal else {
            return Ok(());
        };
        tracing::warn!(
            "rules of an earlier run are in the other backend: removing them with {}",
            other.restore
        );
        restore(family, *other, removal, wait)?;
        match save(family, *other)?.removal() {
            None => Ok(()),
            Some(_) => Err(Error::LeftBehind { tool: other.save }),
        }
    }
}

/// What removes our rules from a backend that shall have none: the kernel would follow them beside those of the other one.
fn left_behind(family: Family, backend: Backend) -> Option<(Tools, String)> {
    // To ask for a legacy table is to make it; only the list of their names can be read without a trace.
    if backend == Backend::Legacy && !has_legacy_nat(family) {
        return None;
    }
    let tools = Tools::of(backend.mode(), family);
    match save(family, tools) {
        Ok(saved) => saved.removal().map(|removal| (tools, removal)),
        Err(error) if backend == Backend::Legacy => {
            tracing::warn!(
                "there is a legacy table nat that cannot be shown, and rules in it would redirect too: {error}"
            );
            None
        }
        // Without nf_tables in the kernel, or anything in the image that speaks with it, there is hardly an earlier run.
        Err(error) => {
            tracing::info!("did not look for rules of an earlier run in the nft backend: {error}");
            None
        }
    }
}

fn has_legacy_nat(family: Family) -> bool {
    let names = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    match fs::read_to_string(names) {
        Ok(names) => names.lines().any(|name| name == "nat"),
        Err(error) => {
            // Only root may read it. The usual container is not root, and its namespace is new: no cause for a warning.
            if error.kind() != io::ErrorKind::NotFound {
                tracing::info!(
                    "did not look for rules of an earlier run in the legacy backend: {names}: {error}"
                );
            }
            false
        }
    }
}

fn save(family: Family, tools: Tools) -> Result<Saved, Error> {
    let tool = tools.save;
    let output = run(family, tool, &["-t", "nat"], "")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // iptables then prints a comment in place of the table, and says success.
    if text.contains("is incompatible, use 'nft' tool") {
        return Err(Error::Foreign { tool });
    }
    Ok(Saved::parse(&text))
}

fn restore(family: Family, tools: Tools, input: &str, wait: bool) -> Result<(), Error> {
    let tool = tools.restore;
    for line in input.lines() {
        tracing::info!("{tool}: {line}");
    }
    let args: &[&str] = if wait {
        &["--noflush", "--wait"]
    } else {
        &["--noflush"]
    };
    let said = printed(&run(family, tool, args, input)?);
    if !said.is_empty() {
        tracing::info!("{tool}: {said}");
    }
    Ok(())
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
}
