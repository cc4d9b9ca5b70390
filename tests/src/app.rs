//! Applications in pods, each under a user of its own that is not the proxy's.

use crate::pod::{APPS, HOME, Pod};
use crate::process::Process;
use crate::tls;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;

/// nginx: HTTP/1.1 on 8080, HTTP/2 without TLS on 8081 and on 8082, where a connection ends after 20 requests, HTTPS on
/// 8443 for the name `web`.
pub fn nginx(pod: &Pod) -> Process {
    let own = tls::self_signed("web");
    pod.file("nginx.crt", &own.certificate);
    pod.file("nginx.key", &own.key);
    pod.sh("chown www-data nginx.key nginx.crt");
    let config = format!("{APPS}/nginx.conf");
    let mut nginx = pod.start("nginx", "www-data", &["nginx", "-p", HOME, "-c", &config], &[]);
    nginx.until("it listens on 8443", || listens(pod, 8443));
    nginx
}

/// HAProxy: HTTP/2 without TLS on 8083, five streams at a time on a connection.
pub fn haproxy(pod: &Pod) -> Process {
    let config = format!("{APPS}/haproxy.cfg");
    let mut haproxy = pod.start("haproxy", "nobody", &["haproxy", "-db", "-f", &config], &[]);
    haproxy.until("it listens on 8083", || listens(pod, 8083));
    haproxy
}

/// A gRPC service written with grpcio, on this port; `greeter.py call` is its client.
pub fn greeter(pod: &Pod, port: u16) -> Process {
    let program = format!("{APPS}/greeter.py");
    let mut greeter = pod.start(
        "greeter",
        "nobody",
        &["/usr/bin/python3", &program, "serve", &port.to_string()],
        &[],
    );
    greeter.until_logged("serving");
    greeter
}

/// What the gRPC client prints when it calls this address from the pod, one line per kind of call.
pub fn call_greeter(pod: &Pod, address: &str) -> String {
    let program = format!("{APPS}/greeter.py");
    let output = pod.output("nobody", &["/usr/bin/python3", &program, "call", address]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

/// A gRPC client that calls this address from the pod twenty times a second on one channel, until SIGTERM. It fails if a
/// call does.
pub fn keep_calling(pod: &Pod, address: &str) -> Process {
    let program = format!("{APPS}/greeter.py");
    let argv = ["/usr/bin/python3", &program, "keep-calling", address];
    let mut calls = pod.start("calls", "nobody", &argv, &[]);
    calls.until_logged("calling");
    calls
}

/// An HTTP/2 application written with Node, on this port, that takes tunnels; `tunnel.js call` is its client.
pub fn tunnels(pod: &Pod, port: u16) -> Process {
    let program = format!("{APPS}/tunnel.js");
    let argv = ["node", &program, "serve", &port.to_string()];
    let mut tunnels = pod.start("tunnels", "nobody", &argv, &[]);
    tunnels.until_logged("serving");
    tunnels
}

/// What comes of a tunnel from the pod for this protocol, or for none, over HTTP/2.
pub fn open_tunnel(pod: &Pod, host: &str, protocol: &str) -> String {
    pod.sh(&format!(
        "timeout 20 node {APPS}/tunnel.js call {host} {protocol}"
    ))
}

/// An application written with Node, HTTP/1.1 on 8080 and HTTP/2 without TLS on 8081, that sends interim answers, minds
/// expectations and knows trailers.
pub fn informer(pod: &Pod) -> Process {
    let program = format!("{APPS}/informer.js");
    let mut informer = pod.start(
        "informer",
        "nobody",
        &["node", &program, "serve", "8080", "8081"],
        &[],
    );
    informer.until("it listens on 8080", || listens(pod, 8080));
    informer.until("it listens on 8081", || listens(pod, 8081));
    informer
}

/// All that a client with this version of HTTP sees when it asks that application from the pod, a line for each head. Its
/// body is one of `none`, `send` and `wait`: the last waits for 100 Continue.
pub fn ask_informer(pod: &Pod, version: u8, host: &str, path: &str, body: &str) -> Vec<String> {
    let call = format!("timeout 20 node {APPS}/informer.js call {version} {host} {path} {body}");
    pod.sh(&call).lines().map(str::to_owned).collect()
}

/// MariaDB on 3306, for the user `mesh` with the password `mesh`.
pub fn mariadb(pod: &Pod) -> Process {
    mariadb_on(pod, 3306)
}

/// The same on another port.
pub fn mariadb_on(pod: &Pod, port: u16) -> Process {
    pod.sh("mkdir db && mount -t tmpfs -o mode=755 db db && chown mysql db");
    let data = format!("--datadir={HOME}/db");
    let install = pod.output(
        "mysql",
        &["mariadb-install-db", "--no-defaults", &data, "--skip-test-db"],
    );
    assert!(
        install.status.success(),
        "{}",
        String::from_utf8_lossy(&install.stdout)
    );
    let users = pod.file(
        "users.sql",
        "CREATE USER mesh@'%' IDENTIFIED BY 'mesh';\nGRANT ALL ON *.* TO mesh@'%';\n",
    );
    let argv = [
        "mariadbd",
        "--no-defaults",
        &data,
        &format!("--socket={HOME}/db/socket"),
        &format!("--init-file={users}"),
        &format!("--port={port}"),
        "--bind-address=0.0.0.0",
        "--skip-name-resolve",
        "--innodb-flush-log-at-trx-commit=0",
    ];
    let mut mariadb = pod.start("mariadb", "mysql", &argv, &[]);
    mariadb.until("it listens", || listens(pod, port));
    mariadb
}

/// The answer of MariaDB at this host to a query from the pod, without column names.
pub fn query_mariadb(pod: &Pod, host: &str, query: &str) -> String {
    pod.sh(&format!(
        "mariadb --no-defaults --connect-timeout=20 -h {host} -P 3306 -u mesh -pmesh -N -B -e \"{query}\""
    ))
}

/// PostgreSQL on 15432 with TLS, for the user `mesh` without a password.
pub fn postgres(pod: &Pod) -> Process {
    pod.sh("mkdir pg && mount -t tmpfs -o mode=700 pg pg && chown postgres pg");
    let programs = postgres_programs();
    let data = format!("{HOME}/pg");
    let initdb = format!("{programs}/initdb");
    let argv = [
        &*initdb,
        "-D",
        &data,
        "-U",
        "mesh",
        "-A",
        "trust",
        "--no-sync",
        "--locale=C",
    ];
    let install = pod.output("postgres", &argv);
    assert!(
        install.status.success(),
        "{}",
        String::from_utf8_lossy(&install.stderr)
    );
    let own = tls::self_signed("postgres");
    pod.file("server.crt", &own.certificate);
    pod.file("server.key", &own.key);
    pod.sh(
        "cp server.crt server.key pg && chown postgres pg/server.* && chmod 600 pg/server.key
        echo host all all 0.0.0.0/0 trust >pg/pg_hba.conf",
    );
    let program = format!("{programs}/postgres");
    let mut argv = vec![&*program, "-D", &data, "-p", "15432", "-h", "0.0.0.0", "-k", ""];
    argv.extend(["-c", "ssl=on", "-c", "fsync=off"]);
    let mut postgres = pod.start("postgres", "postgres", &argv, &[]);
    postgres.until_logged("ready to accept connections");
    postgres
}

/// The answer of PostgreSQL at this host to a query from the pod, over TLS.
pub fn query_postgres(pod: &Pod, host: &str, query: &str) -> String {
    pod.sh(&format!(
        "psql -X -A -t 'host={host} port=15432 user=mesh dbname=postgres sslmode=require connect_timeout=20' -c \"{query}\""
    ))
}

fn postgres_programs() -> String {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("postgresql is installed: run tests/setup.sh");
    let mut dirs: Vec<_> = versions
        .map(|version| version.unwrap().path().join("bin"))
        .collect();
    dirs.retain(|dir| dir.join("postgres").exists());
    dirs.sort();
    dirs.pop().expect("a version of postgresql").display().to_string()
}

/// A TCP application in this process that greets first, then sends back what it gets until the client is done.
pub fn pipe(pod: &Pod, port: u16, greeting: &'static str) {
    let listener = pod.listen(port);
    let serve = move |mut stream: TcpStream| -> io::Result<()> {
        stream.write_all(greeting.as_bytes())?;
        let mut reader = stream.try_clone()?;
        io::copy(&mut reader, &mut stream)?;
        stream.shutdown(std::net::Shutdown::Write)
    };
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A client that leaves early is the test's own.
            thread::spawn(move || serve(stream));
        }
    });
}

/// Sends this, says that it is all, and answers everything that came back.
///
/// # Errors
/// Those of the connection.
pub fn send_all(stream: &mut TcpStream, text: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(text)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Whether something listens on this port of the pod itself.
pub fn listens(pod: &Pod, port: u16) -> Option<()> {
    pod.connect((Ipv4Addr::LOCALHOST, port)).ok().map(drop)
}
