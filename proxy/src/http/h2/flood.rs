//! What a peer may send that costs it little and us much (RFC 9113 §10.5): a budget per kind, earned by useful traffic.

use std::time::Duration;

use tokio::time::Instant;

use crate::http::h2::frames::{
    CONTINUATION, DATA, Frame, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};

/// A stream that has lived this long was worth its opening: as many as may be open at a time, may be reset in it.
const YOUNG: Duration = Duration::from_secs(1);

/// Young streams that may be reset at once, at a scale of 1: twice as many as a client may have open. One that goes away
/// takes all of its own with it, on the connection that its proxy shares with others.
pub const RAPID_RESETS: u32 = 2_000;

/// Bytes of DATA that let their receiver give one more piece of window back: some do so with each read of theirs.
const BYTES_PER_UPDATE: u32 = 32;

/// What there is too much of. The label `reason` says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// Streams opened and reset before they can have been of use (CVE-2023-44487).
    RapidReset,
    /// RST_STREAM, whatever its stream (CVE-2019-9514).
    Reset,
    /// PING and its answers (CVE-2019-9512).
    Ping,
    /// SETTINGS: each is answered, and changes every stream (CVE-2019-9515).
    Settings,
    /// PRIORITY, which means nothing any more (CVE-2019-9513).
    Priority,
    /// WINDOW_UPDATE (CVE-2019-9511).
    WindowUpdate,
    /// CONTINUATION (CVE-2024-27316).
    Continuation,
    /// DATA that brings nothing (CVE-2019-9518).
    EmptyData,
    /// Answers that are not final: a server may send any number of them (RFC 9110 §15.2).
    Informational,
    /// Frames that nobody asked for: GOAWAY, PUSH_PROMISE, unknown types.
    Other,
}

/// How many kinds there are.
const KINDS: usize = 10;

/// What may come at once, and what may come each second, if nothing is earned.
struct Budget {
    burst: u32,
    per_second: u32,
}

/// Which side of the connection floods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It opens streams.
    Client,
    /// It answers on them.
    Server,
}

/// What is left of each budget of one connection. Ordinary traffic earns what it spends, and never asks for the time.
#[derive(Debug)]
pub struct Budgets {
    peer: Peer,
    /// Every budget is this many times as large; 0: there are none.
    scale: u32,
    left: [u32; KINDS],
    refilled: Instant,
    ages: Ages,
}

/// Which streams are young, without remembering any: their numbers only grow.
#[derive(Debug)]
struct Ages {
    highest: u32,
    opened: Instant,
    /// No stream above this was open at `marked`.
    mark: u32,
    marked: Instant,
    /// No stream up to this is young.
    old: u32,
}

impl Flood {
    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RapidReset => "rapid_reset",
            Self::Reset => "reset",
            Self::Ping => "ping",
            Self::Settings => "settings",
            Self::Priority => "priority",
            Self::WindowUpdate => "window_update",
            Self::Continuation => "continuation",
            Self::EmptyData => "empty_data",
            Self::Informational => "informational",
            Self::Other => "other_frames",
        }
    }

    /// Far above what is seen of browsers, gRPC in any language, and load generators.
    fn budget(self) -> Budget {
        let (burst, per_second) = match self {
            Self::RapidReset => (RAPID_RESETS, 200),
            Self::Reset | Self::Priority | Self::EmptyData | Self::Informational => (1_000, 100),
            Self::Ping => (500, 50),
            Self::Settings => (100, 10),
            Self::WindowUpdate => (10_000, 1_000),
            Self::Continuation | Self::Other => (500, 50),
        };
        Budget { burst, per_second }
    }
}

/// Every kind, in the order in which the budgets are kept.
const ALL: [Flood; KINDS] = [
    Flood::RapidReset,
    Flood::Reset,
    Flood::Ping,
    Flood::Settings,
    Flood::Priority,
    Flood::WindowUpdate,
    Flood::Continuation,
    Flood::EmptyData,
    Flood::Informational,
    Flood::Other,
];

impl Budgets {
    /// Full budgets, `scale` times as large as they are written here; with 0, whatever comes is let through.
    pub fn new(peer: Peer, scale: u32, now: Instant) -> Self {
        Self {
            peer,
            scale,
            left: ALL.map(|kind| kind.budget().burst.saturating_mul(scale)),
            refilled: now,
            ages: Ages {
                highest: 0,
                opened: now,
                mark: 0,
                marked: now,
                old: 0,
            },
        }
    }

    /// A frame came from the peer.
    ///
    /// # Errors
    /// What there is too much of.
    pub fn received(&mut self, frame: &Frame<'_>, mut now: impl FnMut() -> Instant) -> Result<(), Flood> {
        let kind = match frame.kind {
            DATA if frame.content() == 0 && !frame.last => Flood::EmptyData,
            DATA => {
                self.earn(Flood::Ping, 1);
                return Ok(());
            }
            HEADERS if self.peer == Peer::Server => Flood::Informational,
            HEADERS => {
                if frame.stream > self.ages.highest {
                    self.ages.opened(frame.stream, now());
                    self.opened();
                }
                return Ok(());
            }
            RST_STREAM => {
                if self.peer == Peer::Client && self.ages.is_young(frame.stream, now()) {
                    self.spend(Flood::RapidReset, &mut now)?;
                }
                Flood::Reset
            }
            PING => Flood::Ping,
            SETTINGS => Flood::Settings,
            PRIORITY => Flood::Priority,
            WINDOW_UPDATE => Flood::WindowUpdate,
            CONTINUATION => Flood::Continuation,
            _ => Flood::Other,
        };
        self.spend(kind, now)
    }

    /// A frame went to the peer.
    pub fn sent(&mut self, frame: &Frame<'_>) {
        match frame.kind {
            DATA => {
                // Its receiver may measure the path with a PING and give the window back, for the stream and the
                // connection.
                self.earn(Flood::Ping, 1);
                self.earn(Flood::WindowUpdate, 2 + frame.length / BYTES_PER_UPDATE);
            }
            HEADERS if self.peer == Peer::Client => self.earn(Flood::RapidReset, 1),
            HEADERS => self.opened(),
            // SETTINGS and PING are answered.
            SETTINGS => self.earn(Flood::Settings, 1),
            PING => self.earn(Flood::Ping, 1),
            _ => {}
        }
    }

    /// The highest stream that the peer has opened.
    pub fn last_stream(&self) -> u32 {
        self.ages.highest
    }

    /// A stream was opened, by whichever side does: it may be reset once, and what comes with it is ordinary.
    fn opened(&mut self) {
        self.keep(Flood::Reset, 1);
        self.earn(Flood::Ping, 1);
        self.earn(Flood::Priority, 4);
        self.earn(Flood::WindowUpdate, 4);
        self.keep(Flood::Continuation, 4);
        self.keep(Flood::EmptyData, 4);
        self.keep(Flood::Informational, 3);
        self.keep(Flood::Other, 4);
    }

    fn earn(&mut self, kind: Flood, amount: u32) {
        let left = &mut self.left[kind as usize];
        let full = kind.budget().burst.saturating_mul(self.scale);
        *left = left.saturating_add(amount).min(full.max(*left));
    }

    /// As `earn`, above a full budget too: each stream is answered and ends, and thousands of them may do so at once.
    fn keep(&mut self, kind: Flood, amount: u32) {
        let left = &mut self.left[kind as usize];
        *left = left.saturating_add(amount);
    }

    fn spend(&mut self, kind: Flood, mut now: impl FnMut() -> Instant) -> Result<(), Flood> {
        if self.scale == 0 {
            return Ok(());
        }
        if self.left[kind as usize] == 0 {
            self.refill(now());
        }
        let left = &mut self.left[kind as usize];
        *left = left.checked_sub(1).ok_or(kind)?;
        Ok(())
    }

    /// What the time since the last refill has brought.
    fn refill(&mut self, now: Instant) {
        let millis = now.saturating_duration_since(self.refilled).as_millis();
        self.refilled = now;
        for kind in ALL {
            let each = u128::from(kind.budget().per_second) * u128::from(self.scale);
            self.earn(
                kind,
                u32::try_from(each * millis / 1_000).unwrap_or(u32::MAX >> 1),
            );
        }
    }
}

impl Ages {
    fn opened(&mut self, stream: u32, now: Instant) {
        self.look(now);
        (self.highest, self.opened) = (stream, now);
    }

    fn is_young(&mut self, stream: u32, now: Instant) -> bool {
        self.look(now);
        stream > self.old
    }

    fn look(&mut self, now: Instant) {
        if now.saturating_duration_since(self.opened) >= YOUNG {
            self.old = self.highest;
        } else if now.saturating_duration_since(self.marked) >= YOUNG {
            self.old = self.old.max(self.mark);
            (self.mark, self.marked) = (self.highest, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h2::frames::GOAWAY;

    const fn frame(kind: u8, stream: u32, length: u32) -> Frame<'static> {
        Frame {
            kind,
            stream,
            length,
            last: false,
            look: &[],
        }
    }

    /// How many frames of these streams are let through, of `count`, at one moment.
    fn let_through(budgets: &mut Budgets, count: u32, kind: u8, now: Instant) -> u32 {
        let through = |n: &u32| budgets.received(&frame(kind, 2 * n + 1, 0), || now).is_ok();
        (0..count).take_while(through).count() as u32
    }

    /// Opens and resets streams from this number on, at one moment; how many were let through.
    fn open_and_reset(budgets: &mut Budgets, from: u32, count: u32, now: Instant) -> u32 {
        let exchange = |n: &u32| {
            let stream = 2 * (from + n) + 1;
            budgets.received(&frame(HEADERS, stream, 30), || now).is_ok()
                && budgets.received(&frame(RST_STREAM, stream, 4), || now).is_ok()
        };
        (0..count).take_while(exchange).count() as u32
    }

    #[test]
    fn a_budget_per_kind_is_spent_and_comes_back_with_time() {
        for (kind, flood) in [
            (PING, Flood::Ping),
            (SETTINGS, Flood::Settings),
            (PRIORITY, Flood::Priority),
            (WINDOW_UPDATE, Flood::WindowUpdate),
            (CONTINUATION, Flood::Continuation),
            (DATA, Flood::EmptyData),
            (GOAWAY, Flood::Other),
            (0xbe, Flood::Other),
        ] {
            let (start, budget) = (Instant::now(), flood.budget());
            let mut budgets = Budgets::new(Peer::Client, 1, start);
            assert_eq!(
                let_through(&mut budgets, u32::MAX, kind, start),
                budget.burst,
                "{flood:?}"
            );
            let later = start + Duration::from_secs(2);
            let more = let_through(&mut budgets, u32::MAX, kind, later);
            assert_eq!(more, 2 * budget.per_second, "{flood:?}");
            assert_eq!(budgets.received(&frame(kind, 1, 0), || later), Err(flood));
        }
    }

    #[test]
    fn a_scale_multiplies_every_budget_and_none_lets_everything_through() {
        let now = Instant::now();
        let mut budgets = Budgets::new(Peer::Server, 3, now);
        assert_eq!(let_through(&mut budgets, 10_000, PING, now), 1_500);
        let mut budgets = Budgets::new(Peer::Server, 0, now);
        assert_eq!(let_through(&mut budgets, 10_000, PING, now), 10_000);
    }

    #[test]
    fn streams_reset_at_once_are_a_flood_unless_others_are_answered() {
        let now = Instant::now();
        let mut budgets = Budgets::new(Peer::Client, 1, now);
        assert_eq!(open_and_reset(&mut budgets, 0, 5_000, now), RAPID_RESETS);

        let mut budgets = Budgets::new(Peer::Client, 1, now);
        for n in 0..50_000 {
            budgets.sent(&frame(HEADERS, 1, 10)); // an answer to somebody
            assert_eq!(open_and_reset(&mut budgets, n, 1, now), 1, "{n}");
        }
    }

    /// Deadlines that pass while a server hangs: nothing is answered, and nobody attacks.
    #[test]
    fn streams_reset_after_a_while_are_no_flood() {
        let start = Instant::now();
        let mut budgets = Budgets::new(Peer::Client, 1, start);
        let (per_tick, ticks_open) = (50, 30);
        for tick in 0..200 {
            let now = start + Duration::from_millis(100) * tick;
            for n in 0..per_tick {
                let opened = budgets.received(&frame(HEADERS, 2 * (tick * per_tick + n) + 1, 30), || now);
                assert_eq!(opened, Ok(()));
            }
            let Some(given_up) = tick.checked_sub(ticks_open) else {
                continue;
            };
            for n in 0..per_tick {
                let stream = 2 * (given_up * per_tick + n) + 1;
                let reset = budgets.received(&frame(RST_STREAM, stream, 4), || now);
                assert_eq!(reset, Ok(()), "stream {stream} in tick {tick}");
            }
        }
        assert_eq!(
            budgets.left[Flood::RapidReset as usize],
            RAPID_RESETS,
            "none was young"
        );
    }

    #[test]
    fn the_same_stream_reset_again_and_again_is_a_flood_too() {
        let start = Instant::now();
        let mut budgets = Budgets::new(Peer::Client, 1, start);
        budgets.received(&frame(HEADERS, 1, 30), || start).unwrap();
        let later = start + Duration::from_secs(60);
        let reset = |_: &u32| budgets.received(&frame(RST_STREAM, 1, 4), || later).is_ok();
        assert!((0..10_000).take_while(reset).count() < 10_000);
    }

    /// What gRPC does: a PING and two WINDOW_UPDATEs for each small message, for as long as it likes.
    #[test]
    fn messages_pay_for_their_pings_and_windows() {
        let now = Instant::now();
        for peer in [Peer::Client, Peer::Server] {
            let mut budgets = Budgets::new(peer, 1, now);
            for _ in 0..100_000 {
                budgets.sent(&frame(DATA, 1, 10));
                for kind in [PING, WINDOW_UPDATE, WINDOW_UPDATE] {
                    assert_eq!(budgets.received(&frame(kind, 1, 4), || now), Ok(()));
                }
            }
        }
    }

    #[test]
    fn a_server_may_answer_early_as_often_as_it_is_asked() {
        let now = Instant::now();
        let mut budgets = Budgets::new(Peer::Server, 1, now);
        for _ in 0..10_000 {
            budgets.sent(&frame(HEADERS, 1, 30));
            for kind in [HEADERS, HEADERS, HEADERS, RST_STREAM] {
                assert_eq!(budgets.received(&frame(kind, 1, 4), || now), Ok(()));
            }
        }
        assert_eq!(let_through(&mut budgets, 10_000, HEADERS, now), 1_000);
    }

    /// gRPC answers with two header lists. A server may hold thousands of calls, and answer or reset all of them at once.
    #[test]
    fn as_many_streams_as_are_open_may_be_answered_or_reset_at_once() {
        let now = Instant::now();
        let answers = [HEADERS, CONTINUATION, CONTINUATION, HEADERS, CONTINUATION];
        for kinds in [&answers[..], &[RST_STREAM], &[0xbe, HEADERS]] {
            let mut budgets = Budgets::new(Peer::Server, 1, now);
            for n in 0..5_000 {
                budgets.sent(&frame(HEADERS, 2 * n + 1, 30));
            }
            for n in 0..5_000 {
                for kind in kinds {
                    let received = budgets.received(&frame(*kind, 2 * n + 1, 4), || now);
                    assert_eq!(received, Ok(()), "stream {n}");
                }
            }
        }
    }

    #[test]
    fn what_a_connection_keeps_is_small() {
        assert!(size_of::<Budgets>() <= 120, "{}", size_of::<Budgets>());
    }
}
