//! What one connection and its streams are at: one lock around all of it, held by whoever reads, sends, or drives the
//! connection, and never across anything that waits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::{BufMut, BytesMut};
use http::Request;

use crate::error::{By, Error, Fatal, Reason};
use crate::frame::{self, INITIAL_WINDOW, MAX_STREAM};
use crate::hpack::Encoder;
use crate::outgoing::Outgoing;
use crate::settings::{Ours, Peer};
use crate::stream::{Pieces, Stream};

/// Streams for which there is always room.
const KEPT: usize = 64;

/// What the PING says that asks whether a GOAWAY has been read.
pub(crate) const GOODBYE: [u8; 8] = *b"goodbye?";
/// What keep-alive's PINGs say.
pub(crate) const ALIVE: [u8; 8] = *b"alive?\0\0";

/// A connection, as its streams share it.
#[derive(Debug)]
pub(crate) struct Shared(Mutex<State>);

/// Which side of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// What a connection may cost us.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) ours: Ours,
    /// What the peer may send on all streams before it is read, bytes.
    pub(crate) connection_window: u32,
    /// DATA that waits to be written, bytes.
    pub(crate) send_buffer: usize,
    /// Streams that the peer may make us reset, over the connection's life.
    pub(crate) made_resets: Option<u32>,
    /// Streams that the peer may reset before anybody has looked at them.
    pub(crate) early_resets: usize,
    /// Streams that we have reset and remember.
    pub(crate) remembered_resets: usize,
}

/// How far a connection's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It goes on.
    No,
    /// The peer was told to open no more streams, and asked whether it knows.
    Announced,
    /// Streams above this are not looked at; it ends with the last of the others.
    After(u32),
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) role: Role,
    pub(crate) limits: Limits,
    pub(crate) peer: Peer,
    pub(crate) streams: HashMap<u32, Stream, BuildHasherDefault<Spread>>,
    /// Streams that have not ended.
    pub(crate) open: usize,
    /// The highest number of a stream so far.
    pub(crate) highest: u32,
    pub(crate) out: Outgoing,
    pub(crate) encoder: Encoder,
    pub(crate) send_window: i64,
    pub(crate) recv_window: i64,
    /// The window of streams that the peer opens or answers on: ours, once it knows.
    pub(crate) recv_initial: i64,
    pub(crate) knows_ours: bool,
    credit: u32,
    /// Streams that wait for room on the connection, those first that waited first.
    waiting: VecDeque<u32>,
    /// Requests that nobody has taken yet.
    pub(crate) arrived: VecDeque<(u32, Request<()>)>,
    /// Streams that were reset before anybody took them, since there were last none to take.
    pub(crate) early_resets: usize,
    made_resets: u32,
    reset: Remembered,
    pub(crate) ending: Ending,
    /// What the peer ends the connection with: it takes no streams above this one.
    pub(crate) goodbye: Option<(u32, Error)>,
    /// Whether no stream was opened for want of room in what waits to be written.
    pub(crate) full: bool,
    /// Whether streams may still be opened by somebody here.
    pub(crate) opener: bool,
    /// Why everything has ended.
    pub(crate) broken: Option<Error>,
    pub(crate) ping: Ping,
    /// The task that drives the connection.
    pub(crate) task: Option<Waker>,
    /// Whether it will look at what is here by itself.
    pub(crate) driven: bool,
}

/// A PING of ours, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Ping {
    pub(crate) sent: bool,
    pub(crate) waker: Option<Waker>,
}

/// Streams that we have reset, the last ones: what still comes for them is nobody's fault.
#[derive(Debug, Default)]
struct Remembered {
    limit: usize,
    all: HashSet<u32, BuildHasherDefault<Spread>>,
    order: VecDeque<u32>,
}

/// Spreads the numbers of streams over a table. Whoever picks numbers that meet slows its own connection down, by no more
/// than the streams that it may have open.
#[derive(Debug, Default)]
pub struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        // The golden ratio's multiplier (Knuth, TAOCP 6.4): both ends of the product differ for numbers that follow each
        // other.
        let mixed = (self.0 ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Remembered {
    fn add(&mut self, stream: u32) {
        self.all.insert(stream);
        self.order.push_back(stream);
        if self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }
}

impl Shared {
    pub(crate) fn new(state: State) -> Arc<Self> {
        Arc::new(Self(Mutex::new(state)))
    }

    /// A state whose holder panicked is as good as any: at worst one stream hangs until its connection ends.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A connection that begins: what is said first waits to be written.
    pub(crate) fn new(role: Role, limits: Limits) -> Self {
        let mut state = Self {
            role,
            peer: Peer::default(),
            streams: HashMap::default(),
            open: 0,
            highest: 0,
            out: Outgoing::default(),
            encoder: Encoder::new(),
            send_window: INITIAL_WINDOW,
            recv_window: INITIAL_WINDOW,
            recv_initial: INITIAL_WINDOW,
            knows_ours: false,
            credit: 0,
            waiting: VecDeque::new(),
            arrived: VecDeque::new(),
            early_resets: 0,
            made_resets: 0,
            reset: Remembered {
                limit: limits.remembered_resets,
                ..Remembered::default()
            },
            ending: Ending::No,
            goodbye: None,
            full: false,
            opener: role == Role::Client,
            broken: None,
            ping: Ping::default(),
            task: None,
            driven: true,
            limits,
        };
        let ours = state.limits.ours.clone();
        state.put(|out| {
            if role == Role::Client {
                out.put_slice(frame::PREFACE);
            }
            ours.put(out);
        });
        let more = i64::from(state.limits.connection_window) - INITIAL_WINDOW;
        if let Ok(more) = u32::try_from(more)
            && more > 0
        {
            state.recv_window += i64::from(more);
            state.put(|out| frame::put_window_update(out, 0, more));
        }
        state
    }

    /// Writes frames, and has them sent.
    pub(crate) fn put(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let frames = self.out.frames();
        let before = frames.len();
        write(frames);
        self.out.noted(before);
        self.wake();
    }

    /// Has the connection driven on.
    pub(crate) fn wake(&mut self) {
        if !self.driven
            && let Some(task) = &self.task
        {
            self.driven = true;
            task.wake_by_ref();
        }
    }

    /// Whether a stream of this number has ever been.
    pub(crate) fn was_opened(&self, stream: u32) -> bool {
        stream <= self.highest && stream % 2 == 1
    }

    /// Whether we have reset it, not long ago.
    pub(crate) fn was_reset(&self, stream: u32) -> bool {
        self.reset.all.contains(&stream)
    }

    /// Room for DATA on the connection, bytes.
    pub(crate) fn room(&self) -> i64 {
        let buffer = self.limits.send_buffer.saturating_sub(self.out.data());
        self.send_window.min(buffer as i64)
    }

    /// Puts a stream into the queue for room on the connection.
    pub(crate) fn wait_for_room(&mut self, stream: u32) {
        self.waiting.push_back(stream);
    }

    /// There may be room on the connection again: all who wait for it look.
    pub(crate) fn room_again(&mut self) {
        if self.waiting.is_empty() || self.room() <= 0 {
            return;
        }
        for id in mem::take(&mut self.waiting) {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.queued = false;
                stream.wake_writer();
            }
        }
    }

    /// The peer may send so many bytes more on the connection.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_add(bytes as u32);
        if is_worth_saying(self.credit, self.limits.connection_window, self.recv_window) {
            let more = mem::take(&mut self.credit);
            self.recv_window += i64::from(more);
            self.put(|out| frame::put_window_update(out, 0, more));
        }
    }

    /// The peer may send so many bytes more on a stream, if it may send at all.
    pub(crate) fn give_back_on(&mut self, id: u32, bytes: usize) {
        let window = self.limits.ours.initial_window;
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !stream.remote_open || stream.failed.is_some() {
            return;
        }
        stream.credit = stream.credit.saturating_add(bytes as u32);
        if is_worth_saying(stream.credit, window, stream.recv_window) {
            let more = mem::take(&mut stream.credit);
            stream.recv_window += i64::from(more);
            self.put(|out| frame::put_window_update(out, id, more));
        }
    }

    /// Ends a stream with RST_STREAM, unless it has ended.
    pub(crate) fn reset(&mut self, id: u32, reason: Reason) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.is_closed() {
            return;
        }
        stream.fail(Error::reset(reason, By::Us));
        let mut outstanding = 0;
        // What has come whole stays as it is: cut off, it would seem whole too.
        if stream.remote_open {
            stream.pieces = Pieces::default();
            outstanding = mem::take(&mut stream.outstanding);
        }
        self.reset.add(id);
        self.put(|out| frame::put_reset(out, id, reason));
        self.give_back(outstanding);
        self.settle(id);
    }

    /// Resets a stream since the peer broke the protocol on it.
    pub(crate) fn made_to_reset(&mut self, id: u32, reason: Reason) -> Result<(), Fatal> {
        self.made_resets += 1;
        if self
            .limits
            .made_resets
            .is_some_and(|limit| self.made_resets > limit)
        {
            // CVE-2025-8671.
            return Err(Fatal(Reason::ENHANCE_YOUR_CALM, "too_many_internal_resets"));
        }
        if self.streams.get(&id).is_some_and(|stream| !stream.is_closed()) {
            self.reset(id, reason);
        } else {
            self.refuse(id, reason);
        }
        Ok(())
    }

    /// Resets a stream that was never let in.
    pub(crate) fn refuse(&mut self, id: u32, reason: Reason) {
        self.reset.add(id);
        self.put(|out| frame::put_reset(out, id, reason));
    }

    /// Forgets a stream that has ended and that nobody holds.
    pub(crate) fn settle(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if !stream.is_closed() {
            return;
        }
        if stream.counted {
            stream.counted = false;
            self.open -= 1;
            if self.open == 0 {
                // It may have been the last one before the connection's end.
                self.wake();
            }
        }
        let stream = self.streams.get(&id);
        if stream.is_some_and(|stream| !stream.recv_held && !stream.send_held) {
            self.streams.remove(&id);
            self.give_memory_back();
        }
    }

    /// What many streams needed is of no use to few.
    fn give_memory_back(&mut self) {
        if self.streams.is_empty() && self.streams.capacity() > KEPT {
            self.streams = HashMap::default();
            self.waiting = VecDeque::new();
            self.arrived.shrink_to(KEPT);
        }
    }

    /// Ends all streams that have not ended, and the connection with them.
    pub(crate) fn break_off(&mut self, error: &Error) {
        if self.broken.is_some() {
            return;
        }
        self.broken = Some(error.clone());
        if self.role == Role::Client && error.is_io() {
            // Requests that have not left are made elsewhere, so they never leave here.
            self.out.discard();
        }
        self.fail_above(0, error);
        self.arrived.clear();
        if let Some(waker) = self.ping.waker.take() {
            waker.wake();
        }
    }

    /// Ends streams above this one.
    pub(crate) fn fail_above(&mut self, last: u32, error: &Error) {
        let above: Vec<u32> = self.streams.keys().copied().filter(|id| *id > last).collect();
        for id in above {
            if let Some(stream) = self.streams.get_mut(&id)
                && !stream.is_closed()
            {
                stream.fail(error.clone());
                self.settle(id);
            }
        }
    }

    /// Whether all has been done that there was to do.
    pub(crate) fn is_over(&self) -> bool {
        let wanted = match self.role {
            Role::Client => self.opener && self.goodbye.is_none(),
            Role::Server => !matches!(self.ending, Ending::After(_)) && self.goodbye.is_none(),
        };
        !wanted && self.open == 0 && self.arrived.is_empty()
    }

    /// Says goodbye in two steps (RFC 9113 §6.8): no more streams, and when the client knows, which was the last one.
    pub(crate) fn say_goodbye(&mut self) {
        if self.ending == Ending::No {
            self.ending = Ending::Announced;
            self.put(|out| {
                frame::put_go_away(out, MAX_STREAM, Reason::NO_ERROR, "");
                frame::put_ping(out, 0, GOODBYE);
            });
        }
    }

    /// The client knows.
    pub(crate) fn goodbye_is_known(&mut self) {
        if self.ending == Ending::Announced {
            let last = self.highest;
            self.ending = Ending::After(last);
            self.put(|out| frame::put_go_away(out, last, Reason::NO_ERROR, ""));
        }
    }
}

/// Whether a peer is told of so many bytes that it may send: as soon as they are half of its window, so that it never waits
/// for what is on its way, or as much as it has left. Others may have kept the rest of the window.
fn is_worth_saying(credit: u32, window: u32, left: i64) -> bool {
    credit > 0 && (credit >= window / 2 || i64::from(credit) >= left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_resets_are_remembered() {
        let mut remembered = Remembered {
            limit: 10,
            ..Remembered::default()
        };
        for stream in 0..20 {
            remembered.add(stream);
        }
        assert_eq!(remembered.all.len(), 10);
        assert!(!remembered.all.contains(&9) && remembered.all.contains(&10));
    }
}
