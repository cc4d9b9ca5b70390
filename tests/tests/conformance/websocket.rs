//! Autobahn's WebSocket cases against an echo server: what they find through the pair is what they find without it.

use crate::pair;
use outrigger_e2e::app;
use outrigger_e2e::pod::{APPS, Pod, TOOLS};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

/// Framing, pings, reserved bits, opcodes, fragments, UTF-8, closing, limits, and of compression a case of each kind:
/// those of 12 and 13 differ only in sizes, and all of them take many minutes.
const CASES: [&str; 19] = [
    "1.", "2.", "3.", "4.", "5.", "6.", "7.", "9.", "10.", "12.1.3.", "12.1.11.", "12.2.4.", "13.1.2.",
    "13.2.2.", "13.3.2.", "13.4.2.", "13.5.2.", "13.6.2.", "13.7.2.",
];
const PORT: u16 = 9001;

#[test]
fn autobahns_cases_behave_as_they_do_without_proxies() {
    let (mesh, server, client) = pair(&[PORT]);
    let echo = mesh.service("echo", PORT, &[(&server, PORT)]);
    let program = format!("{APPS}/autobahn.py");
    let argv = ["/usr/bin/python3", &program, "serve", &PORT.to_string()];
    let mut serving = server.start("echo", "nobody", &argv, &[]);
    serving.until("it listens", || app::listens(&server, PORT));
    let through = thread::spawn({
        let client = client.pod();
        move || report(&client, echo)
    });
    // Loopback is not redirected: here no proxy takes part.
    let without = report(&server, (Ipv4Addr::LOCALHOST, PORT).into());
    let through = through.join().unwrap();
    assert!(without.len() > 300, "{} cases", without.len());
    for (through, without) in through.iter().zip(&without) {
        assert_eq!(through, without, "through the pair, and without proxies");
        assert!(!through.contains("FAILED"), "{through}");
    }
    assert_eq!(through.len(), without.len());
}

/// A line for each case: its number, how it behaved, how it closed, and the close code.
fn report(pod: &Pod, addr: SocketAddr) -> Vec<String> {
    let suite = format!("{TOOLS}/autobahntestsuite-25.10.1");
    let (program, addr) = (format!("{APPS}/autobahn.py"), addr.to_string());
    let mut argv = vec!["/usr/bin/python3", &program, "run", &suite, &addr];
    argv.extend(CASES);
    let output = pod.output("nobody", &argv);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    // Whether an echo is out before the failure that follows it is a race within the echo server.
    let lines = String::from_utf8_lossy(&output.stdout).replace("NON-STRICT", "OK");
    lines.lines().map(str::to_owned).collect()
}
