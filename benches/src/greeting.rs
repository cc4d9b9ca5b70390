//! How long a server that speaks first takes to be heard: MariaDB on a port about which nothing is configured.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use outrigger_e2e::app;
use outrigger_e2e::mesh::Mesh;
use outrigger_e2e::pod::Pod;
use serde::Serialize;

use crate::BoxError;

const PORT: u16 = 13_306;
const LATER: usize = 50;
/// Longer than any proxy waits for a client.
const PATIENCE: Duration = Duration::from_secs(30);

/// From `connect` to the first byte of the greeting, in microseconds.
#[derive(Debug, Serialize)]
pub struct Greetings {
    /// Which way.
    pub system: &'static str,
    /// The first connection.
    pub first: u64,
    /// The later ones, one after another, in their order.
    pub later: Vec<u64>,
}

/// Measures without a mesh and with one.
pub fn measure() -> Result<[Greetings; 2], BoxError> {
    // The testkit panics where a test would fail.
    catch_unwind(AssertUnwindSafe(both_ways))
        .map_err(|_| "the mesh did not start: the panic above says why")?
        .map_err(Into::into)
}

fn both_ways() -> io::Result<[Greetings; 2]> {
    let mesh = Mesh::start();
    let (plain, stranger) = (mesh.pod("plain").unmeshed(), mesh.pod("stranger").unmeshed());
    let server = mesh.pod("server").ports(&[PORT]).meshed();
    let client = mesh.pod("client").meshed();
    let service = mesh.service("db", PORT, &[(&server, PORT)]);
    let _databases = [&plain, &server].map(|pod| app::mariadb_on(pod, PORT));
    Ok([
        greetings("direct", &stranger, plain.addr(PORT))?,
        greetings("ours", &client, service)?,
    ])
}

fn greetings(system: &'static str, pod: &Pod, addr: SocketAddr) -> io::Result<Greetings> {
    pod.run(move || {
        let first = first_byte(addr)?;
        let later = (0..LATER).map(|_| first_byte(addr)).collect::<io::Result<_>>()?;
        Ok(Greetings { system, first, later })
    })
}

fn first_byte(addr: SocketAddr) -> io::Result<u64> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut [0])?;
    let elapsed = begun.elapsed();
    // Three more bytes of length and number, then the version of the protocol; an error would begin with 0xff.
    let mut rest = [0; 4];
    stream.read_exact(&mut rest)?;
    if rest[3] != 10 {
        return Err(io::Error::other("what came is no greeting"));
    }
    Ok(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
}

/// The table, for people.
pub fn table(greetings: &[Greetings]) -> String {
    let mut text = String::from(
        "| MariaDB's greeting | first connection | later: median | later: least | later: greatest |\n|---|---|---|---|---|\n",
    );
    for Greetings { system, first, later } in greetings {
        let mut sorted = later.clone();
        sorted.sort_unstable();
        let milliseconds = |micros: &u64| *micros as f64 / 1_000.0;
        let at = |index: usize| sorted.get(index).map_or(f64::NAN, milliseconds);
        let _infallible = writeln!(
            text,
            "| {system} | {:.2} ms | {:.2} ms | {:.2} ms | {:.2} ms |",
            milliseconds(first),
            at(sorted.len() / 2),
            at(0),
            at(sorted.len().saturating_sub(1)),
        );
    }
    text
}
