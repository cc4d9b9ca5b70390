//! What a peer sends on an HTTP/2 stream, as a body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body as HttpBody, Frame, SizeHint};
use outrigger_http2::Recv;

use crate::http::body::{Body, Error};
use crate::http::h2::backlog::Claim;

/// The rest of a message that is received on a stream.
///
/// A reset is an error unless the message was complete before it (RFC 9113 §8.1).
#[derive(Debug)]
pub struct Received {
    /// `None`: all of it has come.
    stream: Option<Claim>,
    /// Bytes to come, if `content-length` says so; it is seen to below that it says the truth.
    left: Option<u64>,
    expects: Expects,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Data,
    Trailers,
    Nothing,
}

/// The body of the message that has these fields. If something of it is still to come, on `stream`, `claim` enters that.
pub fn body(stream: Option<Recv>, fields: &HeaderMap, claim: impl FnOnce(Recv) -> Claim) -> Body {
    let left = fields
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    let expects = match stream {
        None if left.is_none() => return Body::Empty,
        None => Expects::Nothing,
        Some(_) => Expects::Data,
    };
    Body::Received(Received {
        stream: stream.map(claim),
        left,
        expects,
    })
}

impl Received {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let Some(stream) = &self.stream else {
            return Poll::Ready(None);
        };
        let Some((data, ended)) = ready!(stream.poll_data(cx)?) else {
            return Poll::Ready(None);
        };
        if ended {
            self.expects = Expects::Nothing;
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(data.len() as u64);
        }
        Poll::Ready(Some(Ok(data)))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.expects == Expects::Data {
            if let Some(data) = ready!(self.poll_data(cx)?) {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            self.expects = Expects::Trailers;
        }
        if self.expects == Expects::Trailers
            && let Some(stream) = &self.stream
        {
            let trailers = ready!(stream.poll_trailers(cx)).transpose()?;
            self.expects = Expects::Nothing;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        Poll::Ready(None)
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = self.poll_next(cx);
        if matches!(polled, Poll::Ready(Some(Err(_)))) {
            self.expects = Expects::Nothing;
        }
        polled
    }

    /// Asks nobody: who read the last of it was told so.
    fn is_end_stream(&self) -> bool {
        self.expects == Expects::Nothing
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
