//! An answer's body, and what it keeps while it lasts.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::task::AbortHandle;

use crate::http::body::{Body, Error};
use crate::http::h2::recv::Received;
use crate::http::h2::send::Sending;
use crate::http::h2::slots::Slot;

/// The body of an answer.
#[derive(Debug)]
pub struct Answer {
    received: Received,
    held: Held,
}

/// The stream's place on its connection: the answer keeps it, and what is still sent of the request.
#[derive(Debug)]
pub enum Held {
    /// The request is complete.
    Alone(Slot),
    /// A task sends the rest of it.
    Shared(Arc<Slot>, AbortHandle),
}

impl Held {
    /// `rest` is what has not been sent of the request. It gets a task of its own: who reads the answer slowly, or not
    /// before all is sent, does not hold it up.
    pub fn new(slot: Slot, rest: Option<Sending<Body>>) -> Self {
        let Some(rest) = rest else {
            return Self::Alone(slot);
        };
        let slot = Arc::new(slot);
        let kept = slot.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = rest.await {
                tracing::debug!(%error, "a request was not sent to its end");
            }
            drop(kept);
        });
        Self::Shared(slot, task.abort_handle())
    }
}

impl Answer {
    /// A body that is received on a stream.
    pub fn new(received: Received, held: Held) -> Self {
        Self { received, held }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.received).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.received.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.received.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // Nobody wants the rest of the answer, so nobody sends the rest of the request: the stream is cancelled.
        if let Held::Shared(_, rest) = &self.held
            && !self.received.is_end_stream()
        {
            rest.abort();
        }
    }
}
