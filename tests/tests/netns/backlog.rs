//! What clients send over HTTP/2 and nobody reads: bounded over all connections, and no harm to anybody else.

use outrigger_e2e::app;
use outrigger_e2e::h2raw::{self, Silent, frame, kind};
use outrigger_e2e::mesh::{Mesh, Meshed};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::pod::HOME;
use outrigger_e2e::wait;
use std::fs;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::thread;

/// Bytes that may wait unread.
const LIMIT: f64 = 16_777_216.0;
/// Bytes that a proxy may grow by meanwhile.
const BOUND: u64 = 3 * (16 << 20);
const CONNECTIONS: usize = 6;
/// Streams of each.
const STREAMS: u32 = 40;

/// Uploads as large as their windows, of which some are given up; and ones of many tiny frames, which cost little more than
/// what they bring. The size of a frame, and how many.
const UPLOADS: [(&str, usize, usize); 2] = [("full windows", 16 << 10, 16), ("tiny frames", 1, 1_500)];

#[test]
fn uploads_that_nobody_reads_hold_what_is_allowed_and_harm_nobody() {
    let mesh = Mesh::start();
    let server = mesh
        .pod("server")
        .ports(&[8080, 8081, 9_100])
        .env("LINKERD2_PROXY_HTTP2_MAX_UNREAD_BYTES", "16777216")
        .meshed();
    let (client, stranger) = (mesh.pod("client").meshed(), mesh.pod("stranger").unmeshed());
    client.sh("head -c 1000000 /dev/zero >upload");
    let (_nginx, _deaf) = (app::nginx(&server), Silent::serve(&server, 9_100));
    let web = mesh.service("web", 8081, &[(&server, 8081)]);
    let ordinary = [format!("-n 4000 -c 4 -m 10 http://{web}/"), {
        format!("-n 100 -c 2 -m 5 -d {HOME}/upload http://{web}/")
    }];
    for arguments in &ordinary {
        client.sh(&format!("h2load {arguments}"));
    }
    for (what, size, frames) in UPLOADS {
        let (before, given_up) = (memory(&server), unread(&server, "streams_given_up_total"));
        let loads = ordinary.clone().map(|arguments| {
            let client = client.clone();
            thread::spawn(move || client.sh(&format!("timeout 100 h2load {arguments}")))
        });
        let attackers: Vec<TcpStream> = (0..CONNECTIONS)
            .map(|_| {
                let mut stream = h2raw::open(stranger.connect(server.addr(9_100)).unwrap());
                for id in (0..STREAMS).map(|n| 2 * n + 1) {
                    let data = frame(kind::DATA, 0, id, &vec![7; size]);
                    let upload = [h2raw::post(id, "/"), data.repeat(frames)].concat();
                    // The connection may have been ended by now.
                    let _sent = stream.write_all(&upload);
                    // What a read has brought counts before room is made for it.
                    wait::until("what is held to be within its bound", || {
                        (unread(&server, "bytes") <= LIMIT).then_some(())
                    });
                }
                stream
            })
            .collect();
        for load in loads {
            let printed = load.join().unwrap();
            assert!(printed.contains(" 0 failed, 0 errored, 0 timeout"), "{printed}");
        }
        let all_are_kept = size == 1;
        wait::until("streams to be given up, or all to be held", || {
            let now = unread(&server, "streams_given_up_total");
            let held = unread(&server, "bytes") >= (CONNECTIONS * STREAMS as usize * frames) as f64;
            (if all_are_kept {
                held && now == given_up
            } else {
                now > given_up
            })
            .then_some(())
        });
        let grown = memory(&server).saturating_sub(before);
        println!("{what}: {grown} bytes more, {} held", unread(&server, "bytes"));
        assert!(grown < BOUND, "{what}: {grown}");
        for stream in attackers {
            let _ended_before = stream.shutdown(Shutdown::Both);
        }
        wait::until("what was held to be free", || {
            (unread(&server, "bytes") == 0.0).then_some(())
        });
    }
}

/// One of the families, of connections from the mesh.
fn unread(pod: &Meshed, what: &str) -> f64 {
    let family = format!("outrigger_http2_unread_{what}");
    Metrics::of(pod).sum(&family, &[("direction", "inbound")])
}

/// Bytes that a proxy has in memory.
fn memory(pod: &Meshed) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pod.proxy().pid())).unwrap();
    let text = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    text.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
