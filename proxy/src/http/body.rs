//! Bodies: an enum of every body that is sent, and a wrapper that reports its end exactly once.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::error::Late;
use crate::http::deadline::{Timed, Watched};
use crate::http::h2::answer::Answer;
use crate::http::h2::recv::Received;
use crate::http::http1::client::{self, Reading, Relayed};
use crate::http::http1::server::{self, Upload};
use crate::http::measured::Measured;
use crate::http::peek::Peeked;
use crate::http::replay;

/// Every body that is sent.
#[derive(Debug, Default)]
pub enum Body {
    /// Nothing.
    #[default]
    Empty,
    /// A few bytes of our own.
    Full(Bytes),
    /// What a client sends over HTTP/1.
    Upload(Upload),
    /// What a server answers over HTTP/1.
    Reading(Reading),
    /// The same, from a task.
    Relayed(Relayed),
    /// What a client sends on an HTTP/2 stream.
    Received(Received),
    /// What a server answers on one.
    Answer(Answer),
    /// A request that may be sent again.
    Copy(replay::Copy),
    /// A request whose end somebody waits for.
    Watched(Box<Watched>),
    /// A request that is measured.
    Measured(Box<Measured>),
    /// A response whose first frames have been looked at.
    Peeked(Box<Peeked>),
    /// A response that has only so much time.
    Timed(Box<Timed>),
    /// What a test has written down.
    #[cfg(test)]
    Frames(testing::Frames),
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What a client sends over HTTP/1 did.
    #[error("the request broke off")]
    Upload(#[from] server::Error),
    /// The exchange with a server over HTTP/1 did.
    #[error(transparent)]
    Exchange(#[from] client::Error),
    /// Its HTTP/2 stream or connection did.
    #[error("the HTTP/2 stream broke off")]
    Stream(#[from] outrigger_http2::Error),
    /// This proxy did, and says why.
    #[error("{0}")]
    Proxy(&'static str),
    /// Its time was over.
    #[error("timed out processing response stream: {0}: {1:?}")]
    Late(Late, Duration),
}

/// How a body ended.
#[derive(Debug)]
pub enum End<'a> {
    /// Completely.
    Complete,
    /// With an error of the peer that sends it.
    Failed(&'a Error),
    /// Nobody wanted the rest.
    Dropped,
}

/// Learns of what happens to a response's body.
pub trait Track {
    /// The first frame has arrived, or the end if there was none.
    fn first_frame(&mut self);
    /// A frame of so many bytes has arrived.
    fn data(&mut self, _bytes: usize) {}
    /// The trailers have arrived.
    fn trailers(&mut self, trailers: &HeaderMap);
    /// It is over. Called exactly once.
    fn finish(self, end: End<'_>);
}

/// A body that reports to `T`.
#[derive(Debug)]
pub struct Tracked<T: Track> {
    body: Body,
    track: Option<T>,
    begun: bool,
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(_) => {
                let Self::Full(bytes) = std::mem::take(&mut *self) else {
                    return Poll::Ready(None);
                };
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Upload(body) => Pin::new(body).poll_frame(cx),
            Self::Reading(body) => Pin::new(body).poll_frame(cx),
            Self::Relayed(body) => Pin::new(body).poll_frame(cx),
            Self::Received(body) => Pin::new(body).poll_frame(cx),
            Self::Answer(body) => Pin::new(body).poll_frame(cx),
            Self::Copy(body) => Pin::new(body).poll_frame(cx),
            Self::Watched(body) => Pin::new(body).poll_frame(cx),
            Self::Measured(body) => Pin::new(body).poll_frame(cx),
            Self::Timed(body) => Pin::new(body).poll_frame(cx),
            Self::Peeked(body) => Pin::new(body).poll_frame(cx),
            #[cfg(test)]
            Self::Frames(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Upload(body) => body.is_end_stream(),
            Self::Reading(body) => body.is_end_stream(),
            Self::Relayed(body) => body.is_end_stream(),
            Self::Received(body) => body.is_end_stream(),
            Self::Answer(body) => body.is_end_stream(),
            Self::Copy(body) => body.is_end_stream(),
            Self::Watched(body) => body.is_end_stream(),
            Self::Measured(body) => body.is_end_stream(),
            Self::Timed(body) => body.is_end_stream(),
            Self::Peeked(body) => body.is_end_stream(),
            #[cfg(test)]
            Self::Frames(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Upload(body) => body.size_hint(),
            Self::Reading(body) => body.size_hint(),
            Self::Relayed(body) => body.size_hint(),
            Self::Received(body) => body.size_hint(),
            Self::Answer(body) => body.size_hint(),
            Self::Copy(body) => body.size_hint(),
            Self::Watched(body) => body.size_hint(),
            Self::Measured(body) => body.size_hint(),
            Self::Timed(body) => body.size_hint(),
            Self::Peeked(body) => body.size_hint(),
            #[cfg(test)]
            Self::Frames(body) => body.size_hint(),
        }
    }
}

impl<T: Track> Tracked<T> {
    /// A body that reports to `track`.
    pub fn new(body: Body, track: T) -> Self {
        Self {
            body,
            track: Some(track),
            begun: false,
        }
    }

    fn begin(&mut self) {
        if !self.begun {
            self.begun = true;
            if let Some(track) = &mut self.track {
                track.first_frame();
            }
        }
    }

    fn finish(&mut self, end: End<'_>) {
        self.begin();
        if let Some(track) = self.track.take() {
            track.finish(end);
        }
    }
}

impl<T: Track + Unpin> HttpBody for Tracked<T> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => self.finish(End::Complete),
            Poll::Ready(Some(Err(error))) => self.finish(End::Failed(error)),
            Poll::Ready(Some(Ok(frame))) => {
                self.begin();
                if let Some(track) = &mut self.track {
                    if let Some(data) = frame.data_ref() {
                        track.data(data.len());
                    } else if let Some(trailers) = frame.trailers_ref() {
                        track.trailers(trailers);
                    }
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<T: Track> Drop for Tracked<T> {
    fn drop(&mut self) {
        if self.track.is_none() {
            return;
        }
        // Nobody polls a body that says it has ended (HEAD, 204, an empty one).
        let end = if self.body.is_end_stream() {
            End::Complete
        } else {
            End::Dropped
        };
        self.finish(end);
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::collections::VecDeque;

    use std::fmt;
    use std::sync::Mutex;

    use super::*;

    /// What a test does at some moment.
    struct Hook(Mutex<Box<dyn FnMut() + Send>>);

    impl fmt::Debug for Hook {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Hook")
        }
    }

    /// A body that was written down; its length is not known before its end.
    #[derive(Debug)]
    pub struct Frames {
        data: VecDeque<Bytes>,
        trailers: Option<HeaderMap>,
        endless: bool,
        asked: Option<Hook>,
    }

    impl Frames {
        pub fn new(data: impl IntoIterator<Item = Bytes>, trailers: Option<HeaderMap>) -> Self {
            Self {
                data: data.into_iter().collect(),
                trailers,
                endless: false,
                asked: None,
            }
        }

        pub fn push(&mut self, data: Bytes) {
            self.data.push_back(data);
        }

        /// A body that never begins; whoever asks for it, this is done first.
        pub fn when_asked(hook: impl FnMut() + Send + 'static) -> Self {
            let mut frames = Self::stuck();
            frames.asked = Some(Hook(Mutex::new(Box::new(hook))));
            frames
        }

        /// A body that stops in the middle, for ever.
        pub fn stuck() -> Self {
            let mut frames = Self::new([], None);
            frames.endless = true;
            frames
        }
    }

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            if let Some(Hook(hook)) = &mut self.asked {
                hook.get_mut().unwrap()();
            }
            if let Some(data) = self.data.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if self.endless {
                return Poll::Pending;
            }
            Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
        }

        fn is_end_stream(&self) -> bool {
            self.data.is_empty() && self.trailers.is_none() && !self.endless
        }
    }
}
