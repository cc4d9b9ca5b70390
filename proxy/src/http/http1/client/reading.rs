//! The body of an answer, which brings its connection home.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::http::body::{self, Body};
use crate::http::http1::client::{Connection, Error, Home, Http1, relay};
use crate::http::http1::content::{Content, Sender};

/// What is to come of an answer's content. If it is dropped before its end, its connection is closed.
#[derive(Debug)]
pub struct Reading {
    /// There is none behind the end.
    connection: Option<Http1>,
    content: Content,
    home: Option<Arc<dyn Home>>,
}

impl Reading {
    /// The content of an answer on a connection, which then goes `home`.
    pub fn new(connection: Http1, content: Content, home: Option<Arc<dyn Home>>) -> Self {
        Self {
            connection: Some(connection),
            content,
            home,
        }
    }

    /// As a body. Most have come whole with their heads, and then the connection is free at once.
    pub fn into_body(mut self) -> Body {
        let Some(connection) = &mut self.connection else {
            return Body::Empty;
        };
        let sending = &connection.0.sending;
        if !sending.is_complete() && !sending.is_broken() {
            return relay::start(self);
        }
        match self.content {
            Content::Over => {
                self.finish();
                Body::Empty
            }
            Content::Length(length) if length <= connection.0.line.held.len() as u64 => {
                let bytes = connection.0.line.held.split_to(length as usize);
                self.finish();
                Body::Full(bytes)
            }
            _ => Body::Reading(self),
        }
    }

    /// The content is over: the connection goes home, if nothing is left to be sent or read on it.
    pub(super) fn finish(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let is_free = connection.0.sending.is_complete() && connection.0.line.held.is_empty();
        match self.home.take().filter(|_| is_free) {
            Some(home) => home.give_back(connection),
            None => connection.close(),
        }
    }

    /// Sends on what is left of the request. Ready when the server has got all, or takes no more.
    pub(super) fn poll_sending(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(Http1(connection)) = &mut self.connection else {
            return Poll::Ready(Ok(()));
        };
        let Connection { sending, line, .. } = &mut **connection;
        let sent = sending.poll_patiently(cx, &mut line.io)?;
        if sending.is_broken() {
            Poll::Ready(Ok(()))
        } else {
            sent.map(Ok)
        }
    }

    /// The same behind the end of the content, for as long as the server is there.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Poll::Ready(sent) = self.poll_sending(cx) {
            return Poll::Ready(sent);
        }
        let Some(connection) = &mut self.connection else {
            return Poll::Ready(Ok(()));
        };
        connection.poll_ended(cx).map(|()| Err(Error::Incomplete))
    }

    pub(super) fn is_over(&self) -> bool {
        self.content == Content::Over
    }

    /// The next frame. At the end the connection is kept, for whatever is left to be sent on it.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(Http1(connection)) = &mut self.connection else {
            return Poll::Ready(None);
        };
        loop {
            let taken = self.content.take(&mut connection.line.held, Sender::Server);
            if let Some(frame) = taken.map_err(|refusal| Error::Malformed(refusal.why))? {
                return Poll::Ready(Some(Ok(frame)));
            }
            if self.content == Content::Over {
                return Poll::Ready(None);
            }
            let expected = self.content.length().unwrap_or_default();
            if ready!(connection.line.poll_fill(cx, expected)).map_err(Error::from)? == 0 {
                if !self.content.end() {
                    return Poll::Ready(Some(Err(Error::Incomplete)));
                }
                self.home = None;
            }
        }
    }
}

impl HttpBody for Reading {
    type Data = Bytes;
    type Error = body::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, body::Error>>> {
        let frame = ready!(self.poll_next(cx));
        if self.is_over() {
            self.finish();
        } else if matches!(frame, Some(Err(_))) {
            self.connection = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(body::Error::from)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        self.content
            .length()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
