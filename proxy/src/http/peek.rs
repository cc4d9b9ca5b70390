//! The first frames of a response's body, looked at before it is passed on: a gRPC failure may stand in its trailers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use outrigger_policy::classify::GrpcStatus;

use crate::http::body::{Body, Error};

/// A body of which some frames have been read already.
#[derive(Debug)]
pub struct Peeked {
    frames: VecDeque<Result<Frame<Bytes>, Error>>,
    rest: Body,
}

/// Waits for the first frame, and looks at the second if it is there: the gRPC code, if these are trailers. Gives the
/// body back whole.
pub async fn grpc_status(mut body: Body) -> (Option<GrpcStatus>, Body) {
    let mut frames = VecDeque::new();
    if let Some(first) = body.frame().await {
        frames.push_back(first);
    }
    if matches!(frames.front(), Some(Ok(frame)) if frame.is_data())
        && let Some(Some(second)) = body.frame().now_or_never()
    {
        frames.push_back(second);
    }
    let trailers = frames.iter().flatten().find_map(Frame::trailers_ref);
    let status = trailers.and_then(GrpcStatus::of);
    if frames.is_empty() {
        return (status, body);
    }
    let rest = body;
    (status, Body::Peeked(Box::new(Peeked { frames, rest })))
}

impl HttpBody for Peeked {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read = |frame: &Result<Frame<Bytes>, Error>| {
            let data = frame.as_ref().ok().and_then(Frame::data_ref);
            data.map_or(0, Bytes::len) as u64
        };
        let read: u64 = self.frames.iter().map(read).sum();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + read);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + read);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body::testing::Frames;
    use http::HeaderMap;

    fn body(data: &[&'static str], code: Option<&str>) -> Body {
        let trailers =
            code.map(|code| HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())]));
        let data = data.iter().map(|data| Bytes::from_static(data.as_bytes()));
        Body::Frames(Frames::new(data, trailers))
    }

    async fn whole(body: Body) -> (Bytes, bool) {
        let collected = body.collect().await.unwrap();
        let trailers = collected.trailers().is_some();
        (collected.to_bytes(), trailers)
    }

    #[tokio::test]
    async fn trailers_are_found_behind_one_frame_of_data_at_most_and_nothing_is_lost() {
        for (data, code, expected) in [
            (&[][..], Some("14"), Some(14)),
            (&["a"][..], Some("0"), Some(0)),
            (&["a", "b"][..], Some("14"), None),
            (&["a"][..], None, None),
            (&[][..], None, None),
        ] {
            let (status, rest) = grpc_status(body(data, code)).await;
            assert_eq!(status.map(|status| status.0), expected);
            assert_eq!(whole(rest).await, (data.concat().into(), code.is_some()));
        }
    }

    #[tokio::test]
    async fn a_second_frame_is_not_waited_for() {
        let mut frames = Frames::stuck();
        frames.push(Bytes::from_static(b"a"));
        let (status, mut rest) = grpc_status(Body::Frames(frames)).await;
        assert_eq!(status, None);
        assert_eq!(rest.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
    }
}
