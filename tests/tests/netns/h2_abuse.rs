//! HTTP/2 in bad faith: floods, bombs and readers that stop, from clients, applications and servers; and ordinary
//! traffic through the same proxy, which notices nothing. `--nocapture` prints what each attack costs.

use outrigger_e2e::app;
use outrigger_e2e::h2raw::{self, END_HEADERS, END_STREAM, Frames, Outcome, Silent, frame, kind};
use outrigger_e2e::mesh::{Mesh, Meshed};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::pod::{APPS, HOME, Pod};
use outrigger_e2e::wait;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
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
        reason: "empty_data",
        frames: || after(h2raw::post(1, "/"), again(frame(kind::DATA, 0, 1, b""))),
    },
    Attack {
        name: "HPACK bomb",
        reason: "header_list",
        frames: || once(bomb(1, &h2raw::head("GET", "/", "web"))),
    },
    Attack {
        name: "window overflow",
        reason: "flow_control_error",
        frames: || Box::new(vec![h2raw::window_update(0, MAX_WINDOW); 2].into_iter()),
    },
    Attack {
        name: "an index that is not in the table",
        reason: "compression_error",
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
        reason: "empty_data",
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

/// 16,000 cookies in one byte each, which some count as one field.
fn crumbs(stream: u32) -> Vec<u8> {
    let mut block = h2raw::head("GET", "/", "web");
    if stream == 1 {
        h2raw::indexed(&mut block, "cookie", b"a=b");
    }
    block.extend([0x80 | 62; 16_000]);
    frame(kind::HEADERS, END_STREAM | END_HEADERS, stream, &block)
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

/// Attacks again and again while ordinary requests are on their way from this pod, each of which is answered well.
fn beside_ordinary_traffic(from: &Pod, addr: SocketAddr, attack: impl Fn()) {
    println!("beside ordinary traffic:");
    let from = from.clone();
    let ordinary = thread::spawn(move || h2load(&from, &format!("-n 4000 -c 4 -m 10 http://{addr}/")));
    while !ordinary.is_finished() {
        attack();
    }
    ordinary.join().unwrap();
}

/// Runs h2load, all of whose requests must be answered well.
fn h2load(pod: &Pod, arguments: &str) {
    let printed = pod.sh(&format!("timeout 100 h2load {arguments}"));
    let all_well = printed.contains(" 0 failed, 0 errored, 0 timeout") && !printed.contains(" 0 2xx");
    assert!(all_well, "{printed}");
}

/// What a proxy uses from some moment on.
struct Watched<'a> {
    proxy: &'a Meshed,
    requests: f64,
    /// Nanoseconds on a processor.
    cpu: u64,
    /// Bytes in memory.
    memory: u64,
}

impl<'a> Watched<'a> {
    /// From now on.
    fn start(proxy: &'a Meshed) -> Self {
        // Now is the highest that its memory has been (proc_pid_clear_refs(5)).
        fs::write(format!("/proc/{}/clear_refs", proxy.proxy().pid()), "5").unwrap();
        Self {
            proxy,
            requests: requests(proxy),
            cpu: cpu(proxy),
            memory: memory(proxy, "VmRSS:"),
        }
    }

    /// How much its memory has grown at most.
    fn grown(&self) -> u64 {
        memory(self.proxy, "VmHWM:").saturating_sub(self.memory)
    }

    /// Prints what it has used, and sees that the proxy runs, is ready, has not panicked, and has not grown.
    fn finish(self, what: &str, outcome: &Outcome) {
        let (proxy, cpu, grown) = (self.proxy, cpu(self.proxy) - self.cpu, self.grown());
        let Outcome { sent, goaway, .. } = outcome;
        println!(
            "{}, {what}: {sent} frames sent, GOAWAY {goaway:?}, {} requests let in, {} µs of CPU, {} KiB at most",
            proxy.name(),
            requests(proxy) - self.requests,
            cpu / 1_000,
            grown >> 10,
        );
        assert!(proxy.proxy().runs() && proxy.is_ready(), "{what}");
        assert_eq!(
            Metrics::of(proxy).sum("outrigger_panics_total", &[]),
            0.0,
            "{what}"
        );
        assert!(grown < MEMORY, "{what}: {grown} bytes more");
    }
}

/// Requests that a proxy has passed on.
fn requests(proxy: &Meshed) -> f64 {
    Metrics::of(proxy).sum("request_total", &[])
}

/// Nanoseconds that all threads of a proxy have been on a processor.
fn cpu(proxy: &Meshed) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", proxy.proxy().pid())).unwrap();
    let of_thread = |task: std::io::Result<fs::DirEntry>| -> u64 {
        // A thread that has ended since it was listed counts for nothing.
        let stat = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
        let first = stat.split(' ').next().unwrap_or_default();
        first.parse().unwrap_or_default()
    };
    tasks.map(of_thread).sum()
}

/// A line of `/proc/<pid>/status` that is in kB, as bytes.
fn memory(proxy: &Meshed, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.proxy().pid())).unwrap();
    let text = status.lines().find_map(|each| each.strip_prefix(line)).unwrap();
    text.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
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

/// Runs each attack of clients from this pod, and sees it ended by this proxy.
fn attack_each(from: &Pod, addr: SocketAddr, proxy: &Meshed) {
    for Attack { name, reason, frames } in CLIENTS {
        let (counted, watched) = (ended(proxy, "src", reason), Watched::start(proxy));
        let stream = from.connect(addr).unwrap();
        let outcome = h2raw::attack(stream, &h2raw::settings(&[]), frames());
        watched.finish(name, &outcome);
        let now = ended(proxy, "src", reason);
        assert!(now > counted, "{name}: {:?}", all_ended(proxy));
    }
}

#[test]
fn a_client_that_attacks_is_sent_away_and_nobody_else_notices() {
    let scene = Scene::start();
    let attack = || attack_each(&scene.stranger, scene.server.addr(8081), &scene.server);
    println!("alone:");
    attack();
    beside_ordinary_traffic(&scene.client, scene.web, attack);
}

#[test]
fn an_application_that_attacks_is_sent_away_by_its_own_proxy() {
    let scene = Scene::start();
    let attack = || attack_each(&scene.client, scene.web, &scene.client);
    println!("alone:");
    attack();
    beside_ordinary_traffic(&scene.client, scene.web, attack);
    assert_eq!(
        all_ended(&scene.server),
        [""; 0],
        "the server's proxy has no part in it"
    );
}

#[test]
fn a_server_that_attacks_is_left_and_nobody_else_notices() {
    let scene = Scene::start();
    let villain = scene.mesh.pod("villain").unmeshed();
    for (port, Attack { frames, .. }) in (9_000..).zip(SERVERS) {
        h2raw::hostile(&villain, port, |_stream| frames());
    }
    let ask_each = || {
        for (port, Attack { name, reason, .. }) in (9_000..).zip(SERVERS) {
            let proxy = &scene.client;
            let (counted, watched) = (ended(proxy, "dst", reason), Watched::start(proxy));
            let url = format!("http://{}/", villain.addr(port));
            let argv = [
                "curl",
                "-s",
                "-m",
                "20",
                "-o",
                "answer",
                "--http2-prior-knowledge",
                &url,
            ];
            proxy.output("root", &argv);
            watched.finish(name, &Outcome::default());
            let now = ended(proxy, "dst", reason);
            assert!(now > counted, "{name}: {:?}", all_ended(proxy));
        }
    };
    println!("alone:");
    ask_each();
    beside_ordinary_traffic(&scene.client, scene.web, ask_each);
}

#[test]
fn many_small_fields_are_refused_before_the_application_sees_them() {
    let scene = Scene::start();
    let attack = || {
        let (counted, watched) = (requests(&scene.server), Watched::start(&scene.server));
        let mut stream = scene.stranger.connect(scene.server.addr(8081)).unwrap();
        let crumbs: Vec<u8> = (0..STREAMS).flat_map(|n| crumbs(2 * n + 1)).collect();
        stream
            .write_all(&[h2raw::PREFACE, &h2raw::settings(&[]), &crumbs].concat())
            .unwrap();
        until_answered(&mut stream);
        watched.finish("cookie crumbs", &Outcome::default());
        counted
    };
    println!("alone:");
    let before = attack();
    assert_eq!(requests(&scene.server), before, "the application was asked");
    beside_ordinary_traffic(&scene.client, scene.web, || {
        attack();
    });
}

/// Reads until as many streams as were opened have been answered or reset.
fn until_answered(stream: &mut std::net::TcpStream) {
    let mut answered = 0;
    while answered < STREAMS {
        let (kind, _, payload) = h2raw::read_frame(stream).unwrap();
        assert_ne!(kind, kind::GOAWAY, "{payload:?}");
        answered += u32::from(kind == kind::HEADERS || kind == kind::RST_STREAM);
    }
}

/// Resets that come when the application is at work already, in a measured pace.
#[test]
fn requests_that_are_given_up_again_and_again_are_given_up_at_the_application_too_and_are_not_endless() {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[9_100]).meshed();
    let stranger = mesh.pod("stranger").unmeshed();
    let app = Silent::serve(&server, 9_100);
    let kinds: [(&str, Opening); 2] = [
        ("rapid_reset", h2raw::cancel),
        ("made_reset", |stream| h2raw::window_update(stream, MAX_WINDOW)),
    ];
    for (reason, reset) in kinds {
        let (before, watched) = (app.asked(), Watched::start(&server));
        let mut stream = h2raw::open(stranger.connect(server.addr(9_100)).unwrap());
        for batch in 0..500 {
            let ids = || (0..BATCH).map(|n| 2 * (batch * BATCH + n) + 1);
            let ask: Vec<u8> = ids().flat_map(|stream| h2raw::get(stream, "/")).collect();
            let all = app.asked() + BATCH as usize;
            let ended_now = || ended(&server, "src", reason) > 0.0;
            let arrived = stream.write_all(&ask).is_ok()
                && wait::until("requests, or the end", || match app.asked() >= all {
                    true => Some(true),
                    false => ended_now().then_some(false),
                });
            // The peer may have ended it by now.
            let reset = stream.write_all(&ids().flat_map(reset).collect::<Vec<u8>>());
            if !arrived || reset.is_err() {
                break;
            }
        }
        let asked = app.asked() - before;
        watched.finish(
            &format!("{reason} in a measured pace, {asked} requests"),
            &Outcome::default(),
        );
        assert_eq!(ended(&server, "src", reason), 1.0, "{:?}", all_ended(&server));
        assert!(
            (500..5_000).contains(&asked),
            "{asked} requests on one connection"
        );
        wait::until("every request to be given up", || {
            (app.given_up() == app.asked()).then_some(())
        });
    }
}

/// Requests that are sent, and given up, at the same time.
const BATCH: u32 = 20;

/// What opens a stream.
type Opening = fn(u32) -> Vec<u8>;

/// Connections whose streams are answered and then not read, and what they cost.
struct Stopped {
    streams: usize,
    _connections: Vec<std::net::TcpStream>,
}

/// Opens connections that grant no window, and on each as many streams as this; waits until all are answered.
fn stop_reading(from: &Pod, addr: SocketAddr, connections: usize, opening: Opening) -> Stopped {
    let each = |_| {
        let mut stream = from.connect(addr).unwrap();
        let ids = (0..STREAMS).map(|n| 2 * n + 1);
        let frames: Vec<u8> = ids.flat_map(opening).collect();
        // And a table for header fields as large as there can be.
        let no_window = h2raw::settings(&[(1, u32::MAX), (4, 0)]);
        stream
            .write_all(&[h2raw::PREFACE, &no_window, &frames].concat())
            .unwrap();
        until_answered(&mut stream);
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
const PER_STOPPED_STREAM: u64 = 640 << 10;

#[test]
fn readers_that_stop_cost_what_their_windows_hold_and_stop_nobody_else() {
    let scene = Scene::start();
    let addr = scene.server.addr(8081);
    h2load(
        &scene.client,
        &format!("-n 2000 -c 4 -m 10 http://{}/", scene.web),
    );
    let kinds: [(&str, Opening); 2] = [
        ("with 60 large fields in 60 bytes", |stream| {
            let mut block = h2raw::head("GET", "/", "web");
            let value = [b'a'; 200];
            if stream == 1 {
                h2raw::indexed(&mut block, "x-large", &value);
            }
            block.extend([0x80 | 62; 60]);
            frame(kind::HEADERS, END_STREAM | END_HEADERS, stream, &block)
        }),
        ("of a large file", |stream| h2raw::get(stream, "/files/large")),
    ];
    for (what, opening) in kinds {
        let watched = Watched::start(&scene.server);
        let stopped = stop_reading(&scene.stranger, addr, 5, opening);
        h2load(
            &scene.client,
            &format!("-n 2000 -c 4 -m 10 http://{}/", scene.web),
        );
        let grown = watched.grown();
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
