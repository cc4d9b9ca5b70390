//! What is given up, and what is not.

use super::*;

#[test]
fn who_holds_least_gives_nothing() {
    assert_eq!(part(vec![1, 2, 3], 6), usize::MAX);
    assert_eq!(part(vec![1, 2, 30], 10), 7);
    assert_eq!(part(vec![30, 1, 30], 11), 5);
    assert_eq!(part(vec![5; 4], 4), 1);
    assert_eq!(part(Vec::new(), 0), usize::MAX);
}

/// A bound of so many bytes, and what is counted.
fn backlog(limit: usize) -> (Arc<Backlog>, Handles) {
    let handles = Handles::default();
    (Backlog::new(limit, handles.clone()), handles)
}

#[test]
fn what_comes_together_lies_together_and_what_comes_alone_keeps_what_it_came_with() {
    let (backlog, handles) = backlog(usize::MAX);
    let share = Share::of_server(&backlog, 0);
    let claims = [share.open(1), share.open(3)];
    // A thousand small frames in one read, and one in each of ten reads.
    for _ in 0..1_000 {
        share.arrived(1, 1, 10_000);
    }
    let together = 1_000 + 10_000;
    assert_eq!(handles.held.value(), together as i64);
    for read in 1..=10 {
        share.arrived(3, 1, 10_000 + read * (1 << 20));
    }
    let apart = 10 * (1 + CHUNK);
    assert_eq!(handles.held.value(), (together + apart) as i64);
    drop(claims);
    assert_eq!(handles.held.value(), 0);
}

#[test]
fn what_was_read_is_free_again_to_the_last_byte() {
    let mut unread = Unread::default();
    let held: usize = (1..=3).map(|n| unread.add(100, n * 1_000, n)).sum();
    let freed: usize = [99, 1, 50, 150].map(|bytes| unread.remove(bytes, 4)).iter().sum();
    assert_eq!((held, unread.memory), (freed, 0));
}

#[test]
fn what_comes_for_streams_that_are_gone_is_not_held() {
    let (backlog, handles) = backlog(usize::MAX);
    let share = Share::of_server(&backlog, 0);
    drop(share.open(1));
    share.arrived(1, 100, 100);
    assert_eq!(handles.held.value(), 0);
}

#[test]
fn what_has_waited_longest_is_given_up_where_more_is_held_than_a_fair_part() {
    let (backlog, handles) = backlog(400_000);
    let [modest, busy, greedy] = [0; 3].map(|_| Share::of_server(&backlog, 0));
    let old = modest.open(1);
    modest.arrived(1, 16_000, 16_000);
    let stopped: Vec<Claim> = (0..30).map(|n| greedy.open(2 * n + 1)).collect();
    for n in 0..30 {
        // Streams that somebody reads hold as much, and never for long.
        let read = busy.open(2 * n + 1);
        for position in 1..=4 {
            busy.arrived(2 * n + 1, 16_000, u64::from(n) * 64_000 + position * 16_000);
        }
        greedy.arrived(2 * n + 1, 16_000, u64::from(n) * 16_000);
        greedy.keep_within();
        assert!(handles.held.value() <= 400_000);
        assert!(!lock(&busy.state).streams[&read.stream].given_up);
    }
    let given_up = |claim: &Claim| lock(&claim.share.state).streams[&claim.stream].given_up;
    assert!(!given_up(&old));
    let first_kept = stopped.iter().position(|claim| !given_up(claim)).unwrap();
    assert!(first_kept > 0);
    assert!(!stopped[first_kept..].iter().any(given_up));
    assert_eq!(handles.given_up.value(), first_kept as u64);
    drop((old, stopped, modest, busy, greedy));
    assert_eq!(handles.held.value(), 0);
}

/// So many streams, each with 16,000 bytes from a read of its own.
fn fill(share: &Arc<Share>, streams: u32) -> Vec<Claim> {
    let claims: Vec<Claim> = (0..streams).map(|n| share.open(2 * n + 1)).collect();
    for n in 1..=streams {
        share.arrived(2 * n - 1, 16_000, u64::from(n) * 16_000);
        share.keep_within();
    }
    claims
}

/// How many were given up.
fn given_up(share: &Share) -> usize {
    let state = lock(&share.state);
    state.streams.values().filter(|stream| stream.given_up).count()
}

#[test]
fn readers_that_have_asked_for_more_pay_when_nobody_else_is_left_to() {
    let (backlog, handles) = backlog(400_000);
    let [ready, greedy] = [0; 2].map(|_| Share::of_client(&backlog, 0));
    // More than its part, and older than all that the other sends.
    let wanted = fill(&ready, 8);
    for stream in lock(&ready.state).streams.values_mut() {
        stream.wanted = true;
    }
    let stopped = fill(&greedy, 20);
    assert_eq!(given_up(&ready), 0);
    assert!(given_up(&greedy) > 0);
    drop((stopped, greedy));
    for n in 0..8 {
        ready.arrived(2 * n + 1, 64_000, u64::from(n + 8) * 64_000);
        ready.keep_within();
        assert!(handles.held.value() <= 400_000);
    }
    assert!(given_up(&ready) > 0);
    drop((wanted, ready));
    assert_eq!(handles.held.value(), 0);
}

#[test]
fn who_has_stopped_for_a_moment_pays_after_those_who_stopped_long_ago() {
    let (backlog, handles) = backlog(400_000);
    let [greedy, slow] = [0; 2].map(|_| Share::of_client(&backlog, 0));
    // Each of them holds more than its part of what may stay.
    let (stopped, moment) = (fill(&greedy, 6), fill(&slow, 7));
    assert!(given_up(&greedy) > 0);
    assert_eq!(given_up(&slow), 0);
    drop((stopped, moment, greedy, slow));
    assert_eq!(handles.held.value(), 0);
}

#[test]
fn a_window_is_kept_back_while_memory_is_short_and_given_back_when_it_is_not() {
    let mut stream = Stream::default();
    let back: usize = (0..30).map(|_| stream.give_back(10_000, 240_000)).sum();
    assert_eq!(back, 60_000);
    assert_eq!(stream.give_back(10_000, 0), 250_000);
}
