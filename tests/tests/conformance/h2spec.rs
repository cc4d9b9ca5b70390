//! h2spec against the HTTP/2 servers of both sides: it passes but for the deviations of `h2spec.txt`, exactly.

use crate::echo;
use outrigger_e2e::mesh::Mesh;
use outrigger_e2e::pod::{HOME, Pod, TOOLS};
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::thread;

/// `side section: case # reason`, one on each line.
const DEVIATIONS: &str = include_str!("h2spec.txt");

#[test]
fn h2spec_passes_against_both_sides_but_for_the_known_deviations() {
    // Without a limit the case of streams beyond it is left out.
    let mesh = Mesh::start();
    let server = mesh
        .pod("server")
        .ports(&[8080])
        .env(
            "LINKERD2_PROXY_INBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS",
            "100",
        )
        .meshed();
    let client = mesh
        .pod("client")
        .env(
            "LINKERD2_PROXY_OUTBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS",
            "100",
        )
        .meshed();
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    let stranger = mesh.pod("stranger").unmeshed();
    echo::serve(&server, 8080);
    let outbound = thread::spawn({
        let client = client.pod();
        move || failures(&client, "outbound", web)
    });
    let inbound = failures(&stranger, "inbound", server.addr(8080));
    let failed: BTreeSet<_> = outbound.join().unwrap().into_iter().chain(inbound).collect();
    let known: BTreeSet<_> = DEVIATIONS.lines().filter_map(deviation).collect();
    let (new, gone): (Vec<_>, Vec<_>) = (
        failed.difference(&known).collect(),
        known.difference(&failed).collect(),
    );
    assert!(
        new.is_empty() && gone.is_empty(),
        "failures that h2spec.txt does not list: {new:#?}\nlisted, but they pass: {gone:#?}\nwhat was seen is in {}",
        mesh.dir().display()
    );
}

/// A line of the list without its reason, which every line has.
fn deviation(line: &str) -> Option<String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (case, reason) = line.split_once(" # ").expect("a deviation has its reason");
    assert!(!reason.trim().is_empty(), "{line}");
    Some(case.trim().to_owned())
}

/// What fails when h2spec runs in this pod against this address.
fn failures(pod: &Pod, side: &str, addr: SocketAddr) -> Vec<String> {
    let (host, port) = (addr.ip().to_string(), addr.port().to_string());
    let (program, report) = (format!("{TOOLS}/h2spec"), format!("{HOME}/h2spec.xml"));
    let argv = [&*program, "--strict", "-h", &host, "-p", &port, "-j", &report];
    let output = pod.output("nobody", &argv);
    fs::write(pod.dir().join("h2spec.log"), &output.stdout).unwrap();
    let report = fs::read_to_string(pod.dir().join("h2spec.xml"));
    let report =
        report.unwrap_or_else(|error| panic!("h2spec wrote no report: {error}; is it there? `make suites`"));
    let cases: Vec<_> = report.split("<testcase ").skip(1).collect();
    // What a run that ended early says is no result.
    assert!(cases.len() > 140, "{} cases on the {side} side", cases.len());
    let failed = cases.iter().filter(|case| !case.contains("\"></testcase>"));
    failed
        .map(|case| {
            let (section, title) = (attribute(case, "package"), attribute(case, "classname"));
            format!("{side} {section}: {title}")
        })
        .collect()
}

/// An attribute of an XML element; in these reports only quotation marks are escaped.
fn attribute(element: &str, name: &str) -> String {
    let start = format!("{name}=\"");
    let (_, value) = element.split_once(&*start).expect("the attribute is there");
    value.split('"').next().unwrap_or_default().replace("&#34;", "\"")
}
