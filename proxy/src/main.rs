//! The proxy's process: environment → configuration → two runtimes → application → signal → drain.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::thread;

use outrigger_proxy::app::{App, Error};
use outrigger_proxy::config::{self, Config, vars};
use outrigger_proxy::error::chain;
use outrigger_proxy::net::listen::OriginalDst;
use outrigger_proxy::telemetry::log::{self, Level};
use outrigger_proxy::telemetry::process;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{SignalKind, signal};

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
        Ok(config) => match run(config, level) {
            Ok(()) => ExitCode::SUCCESS,
            Err(code) => code,
        },
        Err(code) => code,
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

/// Runs the proxy on two runtimes: one for traffic, one thread for all else, so that neither waits for the other.
fn run(config: Config, level: Option<Level>) -> Result<(), ExitCode> {
    let failed = |error: &dyn std::error::Error| {
        eprintln!("Initialization failure: {error}");
        ExitCode::FAILURE
    };
    let control = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(&error))?;
    let traffic = traffic_runtime(&config).map_err(|error| failed(&error))?;
    let handle = control.handle().clone();
    // The thread ends with the process.
    thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || control.block_on(std::future::pending::<()>()))
        .map_err(|error| failed(&error))?;
    traffic.block_on(serve(config, level, &handle)).map_err(|error| {
        eprintln!("Initialization failure: {}", chain(&error));
        if error.is_configuration() {
            ExitCode::from(USAGE)
        } else {
            ExitCode::FAILURE
        }
    })?;
    traffic.shutdown_background();
    Ok(())
}

async fn serve(config: Config, level: Option<Level>, control: &Handle) -> Result<(), Error> {
    let app = App::new(config, OriginalDst::Kernel, control)?.with_log_level(level);
    app.run(shutdown()).await;
    Ok(())
}

/// One worker is a single-threaded runtime, more share their work.
fn traffic_runtime(config: &Config) -> std::io::Result<Runtime> {
    let workers = config.process.workers.count(outrigger_sys::cpu::available());
    if workers == 1 {
        tracing::info!("Using single-threaded proxy runtime");
        return Builder::new_current_thread().enable_all().build();
    }
    tracing::info!(workers, "Using multi-threaded proxy runtime");
    Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("proxy")
        .enable_all()
        .build()
}

/// SIGTERM or SIGINT.
async fn shutdown() {
    let (mut terminate, mut interrupt) =
        match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "signals can't be caught: the proxy will end without draining");
                return std::future::pending().await;
            }
        };
    tokio::select! {
        _ = terminate.recv() => tracing::info!("received SIGTERM, starting shutdown"),
        _ = interrupt.recv() => tracing::info!("received SIGINT, starting shutdown"),
    }
}
