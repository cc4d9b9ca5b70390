//! `outrigger-init`: flags → rules → exit code (0 done, 1 failed while running, 64 wrong flags as sysexits' EX_USAGE).

use clap::Parser;
use outrigger_init::apply;
use outrigger_init::config::{Config, LogFormat};
use outrigger_init::flags::Flags;
use outrigger_init::rules;
use outrigger_init::tools::{Family, Tools};
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

const FAILED: u8 = 1;
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(usage) => {
            // Nowhere to complain about a closed stderr.
            let _ = usage.print();
            return if usage.use_stderr() {
                USAGE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let config = match Config::parse(&flags) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return USAGE.into();
        }
    };
    init_log(&config);
    let result: Result<(), Box<dyn Error>> = match config.simulate {
        true => simulate(&config).map_err(Into::into),
        false => apply::all(&config).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", chain(&*error));
            FAILED.into()
        }
    }
}

/// Logs go to stdout, as Linkerd's do, except where stdout is the answer: `--simulate | iptables-restore` must work.
fn init_log(config: &Config) {
    let writer = match config.simulate {
        true => BoxMakeWriter::new(io::stderr),
        false => BoxMakeWriter::new(io::stdout),
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(config.log_level)
        .with_target(false)
        .with_writer(writer);
    match config.log_format {
        LogFormat::Plain => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Prints what a first run would hand to `iptables-restore`, and runs nothing.
fn simulate(config: &Config) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if let Some(path) = &config.netns {
        writeln!(out, "# in the network namespace {path:?}")?;
    }
    for family in Family::of(config.ipv6) {
        let plan = rules::plan(&config.redirection, *family);
        write!(
            out,
            "# {} --noflush\n{}",
            Tools::of(config.mode, *family).restore,
            plan.restore_input(&plan.jumps)
        )?;
    }
    if let Some(seconds) = config.close_wait {
        writeln!(
            out,
            "# sysctl -w net.netfilter.nf_conntrack_tcp_timeout_close_wait={seconds}"
        )?;
    }
    out.flush()
}

/// An error and its causes, outermost first.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
