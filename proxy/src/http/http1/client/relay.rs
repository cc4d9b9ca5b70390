//! Answers that come before their requests have been sent to the end. A task carries on both: who reads the answer slowly,
//! or not before all is sent, does not hold the request up.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tokio::sync::mpsc;

use crate::http::body::{self, Body};
use crate::http::http1::client::{Error, Reading};

/// The content of such an answer. If it is dropped before its end, the connection is closed.
#[derive(Debug)]
pub struct Relayed {
    frames: mpsc::Receiver<Next>,
    over: bool,
}

/// A frame, why there is none, or the end. Without one of the last two the task was lost.
pub(super) type Next = Option<Result<Frame<Bytes>, Error>>;

impl Relayed {
    /// What a task says.
    pub(super) fn of(frames: mpsc::Receiver<Next>) -> Self {
        Self { frames, over: false }
    }
}

/// Carries on.
pub(super) fn start(reading: Reading) -> Body {
    // One frame, since it waits in the task otherwise.
    let (frames, relayed) = mpsc::channel(1);
    let is_over = reading.is_over();
    tokio::spawn(carry_on(reading, frames));
    if is_over {
        Body::Empty
    } else {
        Body::Relayed(Relayed::of(relayed))
    }
}

async fn carry_on(mut reading: Reading, frames: mpsc::Sender<Next>) {
    match relay(&mut reading, &frames).await {
        Ok(Relay::Over) => {}
        // Nobody wants the rest of the answer, so nobody sends the rest of the request.
        Ok(Relay::Unwanted) => return,
        Err(error) => {
            let _unwanted = frames.send(Some(Err(error))).await;
            return;
        }
    }
    drop(frames);
    match poll_fn(|cx| reading.poll_rest(cx)).await {
        Ok(()) => reading.finish(),
        Err(error) => tracing::debug!(%error, "a request was not sent to its end"),
    }
}

/// How the answer ended.
enum Relay {
    Over,
    Unwanted,
}

async fn relay(reading: &mut Reading, frames: &mpsc::Sender<Next>) -> Result<Relay, Error> {
    while !reading.is_over() {
        let next = poll_fn(|cx| match reading.poll_sending(cx)? {
            Poll::Ready(()) | Poll::Pending => reading.poll_next(cx),
        });
        let frame = tokio::select! {
            frame = next => frame.transpose()?,
            () = frames.closed() => return Ok(Relay::Unwanted),
        };
        let Some(frame) = frame else { break };
        if sending(reading, frames.send(Some(Ok(frame)))).await?.is_err() {
            return Ok(Relay::Unwanted);
        }
    }
    // Whoever has read it to the end may ask no more.
    let _unwanted = sending(reading, frames.send(None)).await?;
    Ok(Relay::Over)
}

/// Sends on while something else is waited for.
async fn sending<T>(reading: &mut Reading, other: impl Future<Output = T>) -> Result<T, Error> {
    let mut other = pin!(other);
    poll_fn(|cx| match reading.poll_sending(cx)? {
        Poll::Ready(()) | Poll::Pending => other.as_mut().poll(cx).map(Ok),
    })
    .await
}

impl HttpBody for Relayed {
    type Data = Bytes;
    type Error = body::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = ready!(self.frames.poll_recv(cx)).unwrap_or(Some(Err(Error::Incomplete)));
        self.over = !matches!(next, Some(Ok(_)));
        Poll::Ready(next.map(|frame| frame.map_err(body::Error::from)))
    }
}
