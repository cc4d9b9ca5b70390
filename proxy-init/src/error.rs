//! Why the redirection does not stand, and what to do about it.

use crate::tools::{Mode, Tools};
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why the redirection does not stand.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace of `--netns` could not be entered.
    #[error("cannot enter the network namespace --netns {}{hint}", .path.display())]
    Netns {
        /// As in the flag.
        path: PathBuf,
        /// What to do, where that can be known.
        hint: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Neither the programs asked for nor any in their place are there.
    #[error("{wanted} (mode {mode}) are not on PATH, nor is another pair: install iptables 1.8 or newer")]
    NoTools {
        /// The mode asked for.
        mode: Mode,
        /// Its programs.
        wanted: Tools,
    },
    /// A program is not there, or cannot be started.
    #[error("cannot run {tool}: is iptables 1.8 or newer installed and on PATH?")]
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
    /// Rules of an earlier run in the other backend could not be removed.
    #[error(
        "rules of an earlier run are still in the other backend ({tool}), and would redirect connections too: \
         remove the chains PROXY_INIT_REDIRECT and PROXY_INIT_OUTPUT there"
    )]
    LeftBehind {
        /// The program that shows them.
        tool: &'static str,
    },
    /// The kernel did not take the value of `--timeout-close-wait-secs`.
    #[error("cannot set net.netfilter.nf_conntrack_tcp_timeout_close_wait to {seconds}{hint}")]
    CloseWait {
        /// As in the flag.
        seconds: u32,
        /// What to do, where that can be known.
        hint: &'static str,
        /// What the system said.
        source: io::Error,
    },
}
