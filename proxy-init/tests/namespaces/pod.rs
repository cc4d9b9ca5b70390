//! A pod is a network namespace: run something in one, run `outrigger-init` there, look at its tables.

use outrigger_sys::netns;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::{fs, panic, thread};

/// Runs a test in a namespace of its own, where only `lo` exists.
pub(crate) fn alone<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    on_thread(|| {
        netns::isolate().expect("these tests run as root");
        sh("ip link set lo up");
        test()
    })
}

/// Runs something in a namespace that has a name.
pub(crate) fn at<T: Send + 'static>(netns: &Path, what: impl FnOnce() -> T + Send + 'static) -> T {
    let netns = netns.to_owned();
    on_thread(move || {
        netns::enter(netns).unwrap();
        what()
    })
}

fn on_thread<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(what)
        .join()
        .unwrap_or_else(|cause| panic::resume_unwind(cause))
}

/// Runs `outrigger-init` in the namespace of this thread, with its flags as one line.
pub(crate) fn init(flags: &str) -> Output {
    program().args(flags.split_whitespace()).output().unwrap()
}

/// Runs `outrigger-init`, which must succeed.
pub(crate) fn redirect(flags: &str) {
    let output = init(flags);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// The program, to be run in the namespace of this thread.
pub(crate) fn program() -> Command {
    must_not_be_the_machines();
    Command::new(env!("CARGO_BIN_EXE_outrigger-init"))
}

/// Runs the program where only these directories hold tools: its exit code, and what it logged.
pub(crate) fn init_with_path(path: &str, flags: &str) -> (Option<i32>, String) {
    let mut program = program();
    let output = program
        .args(flags.split_whitespace())
        .env("PATH", path)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// A directory of tools which are other programs: `true`, `false`, or another tool.
pub(crate) fn stand_ins<const N: usize>(dir: &str, tools: [(&str, &str); N]) -> String {
    let dir = format!("{}/{dir}", env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(&dir).unwrap();
    for (tool, program) in tools {
        let link = format!("{dir}/{tool}");
        // One of an earlier run may point elsewhere.
        let _ = fs::remove_file(&link);
        symlink(program, link).unwrap();
    }
    dir
}

/// The rules and own chains of table `nat`, as an `iptables-save` or `ip6tables-save` shows them.
pub(crate) fn saved(save: &str) -> Vec<String> {
    let text = sh(&format!("{save} -t nat"));
    let shown = |line: &&str| line.starts_with("-A ") || (line.starts_with(':') && line.contains(" - "));
    text.lines().filter(shown).map(str::to_owned).collect()
}

/// Runs a line of shell, which must succeed, and answers its output.
pub(crate) fn sh(line: &str) -> String {
    must_not_be_the_machines();
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A test that forgot its namespace would redirect the connections of the whole machine: it fails here first.
fn must_not_be_the_machines() {
    let [own, machines] =
        ["/proc/thread-self/ns/net", "/proc/self/ns/net"].map(|path| fs::read_link(path).unwrap());
    assert_ne!(own, machines, "a test outside a namespace of its own");
}

#[test]
#[should_panic(expected = "outside a namespace of its own")]
fn nothing_runs_in_the_machines_own_namespace() {
    sh("true");
}
