//! Sends a body on an HTTP/2 stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::h2::{Reason, SendStream};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};

use crate::http::body::Error;
use crate::http::h2::{head, reason};

/// Sends a body to its end. The last frame that has data ends the stream too, if the body knows by then that it has
/// ended.
///
/// The window bounds what is taken from the body: a frame of it is sent when all before it may leave, and the last one
/// at once, since nothing can come after it. So at most two of its frames are buffered.
#[derive(Debug)]
pub struct Sending<B> {
    stream: SendStream<Bytes>,
    body: B,
    /// Data that is sent once the window has let go what was sent before it.
    waiting: Option<Bytes>,
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
    Peer(#[source] ::h2::Error),
}

/// Sends a body; a stream whose body breaks off is reset with the code that it carries, or with `broken`.
pub fn send<B>(stream: SendStream<Bytes>, body: B, broken: Reason) -> Sending<B> {
    Sending {
        stream,
        body,
        waiting: None,
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
            if this.waiting.is_some() {
                ready!(poll_room(&mut this.stream, cx)?);
            }
            if let Some(data) = this.waiting.take() {
                this.stream.send_data(data, false)?;
            }
            let Some(frame) = ready!(this.poll_frame(cx)?) else {
                return Poll::Ready(Ok(this.stream.send_data(Bytes::new(), true)?));
            };
            match frame.into_data() {
                Ok(data) if this.body.is_end_stream() => {
                    return Poll::Ready(Ok(this.stream.send_data(data, true)?));
                }
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    // One byte only: what is reserved is taken from the connection's window, though others may need it
                    // first. h2 asks for the rest when it has the data.
                    this.stream.reserve_capacity(1);
                    this.waiting = Some(data);
                }
                Err(frame) => {
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
            Poll::Pending => Poll::Ready(Err(ready!(poll_reset(&mut self.stream, cx)))),
            Poll::Ready(None) => Poll::Ready(Ok(None)),
            Poll::Ready(Some(frame)) => {
                self.begun = true;
                if let Err(error) = &frame {
                    self.stream.send_reset(reason::passed_on(error, self.broken));
                }
                Poll::Ready(frame.map(Some).map_err(Broken::Body))
            }
        }
    }

    fn end(&mut self, mut trailers: HeaderMap) -> Result<(), Broken> {
        head::fit(&mut trailers);
        Ok(self.stream.send_trailers(trailers)?)
    }
}

/// Waits until the window lets all go that has been sent so far, and more.
fn poll_room(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
    while stream.capacity() == 0 {
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(error.into())),
            None => return poll_reset(stream, cx).map(Err),
        }
    }
    Poll::Ready(Ok(()))
}

fn poll_reset(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Broken> {
    stream.poll_reset(cx).map(|reset| match reset {
        Ok(reason) => Broken::Peer(reason.into()),
        Err(error) => error.into(),
    })
}

impl From<::h2::Error> for Broken {
    fn from(error: ::h2::Error) -> Self {
        Self::Peer(error)
    }
}
