//! The connections of one channel, and the streams that still fit on them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper::client::conn::http2::SendRequest;
use tokio::sync::Notify;
use tonic::body::Body;

use crate::control::metrics::ChannelMetrics;

/// Connections of one channel. More than one only where the peer limits its streams (RFC 9113 §5.1.2).
const MAX_LINES: usize = 8;

/// The connections of one channel.
pub(crate) struct Lines {
    state: Mutex<State>,
    /// There may be room for a stream.
    freed: Notify,
    /// Something changed that may call for one connection more or less.
    pub(crate) changed: Notify,
    metrics: ChannelMetrics,
}

#[derive(Default)]
struct State {
    lines: Vec<Line>,
    /// Turns that are taken: nobody else dials.
    turns: usize,
    /// A stream found no room.
    crowded: bool,
    next_id: u64,
}

struct Line {
    id: u64,
    addr: SocketAddr,
    sender: SendRequest<Body>,
    /// Streams that are open, and those that the peer allows.
    open: usize,
    limit: usize,
    /// Its address has left DNS: used for want of a better one.
    stale: bool,
    /// It has been told to end.
    closing: bool,
    close: Arc<Notify>,
}

/// Room for one stream; given back when dropped.
pub(crate) struct Slot {
    pub(crate) sender: SendRequest<Body>,
    id: u64,
    lines: Arc<Lines>,
}

/// A connection that is up for as long as this lives.
pub(crate) struct Up {
    id: u64,
    lines: Arc<Lines>,
    close: Arc<Notify>,
}

/// The right to dial, from choosing the address until it is known how that went; given back when dropped.
pub(crate) struct Turn(Arc<Lines>);

impl Line {
    fn has_room(&self) -> bool {
        !self.closing && self.open < self.limit
    }

    /// A stream is more welcome elsewhere; the room here is for when there is no other.
    fn is_good(&self) -> bool {
        !self.closing && !self.stale
    }

    fn tell_to_end(&mut self) {
        self.closing = true;
        self.close.notify_one();
    }
}

impl Lines {
    pub(crate) fn new(metrics: ChannelMetrics) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            freed: Notify::new(),
            changed: Notify::new(),
            metrics,
        })
    }

    /// Whether there is a connection.
    pub(crate) fn is_up(&self) -> bool {
        self.lock().lines.iter().any(|line| !line.closing)
    }

    /// Room for a stream. Waits for it without a bound.
    pub(crate) async fn slot(self: &Arc<Self>) -> Slot {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(slot) = self.take() {
                return slot;
            }
            self.changed.notify_one();
            freed.await;
        }
    }

    /// The first line with room, so that those behind it empty out.
    fn take(self: &Arc<Self>) -> Option<Slot> {
        let mut state = self.lock();
        let State { lines, crowded, .. } = &mut *state;
        let good = lines.iter().position(|line| line.is_good() && line.has_room());
        let Some(found) = good.or_else(|| lines.iter().position(Line::has_room)) else {
            *crowded = true;
            return None;
        };
        let line = &mut lines[found];
        line.open += 1;
        Some(Slot {
            sender: line.sender.clone(),
            id: line.id,
            lines: self.clone(),
        })
    }

    /// Marks the lines whose address is not known any more. They end as soon as there is a better one.
    pub(crate) fn know(&self, addresses: &[SocketAddr]) {
        let mut state = self.lock();
        for line in &mut state.lines {
            line.stale = !addresses.is_empty() && !addresses.contains(&line.addr);
        }
        state.replace_stale();
    }

    /// Whether one connection more is needed now: there is none, or a stream waits for room.
    pub(crate) fn needs_another(&self) -> bool {
        let state = self.lock();
        let good = || state.lines.iter().filter(|line| line.is_good());
        let crowded = state.crowded && !good().any(Line::has_room);
        state.turns == 0 && (good().count() == 0 || (crowded && state.lines.len() < MAX_LINES))
    }

    /// Takes the turn to dial.
    pub(crate) fn turn(self: &Arc<Self>) -> Turn {
        self.lock().turns += 1;
        Turn(self.clone())
    }

    /// A connection is there.
    pub(crate) fn up(self: &Arc<Self>, addr: SocketAddr, sender: SendRequest<Body>, limit: usize) -> Up {
        let mut state = self.lock();
        let (id, close) = (state.next_id, Arc::new(Notify::new()));
        state.next_id += 1;
        state.crowded = false;
        state.lines.push(Line {
            id,
            addr,
            sender,
            open: 0,
            limit,
            stale: false,
            closing: false,
            close: close.clone(),
        });
        state.replace_stale();
        self.metrics.connected.set(1);
        drop(state);
        self.freed.notify_waiters();
        Up {
            id,
            lines: self.clone(),
            close,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn replace_stale(&mut self) {
        if self.lines.iter().any(Line::is_good) {
            for line in self.lines.iter_mut().filter(|line| line.stale && !line.closing) {
                line.tell_to_end();
            }
        }
    }

    /// A line without streams ends where the others have room to spare.
    fn spare(&mut self, id: u64) {
        let roomy = |line: &Line| line.id != id && line.is_good() && line.open < line.limit.div_ceil(2);
        if self.lines.iter().any(roomy) {
            let idle = self.lines.iter_mut().find(|line| line.id == id && line.open == 0);
            if let Some(line) = idle.filter(|line| !line.closing) {
                line.tell_to_end();
            }
        }
    }
}

impl Up {
    /// The peer allows so many streams now.
    pub(crate) fn limit(&self, limit: usize) {
        let mut state = self.lines.lock();
        if let Some(line) = state.lines.iter_mut().find(|line| line.id == self.id)
            && line.limit != limit
        {
            line.limit = limit;
            drop(state);
            self.lines.freed.notify_waiters();
        }
    }

    /// The connection has ended. Nobody dials until the turn is given back: first the pause has to be known.
    pub(crate) fn over(self) -> Turn {
        self.lines.turn()
    }

    /// Waits until the line is told to end.
    pub(crate) async fn told_to_end(&self) {
        self.close.notified().await;
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let mut state = self.lines.lock();
        state.lines.retain(|line| line.id != self.id);
        self.lines
            .metrics
            .connected
            .set(i64::from(!state.lines.is_empty()));
        drop(state);
        self.lines.changed.notify_one();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.lines.lock();
        if let Some(line) = state.lines.iter_mut().find(|line| line.id == self.id) {
            line.open -= 1;
            if line.open == 0 {
                state.spare(self.id);
            }
        }
        drop(state);
        self.lines.freed.notify_one();
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.lock().turns -= 1;
        self.0.changed.notify_one();
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let lines = state.lines.iter().map(|line| (line.addr, line.open, line.limit));
        f.debug_list().entries(lines).finish()
    }
}
