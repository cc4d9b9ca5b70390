//! The time an exchange has: until the response's headers, until its end, and between two frames.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body as HttpBody, Frame, SizeHint};
use outrigger_policy::timeouts::Timeouts;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::{Fault, Kind, Late, Side};
use crate::http::body::{Body, Error};

/// The limits of one exchange. Without any it costs nothing: no timer, no allocation.
#[derive(Clone, Debug, Default)]
pub struct Deadline {
    /// When the response's headers have to be there, and which limit says so.
    headers: Option<Limit>,
    /// When the whole exchange has to be over.
    end: Option<Limit>,
    response: Option<Duration>,
    idle: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    at: Instant,
    late: Late,
    after: Duration,
}

/// How far a request's body is, as the one who waits for the response sees it.
#[derive(Debug, Default)]
struct Progress {
    ended: OnceLock<Instant>,
    /// When a frame was last seen in either direction, in microseconds on [`EPOCH`]'s clock.
    last: AtomicU64,
    waiting: AtomicWaker,
}

/// A request's body that says how far it is.
#[derive(Debug)]
pub struct Watched {
    body: Body,
    progress: Arc<Progress>,
}

/// A response's body that ends with an error when its time is over.
#[derive(Debug)]
pub struct Timed {
    body: Body,
    deadline: Deadline,
    request: Option<Arc<Progress>>,
    timer: Pin<Box<Sleep>>,
    over: bool,
}

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Deadline {
    /// The limits of an exchange whose request arrived at `started`; `asked` is the client's own (`grpc-timeout`).
    pub fn start(timeouts: &Timeouts, asked: Option<Duration>, started: Instant) -> Self {
        let limit = |after: Option<Duration>, late| {
            let after = after?;
            let at = started.checked_add(after)?;
            Some(Limit { at, late, after })
        };
        let end = limit(timeouts.request, Late::Request);
        // What the client asks for bounds our waiting; the response's end it watches over itself.
        let headers = earlier(
            limit(timeouts.headers, Late::Headers),
            limit(asked, Late::Request),
        );
        Self {
            headers: earlier(end, headers),
            end,
            response: timeouts.response,
            idle: timeouts.idle,
        }
    }

    /// The same limits for one attempt, which may have a time of its own from the end of its request on. The body it
    /// sends is the one that comes back.
    pub fn attempt(&self, per_try: Option<Duration>, body: Body) -> (Attempt<'_>, Body) {
        let mut attempt = Attempt {
            deadline: self,
            request: None,
            per_try,
        };
        if per_try.is_none() && self.response.is_none() && self.idle.is_none() {
            return (attempt, body);
        }
        let progress = Arc::new(Progress::default());
        progress.touch();
        attempt.request = Some(progress.clone());
        (attempt, watched(body, progress))
    }

    /// Waits no longer than until the headers have to be there.
    pub async fn limit<T>(&self, wait: impl Future<Output = T> + Unpin) -> Result<T, Fault> {
        match self.headers {
            None => Ok(wait.await),
            // Boxed, so that only exchanges with limits keep room for a timer.
            Some(limit) => Box::pin(tokio::time::timeout_at(limit.at, wait))
                .await
                .map_err(|_elapsed| limit.fault()),
        }
    }

    /// Sleeps, if there is time for it.
    pub async fn sleep(&self, wait: Duration) -> Result<(), Fault> {
        if wait.is_zero() {
            return Ok(());
        }
        self.limit(Box::pin(tokio::time::sleep(wait))).await
    }

    /// When the response has to be over, as far as is known by now of the request.
    fn next(&self, request: Option<&Progress>) -> Option<Limit> {
        let response = self.response.and_then(|after| {
            let at = request?.ended.get()?.checked_add(after)?;
            Some(limit(at, Late::Response, after))
        });
        let idle = self.idle.and_then(|after| {
            let at = request?.last().checked_add(after)?;
            Some(limit(at, Late::Idle, after))
        });
        earlier(self.end, earlier(response, idle))
    }
}

/// One attempt within a [`Deadline`].
#[derive(Debug)]
pub struct Attempt<'a> {
    deadline: &'a Deadline,
    /// What the request's body has come to; there only if a limit depends on it.
    request: Option<Arc<Progress>>,
    per_try: Option<Duration>,
}

impl Attempt<'_> {
    /// Waits for the response's headers, no longer than the limits allow.
    pub async fn headers<T>(&self, mut wait: impl Future<Output = T> + Unpin) -> Result<T, Fault> {
        let Some(request) = &self.request else {
            return self.deadline.limit(wait).await;
        };
        let mut timer = Box::pin(sleep_until(Instant::now()));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = Pin::new(&mut wait).poll(cx) {
                return Poll::Ready(Ok(done));
            }
            // The request may end while the timer runs for something later.
            request.waiting.register(cx.waker());
            late(|| self.next(), timer.as_mut(), cx).map(|limit| Err(limit.fault()))
        })
        .await
    }

    /// The response's body under these limits: it ends with [`Error::Late`] when one is over.
    pub fn body(self, body: Body) -> Body {
        let Self {
            deadline, request, ..
        } = self;
        let is_bounded = deadline.end.is_some() || deadline.response.is_some() || deadline.idle.is_some();
        if body.is_end_stream() || !is_bounded {
            return body;
        }
        if let Some(request) = &request {
            // Headers that come before the request's end start the response's time.
            request.touch();
            let _already = request.ended.set(Instant::now());
        }
        let next = deadline.next(request.as_deref());
        let at = next.map_or_else(Instant::now, |limit| limit.at);
        Body::Timed(Box::new(Timed {
            body,
            deadline: deadline.clone(),
            request,
            timer: Box::pin(sleep_until(at)),
            over: false,
        }))
    }

    fn next(&self) -> Option<Limit> {
        let request = self.request.as_deref();
        let per_try = self.per_try.and_then(|after| {
            let at = request?.ended.get()?.checked_add(after)?;
            Some(limit(at, Late::Try, after))
        });
        let next = self.deadline.next(request);
        earlier(self.deadline.headers, earlier(per_try, next))
    }
}

/// Ready when the limit that comes next is over; limits may move while the timer runs.
fn late(next: impl Fn() -> Option<Limit>, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Limit> {
    loop {
        let Some(limit) = next() else {
            return Poll::Pending;
        };
        if timer.deadline() != limit.at {
            timer.as_mut().reset(limit.at);
        }
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if next().is_some_and(|again| again.at == limit.at) {
            return Poll::Ready(limit);
        }
    }
}

fn limit(at: Instant, late: Late, after: Duration) -> Limit {
    Limit { at, late, after }
}

fn earlier(a: Option<Limit>, b: Option<Limit>) -> Option<Limit> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.at < a.at { b } else { a }),
        (a, b) => a.or(b),
    }
}

impl Limit {
    fn fault(&self) -> Fault {
        let text = format!("{}: {:?}", self.late, self.after);
        Fault::because(Kind::Timeout(self.late), Side::Server, text)
    }
}

impl Progress {
    fn touch(&self) {
        let now = EPOCH.elapsed().as_micros();
        self.last
            .store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        *EPOCH + Duration::from_micros(self.last.load(Ordering::Relaxed))
    }

    fn end(&self) {
        if self.ended.set(Instant::now()).is_ok() {
            self.waiting.wake();
        }
    }
}

fn watched(body: Body, progress: Arc<Progress>) -> Body {
    if body.is_end_stream() {
        progress.end();
        return body;
    }
    Body::Watched(Box::new(Watched { body, progress }))
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.progress.touch();
        }
        if matches!(polled, Poll::Ready(None)) || (polled.is_ready() && self.body.is_end_stream()) {
            self.progress.end();
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

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let timed = &mut *self;
        if timed.over {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut timed.body).poll_frame(cx);
        if polled.is_ready() {
            if let Some(request) = &timed.request {
                request.touch();
            }
            return polled;
        }
        let next = || timed.deadline.next(timed.request.as_deref());
        late(next, timed.timer.as_mut(), cx).map(|limit| {
            timed.over = true;
            // The server's stream is reset, nobody waits for it any more.
            timed.body = Body::Empty;
            Some(Err(Error::Late(limit.late, limit.after)))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::testing::Frames;
    use http_body_util::BodyExt;
    use std::future::{pending, ready};

    const SECOND: Duration = Duration::from_secs(1);

    fn timeouts(set: impl FnOnce(&mut Timeouts)) -> Timeouts {
        let mut timeouts = Timeouts::default();
        set(&mut timeouts);
        timeouts
    }

    fn start(timeouts: Timeouts) -> Deadline {
        Deadline::start(&timeouts, None, Instant::now())
    }

    /// How an attempt ends whose server never answers, and when.
    async fn unanswered(deadline: &Deadline, per_try: Option<Duration>, body: Body) -> (Kind, Duration) {
        let started = Instant::now();
        let (attempt, _body) = deadline.attempt(per_try, body);
        let fault = attempt.headers(Box::pin(pending::<()>())).await.unwrap_err();
        (fault.kind, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_that_comes_first_ends_the_wait_for_headers() {
        let late = |late, seconds| (Kind::Timeout(late), seconds * SECOND);
        let request = start(timeouts(|t| t.request = Some(5 * SECOND)));
        assert_eq!(
            unanswered(&request, None, Body::Empty).await,
            late(Late::Request, 5)
        );
        let both = start(timeouts(|t| {
            (t.request, t.headers) = (Some(5 * SECOND), Some(3 * SECOND))
        }));
        assert_eq!(unanswered(&both, None, Body::Empty).await, late(Late::Headers, 3));
        let both = start(timeouts(|t| t.request = Some(5 * SECOND)));
        assert_eq!(
            unanswered(&both, Some(2 * SECOND), Body::Empty).await,
            late(Late::Try, 2)
        );
        let response = start(timeouts(|t| t.response = Some(4 * SECOND)));
        assert_eq!(
            unanswered(&response, None, Body::Empty).await,
            late(Late::Response, 4)
        );
        let idle = start(timeouts(|t| t.idle = Some(SECOND)));
        assert_eq!(unanswered(&idle, None, Body::Empty).await, late(Late::Idle, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_is_timed_from_the_end_of_its_request() {
        let deadline = start(Timeouts::default());
        let (attempt, mut body) = deadline.attempt(Some(SECOND), Body::Full(Bytes::from_static(b"x")));
        let started = Instant::now();
        let sends = async {
            tokio::time::sleep(10 * SECOND).await;
            while body.frame().await.is_some() {}
            pending::<()>().await;
        };
        let fault = attempt.headers(Box::pin(sends)).await.unwrap_err();
        assert_eq!(
            (fault.kind, started.elapsed()),
            (Kind::Timeout(Late::Try), 11 * SECOND)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_client_asks_for_counts_as_a_request_timeout() {
        let asked = Deadline::start(
            &timeouts(|t| t.request = Some(5 * SECOND)),
            Some(SECOND),
            Instant::now(),
        );
        let expected = (Kind::Timeout(Late::Request), SECOND);
        assert_eq!(unanswered(&asked, None, Body::Empty).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_takes_too_long_ends_with_an_error() {
        let deadline = start(timeouts(|t| t.request = Some(2 * SECOND)));
        let (attempt, _) = deadline.attempt(None, Body::Empty);
        attempt.headers(ready(())).await.unwrap();
        let mut body = attempt.body(Body::Frames(Frames::stuck()));
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Late(Late::Request, _)), "{error}");
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_without_frames_is_idle() {
        let deadline = start(timeouts(|t| t.idle = Some(SECOND)));
        let (attempt, _) = deadline.attempt(None, Body::Empty);
        attempt
            .headers(Box::pin(tokio::time::sleep(SECOND / 2)))
            .await
            .unwrap();
        let started = Instant::now();
        let mut body = attempt.body(Body::Frames(Frames::stuck()));
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Late(Late::Idle, _)), "{error}");
        assert_eq!(started.elapsed().as_secs(), 1);
    }

    #[tokio::test]
    async fn without_limits_bodies_stay_what_they_are() {
        let deadline = start(Timeouts::default());
        let (attempt, body) = deadline.attempt(None, Body::Full(Bytes::from_static(b"x")));
        assert!(matches!(body, Body::Full(_)));
        attempt.headers(ready(())).await.unwrap();
        let body = attempt.body(Body::Full(Bytes::from_static(b"y")));
        assert!(matches!(body, Body::Full(_)));
    }
}
