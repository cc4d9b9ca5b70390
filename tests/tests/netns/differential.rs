//! The same bytes to this proxy, nginx, HAProxy and Node, each in front of an application that records what reaches it.
//!
//! `tests/corpus/http1/*.http` holds the cases, each with what the application behind us sees, and what we answer. Where the
//! others do something else is printed; that they run and serve an ordinary request is asserted.

use outrigger_e2e::http;
use outrigger_e2e::mesh::Mesh;
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::pod::{APPS, Pod};
use outrigger_e2e::recorder::Recorder;
use outrigger_e2e::{app, wait};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// One file of the corpus.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    /// What reaches the application: `method target body-length`, with `; ` between; `broken` before what is not complete.
    app: String,
    /// Status codes, `|` between those that are as good, and `close` if the connection ends.
    answers: Vec<String>,
    bytes: Vec<u8>,
}

#[test]
fn what_two_readers_could_read_in_two_ways_never_reaches_the_application() {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080]).meshed();
    let client = mesh.pod("client").meshed();
    let stranger = mesh.pod("stranger").unmeshed();
    let web = mesh.service("app", 80, &[(&server, 8080)]);
    let recorder = Recorder::serve(&server, 8080);
    let cases = corpus();
    assert!(cases.len() > 80, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for (from, pod, to) in [
        ("a stranger", &stranger, server.addr(8080)),
        ("the pair", &*client, web),
    ] {
        http::get(pod, to, "app", "/marker", &[]);
        for case in &cases {
            if let Err(why) = ours(case, pod, to, &recorder) {
                wrong.push(format!("{} from {from}: {why}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    let refused = |reason| Metrics::of(&server).sum("inbound_http_errors_total", &[("error", reason)]);
    for reason in [
        "malformed",
        "framing",
        "transfer_encoding",
        "version",
        "headers_too_large",
        "uri_too_long",
        "bad_request",
    ] {
        assert!(refused(reason) > 0.0, "{reason}");
    }
    assert_eq!(Metrics::of(&server).sum("outrigger_panics_total", &[]), 0.0);
}

/// One case through this proxy. What it says, and what the application has seen, is what the case expects.
fn ours(case: &Case, pod: &Pod, to: SocketAddr, recorder: &Recorder) -> Result<(), String> {
    let before = recorder.seen();
    let mut stream = pod.connect(to).unwrap();
    // It may close before it has read all.
    let _refused_early = stream.write_all(&case.bytes);
    let answers = until_answered(&mut stream, &case.answers).map_err(|got| format!("answers {got:?}"))?;
    let agrees = answers
        .iter()
        .zip(&case.answers)
        .all(|(got, one)| one.split('|').any(|one| one == got));
    if !agrees || answers.len() != case.answers.len() {
        return Err(format!("answers {answers:?}, not {:?}", case.answers));
    }
    // Whatever the case has brought on its way is there when a request that was sent later is.
    http::get(pod, to, "app", "/marker", &[]);
    let mut observed = recorder.observed(&before);
    // What was given up in the case before may come to light only now.
    observed.retain(|request| !request.starts_with("broken ") || request.contains(&case.name));
    let observed = observed.join("; ");
    // What is not complete may have been given up before any of it was sent on.
    let nothing_yet = observed.is_empty() && case.app.starts_with("broken ");
    if observed == case.app || nothing_yet {
        return Ok(());
    }
    Err(format!("the application saw {observed:?}, not {:?}", case.app))
}

/// Reads until as many answers are there as are expected; and then to the end, if one is expected.
fn until_answered(stream: &mut TcpStream, expected: &[String]) -> Result<Vec<String>, Vec<String>> {
    let closes = expected.last().is_some_and(|last| last == "close");
    let wanted = expected.len() - usize::from(closes);
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let mut found = statuses(&text);
        if !closes && found.len() >= wanted {
            return Ok(found);
        }
        match stream.read(&mut buffer) {
            Ok(0) => {
                found.push("close".to_owned());
                return Ok(found);
            }
            Ok(read) => text.extend_from_slice(&buffer[..read]),
            Err(error) => {
                found.push(error.to_string());
                return Err(found);
            }
        }
    }
}

/// The status codes in what was answered; no body here has a status line in it.
fn statuses(text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    let lines = text.match_indices("HTTP/1.");
    let codes = lines.filter_map(|(at, _)| text.get(at + 9..at + 12));
    codes
        .filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()))
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_others_make_of_the_same_bytes() {
    let mesh = Mesh::start();
    let peers = mesh.pod("peers").unmeshed();
    let stranger = mesh.pod("stranger").unmeshed();
    let nginx = format!("{APPS}/relay.nginx.conf");
    let haproxy = format!("{APPS}/relay.haproxy.cfg");
    let node = format!("{APPS}/relay.js");
    let _running = [
        peers.start("nginx", "www-data", &["nginx", "-p", ".", "-c", &nginx], &[]),
        peers.start("haproxy", "nobody", &["haproxy", "-db", "-f", &haproxy], &[]),
        peers.start("node", "nobody", &["node", &node, "8003", "9003"], &[]),
    ];
    let cases = corpus();
    let runs = [("nginx", 1), ("HAProxy", 2), ("Node", 3)].map(|(name, number)| {
        let (pod, to, cases) = (stranger.clone(), peers.addr(8000 + number), cases.clone());
        let recorder = Recorder::serve(&peers, 9000 + number);
        wait::until(name, || app::listens(&peers, 8000 + number));
        let run = move || {
            cases
                .iter()
                .map(|case| theirs(case, &pod, to, &recorder))
                .collect::<Vec<_>>()
        };
        (name, thread::spawn(run))
    });
    let runs = runs.map(|(name, run)| (name, run.join().unwrap()));
    for (at, case) in cases.iter().enumerate() {
        let ours = format!("{} | {}", case.answers.join(" "), case.app);
        println!("{:24} ours     {ours}", case.name);
        for (name, seen) in &runs {
            if seen[at] != ours {
                println!("{:24} {name:8} {}", "", seen[at]);
            }
            if case.name == "plain-get" {
                assert_eq!(seen[at], ours, "{name}: {}", case.name);
            }
        }
    }
}

/// What somebody else answers, and what reaches the application behind.
fn theirs(case: &Case, pod: &Pod, to: SocketAddr, recorder: &Recorder) -> String {
    let before = recorder.seen();
    let mut stream = pod.connect(to).unwrap();
    stream.set_read_timeout(Some(QUIET)).unwrap();
    let _refused_early = stream.write_all(&case.bytes);
    let (mut text, mut end) = (Vec::new(), Vec::new());
    match stream.read_to_end(&mut text) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        _ => end.push("close".to_owned()),
    }
    let answers = [statuses(&text), end].concat().join(" ");
    format!("{answers} | {}", recorder.observed(&before).join("; "))
}

/// Silence after which another proxy is taken to have said all. Nothing is asserted that depends on it but that an ordinary
/// request is answered.
const QUIET: Duration = Duration::from_millis(300);

fn corpus() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/http1");
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let mut paths: Vec<_> = files.collect();
    paths.sort();
    paths.iter().map(|path| case(path)).collect()
}

fn case(path: &Path) -> Case {
    let text = fs::read_to_string(path).unwrap();
    let said = |what: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(what));
        line.unwrap_or_else(|| panic!("{what:?} is missing in {}", path.display()))
            .trim()
            .to_owned()
    };
    let body: String = text.lines().filter(|line| !line.starts_with("# ")).collect();
    Case {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        app: said("# app:"),
        answers: said("# answers:").split(' ').map(str::to_owned).collect(),
        bytes: unescaped(&repeated(&body)),
    }
}

/// `{text*n}` is the text n times.
fn repeated(text: &str) -> String {
    let Some((before, rest)) = text.split_once('{') else {
        return text.to_owned();
    };
    let (inner, after) = rest.split_once('}').unwrap();
    let (what, times) = inner.rsplit_once('*').unwrap();
    before.to_owned() + &what.repeat(times.parse().unwrap()) + &repeated(after)
}

/// `\r`, `\n`, `\t` and `\xHH`; line ends of the file are none.
fn unescaped(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'x') => {
                    let digits: String = rest.by_ref().take(2).map(char::from).collect();
                    u8::from_str_radix(&digits, 16).unwrap()
                }
                other => panic!("no escape: {other:?}"),
            },
            byte => byte,
        });
    }
    bytes
}
