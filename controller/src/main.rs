//! `outrigger`: the control plane and the tools people type.

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::error::ErrorKind;
use outrigger_controller::app;
use outrigger_controller::cli::{Cli, Command, Controller, Explain, LogFormat, Token};
use outrigger_controller::explain::request::Request;
use outrigger_controller::explain::{inbound, outbound};
use outrigger_controller::identity::State;
use outrigger_controller::source::directory::Directory;
use tokio::signal::unix::{SignalKind, signal};

/// `EX_USAGE` of sysexits: something about the command line is wrong.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(refused) => return say(&refused),
    };
    let done = match cli.command {
        Command::Controller(options) => controller(*options),
        Command::Explain(options) => explain(&options),
        Command::Token(options) => token(&options),
        Command::TrustAnchors(options) => State::open(&options.state_dir)
            .map_err(Into::into)
            .and_then(|state| print(&state.trust_anchors)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outrigger: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn controller(options: Controller) -> Result<(), Box<dyn Error>> {
    let log = tracing_subscriber::fmt()
        .with_env_filter(options.log_filter()?)
        .with_writer(std::io::stderr);
    match options.log_format {
        LogFormat::Plain => log.init(),
        LogFormat::Json => log.json().init(),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let running = app::start(options).await?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending");
        running.stop().await;
        Ok(())
    })
}

fn explain(options: &Explain) -> Result<(), Box<dyn Error>> {
    let cluster = Directory::open(&options.manifests)?.cluster().borrow().clone();
    let settings = options.cluster.settings()?;
    let request = Request::new(options.method.clone(), &options.path, &options.headers);
    let mut lines: Vec<String> = cluster
        .reports
        .iter()
        .map(|report| format!("! {report}"))
        .collect();
    lines.extend(match (&options.from, &options.to, &options.inbound) {
        (Some(client), Some(to), None) => {
            let (client, to) = (client.clone(), to.clone());
            outbound::explain(&cluster, &settings, &outbound::Question { client, to, request })?
        }
        (None, None, Some((workload, port))) => {
            let question = inbound::Question {
                workload: workload.clone(),
                port: *port,
                from: options.from_ip,
                tls: options.tls()?,
                request,
            };
            inbound::explain(&cluster, &settings, &question)?
        }
        _ => return Err("give either --from and --to, or --inbound".into()),
    });
    print(&format!("{}\n", lines.join("\n")))
}

fn token(options: &Token) -> Result<(), Box<dyn Error>> {
    let state = State::open(&options.state_dir)?;
    let account = options.account()?;
    let token = state.tokens.mint(&account, options.lifetime, SystemTime::now())?;
    print(&format!("{token}\n"))
}

/// Unlike `print!` this can fail: the disk may be full, or the reader gone.
fn print(text: &str) -> Result<(), Box<dyn Error>> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Prints help to stdout and refusals to stderr, and tells them apart by the exit code.
fn say(answer: &clap::Error) -> ExitCode {
    // The reader may have closed the pipe already: there is nobody left to tell.
    let _printed = answer.print();
    match answer.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(USAGE),
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
