//! `make try`: a mesh on this machine, shown and checked step by step, which then stays up until Ctrl-C.
#![allow(clippy::unwrap_used, reason = "what fails here is shown to who started it")]

mod root;
mod stage;
mod steps;

use stage::Stage;
use std::panic::{self, AssertUnwindSafe};
use std::process::{ExitCode, exit};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Whether everything has been shown, so that Ctrl-C is the expected end.
static SHOWN: AtomicBool = AtomicBool::new(false);
/// Whether Ctrl-C has come after that.
static ENDING: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let once = std::env::args().any(|arg| arg == "--once");
    if let Err(refusal) = root::become_root() {
        eprintln!("{refusal}");
        return ExitCode::from(root::UNAVAILABLE);
    }
    end_on_signals();
    panic::set_hook(Box::new(|cause| {
        let text = cause.payload_as_str().unwrap_or("a failure without a word");
        eprintln!("\n  \u{2717} {text}");
    }));
    match panic::catch_unwind(AssertUnwindSafe(|| show(once))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => {
            stage::print_logs();
            ExitCode::FAILURE
        }
    }
}

fn show(once: bool) {
    let start = Instant::now();
    println!(
        "A mesh in network namespaces of this machine. They end with this process, and nothing stays behind.\n"
    );
    let stage = Stage::set();
    println!();
    steps::all(&stage);
    println!("\nAll of this took {:.1} s.", start.elapsed().as_secs_f32());
    if once {
        stage.end();
        println!("Both proxies drained and ended with exit code 0. Checked, and cleaned up.");
        return;
    }
    stage.tell_where_to_look();
    SHOWN.store(true, Ordering::Relaxed);
    println!("\nCtrl-C ends it.");
    while !ENDING.load(Ordering::Relaxed) {
        thread::park();
    }
    drop(stage);
    println!("\nEnded.");
}

/// Ends this process, and with it everything that it started, on SIGINT and SIGTERM: at once while it shows something,
/// tidily after.
fn end_on_signals() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let main = thread::current();
    thread::spawn(move || {
        let number = runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt()).unwrap();
            let mut terminate = signal(SignalKind::terminate()).unwrap();
            tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
                _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
            }
        });
        if !SHOWN.load(Ordering::Relaxed) {
            println!("\nEnded.");
            exit(128 + number);
        }
        ENDING.store(true, Ordering::Relaxed);
        main.unpark();
    });
}
