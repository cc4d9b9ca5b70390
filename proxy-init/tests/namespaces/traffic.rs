//! Where connections arrive once the rules stand: a pod and a peer, two namespaces joined by a cable.

use crate::pod::{at, redirect, sh};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use outrigger_sys::{netns, original_dst};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

const POD: [&str; 2] = ["10.77.0.1", "[fd77::1]"];
const PEER: [&str; 2] = ["10.77.0.2", "[fd77::2]"];
const LOOPBACK: [&str; 2] = ["127.0.0.1", "[::1]"];

const PROXY: (u32, u32) = (2102, 2102);
const APP: (u32, u32) = (1000, 1000);

#[test]
fn incoming_connections_reach_the_proxy_on_any_port_but_those_skipped() {
    let net = Net::with("-p 4143 -o 4140 -u 2102 --inbound-ports-to-ignore 9000,6000-8000");
    for pod in POD {
        assert_eq!(
            net.answer_to_peer(pod, 8080),
            format!("inbound proxy for {pod}:8080")
        );
        assert_eq!(net.answer_to_peer(pod, 5), format!("inbound proxy for {pod}:5"));
        assert_eq!(
            net.answer_to_peer(pod, 4143),
            format!("inbound proxy for {pod}:4143")
        );
        assert_eq!(net.answer_to_peer(pod, 9000), "app on 9000");
        assert_eq!(net.answer_to_peer(pod, 7070), "app on 7070");
    }
}

#[test]
fn with_listed_ports_the_others_reach_the_application() {
    let net = Net::with("-p 4143 -o 4140 -u 2102 -r 8080 -r 9000 --inbound-ports-to-ignore 9000");
    for pod in POD {
        assert_eq!(
            net.answer_to_peer(pod, 8080),
            format!("inbound proxy for {pod}:8080")
        );
        assert_eq!(net.answer_to_peer(pod, 9000), "app on 9000");
        assert_eq!(net.answer_to_peer(pod, 7070), "app on 7070");
    }
}

#[test]
fn a_skipped_subnet_reaches_the_application_and_the_proxys_own_port_still_answers() {
    let net = Net::with("-p 4143 -o 4140 -u 2102 --subnets-to-ignore 10.77.0.0/24");
    assert_eq!(net.answer_to_peer(POD[0], 8080), "app on 8080");
    assert!(net.answer_to_peer(POD[0], 4143).starts_with("inbound proxy"));
    assert_eq!(
        net.answer_to_peer(POD[1], 8080),
        format!("inbound proxy for {}:8080", POD[1])
    );
}

#[test]
fn outgoing_connections_reach_the_proxy_unless_they_are_its_own_or_skipped() {
    let net = Net::with("-p 4143 -o 4140 -u 2102 --outbound-ports-to-ignore 7001");
    for peer in PEER {
        assert_eq!(
            net.answer_to_pod(APP, peer, 7000),
            format!("outbound proxy for {peer}:7000")
        );
        assert_eq!(net.answer_to_pod(APP, peer, 7001), "peer on 7001");
        assert_eq!(net.answer_to_pod(PROXY, peer, 7000), "peer on 7000");
    }
}

#[test]
fn the_proxy_may_be_known_by_its_group_instead() {
    let net = Net::with("-p 4143 -o 4140 -g 2102");
    for peer in PEER {
        assert_eq!(net.answer_to_pod((1000, 2102), peer, 7000), "peer on 7000");
        assert_eq!(
            net.answer_to_pod((2102, 1000), peer, 7000),
            format!("outbound proxy for {peer}:7000")
        );
    }
}

#[test]
fn a_pod_that_talks_to_itself_passes_by_the_proxy() {
    let net = Net::with("-p 4143 -o 4140 -u 2102");
    for address in LOOPBACK.into_iter().chain(POD) {
        assert_eq!(net.answer_to_pod(APP, address, 8080), "app on 8080");
    }
}

#[test]
fn after_a_change_of_the_backend_connections_go_where_the_last_run_says() {
    let flags =
        |mode, inbound, outbound| format!("-p {inbound} -o {outbound} -u 2102 -w --iptables-mode {mode}");
    for (first, last) in [("nft", "legacy"), ("legacy", "nft")] {
        let net = Net::with("-p 1143 -o 1140 -u 7 --iptables-mode nft");
        at(&net.pod, move || {
            redirect(&flags(first, 1143, 1140));
            redirect(&flags(last, 4143, 4140));
        });
        for (pod, peer) in POD.into_iter().zip(PEER) {
            let inbound = format!("inbound proxy for {pod}:8080");
            assert_eq!(net.answer_to_peer(pod, 8080), inbound, "{first} → {last}");
            let outbound = format!("outbound proxy for {peer}:7000");
            assert_eq!(net.answer_to_pod(APP, peer, 7000), outbound, "{first} → {last}");
            assert_eq!(net.answer_to_pod(PROXY, peer, 7000), "peer on 7000");
        }
    }
}

/// A pod with a proxy and an application, and a peer that nobody redirects.
struct Net {
    pod: PathBuf,
    peer: PathBuf,
}

static NAMES: AtomicU32 = AtomicU32::new(0);

impl Net {
    fn with(flags: &'static str) -> Self {
        let name = format!(
            "init-{}-{}",
            std::process::id(),
            NAMES.fetch_add(1, Ordering::Relaxed)
        );
        let made = |side| netns::create(&format!("{name}-{side}")).expect("these tests run as root");
        let net = Self {
            pod: made("pod"),
            peer: made("peer"),
        };
        let peer_name = format!("{name}-peer");
        at(&net.pod, move || {
            sh(&format!(
                "ip link add eth0 type veth peer name eth0 netns {peer_name}"
            ));
            configure(POD);
            redirect(flags);
            serve(4143, "inbound proxy", true);
            serve(4140, "outbound proxy", true);
            for port in [7070, 8080, 9000] {
                serve(port, "app", false);
            }
        });
        at(&net.peer, || {
            configure(PEER);
            for port in [7000, 7001] {
                serve(port, "peer", false);
            }
        });
        net
    }

    /// Who answers when the peer connects.
    fn answer_to_peer(&self, host: &str, port: u16) -> String {
        let addr = address(host, port);
        at(&self.peer, move || ask(addr))
    }

    /// Who answers when a process of this user and group in the pod connects.
    fn answer_to_pod(&self, (uid, gid): (u32, u32), host: &str, port: u16) -> String {
        let addr = address(host, port);
        at(&self.pod, move || {
            // These two count for the thread alone, and decide whose the socket is.
            setfsgid(Gid::from_raw(gid));
            setfsuid(Uid::from_raw(uid));
            ask(addr)
        })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for path in [&self.pod, &self.peer] {
            let name = path.file_name().and_then(|name| name.to_str());
            // A name that is gone already is no reason to panic while a failed test unwinds.
            let _ = name.map(netns::delete);
        }
    }
}

fn configure([v4, v6]: [&str; 2]) {
    let v6 = v6.trim_matches(['[', ']']);
    sh("ip link set lo up");
    sh("ip link set eth0 up");
    sh(&format!("ip addr add {v4}/24 dev eth0"));
    sh(&format!("ip addr add {v6}/64 dev eth0 nodad"));
}

/// Where a connection wanted to go.
fn redirected_from(accepted: &TcpStream) -> SocketAddr {
    original_dst(accepted, accepted.peer_addr().unwrap()).unwrap()
}

/// Answers every connection with its name and port, or, as a proxy, with where the connection wanted to go.
fn serve(port: u16, name: &'static str, proxy: bool) {
    let listener = TcpListener::bind(("::", port)).unwrap();
    thread::spawn(move || {
        for accepted in listener.incoming() {
            let mut accepted = accepted.unwrap();
            let answer = match proxy {
                true => format!("{name} for {}", redirected_from(&accepted)),
                false => format!("{name} on {port}"),
            };
            accepted.write_all(answer.as_bytes()).unwrap();
        }
    });
}

fn ask(addr: SocketAddr) -> String {
    let mut answer = String::new();
    // The bound is for a broken kernel only; what is refused or lost fails the comparison with its reason.
    let result = TcpStream::connect_timeout(&addr, Duration::from_secs(10))
        .and_then(|mut stream| stream.read_to_string(&mut answer));
    result.map_or_else(|error| format!("nobody at {addr}: {error}"), |_| answer)
}

fn address(host: &str, port: u16) -> SocketAddr {
    format!("{host}:{port}").parse().unwrap()
}
