//! What a peer sends on an HTTP/2 stream, as a body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::h2::RecvStream;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::http::body::{Body, Error};
use crate::http::h2::backlog::Claim;

/// The rest of a message that is received on a stream.
///
/// A reset is an error unless the message was complete before it: then h2 has its end (RFC 9113 §8.1).
#[derive(Debug)]
pub struct Received {
    stream: Claim,
    /// Bytes to come, if `content-length` says so; h2 sees to it that it says the truth.
    left: Option<u64>,
    expects: Expects,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expects {
    Data,
    Trailers,
    Nothing,
}

/// The body of the message that has these fields. If there is one, `claim` enters its stream.
pub fn body(stream: RecvStream, fields: &HeaderMap, claim: impl FnOnce(RecvStream) -> Claim) -> Body {
    let left = fields
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    let expects = match stream.is_end_stream() {
        true if left.is_none() => return Body::Empty,
        true => Expects::Nothing,
        false => Expects::Data,
    };
    Body::Received(Received {
        stream: claim(stream),
        left,
        expects,
    })
}

impl Received {
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let Some((data, ended)) = ready!(self.stream.poll_data(cx)?) else {
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
        if self.expects == Expects::Trailers {
            let trailers = ready!(self.stream.poll_trailers(cx)).transpose()?;
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

    /// Asks nobody: h2 has no end either before the frame that it came with was read, and that says so.
    fn is_end_stream(&self) -> bool {
        self.expects == Expects::Nothing
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
