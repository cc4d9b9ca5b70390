//! Processes of a run, and what they have cost.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::BoxError;

/// A process that ends with this value.
#[derive(Debug)]
pub struct Running(Child);

/// Resident memory in KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// All of it.
    pub resident: u64,
    /// What no file backs.
    pub anonymous: u64,
}

impl Running {
    /// Starts it; what it prints goes to the file.
    pub fn start(mut command: Command, log: &std::path::Path) -> Result<Self, BoxError> {
        let log = fs::OpenOptions::new().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self(command.spawn()?))
    }

    /// Starts it, and waits for its first line.
    pub fn start_and_wait(mut command: Command) -> Result<Self, BoxError> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut running = Self(command.spawn()?);
        let output = running.0.stdout.take().ok_or("its output was not piped")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        match line.is_empty() {
            true => Err("it ended before it was ready".into()),
            false => Ok(running),
        }
    }

    /// CPU time so far, user and system, of all threads.
    pub fn cpu(&self) -> Result<Duration, BoxError> {
        cpu(self.id())
    }

    /// The process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

/// Whether a process still runs.
pub fn is_running(id: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

/// CPU time of a process so far, user and system, of all its threads.
pub fn cpu(id: u32) -> Result<Duration, BoxError> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{id}/task"))? {
        // A thread that has just ended is left out.
        if let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) {
            total += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(total))
}

/// Resident memory of a process.
pub fn memory(id: u32) -> Result<Memory, BoxError> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    };
    Ok(Memory {
        resident: field("VmRSS:"),
        anonymous: field("RssAnon:"),
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is as good.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// Runs a command to its end, and returns what it printed.
pub fn output(mut command: Command) -> Result<String, BoxError> {
    let output = command.output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// Runs a command that prints one line of JSON last.
pub fn json(command: Command) -> Result<Value, BoxError> {
    let text = output(command)?;
    Ok(serde_json::from_str(text.lines().last().unwrap_or_default())?)
}

/// Time that the host took away from this machine so far, and all time, in ticks.
pub fn stolen() -> Result<(u64, u64), BoxError> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    Ok((fields.get(7).copied().unwrap_or(0), fields.iter().take(8).sum()))
}
