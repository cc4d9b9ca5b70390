//! The body of a client's request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::http::body::{self, Body};
use crate::http::http1::content::{Content, Sender};
use crate::http::http1::head::{Framing, Lines};
use crate::http::http1::server::Error;
use crate::http::http1::server::receiving::{Line, Place};

/// What is to come of a request's body, from its connection.
#[derive(Debug)]
pub struct Upload {
    /// There is none behind the end.
    line: Option<Line>,
    content: Content,
}

/// The body behind a head. One that has come whole with it needs no connection.
pub(super) fn body(line: &Line, framing: Framing) -> Body {
    let mut receiving = line.receiving();
    let content = match Content::from(framing) {
        Content::Over => return Body::Empty,
        Content::Length(length) if length <= receiving.buffered.held.len() as u64 => {
            return Body::Full(receiving.buffered.held.split_to(length as usize));
        }
        content => content,
    };
    receiving.place = Place::Body;
    Body::Upload(Upload {
        line: Some(line.clone()),
        content,
    })
}

impl Upload {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(line) = &self.line else {
            return Poll::Ready(None);
        };
        let receiving = &mut *line.receiving();
        loop {
            let sender = Sender::Client(&receiving.limits);
            let taken = self.content.take(&mut receiving.buffered.held, sender);
            if self.content == Content::Over {
                receiving.leave_body(Place::Head(Lines::head()));
            }
            if let Some(frame) = taken.inspect_err(|_| receiving.leave_body(Place::Refused))? {
                return Poll::Ready(Some(Ok(frame)));
            }
            if self.content == Content::Over {
                return Poll::Ready(None);
            }
            let expected = self.content.length().unwrap_or_default();
            match receiving.buffered.poll_fill(cx, expected) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(ended) => {
                    receiving.leave_body(Place::Refused);
                    return Poll::Ready(Some(Err(ended.map_or_else(Error::from, |_| Error::Incomplete))));
                }
                Poll::Pending if self.content.is_waiting() => {
                    let refusal = ready!(receiving.poll_patience(cx));
                    receiving.leave_body(Place::Refused);
                    return Poll::Ready(Some(Err(refusal.into())));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = body::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        let frame = ready!(self.poll_next(cx));
        if self.is_end_stream() || !matches!(frame, Some(Ok(_))) {
            self.line = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(body::Error::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.content == Content::Over
    }

    fn size_hint(&self) -> SizeHint {
        self.content
            .length()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(line) = &self.line {
            line.receiving().leave_body(Place::Left(self.content));
        }
    }
}
