//! Request bodies that can be sent again, or elsewhere too: what has been read of one is kept, up to a limit of its own
//! and one for all.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::http::body::{Body, Error};

/// Frames of one body that are kept at most: tiny ones cost more than their bytes.
const MAX_FRAMES: usize = 256;

/// Bytes of a frame that is copied to be kept.
const SMALL: usize = 4 << 10;

/// The bytes that all bodies together may keep.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Held>);

#[derive(Debug)]
struct Held {
    now: AtomicUsize,
    max: usize,
    /// How often there was no room.
    full: AtomicU64,
}

/// Why no copy of a body can be made any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It is longer than may be kept of it.
    TooLong,
    /// All bodies together have used up their memory.
    Full,
    /// It broke off, or nobody read it to its end.
    BrokenOff,
}

/// A request body of which copies can be made, one after another.
#[derive(Debug)]
pub struct Replay(Source);

#[derive(Debug)]
enum Source {
    /// There is no body.
    Nothing,
    /// A copy of the bytes is as good as the bytes.
    Bytes(Bytes),
    /// What was read of it is kept.
    Kept(Arc<Mutex<Kept>>),
}

/// A copy: what was read before, then the rest.
#[derive(Debug)]
pub struct Copy {
    kept: Arc<Mutex<Kept>>,
    /// Which copy this is: the one made last reads the rest, those before it are over.
    number: u32,
    /// Frames of what is kept that it has given out.
    at: usize,
    ended: bool,
}

#[derive(Debug)]
struct Kept {
    rest: Body,
    frames: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    /// The rest has been read.
    ended: bool,
    bytes: usize,
    max_bytes: usize,
    memory: Memory,
    /// Why no further copy can be made.
    lost: Option<Lost>,
    copies: u32,
    /// The copy that was the last to be dropped; copies are numbered from one.
    dropped: u32,
    /// Who waits until all of it has been read.
    waiting: Option<Waker>,
}

impl Memory {
    /// For at most so many bytes.
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Held {
            now: AtomicUsize::new(0),
            max,
            full: AtomicU64::new(0),
        }))
    }

    /// Bytes that are kept now.
    pub fn held(&self) -> usize {
        self.0.now.load(Ordering::Relaxed)
    }

    /// Bytes that may be kept.
    pub fn limit(&self) -> usize {
        self.0.max
    }

    /// Bodies that were no longer kept because there was no room.
    pub fn full(&self) -> u64 {
        self.0.full.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let held = self.0.now.fetch_add(bytes, Ordering::Relaxed);
        let fits = held.saturating_add(bytes) <= self.0.max;
        if !fits {
            self.give_back(bytes);
            self.0.full.fetch_add(1, Ordering::Relaxed);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.0.now.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Replay {
    /// Keeps what is read of a body, up to `max_bytes` and what `memory` has left. `None`, and the body stays
    /// as it was, if it says that it is longer.
    pub fn take(body: &mut Body, max_bytes: usize, memory: &Memory) -> Option<Self> {
        if body.is_end_stream() {
            return Some(Self(Source::Nothing));
        }
        if body.size_hint().lower() > max_bytes as u64 {
            return None;
        }
        Some(Self(match std::mem::take(body) {
            Body::Full(bytes) => Source::Bytes(bytes),
            body => Source::Kept(Arc::new(Mutex::new(Kept {
                rest: body,
                frames: VecDeque::new(),
                trailers: None,
                ended: false,
                bytes: 0,
                max_bytes,
                memory: memory.clone(),
                lost: None,
                copies: 0,
                dropped: 0,
                waiting: None,
            }))),
        }))
    }

    /// Whether a copy made now would be whole.
    pub fn is_whole(&self) -> bool {
        match &self.0 {
            Source::Nothing | Source::Bytes(_) => true,
            Source::Kept(kept) => lock(kept).lost.is_none(),
        }
    }

    /// Waits until a copy has been read to its end: from then on copies can be read at the same time.
    pub async fn whole(&self) -> Result<(), Lost> {
        let Source::Kept(kept) = &self.0 else {
            return Ok(());
        };
        std::future::poll_fn(|cx| lock(kept).poll_whole(cx)).await
    }

    /// A copy from the start; those made before it end with an error, unless all has been read by then. `None` if some of
    /// it is no longer there.
    pub fn copy(&self) -> Option<Body> {
        match &self.0 {
            Source::Nothing => Some(Body::Empty),
            Source::Bytes(bytes) => Some(Body::Full(bytes.clone())),
            Source::Kept(kept) => {
                let mut locked = lock(kept);
                if locked.lost.is_some() {
                    return None;
                }
                locked.copies += 1;
                Some(Body::Copy(Copy {
                    kept: kept.clone(),
                    number: locked.copies,
                    at: 0,
                    ended: false,
                }))
            }
        }
    }
}

/// Bytes that hold nothing but themselves: small frames are parts of larger buffers.
fn alone(data: &Bytes) -> Bytes {
    match data.len() {
        ..SMALL => Bytes::copy_from_slice(data),
        _ => data.clone(),
    }
}

impl Kept {
    /// Keeps what has just been read, or nothing more if there is no room.
    fn keep(&mut self, data: &Bytes) {
        if self.lost.is_some() || data.is_empty() {
            return;
        }
        if self.bytes + data.len() > self.max_bytes || self.frames.len() >= MAX_FRAMES {
            self.forget(Lost::TooLong);
        } else if !self.memory.take(data.len()) {
            self.forget(Lost::Full);
        } else {
            self.bytes += data.len();
            self.frames.push_back(alone(data));
        }
    }

    fn forget(&mut self, why: Lost) {
        self.lost.get_or_insert(why);
        self.frames = VecDeque::new();
        self.memory.give_back(std::mem::take(&mut self.bytes));
        self.wake();
    }

    fn end(&mut self) {
        self.ended = true;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    fn poll_whole(&mut self, cx: &Context<'_>) -> Poll<Result<(), Lost>> {
        match self.lost {
            Some(why) => Poll::Ready(Err(why)),
            None if self.ended => Poll::Ready(Ok(())),
            // Nobody reads on, and nobody will.
            None if self.copies > 0 && self.dropped == self.copies => Poll::Ready(Err(Lost::BrokenOff)),
            None => {
                self.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.rest).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => self.end(),
            Poll::Ready(Some(Err(_))) => self.forget(Lost::BrokenOff),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.keep(data);
                    // Who knows that this was the last frame does not ask for another one.
                    if self.rest.is_end_stream() {
                        self.end();
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.trailers = Some(trailers.clone());
                    self.end();
                }
            }
        }
        polled
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}

impl HttpBody for Copy {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let copy = &mut *self;
        if copy.ended {
            return Poll::Ready(None);
        }
        let mut kept = lock(&copy.kept);
        if kept.copies != copy.number && !kept.ended {
            copy.ended = true;
            return Poll::Ready(Some(Err(Error::Proxy("the request is sent again elsewhere"))));
        }
        if let Some(data) = kept.frames.get(copy.at) {
            copy.at += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if kept.ended {
            copy.ended = true;
            let trailers = kept.trailers.clone();
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let polled = kept.poll_rest(cx);
        copy.at = kept.frames.len();
        copy.ended = kept.ended && !matches!(&polled, Poll::Ready(Some(Ok(frame))) if frame.is_data());
        polled
    }

    fn is_end_stream(&self) -> bool {
        let kept = lock(&self.kept);
        let given = self.at >= kept.frames.len() && kept.trailers.is_none();
        self.ended || (given && (kept.ended || kept.rest.is_end_stream()))
    }

    fn size_hint(&self) -> SizeHint {
        let kept = lock(&self.kept);
        let again: usize = kept
            .frames
            .range(self.at.min(kept.frames.len())..)
            .map(Bytes::len)
            .sum();
        let rest = kept.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + again as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + again as u64);
        }
        hint
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let mut kept = lock(&self.kept);
        if self.at >= kept.frames.len() && kept.lost.is_none() && kept.rest.is_end_stream() {
            // Who knows that there is nothing more does not ask for it.
            kept.ended = true;
        }
        kept.dropped = kept.dropped.max(self.number);
        kept.wake();
    }
}

/// A lock whose holder panicked: what is kept is as good as before, and read as far as it was.
fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use crate::http::body::testing::Frames;

    const ROOM: usize = 1 << 20;

    fn body(frames: &[&'static str], trailers: bool) -> Body {
        let trailers =
            trailers.then(|| HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from(0))]));
        Body::Frames(Frames::new(
            frames.iter().map(|data| Bytes::from_static(data.as_bytes())),
            trailers,
        ))
    }

    async fn read(body: Body) -> (Bytes, Option<HeaderMap>) {
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().cloned();
        (collected.to_bytes(), trailers)
    }

    #[tokio::test]
    async fn every_copy_is_the_body() {
        let memory = Memory::new(ROOM);
        let replay = Replay::take(&mut body(&["one", "", "two"], true), 6, &memory).unwrap();
        for _ in 0..3 {
            let (bytes, trailers) = read(replay.copy().unwrap()).await;
            assert_eq!(bytes, "onetwo");
            assert_eq!(trailers.unwrap()["grpc-status"], "0");
        }
        assert_eq!(memory.held(), 6);
        drop(replay);
        assert_eq!(memory.held(), 0);
    }

    #[tokio::test]
    async fn a_copy_goes_on_where_the_one_before_has_stopped_reading() {
        let replay = Replay::take(
            &mut body(&["one", "two", "three"], false),
            100,
            &Memory::new(ROOM),
        )
        .unwrap();
        let mut first = replay.copy().unwrap();
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        let second = replay.copy().unwrap();
        assert!(first.frame().await.unwrap().is_err());
        assert!(first.frame().await.is_none());
        assert_eq!(read(second).await.0, "onetwothree");
    }

    #[tokio::test]
    async fn what_is_too_long_is_sent_once_and_whole() {
        for (max, room) in [(5, ROOM), (100, 5)] {
            let memory = Memory::new(room);
            let replay = Replay::take(&mut body(&["one", "two", "three"], false), max, &memory).unwrap();
            assert_eq!(read(replay.copy().unwrap()).await.0, "onetwothree");
            assert!(!replay.is_whole() && replay.copy().is_none());
            assert_eq!(memory.held(), 0);
        }
    }

    #[test]
    fn a_body_that_says_it_is_too_long_is_given_back() {
        let mut long = Body::Full(Bytes::from_static(b"four"));
        assert!(Replay::take(&mut { long }, 3, &Memory::new(ROOM)).is_none());
    }

    #[tokio::test]
    async fn nothing_and_bytes_of_our_own_need_no_room() {
        let memory = Memory::new(0);
        assert!(
            Replay::take(&mut Body::Empty, 0, &memory)
                .unwrap()
                .copy()
                .unwrap()
                .is_end_stream()
        );
        let full = Replay::take(&mut Body::Full(Bytes::from_static(b"four")), 4, &memory).unwrap();
        assert_eq!(read(full.copy().unwrap()).await.0, "four");
        assert_eq!(read(full.copy().unwrap()).await.0, "four");
    }

    fn replay(frames: &[&'static str], max: usize, memory: &Memory) -> Replay {
        Replay::take(&mut body(frames, true), max, memory).unwrap()
    }

    #[tokio::test]
    async fn copies_of_what_was_read_whole_are_read_at_the_same_time() {
        let replay = replay(&["one", "two"], 6, &Memory::new(ROOM));
        let original = tokio::spawn(read(replay.copy().unwrap()));
        replay.whole().await.unwrap();
        original.await.unwrap();
        let mut copies = [(); 2].map(|()| replay.copy().unwrap());
        for expected in ["one", "two"] {
            for copy in &mut copies {
                let frame = copy.frame().await.unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), expected);
            }
        }
        for copy in &mut copies {
            assert!(copy.frame().await.unwrap().unwrap().is_trailers());
        }
    }

    #[tokio::test]
    async fn who_waits_for_the_whole_learns_why_it_will_not_come() {
        let memory = Memory::new(5);
        let waits = |replay: Replay| tokio::spawn(async move { replay.whole().await });
        for (max, why) in [(5, Lost::TooLong), (100, Lost::Full)] {
            let replay = replay(&["one", "two"], max, &memory);
            let original = replay.copy().unwrap();
            let waiting = waits(replay);
            assert_eq!(read(original).await.0, "onetwo");
            assert_eq!(waiting.await.unwrap(), Err(why));
        }
        assert_eq!(memory.full(), 1);
        let replay = replay(&["one", "two"], 100, &memory);
        let mut original = replay.copy().unwrap();
        original.frame().await.unwrap().unwrap();
        let waiting = waits(replay);
        tokio::task::yield_now().await;
        drop(original);
        assert_eq!(waiting.await.unwrap(), Err(Lost::BrokenOff));
        let unread = self::replay(&["one"], 100, &memory);
        drop(unread.copy());
        assert_eq!(unread.whole().await, Err(Lost::BrokenOff));
        drop(unread);
        assert_eq!(memory.held(), 0);
    }

    proptest! {
        #[test]
        fn a_replay_is_byte_exact_wherever_each_attempt_breaks_off(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9),
            stops in prop::collection::vec(0usize..12, 0..4),
            trailers in any::<bool>(),
        ) {
            let whole: Vec<u8> = frames.concat();
            let trailers = trailers.then(HeaderMap::new);
            let mut source = Body::Frames(Frames::new(frames.into_iter().map(Bytes::from), trailers.clone()));
            let replay = Replay::take(&mut source, 100, &Memory::new(ROOM)).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                for stop in stops {
                    let mut copy = replay.copy().unwrap();
                    for _ in 0..stop {
                        let _frame_or_end = copy.frame().await;
                    }
                }
                let (bytes, got) = read(replay.copy().unwrap()).await;
                assert_eq!(bytes, whole);
                assert_eq!(got.is_some(), trailers.is_some());
            });
        }
    }
}
