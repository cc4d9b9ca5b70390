//! What a connection's guard and its service tell each other: which request is refused, and which answers have ended.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};

use crate::error::BoxError;
use crate::http::http1::expect;
use crate::http::http1::head::Refusal;
use crate::http::http1::trailers::Trailers;
use crate::http::interim::{Interims, Pending};

/// The requests of one connection, counted from 1 in the order in which they came.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Requests that the service has been given.
    begun: AtomicU64,
    /// Requests whose answers have been handed to hyper to the end.
    ended: AtomicU64,
    /// Requests that hyper has taken to their last byte, and whose answers have been written to theirs.
    taken: AtomicU64,
    written: AtomicU64,
    /// Which request stands for bytes that were refused.
    refused: OnceLock<(u64, Refusal)>,
    /// The request that asked for a tunnel and was followed by bytes before it was answered.
    hasty: AtomicU64,
    /// The last request that was answered with a tunnel, and with anything else.
    tunnel: AtomicU64,
    answered: AtomicU64,
    /// Every answer is to be the connection's last.
    draining: AtomicBool,
    /// Interim heads that the guard has yet to write.
    pub pending: Arc<Pending>,
    /// Those of the answer.
    pub trailers: Trailers,
}

/// What a connection's pending interim heads belong to: it has one exchange at a time.
pub const EXCHANGE: u32 = 0;

/// A request's place in the ledger.
#[derive(Debug)]
pub struct Turn {
    ledger: Arc<Ledger>,
    number: u64,
    connect: bool,
}

/// An answer that waits for its place behind the interim heads.
#[derive(Debug)]
pub struct Answering<B>(Option<(Turn, Response<B>)>);

/// A body; its end is entered in the ledger.
#[derive(Debug)]
pub struct Entered<B> {
    body: B,
    ledger: Arc<Ledger>,
    /// Its trailers are in the ledger.
    handed: bool,
}

impl Ledger {
    /// The next request stands for bytes that are refused.
    pub fn refuse(&self, number: u64, refusal: Refusal) {
        // A connection's first refusal is its last.
        let _first = self.refused.set((number, refusal));
    }

    /// Bytes have come behind this request, which asks for a tunnel.
    pub fn note_haste(&self, number: u64) {
        self.hasty.store(number, Ordering::Release);
    }

    /// What the answer to a request made of the connection: a tunnel, or not; `None` before it is there.
    pub fn decided(&self, number: u64) -> Option<bool> {
        if self.tunnel.load(Ordering::Acquire) == number {
            return Some(true);
        }
        (self.answered.load(Ordering::Acquire) >= number).then_some(false)
    }

    /// From now on an answer is the connection's last, and says so.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether every request that has begun has been answered to the end.
    pub fn is_idle(&self) -> bool {
        self.begun.load(Ordering::Acquire) == self.ended()
    }

    /// hyper asks for more behind this request, and has none of it left.
    pub fn note_taken(&self, number: u64) {
        self.taken.store(number, Ordering::Release);
    }

    /// Whatever hyper was handed so far has been written.
    pub fn note_written(&self) {
        self.written.store(self.ended(), Ordering::Release);
    }

    /// Whether neither hyper nor the service has anything of a request, or of an answer.
    pub fn is_at_rest(&self) -> bool {
        let ended = self.ended();
        let all = |count: &AtomicU64| count.load(Ordering::Acquire) == ended;
        all(&self.begun) && all(&self.taken) && all(&self.written)
    }

    /// Requests whose answers have been handed to hyper to the end.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }
}

impl Turn {
    /// The turn of a request that hyper has read. One that stands for refused bytes is told so; what was hidden from hyper
    /// is shown again; and what is passed on of a transfer coding is how everybody writes it.
    pub fn of<B>(ledger: &Arc<Ledger>, request: &mut Request<B>) -> Self {
        if let Some(coding) = request.headers_mut().get_mut(TRANSFER_ENCODING) {
            *coding = HeaderValue::from_static("chunked");
        }
        expect::show(request.headers_mut());
        let number = ledger.begun.fetch_add(1, Ordering::AcqRel) + 1;
        if let Some((refused, refusal)) = ledger.refused.get()
            && *refused == number
        {
            request.extensions_mut().insert(*refusal);
        }
        Self {
            ledger: ledger.clone(),
            number,
            connect: request.method() == Method::CONNECT,
        }
    }

    /// Where interim answers go. One at a time: so all that wait belong to the request that hyper has read.
    pub fn interims(&self, version: Version) -> Interims {
        Interims::of(&self.ledger.pending, EXCHANGE, version)
    }

    /// Gives hyper the answer, once the interim heads before it have their places.
    pub fn answer<B>(self, response: Response<B>) -> Answering<B> {
        Answering(Some((self, response)))
    }

    /// Enters the answer. After one to refused bytes, or where nobody can tell a tunnel's bytes from a request, the
    /// connection ends; after any during a drain.
    fn answered<B>(self, mut response: Response<B>) -> Response<Entered<B>> {
        let Self {
            ledger,
            number,
            connect,
        } = self;
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS || (connect && status.is_success()) {
            ledger.tunnel.store(number, Ordering::Release);
        } else {
            let refused = ledger
                .refused
                .get()
                .is_some_and(|(refused, _)| *refused == number);
            let hasty = ledger.hasty.load(Ordering::Acquire) == number;
            if refused || connect || hasty || ledger.draining.load(Ordering::Acquire) {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(CONNECTION, close);
            }
            ledger.answered.store(number, Ordering::Release);
        }
        response.map(|body| Entered {
            body,
            ledger,
            handed: false,
        })
    }
}

impl<B: Unpin> Future for Answering<B> {
    type Output = Result<Response<Entered<B>>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The guard's flush takes them, in the same task, and wakes it.
        let informed = |(turn, _): &mut (Turn, _)| turn.ledger.pending.is_empty();
        match self.0.take_if(informed) {
            Some((turn, response)) => Poll::Ready(Ok(turn.answered(response))),
            None => Poll::Pending,
        }
    }
}

impl<B> Drop for Entered<B> {
    fn drop(&mut self) {
        self.ledger.ended.fetch_add(1, Ordering::AcqRel);
    }
}

impl<B: Body + Unpin> Body for Entered<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let Self { body, ledger, handed } = &mut *self;
        ledger.trailers.part(handed, || Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        !self.handed && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
