//! Running the tools: which of them are installed, what they read and print, and why they fail.

use crate::error::Error;
use crate::tools::{Backend, Family, Mode, Tools};
use std::io::{self, ErrorKind, Write};
use std::process::{Command, Output, Stdio};
use std::thread;

/// The tools of a mode, or the first complete pair in their place, which a warning tells.
///
/// # Errors
/// No pair for this family is on PATH.
pub fn find(mode: Mode, family: Family) -> Result<(Tools, Backend), Error> {
    let wanted = Tools::of(mode, family);
    for instead in [mode, Mode::Nft, Mode::Plain, Mode::Legacy] {
        let tools = Tools::of(instead, family);
        let Some(backend) = backend(tools, instead) else {
            continue;
        };
        if instead != mode {
            tracing::warn!(
                "{wanted} (mode {mode}) are not both on PATH: using {tools} (mode {instead}), \
                 which keep the rules in the {} backend",
                backend.mode()
            );
        }
        return Ok((tools, backend));
    }
    Err(Error::NoTools { mode, wanted })
}

/// Where such tools keep the rules; `None` unless both can be started.
fn backend(tools: Tools, mode: Mode) -> Option<Backend> {
    let [save, restore] = [tools.save, tools.restore].map(|tool| match pipe(tool, &["--version"], "") {
        // One that is there and cannot run is an error of its own when its turn comes, with the reason.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => None,
        Err(_) => Some(String::new()),
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
    });
    let (_, version) = (save?, restore?);
    Some(match mode {
        Mode::Nft => Backend::Nft,
        Mode::Legacy => Backend::Legacy,
        // Before 1.8 there was only one, and the version did not say which.
        Mode::Plain if version.contains("nf_tables") => Backend::Nft,
        Mode::Plain => Backend::Legacy,
    })
}

/// Runs a tool to its end, which must be success.
///
/// # Errors
/// It cannot be started, or ends with another status.
pub fn run(family: Family, tool: &'static str, args: &[&str], input: &str) -> Result<Output, Error> {
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

/// What a program complained of, in one line for the log. Its stdout is a table, and not wanted there.
pub fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr)
        .trim()
        .replace('\n', " | ")
}

fn hint(family: Family, said: &str) -> &'static str {
    let said = said.to_ascii_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
    if says(&["lock file"]) {
        return " (the xtables lock needs a directory /run that can be written: mount an emptyDir there)";
    }
    if says(&["holding the xtables lock"]) {
        return " (pass --use-wait-flag to wait for it)";
    }
    if says(&["permission denied", "not permitted", "must be root"]) {
        return " (it needs the capabilities NET_ADMIN and NET_RAW: add them to the container's securityContext)";
    }
    match family {
        Family::V6 => {
            " (if the node's kernel has no IPv6 NAT, load nft_chain_nat and nf_tables on it, or ip6table_nat for the mode legacy; \
             if the pod needs no IPv6, pass --ipv6=false)"
        }
        Family::V4 if says(&["failed to initialize nft", "protocol not supported"]) => {
            " (the node's kernel has no nf_tables: load nft_chain_nat on it, or pass --iptables-mode legacy)"
        }
        Family::V4 if says(&["can't initialize", "table does not exist"]) => {
            " (the node's kernel has no legacy tables: load iptable_nat on it, or pass --iptables-mode nft)"
        }
        Family::V4 => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_kernel_without_the_backend_and_a_taken_lock_are_told_with_the_flag_that_helps() {
        let hints = [
            (
                "Failed to initialize nft: Protocol not supported",
                "--iptables-mode legacy",
            ),
            (
                "can't initialize iptables table `nat': Table does not exist",
                "--iptables-mode nft",
            ),
            (
                "Another app is currently holding the xtables lock.",
                "--use-wait-flag",
            ),
            (
                "Fatal: can't open lock file /run/xtables.lock: Permission denied",
                "emptyDir",
            ),
            (
                "can't initialize iptables table `nat': Permission denied (you must be root)",
                "NET_ADMIN",
            ),
        ];
        for (said, helps) in hints {
            assert!(hint(Family::V4, said).contains(helps), "{said}");
        }
    }
}
