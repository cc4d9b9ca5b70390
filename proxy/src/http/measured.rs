//! Request bodies that are measured on their way: how large their frames are, and when the last one has gone.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use crate::http::body::{Body, Error};
use crate::telemetry::metric::Histogram;

/// When a request had been sent, once it has.
#[derive(Clone, Debug)]
pub struct Sent(Arc<OnceLock<Instant>>);

/// A request's body that is measured.
#[derive(Debug)]
pub struct Measured {
    body: Body,
    sizes: Arc<Histogram>,
    sent: Sent,
}

impl Sent {
    /// When the request's body had ended; `None` before.
    pub fn at(&self) -> Option<Instant> {
        self.0.get().copied()
    }

    fn now(&self) {
        // Only the first end counts.
        let _already = self.0.set(Instant::now());
    }
}

/// Measures a request's body from now on. `None`: there is none, and nothing to measure; most requests cost nothing.
pub fn measure(body: &mut Body, sizes: &Arc<Histogram>) -> Option<Sent> {
    if body.is_end_stream() {
        return None;
    }
    let sent = Sent(Arc::default());
    let measured = Measured {
        body: std::mem::take(body),
        sizes: sizes.clone(),
        sent: sent.clone(),
    };
    *body = Body::Measured(Box::new(measured));
    Some(sent)
}

impl HttpBody for Measured {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            self.sizes.observe(data.len() as f64);
        }
        if matches!(polled, Poll::Ready(None)) || (polled.is_ready() && self.body.is_end_stream()) {
            self.sent.now();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::testing::Frames;
    use crate::telemetry::metric::Metric;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn frames_are_measured_and_the_end_is_noted() {
        let sizes = Arc::new(Histogram::new(&[2.0]));
        let mut body = Body::Frames(Frames::new(["a".into(), "bcd".into()], None));
        let sent = measure(&mut body, &sizes).unwrap();
        assert_eq!(sent.at(), None);
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abcd");
        assert_eq!((sizes.count(), sizes.sum()), (2, 4.0));
        assert!(sent.at().is_some());
    }

    #[test]
    fn a_request_without_a_body_is_left_as_it_is() {
        let mut body = Body::Empty;
        assert!(measure(&mut body, &Arc::new(Histogram::new(&[]))).is_none());
        assert!(matches!(body, Body::Empty));
    }
}
