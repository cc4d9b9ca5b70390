//! Sends a body on an HTTP/2 stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::h2::{Reason, SendStream};
use bytes::Bytes;
use http::HeaderMap;
use http::header::{TE, TRANSFER_ENCODING};
use http_body::{Body as HttpBody, Frame};

use crate::http::body::Error;
use crate::http::h2::reason;
use crate::http::headers;

/// Sends a body to its end, which the last frame that has data carries if the body knows it by then.
///
/// The window bounds what is taken from the body: a frame of it is sent when all before it may leave, and the last one
/// at once, since nothing can come after it. So at most two of its frames are buffered.
///
/// # Errors
///
/// The body's own: then the stream is reset with the code that it carries, or with `broken`. Else the peer has reset
/// the stream, with `NO_ERROR` if it has answered and wants no more of the request (RFC 9113 §8.1).
pub async fn send<B>(mut stream: SendStream<Bytes>, mut body: B, broken: Reason) -> Result<(), Error>
where
    B: HttpBody<Data = Bytes, Error = Error> + Unpin,
{
    while let Some(frame) = next(&mut stream, &mut body, broken).await? {
        match frame.into_data() {
            Ok(data) => {
                let last = body.is_end_stream();
                if !last && !data.is_empty() {
                    room(&mut stream).await?;
                }
                stream.send_data(data, last)?;
                if last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return Ok(stream.send_trailers(fit(trailers))?);
                }
            }
        }
    }
    Ok(stream.send_data(Bytes::new(), true)?)
}

/// The body's next frame, unless the peer resets the stream meanwhile.
async fn next<B>(
    stream: &mut SendStream<Bytes>,
    body: &mut B,
    broken: Reason,
) -> Result<Option<Frame<Bytes>>, Error>
where
    B: HttpBody<Data = Bytes, Error = Error> + Unpin,
{
    poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
        Poll::Ready(Some(Err(error))) => {
            stream.send_reset(reason::passed_on(&error, broken));
            Poll::Ready(Err(error))
        }
        Poll::Ready(frame) => Poll::Ready(frame.transpose()),
        Poll::Pending => Poll::Ready(Err(ready!(poll_reset(stream, cx)))),
    })
    .await
}

/// Waits until the window lets all go that has been sent so far, and more.
async fn room(stream: &mut SendStream<Bytes>) -> Result<(), Error> {
    // One byte only: what is reserved is taken from the connection's window, though others may need it first.
    stream.reserve_capacity(1);
    poll_fn(|cx| {
        while stream.capacity() == 0 {
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => return poll_reset(stream, cx).map(Err),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}

fn poll_reset(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Error> {
    stream.poll_reset(cx).map(|reset| match reset {
        Ok(reason) => ::h2::Error::from(reason).into(),
        Err(error) => error.into(),
    })
}

/// Trailers without the fields that HTTP/2 has no place for (RFC 9113 §8.2.2).
fn fit(mut trailers: HeaderMap) -> HeaderMap {
    headers::strip_hop_by_hop(&mut trailers);
    trailers.remove(TRANSFER_ENCODING);
    trailers.remove(TE);
    trailers
}
