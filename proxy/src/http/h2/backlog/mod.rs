//! What has come on HTTP/2 streams and nobody has read: its memory is counted, and bounded over all connections.
//!
//! Up to half of the bound, who reads a stream gives its whole window back. Beyond, 16 KiB of it and no more, so that
//! readers that are only slow hold less and less, and nobody waits for good. At the bound, streams are given up whose
//! readers have stopped, those first that stopped first, on connections that hold more than their part. Only where that is
//! not enough, streams pay whose readers will take what has come as soon as a thread runs them.

mod metrics;
#[cfg(test)]
mod tests;

pub use self::metrics::{Handles, Metrics};

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasherDefault;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::HeaderMap;
use outrigger_http2::{Recv, Spread};

use crate::http::body::Error;

/// What is read into at a time, bytes. However little is left unread in it, all of it stays.
const CHUNK: usize = 16 << 10;

const GIVEN_UP: &str = "too much had come that nobody read (LINKERD2_PROXY_HTTP2_MAX_UNREAD_BYTES)";

/// The memory that may wait unread in one direction.
#[derive(Debug)]
pub struct Backlog {
    limit: usize,
    metrics: Handles,
    /// Counts what happens, to tell who has waited longest.
    turn: AtomicU64,
    shares: Mutex<Vec<Weak<Share>>>,
}

/// The part that one connection has in it.
#[derive(Debug)]
pub struct Share {
    backlog: Arc<Backlog>,
    /// Bytes of a stream's window that it can do without.
    spare: usize,
    state: Mutex<State>,
    /// The connection is to end, and who reads from it is to be told.
    ending: AtomicBool,
    reader: AtomicWaker,
}

#[derive(Debug, Default)]
struct State {
    streams: HashMap<u32, Stream, BuildHasherDefault<Spread>>,
    /// What has come on streams that have not been accepted yet.
    early: BTreeMap<u32, Unread>,
    /// Streams above this have not been accepted, and may be.
    accepted: u32,
    /// Bytes of memory, of all streams.
    held: usize,
}

#[derive(Debug, Default)]
struct Stream {
    unread: Unread,
    /// Bytes that were read, and not given back to the peer's window.
    kept_back: usize,
    /// There is none before the head of an answer has come.
    received: Option<Recv>,
    /// Its reader had taken all that there was, and asked for more: it will read as soon as a thread runs it.
    wanted: bool,
    given_up: bool,
}

/// What has come on a stream and was not read.
#[derive(Debug, Default)]
struct Unread {
    bytes: usize,
    memory: usize,
    /// How many bytes had come on the connection when the last of these did.
    position: u64,
    /// The turn in which somebody last read, or what is unread began to wait.
    since: u64,
}

/// A stream that may be read.
#[derive(Debug)]
pub struct Claim {
    share: Arc<Share>,
    stream: u32,
}

impl Backlog {
    /// Nothing has come yet; at most `limit` bytes of memory may wait.
    pub fn new(limit: usize, metrics: Handles) -> Arc<Self> {
        Arc::new(Self {
            limit,
            metrics,
            turn: AtomicU64::new(0),
            shares: Mutex::default(),
        })
    }

    fn held(&self) -> usize {
        usize::try_from(self.metrics.held.value()).unwrap_or(0)
    }

    fn is_short(&self) -> bool {
        self.held() > self.limit / 2
    }

    fn hold(&self, memory: usize) {
        self.metrics.held.add(memory as i64);
    }

    fn free(&self, memory: usize) {
        self.metrics.held.add(-(memory as i64));
    }

    fn turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    fn enter(&self, share: &Arc<Share>) {
        let mut shares = lock(&self.shares);
        if shares.len() == shares.capacity() {
            shares.retain(|share| share.strong_count() > 0);
        }
        shares.push(Arc::downgrade(share));
    }

    /// Sees to it that no more than the limit is held. What has not been looked at by then is what threads have read at
    /// this moment.
    fn keep_within(&self) {
        if self.held() <= self.limit {
            return;
        }
        let shares = lock(&self.shares);
        // Somebody else may have made room meanwhile.
        if self.held() <= self.limit {
            return;
        }
        let open: Vec<Arc<Share>> = shares.iter().filter_map(Weak::upgrade).collect();
        let given_up = self.make_room(&open);
        self.metrics.full.inc();
        self.metrics.given_up.add(given_up as u64);
        tracing::warn!(
            given_up,
            limit = self.limit,
            "Giving up HTTP/2 streams that nobody reads: together they hold too much memory \
             (LINKERD2_PROXY_HTTP2_MAX_UNREAD_BYTES)"
        );
    }

    /// Gives up streams until a quarter is free; how many.
    fn make_room(&self, open: &[Arc<Share>]) -> usize {
        let room = self.limit / 4 * 3;
        self.give_up(open, room, |stream| !stream.wanted)
            + self.give_up(open, room, |_| true)
            + self.end(open, room)
    }

    /// Gives up such streams of connections that hold more than their part for them until no more than `room` is held in
    /// all, those first that have waited longest; how many.
    fn give_up(&self, open: &[Arc<Share>], room: usize, such: fn(&Stream) -> bool) -> usize {
        let held: Vec<usize> = open.iter().map(|share| share.unread(such, |_, _| ())).collect();
        let others = self.held().saturating_sub(held.iter().sum());
        let part = part(held.clone(), room.saturating_sub(others));
        let mut waiting = Vec::new();
        for (at, share) in open.iter().enumerate().filter(|(at, _)| held[*at] > part) {
            share.unread(such, |since, stream| waiting.push((since, at, stream)));
        }
        waiting.sort_unstable();
        let mut given_up = 0;
        for (_, at, stream) in waiting {
            if self.held() <= room {
                break;
            }
            open[at].give_up(stream);
            given_up += 1;
        }
        given_up
    }

    /// Ends connections that hold more than their part until no more than `room` is held; how many streams that somebody
    /// might have read end with them.
    fn end(&self, open: &[Arc<Share>], room: usize) -> usize {
        let part = part(open.iter().map(|share| lock(&share.state).held).collect(), room);
        let mut given_up = 0;
        for share in open {
            if self.held() > room && lock(&share.state).held > part {
                given_up += share.end();
            }
        }
        given_up
    }
}

/// What each may hold so that all hold `total`, if who holds less gives nothing.
fn part(mut held: Vec<usize>, total: usize) -> usize {
    held.sort_unstable();
    let (mut left, mut sharing) = (total, held.len());
    for held in held {
        let fair = left / sharing;
        if held > fair {
            return fair;
        }
        left -= held;
        sharing -= 1;
    }
    usize::MAX
}

impl Share {
    /// Of a connection that a client opened to us. `spare`: bytes of a stream's window that it can do without.
    pub fn of_client(backlog: &Arc<Backlog>, spare: usize) -> Arc<Self> {
        Self::new(backlog, spare, 0)
    }

    /// Of a connection that we opened to a server.
    pub fn of_server(backlog: &Arc<Backlog>, spare: usize) -> Arc<Self> {
        // It opens no streams.
        Self::new(backlog, spare, u32::MAX)
    }

    fn new(backlog: &Arc<Backlog>, spare: usize, accepted: u32) -> Arc<Self> {
        let state = State {
            accepted,
            ..State::default()
        };
        let share = Arc::new(Self {
            backlog: backlog.clone(),
            spare,
            state: Mutex::new(state),
            ending: AtomicBool::new(false),
            reader: AtomicWaker::new(),
        });
        backlog.enter(&share);
        share
    }

    /// DATA has come on a stream, with so many bytes of content. `position` is how many bytes have come on the connection.
    pub fn arrived(&self, stream: u32, bytes: usize, position: u64) {
        if bytes == 0 || self.is_ending() {
            return;
        }
        let mut locked = lock(&self.state);
        let state = &mut *locked;
        let unread = match state.streams.get_mut(&stream) {
            Some(stream) if stream.given_up => return,
            Some(stream) => &mut stream.unread,
            None if stream > state.accepted => state.early.entry(stream).or_default(),
            // It was given up or has ended: what still comes is thrown away.
            None => return,
        };
        let memory = unread.add(bytes, position, self.backlog.turn());
        state.held += memory;
        self.backlog.hold(memory);
    }

    /// Called when what was read from the peer has been looked at.
    pub fn keep_within(&self) {
        self.backlog.keep_within();
    }

    /// A stream that the client has opened.
    pub fn accept(self: &Arc<Self>, received: Recv) -> Claim {
        let stream = received.id();
        let mut state = lock(&self.state);
        state.accepted = state.accepted.max(stream);
        let mut unread = Unread::default();
        // Streams are accepted in the order of their numbers. Those passed over were refused.
        while let Some(first) = state.early.first_entry()
            && *first.key() <= stream
        {
            let (id, early) = first.remove_entry();
            if id == stream {
                unread = early;
            } else {
                self.backlog.free(state.forget(&early));
            }
        }
        let entered = Stream {
            unread,
            received: Some(received),
            ..Stream::default()
        };
        state.streams.insert(stream, entered);
        self.clone().claim(stream)
    }

    /// A stream that we have opened.
    pub fn open(self: &Arc<Self>, stream: u32) -> Claim {
        lock(&self.state).streams.insert(stream, Stream::default());
        self.clone().claim(stream)
    }

    fn claim(self: Arc<Self>, stream: u32) -> Claim {
        Claim { share: self, stream }
    }

    /// Shows each such stream of which something is unread, and since when; how much all of them hold.
    fn unread(&self, such: fn(&Stream) -> bool, mut seen: impl FnMut(u64, u32)) -> usize {
        let mut held = 0;
        for (id, stream) in &lock(&self.state).streams {
            if stream.unread.memory > 0 && such(stream) {
                held += stream.unread.memory;
                seen(stream.unread.since, *id);
            }
        }
        held
    }

    /// Drops what is unread of a stream.
    fn give_up(&self, stream: u32) {
        let mut state = lock(&self.state);
        let Some(stream) = state.streams.get_mut(&stream) else {
            return;
        };
        stream.given_up = true;
        let (unread, received) = (mem::take(&mut stream.unread), stream.received.take());
        let memory = state.forget(&unread);
        self.backlog.free(memory);
        // HTTP/2 has a lock of its own, which the stream's end takes.
        drop(state);
        drop(received);
    }
}

impl Share {
    /// Ends the connection, which counts as gone from now on; how many streams end with it.
    fn end(&self) -> usize {
        self.ending.store(true, Ordering::Release);
        let mut state = lock(&self.state);
        self.backlog.free(mem::take(&mut state.held));
        let streams: Vec<Recv> = state.streams.values_mut().filter_map(Stream::end).collect();
        state.early.clear();
        // HTTP/2 has a lock of its own, which the streams' end takes.
        drop(state);
        self.reader.wake();
        streams.len()
    }

    /// Whether the connection is to end.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Has the task that reads from the connection told when it is to end; whether it is already.
    pub fn poll_ending(&self, cx: &mut Context<'_>) -> bool {
        self.reader.register(cx.waker());
        self.is_ending()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.backlog.free(lock(&self.state).held);
    }
}

impl State {
    /// Nobody will read this any more, and nothing is kept of it; how much memory that was.
    fn forget(&mut self, unread: &Unread) -> usize {
        self.held -= unread.memory;
        unread.memory
    }
}

impl Unread {
    /// Takes a frame in; the memory that it costs.
    ///
    /// Frames that were read together lie together. One that comes alone may keep all that was read with it.
    fn add(&mut self, bytes: usize, position: u64, turn: u64) -> usize {
        if self.bytes == 0 {
            self.since = turn;
        }
        let apart = usize::try_from(position - self.position).unwrap_or(CHUNK);
        let memory = bytes + apart.min(CHUNK);
        self.position = position;
        self.bytes += bytes;
        self.memory += memory;
        memory
    }

    /// So much was read; the memory that this has freed.
    fn remove(&mut self, bytes: usize, turn: u64) -> usize {
        let freed = if bytes < self.bytes {
            let share = self.memory as u128 * bytes as u128 / self.bytes as u128;
            usize::try_from(share).unwrap_or(self.memory)
        } else {
            self.memory
        };
        self.bytes = self.bytes.saturating_sub(bytes);
        self.memory -= freed;
        self.since = turn;
        freed
    }
}

impl Stream {
    /// What is to be dropped of it when its connection ends.
    fn end(&mut self) -> Option<Recv> {
        self.given_up = true;
        self.unread = Unread::default();
        self.received.take()
    }

    /// So much was read; how much the peer may send in its place, if `keep` of the window is to be kept back.
    fn give_back(&mut self, bytes: usize, keep: usize) -> usize {
        self.kept_back += bytes;
        let back = self.kept_back.saturating_sub(keep);
        self.kept_back -= back;
        back
    }
}

impl Claim {
    /// What there is to read on it, once the head of an answer has come.
    #[must_use]
    pub fn on(self, received: Recv) -> Self {
        if let Some(stream) = lock(&self.share.state).streams.get_mut(&self.stream)
            && !stream.given_up
        {
            stream.received = Some(received);
        }
        self
    }

    /// The next piece of content, and whether it was the last of the message.
    pub fn poll_data(&self, cx: &mut Context<'_>) -> Poll<Option<Result<(Bytes, bool), Error>>> {
        let backlog = &self.share.backlog;
        let mut locked = lock(&self.share.state);
        let state = &mut *locked;
        let Some(stream) = state.streams.get_mut(&self.stream) else {
            return Poll::Ready(None);
        };
        let Some(received) = &mut stream.received else {
            return Poll::Ready(Some(Err(Error::Proxy(GIVEN_UP))));
        };
        let polled = received.poll_data(cx)?;
        stream.wanted = polled.is_pending();
        let Some((data, ended)) = ready!(polled) else {
            return Poll::Ready(None);
        };
        let freed = stream.unread.remove(data.len(), backlog.turn());
        state.held -= freed;
        backlog.free(freed);
        // Who asks for data has room for it, so the peer may send as much again, on the connection too.
        let keep = if backlog.is_short() { self.share.spare } else { 0 };
        let back = stream.give_back(data.len(), keep);
        if let Some(received) = &mut stream.received {
            // Though it may be nothing: the peer may have used up all, and not know yet of what was given back before.
            received.release(back);
        }
        Poll::Ready(Some(Ok((data, ended))))
    }

    /// What comes behind all content.
    pub fn poll_trailers(&self, cx: &mut Context<'_>) -> Poll<Option<Result<HeaderMap, Error>>> {
        let mut state = lock(&self.share.state);
        match state.streams.get_mut(&self.stream) {
            Some(Stream {
                received: Some(received),
                ..
            }) => Poll::Ready(ready!(received.poll_trailers(cx)).map(|trailers| Ok(trailers?))),
            Some(_) => Poll::Ready(Some(Err(Error::Proxy(GIVEN_UP)))),
            None => Poll::Ready(None),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = lock(&self.share.state);
        let removed = state.streams.remove(&self.stream);
        if let Some(stream) = &removed {
            self.share.backlog.free(state.forget(&stream.unread));
        }
        // HTTP/2 has a lock of its own, which the stream's end takes.
        drop(state);
        drop(removed);
    }
}

/// A lock whose holder panicked is as good as any: at worst its count is off.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// As much as comes.
    pub(crate) fn boundless() -> Arc<Backlog> {
        Backlog::new(usize::MAX, Handles::default())
    }

    /// Reads a stream of a client.
    pub(crate) fn claim(received: Recv) -> Claim {
        Share::of_client(&boundless(), 0).accept(received)
    }
}
