//! HTTP/2 in bad faith: floods, bombs and readers that stop, from clients, applications and servers; and ordinary
//! traffic through the same proxy, which notices nothing. `--nocapture` prints what each attack costs.

use outrigger_e2e::app;
use outrigger_e2e::h2raw::{self, END_HEADERS, END_STREAM, Frames, Outcome, frame, kind};
use outrigger_e2e::mesh::{Mesh, Meshed};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::pod::{APPS, HOME, Pod};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Frames that an attack sends at most: its connection has to end before.
const MANY: u32 = 50_000;
/// Bytes of memory that an attack may cost beyond what the proxy had.
const MEMORY: u64 = 24 << 20;

/// Something a peer may do, and the `reason` that it is ended with.
struct Attack {
    name: &'static str,
    reason: &'static str,
    frames: fn() -> Frames,
}

/// What clients do.
const CLIENTS: &[Attack] = &[
    Attack {
        name: "rapid reset (CVE-2023-44487)",
        reason: "rapid_reset",
        frames: || each_stream(|stream| [h2raw::get(stream, "/"), h2raw::cancel(stream)].concat()),
    },
    Attack {
        name: "made resets (CVE-2025-8671)",
        reason: "made_reset",
        frames: || {
            each_stream(|stream| [h2raw::get(stream, "/"), h2raw::window_update(stream, MAX_WINDOW)].concat())
        },
    },
    Attack {
        name: "more streams than allowed",
        reason: "made_reset",
        frames: || each_stream(|stream| h2raw::post(stream, "/")),
    },
    Attack {
        name: "PING",
        reason: "ping",
        frames: || again(frame(kind::PING, 0, 0, b"pingpong")),
    },
    Attack {
        name: "SETTINGS",
        reason: "settings",
        frames: || again(h2raw::settings(&[(4, 65_535)])),
    },
    Attack {
        name: "PRIORITY",
        reason: "priority",
        frames: || each_stream(|stream| frame(kind::PRIORITY, 0, stream, &[0, 0, 0, 0, 255])),
    },
    Attack {
        name: "WINDOW_UPDATE",
        reason: "window_update",
        frames: || again(h2raw::window_update(0, 1)),
    },
    Attack {
        name: "unknown frames",
        reason: "other_frames",
        frames: || again(frame(0xbe, 0xff, 0, b"")),
    },
    Attack {
        name: "CONTINUATION (CVE-2024-27316)",
        reason: "continuation",
        frames: || {
            let open = frame(kind::HEADERS, END_STREAM, 1, &h2raw::head("GET", "/", "web"));
            after(open, again(frame(kind::CONTINUATION, 0, 1, b"")))
        },
    },
    Attack {
        name: "empty DATA",
        reason: "small_data",
        frames: || after(h2raw::post(1, "/"), again(frame(kind::DATA, 0, 1, b""))),
    },
    Attack {
        name: "HPACK bomb",
        reason: "header_list",
        frames: || once(bomb(1, &h2raw::head("GET", "/", "web"))),
    },
    Attack {
        name: "cookie crumbs",
        reason: "header_list",
        frames: crumbs,
    },
    Attack {
        name: "window overflow",
        reason: "flow_control_error",
        frames: || Box::new(vec![h2raw::window_update(0, MAX_WINDOW); 2].into_iter()),
    },
    Attack {
        name: "an index that is not in the table",
        reason: "protocol_error",
        frames: || {
            once(frame(
                kind::HEADERS,
                END_STREAM | END_HEADERS,
                1,
                &[0xff, 0xff, 0x7f],
            ))
        },
    },
    Attack {
        name: "a frame longer than allowed",
        reason: "frame_size_error",
        frames: || after(h2raw::post(1, "/"), again(frame(kind::DATA, 0, 1, &[0; 20_000]))),
    },
    Attack {
        name: "PUSH_PROMISE from a client",
        reason: "protocol_error",
        frames: || once(frame(kind::PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])),
    },
];

/// What servers do.
const SERVERS: &[Attack] = &[
    Attack {
        name: "PING",
        reason: "ping",
        frames: || again(frame(kind::PING, 0, 0, b"pingpong")),
    },
    Attack {
        name: "SETTINGS",
        reason: "settings",
        frames: || again(h2raw::settings(&[(4, 65_535)])),
    },
    Attack {
        name: "WINDOW_UPDATE",
        reason: "window_update",
        frames: || again(h2raw::window_update(0, 1)),
    },
    Attack {
        name: "unknown frames",
        reason: "other_frames",
        frames: || again(frame(0xbe, 0xff, 0, b"")),
    },
    Attack {
        name: "interim answers",
        reason: "informational",
        frames: || again(frame(kind::HEADERS, END_HEADERS, 1, b"\x08\x03103")),
    },
    Attack {
        name: "CONTINUATION",
        reason: "continuation",
        frames: || {
            after(
                frame(kind::HEADERS, 0, 1, &[0x88]),
                again(frame(kind::CONTINUATION, 0, 1, b"")),
            )
        },
    },
    Attack {
        name: "empty DATA",
        reason: "small_data",
        frames: || after(answer(), again(frame(kind::DATA, 0, 1, b""))),
    },
    Attack {
        name: "HPACK bomb",
        reason: "header_list",
        frames: || once(bomb(1, &[0x88])),
    },
    Attack {
        name: "PUSH_PROMISE",
        reason: "protocol_error",
        frames: || once(frame(kind::PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82])),
    },
    Attack {
        name: "more than the window",
        reason: "flow_control_error",
        frames: || after(answer(), again(frame(kind::DATA, 0, 1, &[0; 16_384]))),
    },
];

/// The largest window there is.
const MAX_WINDOW: u32 = (1 << 31) - 1;

fn once(frame: Vec<u8>) -> Frames {
    Box::new([frame].into_iter())
}

/// The same frame, many times.
fn again(frame: Vec<u8>) -> Frames {
    Box::new((0..MANY).map(move |_| frame.clone()))
}

fn after(first: Vec<u8>, rest: Frames) -> Frames {
    Box::new([first].into_iter().chain(rest))
}

/// Something on each of many new streams.
fn each_stream(what: fn(u32) -> Vec<u8>) -> Frames {
    Box::new((0..MANY).map(move |n| what(2 * n + 1)))
}

/// The head of an answer whose body follows.
fn answer() -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS, 1, &[0x88])
}

/// A field of 3,900 bytes once, and then 10,000 times in one byte each.
fn bomb(stream: u32, head: &[u8]) -> Vec<u8> {
    let mut block = head.to_vec();
    h2raw::indexed(&mut block, "x-bomb", &[b'a'; 3_900]);
    block.extend([0x80 | 62; 10_000]);
    frame(kind::HEADERS, END_STREAM | END_HEADERS, stream, &block)
}

/// 100,000 cookies in one byte each, which some count as one field.
fn crumbs() -> Frames {
    let mut block = h2raw::head("GET", "/", "web");
    h2raw::indexed(&mut block, "cookie", b"a=b");
    let open = frame(kind::HEADERS, END_STREAM, 1, &block);
    let more = frame(kind::CONTINUATION, 0, 1, &[0x80 | 62; 16_000]);
    after(open, Box::new((0..6).map(move |_| more.clone())))
}

/// A meshed server with nginx, a meshed client, and a pod without a proxy.
struct Scene {
    mesh: Mesh,
    server: Meshed,
    client: Meshed,
    stranger: Pod,
    /// nginx behind the server's proxy, as the client's applications know it.
    web: SocketAddr,
    _nginx: outrigger_e2e::process::Process,
}

impl Scene {
    fn start() -> Self {
        let mesh = Mesh::start();
        let server = mesh.pod("server").ports(&[8080, 8081]).meshed();
        let client = mesh.pod("client").meshed();
        let stranger = mesh.pod("stranger").unmeshed();
        server.sh(
            "mkdir files && head -c 4000000 /dev/zero >files/large && head -c 100000 /dev/zero >files/small",
        );
        client.sh("head -c 1000000 /dev/zero >upload");
        let nginx = app::nginx(&server);
        let web = mesh.service("web", 8081, &[(&server, 8081)]);
        Self {
            mesh,
            server,
            client,
            stranger,
            web,
            _nginx: nginx,
        }
    }
}

/// Ordinary requests without a pause, in batches of `h2load`, until it is stopped.
struct Ordinary {
    stop: Arc<AtomicBool>,
    batches: thread::JoinHandle<u32>,
}

impl Ordinary {
    fn start(pod: Pod, addr: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let batches = thread::spawn(move || {
            let mut batches = 0;
            while batches == 0 || !stopped.load(Ordering::Relaxed) {
                h2load(&pod, &format!("-n 2000 -c 4 -m 10 http://{addr}/"));
                batches += 1;
            }
            batches
        });
        Self { stop, batches }
    }

    /// How many batches were answered, every request of them well.
    fn stop(self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.batches.join().unwrap()
    }
}

/// Runs h2load, all of whose requests must be answered well.
fn h2load(pod: &Pod, arguments: &str) {
    let printed = pod.sh(&format!("timeout 100 h2load {arguments}"));
    let all_well = printed.contains(" 0 failed, 0 errored, 0 timeout") && !printed.contains(" 0 2xx");
    assert!(all_well, "{printed}");
}

/// What a proxy has used so far.
#[derive(Clone, Copy)]
struct Used {
    /// Nanoseconds on a processor.
    cpu: u64,
    /// Bytes of anonymous memory.
    memory: u64,
}

impl Used {
    fn by(pod: &Meshed) -> Self {
        let proc = format!("/proc/{}", pod.proxy().pid());
        let status = fs::read_to_string(format!("{proc}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib: u64 = line.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
        let of_thread = |task: std::io::Result<fs::DirEntry>| -> u64 {
            let stat = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
            stat.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
        };
        Self {
            cpu: fs::read_dir(format!("{proc}/task")).unwrap().map(of_thread).sum(),
            memory: kib << 10,
        }
    }
}

/// Connections that a proxy has ended for this reason.
fn ended(pod: &Meshed, peer: &str, reason: &str) -> f64 {
    let labels = [("peer", peer), ("reason", reason)];
    Metrics::of(pod).sum("outrigger_http2_abuse_total", &labels)
}

/// What a proxy has ended connections for.
fn all_ended(pod: &Meshed) -> Vec<String> {
    let text = Metrics::of(pod).text;
    let lines = text
        .lines()
        .filter(|line| line.starts_with("outrigger_http2_abuse_total"));
    lines.map(str::to_owned).collect()
}

/// The proxy runs, is ready, nothing in it has panicked, and it has not grown.
fn assert_unharmed(pod: &Meshed, before: Used, what: &str) {
    assert!(pod.proxy().runs() && pod.is_ready(), "{what}");
    assert_eq!(Metrics::of(pod).sum("outrigger_panics_total", &[]), 0.0, "{what}");
    let grown = Used::by(pod).memory.saturating_sub(before.memory);
    assert!(grown < MEMORY, "{what}: {grown} bytes more");
}

/// Runs each attack of clients from this pod, and sees it ended by this proxy.
fn attack_each(from: &Pod, addr: SocketAddr, proxy: &Meshed) {
    let start = Used::by(proxy);
    for Attack { name, reason, frames } in CLIENTS {
        let (before, counted) = (Used::by(proxy), ended(proxy, "src", reason));
        let Outcome { sent, goaway, .. } =
            h2raw::attack(from.connect(addr).unwrap(), &h2raw::settings(&[]), frames());
        assert!(
            ended(proxy, "src", reason) > counted,
            "{name}: {:?}",
            all_ended(proxy)
        );
        report(proxy, name, sent, goaway, before);
        assert_unharmed(proxy, start, name);
    }
}

fn report(proxy: &Meshed, name: &str, sent: usize, goaway: Option<u32>, before: Used) {
    let now = Used::by(proxy);
    println!(
        "{}, {name}: {sent} frames sent, GOAWAY {goaway:?}, {} µs of CPU, {} KiB more",
        proxy.name(),
        (now.cpu - before.cpu) / 1_000,
        now.memory.saturating_sub(before.memory) >> 10,
    );
}

#[test]
fn a_client_that_attacks_is_sent_away_and_nobody_else_notices() {
    let scene = Scene::start();
    let ordinary = Ordinary::start(scene.client.pod(), scene.web);
    attack_each(&scene.stranger, scene.server.addr(8081), &scene.server);
    println!("{} batches meanwhile", ordinary.stop());
}

#[test]
fn an_application_that_attacks_is_sent_away_by_its_own_proxy() {
    let scene = Scene::start();
    let ordinary = Ordinary::start(scene.client.pod(), scene.web);
    attack_each(&scene.client, scene.web, &scene.client);
    println!("{} batches meanwhile", ordinary.stop());
    assert_eq!(
        ended(&scene.server, "src", "rapid_reset"),
        0.0,
        "the peer's proxy takes no part"
    );
}

#[test]
fn a_server_that_attacks_is_left_and_nobody_else_notices() {
    let scene = Scene::start();
    let villain = scene.mesh.pod("villain").unmeshed();
    let ordinary = Ordinary::start(scene.client.pod(), scene.web);
    let start = Used::by(&scene.client);
    for (n, Attack { name, reason, frames }) in (0..).zip(SERVERS) {
        let port = 9_000 + n;
        h2raw::hostile(&villain, port, |_stream| frames());
        let before = Used::by(&scene.client);
        let url = format!("http://{}/", villain.addr(port));
        let argv = [
            "curl",
            "-s",
            "-m",
            "20",
            "-o",
            "/dev/null",
            "--http2-prior-knowledge",
            &url,
        ];
        scene.client.output("nobody", &argv);
        let counted = ended(&scene.client, "dst", reason);
        assert!(counted > 0.0, "{name}: {:?}", all_ended(&scene.client));
        report(&scene.client, name, 0, None, before);
        assert_unharmed(&scene.client, start, name);
    }
    println!("{} batches meanwhile", ordinary.stop());
}

/// Connections whose streams are answered and then not read, and what they cost.
struct Stopped {
    streams: usize,
    _connections: Vec<std::net::TcpStream>,
}

/// Opens connections that grant no window, and on each as many streams as this; waits until all are answered.
fn stop_reading(from: &Pod, addr: SocketAddr, connections: usize, opening: fn(u32) -> Vec<u8>) -> Stopped {
    let each = |_| {
        let mut stream = from.connect(addr).unwrap();
        let ids = (0..STREAMS).map(|n| 2 * n + 1);
        let frames: Vec<u8> = ids.flat_map(opening).collect();
        let no_window = h2raw::settings(&[(4, 0)]);
        stream
            .write_all(&[h2raw::PREFACE, &no_window, &frames].concat())
            .unwrap();
        let mut heads = 0;
        while heads < STREAMS {
            let (kind, _, payload) = h2raw::read_frame(&mut stream).unwrap();
            assert_ne!(kind, kind::GOAWAY, "{payload:?}");
            heads += u32::from(kind == kind::HEADERS);
        }
        stream
    };
    Stopped {
        streams: connections * STREAMS as usize,
        _connections: (0..connections).map(each).collect(),
    }
}

/// Streams of each connection that stops reading.
const STREAMS: u32 = 20;
/// Bytes that a stream whose reader has stopped may cost.
const PER_STOPPED_STREAM: u64 = 300 << 10;

#[test]
fn readers_that_stop_cost_what_their_windows_hold_and_stop_nobody_else() {
    let scene = Scene::start();
    let addr = scene.server.addr(8081);
    h2load(
        &scene.client,
        &format!("-n 2000 -c 4 -m 10 http://{}/", scene.web),
    );
    let kinds: [(&str, fn(u32) -> Vec<u8>); 2] = [
        ("of a large file", |stream| h2raw::get(stream, "/files/large")),
        ("with 60 large fields in 60 bytes", |stream| {
            let mut block = h2raw::head("GET", "/files/large", "web");
            let value = [b'a'; 200];
            if stream == 1 {
                h2raw::indexed(&mut block, "x-large", &value);
            }
            block.extend([0x80 | 62; 60]);
            frame(kind::HEADERS, END_STREAM | END_HEADERS, stream, &block)
        }),
    ];
    for (what, opening) in kinds {
        let before = Used::by(&scene.server);
        let stopped = stop_reading(&scene.stranger, addr, 5, opening);
        h2load(
            &scene.client,
            &format!("-n 2000 -c 4 -m 10 http://{}/", scene.web),
        );
        let grown = Used::by(&scene.server).memory.saturating_sub(before.memory);
        let each = grown / stopped.streams as u64;
        println!(
            "{} streams {what} that nobody reads: {each} bytes each",
            stopped.streams
        );
        assert!(each < PER_STOPPED_STREAM, "{what}: {each} bytes each");
    }
    assert_eq!(all_ended(&scene.server), [""; 0], "to stop reading is no flood");
}

#[test]
fn ordinary_traffic_is_never_taken_for_a_flood() {
    let scene = Scene::start();
    let grpc = scene.mesh.pod("grpc").ports(&[50_051]).meshed();
    let _greeter = app::greeter(&grpc, 50_051);
    let greeter = scene.mesh.service("greeter", 50_051, &[(&grpc, 50_051)]);
    let web = scene.web;
    // Many streams at once; small windows, which a reader gives back a few bytes at a time; uploads.
    h2load(&scene.client, &format!("-n 20000 -c 10 -m 100 http://{web}/"));
    h2load(
        &scene.client,
        &format!("-n 8 -c 2 -m 2 -w 7 -W 10 http://{web}/files/small"),
    );
    h2load(
        &scene.client,
        &format!("-n 50 -c 2 -m 5 -d {HOME}/upload http://{web}/"),
    );
    // One message after another, both ways; and calls that are given up as soon as they are answered.
    let program = format!("{APPS}/greeter.py");
    let address = greeter.to_string();
    for (mode, count) in [("chat", "3000"), ("cancel", "2000")] {
        let argv = ["/usr/bin/python3", &program, mode, &address, count];
        let output = scene.client.output("nobody", &argv);
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(
            printed.trim(),
            count,
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    for pod in [&scene.client, &scene.server, &grpc] {
        assert_eq!(all_ended(pod), [""; 0], "in pod {}", pod.name());
    }
}
