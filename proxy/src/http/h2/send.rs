//! Sends a body on an HTTP/2 stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use outrigger_http2::{Reason, Send};

use crate::http::body::Error;
use crate::http::h2::{head, reason};

/// Sends a body to its end. The last frame that has data ends the stream too, if the body knows by then that it has
/// ended.
///
/// The windows bound what is taken from the body: the next frame of it when all of the one before was sent.
#[derive(Debug)]
pub struct Sending<B> {
    stream: Send,
    body: B,
    /// What is left of a frame to send.
    piece: Bytes,
    /// Nothing comes behind it.
    last: bool,
    begun: bool,
    broken: Reason,
}

/// Why a body was not sent to its end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// It broke off itself; the stream has been reset.
    #[error("the message broke off")]
    Body(#[source] Error),
    /// The peer has reset the stream: with `NO_ERROR` if it has answered and wants no more of the request (RFC 9113
    /// §8.1). Or the connection has ended.
    #[error("the peer takes no more")]
    Peer(#[source] outrigger_http2::Error),
}

/// Sends a body; a stream whose body breaks off is reset with the code that it carries, or with `broken`.
pub fn send<B>(stream: Send, body: B, broken: Reason) -> Sending<B> {
    Sending {
        stream,
        body,
        piece: Bytes::new(),
        last: false,
        begun: false,
        broken,
    }
}

impl<B> Sending<B> {
    /// The body, if nothing has been taken from it.
    pub fn untouched(self) -> Option<B> {
        (!self.begun).then_some(self.body)
    }
}

impl<B> Future for Sending<B>
where
    B: HttpBody<Data = Bytes, Error = Error> + Unpin,
{
    type Output = Result<(), Broken>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let this = &mut *self;
        loop {
            if this.last || !this.piece.is_empty() {
                ready!(this.stream.poll_send(cx, &mut this.piece, this.last))?;
                if this.last {
                    return Poll::Ready(Ok(()));
                }
            }
            match ready!(this.poll_frame(cx)?).map(Frame::into_data) {
                None => this.last = true,
                Some(Ok(data)) => (this.piece, this.last) = (data, this.body.is_end_stream()),
                Some(Err(frame)) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Poll::Ready(this.end(trailers));
                    }
                }
            }
        }
    }
}

impl<B> Sending<B>
where
    B: HttpBody<Data = Bytes, Error = Error> + Unpin,
{
    /// The body's next frame, unless the peer resets the stream meanwhile.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Broken>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => Poll::Ready(Err(ready!(self.stream.poll_reset(cx)).into())),
            Poll::Ready(None) => Poll::Ready(Ok(None)),
            Poll::Ready(Some(frame)) => {
                self.begun = true;
                if let Err(error) = &frame {
                    self.stream.reset(reason::passed_on(error, self.broken));
                }
                Poll::Ready(frame.map(Some).map_err(Broken::Body))
            }
        }
    }

    fn end(&mut self, mut trailers: HeaderMap) -> Result<(), Broken> {
        head::fit(&mut trailers);
        Ok(self.stream.send_trailers(&trailers)?)
    }
}

impl From<outrigger_http2::Error> for Broken {
    fn from(error: outrigger_http2::Error) -> Self {
        Self::Peer(error)
    }
}
