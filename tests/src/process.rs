//! A program that runs in a pod, and its log.

use crate::pod::Pod;
use crate::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// A running program; ends with its handle.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(pod: &Pod, name: &str, mut command: Command) -> Self {
        let log = pod.dir().join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        let child = pod.run(move || command.spawn());
        Self {
            name: format!("{name} in pod {}", pod.name()),
            child: child.unwrap_or_else(|error| panic!("{name} can not start: {error}")),
            log,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Where its log is.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// Waits for a condition that this program brings about.
    ///
    /// # Panics
    /// With the end of its log, when it ends before, or when [`wait::BOUND`] is over.
    pub fn until<T>(&mut self, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        let mut ended = None;
        let answer = wait::within(wait::BOUND, || {
            if let answer @ Some(_) = ask() {
                return Some(answer);
            }
            ended = self.child.try_wait().unwrap();
            ended.map(|_| None)
        });
        answer.flatten().unwrap_or_else(|| {
            let ended = ended.map_or_else(|| "still runs".to_owned(), |status| status.to_string());
            panic!(
                "{}: waited in vain until {what}; it {ended}; its log ends:\n{}",
                self.name,
                self.tail()
            )
        })
    }

    /// Waits until the log contains a text.
    pub fn until_logged(&mut self, text: &str) {
        let log = self.log.clone();
        self.until(&format!("it logs {text:?}"), || {
            String::from_utf8_lossy(&fs::read(&log).ok()?)
                .contains(text)
                .then_some(())
        });
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends SIGTERM, and goes on.
    pub fn terminate(&self) {
        kill(self.pid_t(), Signal::SIGTERM).unwrap();
    }

    /// Sends SIGKILL, and goes on: it ends as a crash would end it.
    pub fn crash(&self) {
        kill(self.pid_t(), Signal::SIGKILL).unwrap();
    }

    /// Does something while the program stands still.
    pub fn while_stopped<T>(&self, what: impl FnOnce(&Self) -> T) -> T {
        kill(self.pid_t(), Signal::SIGSTOP).unwrap();
        let stat = format!("/proc/{}/stat", self.pid());
        wait::until("the program stands still", || {
            let stat = fs::read_to_string(&stat).unwrap();
            stat.rsplit(") ").next()?.starts_with('T').then_some(())
        });
        let done = what(self);
        kill(self.pid_t(), Signal::SIGCONT).unwrap();
        done
    }

    /// Its anonymous memory, in bytes: what it has asked for and touched.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = anonymous.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("Linux tells anonymous memory in KiB") * 1024
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let name = self.name.clone();
        wait::until(&format!("the end of {name}"), || self.child.try_wait().unwrap())
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(mut self) -> ExitStatus {
        self.terminate();
        self.ended()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn pid_t(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("Linux process ids are below 2^22"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The directory of the programs that cargo built together with this one.
pub(crate) fn programs() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let mut dir = this.parent().expect("a program is in a directory");
    if dir.ends_with("deps") {
        dir = dir.parent().expect("deps is in the profile's directory");
    }
    for name in ["outrigger-proxy", "outrigger-init", "outrigger"] {
        assert!(
            dir.join(name).exists(),
            "{name} is not built: run `make programs`"
        );
    }
    dir.to_owned()
}
