//! What is shown: each application protocol through the mesh, checked at both ends, in both proxies and on the wire.

use crate::stage::Stage;
use outrigger_e2e::app;
use outrigger_e2e::capture::{Capture, Flow};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::pod::Pod;
use std::net::Ipv4Addr;
use std::time::Instant;

/// Sent in every protocol, and never to be seen between the pods.
const SECRET: &str = "for-your-eyes-only";
/// Sent without the mesh, to show that a capture would have seen it.
const OPEN: &str = "for-everybody";

/// Shows and checks everything; panics at the first thing that is not as it should be.
pub(crate) fn all(stage: &Stage) {
    let capture = Capture::start(&stage.server);
    curl(
        stage,
        "HTTP/1.1",
        "http://web/",
        &[],
        "nginx heard HTTP/1.1 for web",
    );
    curl(
        stage,
        "HTTP/2",
        "http://web:81/",
        &["--http2-prior-knowledge"],
        "nginx heard HTTP/2.0 for web",
    );
    https(stage);
    grpc(stage);
    mariadb(stage);
    outside(stage);
    wire(stage, capture);
}

fn curl(stage: &Stage, protocol: &str, url: &str, flags: &[&str], expected: &str) {
    let header = format!("x-marker: {SECRET}");
    let argv = [&["curl", "-sS", "--max-time", "20", "-H", &header], flags, &[url]].concat();
    let shown = format!("curl {}", [flags, &[url]].concat().join(" "));
    let before = Counted::of(stage, "request_total");
    let (answer, took) = run(&stage.client, &argv);
    let expected = format!("{expected} from {}", stage.client.identity());
    assert!(
        answer.contains(&expected) && answer.contains(SECRET),
        "{shown}: {answer}"
    );
    before.assert_one_more(stage);
    say(
        &shown,
        took,
        &format!("curl spoke {protocol} to its proxy, and nginx was told who asks."),
    );
    identities(stage, "The request");
}

fn https(stage: &Stage) {
    let nginx = std::fs::read(stage.server.dir().join("nginx.crt")).unwrap();
    let trusted = stage.client.file("nginx.crt", nginx);
    let before = Counted::of(stage, "tcp_open_total");
    let header = format!("x-marker: {SECRET}");
    let argv = [
        "curl",
        "-sS",
        "--max-time",
        "20",
        "--cacert",
        &trusted,
        "-H",
        &header,
        "https://web/",
    ];
    let (answer, took) = run(&stage.client, &argv);
    assert!(answer.contains("nginx heard HTTPS for web"), "{answer}");
    before.assert_one_more(stage);
    say(
        "curl https://web/",
        took,
        "curl verified nginx's own certificate: its TLS passed through both proxies unopened.",
    );
    identities(stage, "Around it, the connection");
}

fn grpc(stage: &Stage) {
    let before = Counted::of(stage, "request_total");
    let began = Instant::now();
    let printed = app::call_greeter(&stage.client, "greeter:50051");
    let took = began.elapsed().as_secs_f32() * 1000.0;
    for line in [
        &format!("unary: hello mesh, you are {}", stage.client.identity()),
        "server streaming: 0 1 2 3 4",
        "both streaming: HERE AND BACK",
        "failure: FAILED_PRECONDITION on purpose asked to",
    ] {
        assert!(
            printed.lines().any(|printed| printed == line),
            "no {line:?} in:\n{printed}"
        );
    }
    before.assert_more(stage, 4.0);
    say(
        "greeter.py call greeter:50051",
        took,
        "grpcio made four calls: unary, server streaming, both streaming, and one that fails.",
    );
    identities(stage, "Each call");
}

fn mariadb(stage: &Stage) {
    let before = Counted::of(stage, "tcp_open_total");
    let began = Instant::now();
    let answer = app::query_mariadb(
        &stage.client,
        "mariadb",
        &format!("SELECT CONCAT('{SECRET}', 6 * 7)"),
    );
    let took = began.elapsed().as_secs_f32() * 1000.0;
    assert_eq!(answer.trim(), format!("{SECRET}42"));
    before.assert_one_more(stage);
    say(
        "mariadb -h mariadb -e 'SELECT …'",
        took,
        "The server speaks first here: port 3306 is opaque, nobody waited for the client's first bytes.",
    );
    identities(stage, "The connection");
}

fn outside(stage: &Stage) {
    let before = Metrics::of(&stage.server);
    let labels = [
        ("direction", "inbound"),
        ("tls", "no_identity"),
        ("target_port", "8080"),
    ];
    let header = format!("x-marker: {OPEN}");
    let url = format!("http://{}:8080/", stage.server.ip());
    let forged = format!("l5d-client-id: {}", stage.client.identity());
    let argv = [
        "curl",
        "-sS",
        "--max-time",
        "20",
        "-H",
        &header,
        "-H",
        &forged,
        &url,
    ];
    let (answer, took) = run(stage.mesh.node().outside(), &argv);
    assert!(
        answer.contains("nginx heard HTTP/1.1") && answer.contains(OPEN),
        "{answer}"
    );
    assert!(
        !answer.contains(stage.client.identity()),
        "a forged identity reached nginx: {answer}"
    );
    let more =
        Metrics::of(&stage.server).sum("request_total", &labels) - before.sum("request_total", &labels);
    assert!(
        more >= 1.0,
        "the server's proxy did not count the request from outside"
    );
    say(
        "curl http://10.77.2.2:8080/, from the node",
        took,
        "A client outside the mesh is served too, in plaintext and without an identity; the one it forged was taken off.",
    );
}

fn wire(stage: &Stage, capture: Capture) {
    // This was sent last, and shows that a capture would have seen the rest.
    capture.until_seen(OPEN.as_bytes());
    let flows = capture.stop();
    let between = |a: Ipv4Addr, b: Ipv4Addr| {
        flows
            .iter()
            .filter(move |((from, to), flow)| *from.ip() == a && *to.ip() == b && !flow.bytes.is_empty())
    };
    let (client, server) = (stage.client.ip(), stage.server.ip());
    let answers: Vec<&Flow> = between(server, client).map(|(_, flow)| flow).collect();
    let both: Vec<&Flow> = answers
        .iter()
        .copied()
        .chain(between(client, server).map(|(_, flow)| flow))
        .collect();
    assert!(!answers.is_empty(), "tcpdump saw nothing between the pods");
    assert!(
        answers.iter().all(|flow| flow.selects_tls13()),
        "a connection between the pods is not TLS 1.3"
    );
    assert!(
        both.iter().all(|flow| flow.is_tls()),
        "bytes between the pods that are no TLS records"
    );
    assert!(
        !both.iter().any(|flow| flow.contains(SECRET.as_bytes())),
        "{SECRET} can be read between the pods"
    );
    let bytes: usize = both.iter().map(|flow| flow.bytes.len()).sum();
    let count = answers.len();
    assert!(
        answers.iter().all(|flow| flow.is_post_quantum()),
        "a connection without X25519MLKEM768"
    );
    println!(
        "\u{2713} tcpdump on the server's network card
    {count} connections between the pods, {bytes} bytes: TLS 1.3 records and nothing else, keys by X25519MLKEM768.
    \"{SECRET}\", sent in all protocols above, can not be read there; what came from outside the mesh can."
    );
}

/// How often each side has counted traffic between the two identities.
struct Counted {
    family: &'static str,
    outbound: f64,
    inbound: f64,
}

impl Counted {
    fn of(stage: &Stage, family: &'static str) -> Self {
        let peer = |peer| (family == "tcp_open_total").then_some(("peer", peer));
        let mut outbound = vec![
            ("direction", "outbound"),
            ("tls", "true"),
            ("server_id", stage.server.identity()),
        ];
        let mut inbound = vec![
            ("direction", "inbound"),
            ("tls", "true"),
            ("client_id", stage.client.identity()),
        ];
        outbound.extend(peer("dst"));
        inbound.extend(peer("src"));
        Self {
            family,
            outbound: Metrics::of(&stage.client).sum(family, &outbound),
            inbound: Metrics::of(&stage.server).sum(family, &inbound),
        }
    }

    fn assert_one_more(&self, stage: &Stage) {
        self.assert_more(stage, 1.0);
    }

    fn assert_more(&self, stage: &Stage, count: f64) {
        let now = Self::of(stage, self.family);
        let (outbound, inbound) = (now.outbound - self.outbound, now.inbound - self.inbound);
        assert!(
            outbound == count && inbound == count,
            "{} between the two identities, {count} expected: {outbound} in the client's proxy, {inbound} in the server's",
            self.family
        );
    }
}

fn run(pod: &Pod, argv: &[&str]) -> (String, f32) {
    let began = Instant::now();
    let output = pod.output("nobody", argv);
    let took = began.elapsed().as_secs_f32() * 1000.0;
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}: {answer}{}",
        argv.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    (answer, took)
}

fn say(command: &str, took: f32, what: &str) {
    println!("\u{2713} {command}   ({took:.0} ms)\n    {what}");
}

fn identities(stage: &Stage, what: &str) {
    let short = |identity: &str| {
        identity
            .split(".serviceaccount")
            .next()
            .map(str::to_owned)
            .unwrap_or_default()
    };
    println!(
        "    {what} went from {} to {} with mutual TLS: both proxies counted it under these identities.",
        short(stage.client.identity()),
        short(stage.server.identity())
    );
}
