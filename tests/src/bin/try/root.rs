//! Network namespaces need root: be it, or stand in a user namespace where it is.

use nix::unistd::{Uid, User, getuid};
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Something that this needs is not there (`EX_UNAVAILABLE` of sysexits).
pub(crate) const UNAVAILABLE: u8 = 69;

/// The argument of the process that runs in the user namespace.
const ROOTLESS: &str = "--in-user-namespace";

/// Goes on as root: in this process, or, started again, in a user namespace with the user's subordinate ids.
pub(crate) fn become_root() -> Result<(), String> {
    if rootless() {
        // Its own /run, where a stranger to the machine's root may make directories.
        return run("mount", &["-t", "tmpfs", "-o", "mode=755", "outrigger", "/run"]);
    }
    if Uid::effective().is_root() {
        return Ok(());
    }
    let refusal = "This makes network namespaces, so it needs root: sudo -E env \"PATH=$PATH\" make try";
    let maps = ["newuidmap", "newgidmap"]
        .iter()
        .all(|program| is_installed(program));
    if !(maps && has_range("/etc/subuid") && has_range("/etc/subgid")) {
        return Err(refusal.to_owned());
    }
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let error = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--map-auto",
            "--mount",
            "--net",
            "--",
        ])
        .arg(program)
        .args(env::args_os().skip(1))
        .arg(ROOTLESS)
        .exec();
    Err(format!("unshare: {error}. {refusal}"))
}

/// Whether root is only that of a user namespace.
pub(crate) fn rootless() -> bool {
    env::args().any(|argument| argument == ROOTLESS)
}

fn is_installed(program: &str) -> bool {
    ["/usr/bin", "/bin"]
        .iter()
        .any(|dir| Path::new(dir).join(program).exists())
}

/// Whether this user has at least the 65,536 ids that Debian gives.
fn has_range(file: &str) -> bool {
    let user = User::from_uid(getuid()).ok().flatten();
    let names = [
        user.map(|user| user.name).unwrap_or_default(),
        getuid().to_string(),
    ];
    let ranges = fs::read_to_string(file).unwrap_or_default();
    ranges.lines().any(|line| {
        let mut fields = line.split(':');
        let owner = fields.next().unwrap_or_default();
        let count = fields.nth(1).and_then(|count| count.parse::<u32>().ok());
        names.iter().any(|name| name == owner) && count >= Some(65_536)
    })
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    match Command::new(program).args(args).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} {}: {status}", args.join(" "))),
        Err(error) => Err(format!("{program}: {error}")),
    }
}
