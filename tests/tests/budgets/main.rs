//! What must stay cheap, counted: allocations per request, and memory per idle connection, on each proxy's thread.
//!
//! The numbers are those of the test profile; they do not depend on the machine or its load. Where one is exceeded on
//! purpose, raise it here and say why; where one has fallen, lower it.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod client;
mod echo;
mod pair;

use std::alloc::System;
use std::time::{Duration, Instant};

use client::{Bytestream, Client, Requests};
use hyper::{Method, StatusCode, Version};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use outrigger_e2e::wait;
use outrigger_sys::alloc::{Counting, Counts};
use pair::{Pair, Traffic};

#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

/// Allocations per request on a warm connection: HTTP version, client's proxy, server's proxy.
const PER_REQUEST: [(Version, f64, f64); 2] = [
    // One of each exchange with a client is the box of its future, which a connection at rest does not have, and which
    // saves each stream more copying than it costs.
    (Version::HTTP_11, 7.0, 6.0), // measured: 7.00, 6.00
    (Version::HTTP_2, 9.0, 13.0), // measured: 9.00, 13.00
];
/// Allocations that a limit of time adds on the client's proxy: a timer while the head is waited for, another for the body.
const PER_TIMEOUT: f64 = 3.0; // measured: 3.00
/// What a path costs that a client of HTTP/2 spells out each time, as most do: a copy, and what lets two have it.
const PER_PATH: f64 = 2.0; // measured: 2.00
/// Two messages may be read together or apart, as it comes: each read of TLS is an allocation.
const SLACK: f64 = 0.5;
/// Bytes per idle opaque connection: client's proxy, server's proxy.
const PER_OPAQUE: [f64; 2] = [10_400.0, 12_000.0]; // measured: 10,219, 11,960
/// Bytes per HTTP/1 connection of an application that has come to rest. They share one connection between the proxies, so
/// the server's proxy knows nothing of them.
const PER_HTTP1: [f64; 2] = [3_600.0, 100.0]; // measured: 3,520, none

/// Requests sent before any is counted (metrics are resolved, tables have grown), and as many that are counted.
const REQUESTS: u32 = 2_000;
/// Longer than anything that is kept for a while.
const REST: Duration = Duration::from_secs(4);
/// Connections that are idle at the same time.
const CONNECTIONS: u32 = 200;

#[test]
fn a_request_makes_no_more_allocations_than_its_budget() {
    hold_to_budget(&Pair::start(Traffic::Http), &PER_REQUEST, "/");
}

#[test]
fn retries_breakers_routes_and_authorizations_that_a_request_does_not_need_add_no_allocation_to_it() {
    let pair = Pair::start(Traffic::HttpUnderPolicies);
    let mut client = pair
        .rest
        .block_on(Requests::connect(pair.outbound.listen, Version::HTTP_11));
    // The client's proxy redirects one of them, and the server's has no route for the other.
    let mut status = |path| pair.rest.block_on(client.ask(Method::POST, path)).status();
    wait::until("the policies hold", || {
        let answers = [status("/elsewhere"), status("/")];
        (answers == [StatusCode::MOVED_PERMANENTLY, StatusCode::NOT_FOUND]).then_some(())
    });
    hold_to_budget(&pair, &PER_REQUEST, "/");
    hold_to_budget(&pair, &PER_REQUEST, TIMED);
}

/// Where requests have a limit of time.
const TIMED: &str = "/timed";

/// Requests for a path make no more allocations than their budget.
fn hold_to_budget(pair: &Pair, budgets: &[(Version, f64, f64)], path: &str) {
    for &(version, outbound, inbound) in budgets {
        let more = match (path, version) {
            (TIMED, Version::HTTP_2) => PER_TIMEOUT + PER_PATH,
            (TIMED, _) => PER_TIMEOUT,
            _ => 0.0,
        };
        let mut client = pair
            .rest
            .block_on(Requests::connect(pair.outbound.listen, version));
        let mut send = || pair.rest.block_on(client.send(REQUESTS, path));
        send();
        let spent = pair.spent(send);
        for (side, budget, counts) in [
            ("outbound", outbound + more, spent[0]),
            ("inbound", inbound, spent[1]),
        ] {
            let [allocations, bytes, _live] = per(REQUESTS, counts);
            println!("{version:?} {path} {side}: {allocations:.2} allocations, {bytes:.0} bytes per request");
            assert!(
                allocations <= budget + SLACK,
                "{version:?} {side}: {allocations} allocations"
            );
        }
    }
}

#[test]
fn an_idle_opaque_connection_holds_no_more_memory_than_its_budget() {
    idle::<Bytestream>(&Pair::start(Traffic::Opaque), PER_OPAQUE);
}

#[test]
fn an_idle_http1_connection_holds_no_more_memory_than_its_budget() {
    idle::<Requests>(&Pair::start(Traffic::Http), PER_HTTP1);
}

/// Waits until each proxy's thread holds no more than this for each connection that has been used once and is idle.
fn idle<C: Client>(pair: &Pair, budget: [f64; 2]) {
    allow_open_files();
    let mut clients = Vec::new();
    let mut open = |connections| {
        for _ in 0..connections {
            clients.push(pair.rest.block_on(C::used_once(pair.outbound.listen)));
        }
    };
    open(1);
    settle(pair);
    let before = pair.counts();
    open(CONNECTIONS);
    settle(pair);
    let live = pair.since(before).map(|counts| per(CONNECTIONS, counts)[2]);
    println!("{}: {live:.0?} bytes per idle connection", C::NAME);
    assert!(within(live, budget), "{live:.0?} bytes");
}

/// Waits until neither proxy takes or gives back memory: some goes only when it has not been needed for a while.
fn settle(pair: &Pair) {
    let held = || pair.counts().map(|counts| counts.live);
    let (mut last, mut since) = (held(), Instant::now());
    wait::until("the proxies come to rest", || {
        let now = held();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() >= REST).then_some(())
    });
}

fn within(spent: [f64; 2], budget: [f64; 2]) -> bool {
    spent.iter().zip(budget).all(|(spent, budget)| *spent <= budget)
}

fn per(n: u32, counts: Counts) -> [f64; 3] {
    [counts.allocations as f64, counts.bytes as f64, counts.live as f64].map(|sum| sum / f64::from(n))
}

/// A connection through both proxies has six ends in this process.
fn allow_open_files() {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}
