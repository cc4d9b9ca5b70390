//! `make bench`: every row on every system in turn, several times over; a table, and JSON.
//!
//! `bench run [--seconds 3] [--repeat 5] [--rows a,b] [--only x,y] [--congestion cubic] [--out FILE]`, and for looking into one system
//! `bench hold --only x --traffic h1|h2|tcp`: it stays up until its input ends, or `bench count [--only x,y] [--cases a,b]`, which
//! counts instructions. `bench greeting [--out FILE]` is about MariaDB; `bench growth [--sizes 1,10]` and `bench scale` about our mesh alone.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use outrigger_benches::BoxError;
use outrigger_benches::args::Args;
use outrigger_benches::certs;
use outrigger_benches::count::{self, CASES};
use outrigger_benches::greeting;
use outrigger_benches::growth;
use outrigger_benches::namespaces::{Namespaces, Pod};
use outrigger_benches::report::Report;
use outrigger_benches::rows::{self, ROWS, Row, Sample};
use outrigger_benches::systems::{self, Site, System};

fn main() -> Result<(), BoxError> {
    let args = Args::from_command_line()?;
    if args.command()? == "greeting" {
        return greeting(&args);
    }
    let mut site = site(&args)?;
    let _application = systems::start_application(&site, &site.namespaces.inside(Pod::Server), 0)?;
    let complete = match args.command()? {
        "run" => run(&args, &site)?,
        "hold" => hold(&args, &site)?,
        "count" => count(&args, &mut site)?,
        "growth" => growth(&args, &site)?,
        "scale" => scale(&args, &site)?,
        other => return Err(format!("there is no command {other}").into()),
    };
    // Logs are worth keeping where something was left out.
    if complete {
        std::fs::remove_dir_all(&site.dir)?;
    }
    Ok(())
}

/// Measures; whether nothing was left out.
fn run(args: &Args, site: &Site) -> Result<bool, BoxError> {
    let length = Duration::from_secs_f64(args.value("--seconds").unwrap_or("3").parse()?);
    let repeat: usize = args.value("--repeat").unwrap_or("5").parse()?;
    let out = args.value("--out").unwrap_or("target/bench.json");
    let wanted = |option, name| wanted(args, option, name);
    let (mut report, mut complete) = (Report::default(), true);
    for turn in 1..=repeat {
        for row in ROWS.iter().filter(|row| wanted("--rows", row.name)) {
            for system in System::ALL.into_iter().filter(|system| takes_part(*system, row)) {
                if !wanted("--only", system.name()) {
                    continue;
                }
                eprint!("{turn}/{repeat} {} {}: ", row.name, system.name());
                match once(row, system, site, length) {
                    Ok(sample) => {
                        eprintln!("{:.1} {}, {:.0}/s", sample.figure, row.unit, sample.rate);
                        report.add(row, system, sample);
                    }
                    Err(error) => {
                        eprintln!("left out: {error}");
                        complete = false;
                    }
                }
            }
        }
    }
    std::fs::write(out, serde_json::to_string_pretty(&report.json(&site.congestion))?)?;
    println!("{}", report.table());
    Ok(complete)
}

/// Whether a list of names, where there is one, has this name.
fn wanted(args: &Args, option: &str, name: &str) -> bool {
    let list = args.value(option).ok();
    list.is_none_or(|list| list.split(',').any(|item| item == name))
}

/// Counts instructions; where they went stands in files.
fn count(args: &Args, site: &mut Site) -> Result<bool, BoxError> {
    site.tool = count::tool(&site.dir)?;
    let ours = [System::BareH1, System::BareH2, System::Ours];
    for case in CASES.iter().filter(|case| wanted(args, "--cases", case.name)) {
        let systems = ours.into_iter().filter(|system| system.carries(case.traffic));
        for system in systems.filter(|system| wanted(args, "--only", system.name())) {
            let counted = count::once(case, system, site)?;
            println!("{:<10} {:<8} {counted}", case.name, system.name());
        }
    }
    println!("where they went: {}", site.dir.display());
    Ok(false)
}

/// How costs grow.
fn growth(args: &Args, site: &Site) -> Result<bool, BoxError> {
    let sizes: Result<Vec<usize>, _> = args
        .value("--sizes")
        .unwrap_or("1,10,100,1000")
        .split(',')
        .map(str::parse)
        .collect();
    let points = growth::growth(site, &sizes?, args.value("--seconds").unwrap_or("3").parse()?)?;
    let out = args.value("--out").unwrap_or("target/growth.json");
    std::fs::write(out, serde_json::to_string_pretty(&points)?)?;
    println!("{}", growth::table(&points));
    Ok(true)
}

/// What a second processor brings.
fn scale(args: &Args, site: &Site) -> Result<bool, BoxError> {
    let scales = growth::scale(site, args.value("--seconds").unwrap_or("3").parse()?)?;
    let out = args.value("--out").unwrap_or("target/scale.json");
    std::fs::write(out, serde_json::to_string_pretty(&scales)?)?;
    println!("{}", growth::scales(&scales));
    Ok(true)
}

/// How long MariaDB's greeting takes, with the mesh and without.
fn greeting(args: &Args) -> Result<(), BoxError> {
    let greetings = greeting::measure()?;
    let out = args.value("--out").unwrap_or("target/greeting.json");
    std::fs::write(out, serde_json::to_string_pretty(&greetings)?)?;
    println!("{}", greeting::table(&greetings));
    Ok(())
}

/// Keeps one system up until the input ends.
fn hold(args: &Args, site: &Site) -> Result<bool, BoxError> {
    let (name, traffic) = (args.value("--only")?, args.protocol("--traffic")?);
    let found = System::ALL.into_iter().find(|system| system.name() == name);
    let pair = systems::start(found.ok_or("there is no such system")?, traffic, site)?;
    rows::wait(&pair, traffic, site)?;
    let command = pair.client.command("PROGRAM");
    eprintln!(
        "proxies {:?}; connect to {} by {command:?}",
        pair.proxies, pair.to
    );
    std::io::stdin().lines().count();
    Ok(true)
}

/// Without proxies there is no CPU time and no memory of theirs to measure.
fn takes_part(system: System, row: &Row) -> bool {
    let measured = system != System::Direct || !row.name.starts_with("memory") && row.name != "cpu-idle";
    system.carries(row.traffic) && measured
}

/// What Linux takes by itself, and so most nodes of a cluster.
const CONGESTION: &str = "cubic";

fn site(args: &Args) -> Result<Site, BoxError> {
    let dir = std::env::temp_dir().join(format!("outrigger-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    certs::write(&dir)?;
    let program = std::env::current_exe()?;
    let programs = program
        .parent()
        .map(PathBuf::from)
        .ok_or("the program is in no directory")?;
    let namespaces = Namespaces::new()?;
    eprintln!("configuration and logs: {}", dir.display());
    Ok(Site {
        namespaces,
        dir,
        programs,
        tool: Vec::new(),
        congestion: args.value("--congestion").unwrap_or(CONGESTION).to_owned(),
    })
}

/// A fresh pair for every measurement: what one row leaves behind does not reach the next.
fn once(row: &Row, system: System, site: &Site, length: Duration) -> Result<Sample, BoxError> {
    let pair = systems::start(system, row.traffic, site)?;
    rows::wait(&pair, row.traffic, site)?;
    rows::measure(row, &pair, site, length)
}
