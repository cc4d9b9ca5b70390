//! The proxy's process: environment → configuration → two runtimes → application → signal → drain → signal.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use outrigger_proxy::app::{App, End, Error};
use outrigger_proxy::config::{self, Config, vars};
use outrigger_proxy::error::chain;
use outrigger_proxy::net::listen::OriginalDst;
use outrigger_proxy::reclaim;
use outrigger_proxy::telemetry::log::{self, Level};
use outrigger_proxy::telemetry::process;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The configuration is wrong (`EX_USAGE` of sysexits).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--help" || arg == "-h") {
        print!("{}", vars::help());
        return ExitCode::SUCCESS;
    }
    let level = match log::start(&config::log_from_env(&config::env::process)) {
        Ok(level) => level,
        Err(error) => {
            eprintln!("Invalid logging configuration: {error}");
            return ExitCode::from(USAGE);
        }
    };
    log::banner(&process::BUILD);
    if let Err(error) = outrigger_sys::memory::refuse_huge_pages() {
        tracing::warn!("Memory may come in huge pages, and more of it than is used: {error}");
    }
    match configured() {
        Ok(config) => {
            raise_file_limit();
            run(config, level).unwrap_or_else(|code| code)
        }
        Err(code) => code,
    }
}

/// Every connection is an open file, and the limit that processes start with is for those that hold a few.
fn raise_file_limit() {
    match outrigger_sys::files::raise_limit() {
        Ok(files) => tracing::info!(files, "Open files are limited"),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
    }
}

/// Reads the configuration, and says everything that is wrong with it at once.
fn configured() -> Result<Config, ExitCode> {
    match Config::from_env(&config::env::process) {
        Ok((config, warnings)) => {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            Ok(config)
        }
        Err(errors) => {
            for error in &errors.0 {
                tracing::error!("{error}");
            }
            eprintln!("Invalid configuration: {errors}");
            Err(ExitCode::from(USAGE))
        }
    }
}

/// How long dropping what is left may take in the end.
const CUT_TIME: Duration = Duration::from_secs(1);

/// Runs the proxy on two runtimes: one for traffic, one thread for all else, so that neither waits for the other.
fn run(config: Config, level: Option<Level>) -> Result<ExitCode, ExitCode> {
    let failed = |error: &dyn std::error::Error| {
        eprintln!("Initialization failure: {error}");
        ExitCode::FAILURE
    };
    let control = Builder::new_current_thread()
        .on_thread_park(reclaim::before_park)
        .enable_all()
        .build()
        .map_err(|error| failed(&error))?;
    let traffic = traffic_runtime(&config).map_err(|error| failed(&error))?;
    let control_handle = control.handle().clone();
    // The thread ends with the process.
    thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || control.block_on(std::future::pending::<()>()))
        .map_err(|error| failed(&error))?;
    let signals = Signals::watch(&control_handle);
    let ended = traffic.block_on(serve(config, level, &control_handle, &signals));
    // What is left is cut as its tasks are dropped.
    traffic.shutdown_timeout(CUT_TIME);
    match ended {
        Ok(End::Drained | End::OutOfTime) => Ok(ExitCode::SUCCESS),
        Ok(End::Forced) => Ok(ExitCode::from(signals.exit_code())),
        Err(error) => {
            eprintln!("Initialization failure: {}", chain(&error));
            Err(if error.is_configuration() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::FAILURE
            })
        }
    }
}

async fn serve(
    config: Config,
    level: Option<Level>,
    control: &Handle,
    signals: &Signals,
) -> Result<End, Error> {
    let app = App::new(config, OriginalDst::Kernel, control)?.with_log_level(level);
    let shutdown = async {
        let name = signals.nth(1).await;
        tracing::info!("received {name}, starting shutdown");
    };
    let force = async {
        let name = signals.nth(2).await;
        tracing::warn!("received {name} again, terminating now");
    };
    Ok(app.run(shutdown, force).await)
}

/// SIGTERM and SIGINT, as they have come so far.
#[derive(Debug)]
struct Signals(watch::Receiver<Vec<SignalKind>>);

impl Signals {
    /// Watches for them from now on, beside the traffic.
    fn watch(control: &Handle) -> Self {
        let (come, seen) = watch::channel(Vec::new());
        let _control = control.enter();
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(mut terminate), Ok(mut interrupt)) => drop(control.spawn(async move {
                // Nobody asks for a third.
                for _ in 0..2 {
                    let kind = tokio::select! {
                        _ = terminate.recv() => SignalKind::terminate(),
                        _ = interrupt.recv() => SignalKind::interrupt(),
                    };
                    come.send_modify(|kinds| kinds.push(kind));
                }
                come.closed().await;
            })),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "signals can't be caught: the proxy will end without draining");
            }
        }
        Self(seen)
    }

    /// The name of the `n`th, once it has come.
    async fn nth(&self, n: usize) -> &'static str {
        let mut seen = self.0.clone();
        let kind = match seen.wait_for(|kinds| kinds.len() >= n).await {
            Ok(kinds) => kinds[n - 1],
            // None can be caught.
            Err(_) => return std::future::pending().await,
        };
        match kind == SignalKind::interrupt() {
            true => "SIGINT",
            false => "SIGTERM",
        }
    }

    /// What a process that such a signal has ended exits with, as a shell shows it: 128 and its number.
    fn exit_code(&self) -> u8 {
        let last = self.0.borrow().last().map_or(0, SignalKind::as_raw_value);
        u8::try_from(128 + last).unwrap_or(u8::MAX)
    }
}

/// One worker is a single-threaded runtime, more share their work.
fn traffic_runtime(config: &Config) -> std::io::Result<Runtime> {
    let workers = config.process.workers.count(outrigger_sys::cpu::available());
    if workers == 1 {
        tracing::info!("Using single-threaded proxy runtime");
        return Builder::new_current_thread()
            .on_thread_park(reclaim::before_park)
            .enable_all()
            .build();
    }
    tracing::info!(workers, "Using multi-threaded proxy runtime");
    Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("proxy")
        .on_thread_park(reclaim::before_park)
        .enable_all()
        .build()
}
