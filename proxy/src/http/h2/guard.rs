//! Between a connection and the HTTP/2 that is spoken on it: counts frames as they pass, and ends what floods.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::http::h2::backlog::Share;
use crate::http::h2::flood::{Budgets, Flood, Peer};
use crate::http::h2::frames::{DATA, Frame, Frames, GOAWAY};
use crate::net::io::{Activity, Io};

/// What a connection ends with of which too much is unread.
const UNREAD: &str = "unread";

/// ENHANCE_YOUR_CALM (RFC 9113 §7).
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A connection whose peer can't flood it. Bytes are looked at where they lie; a frame costs its head.
#[derive(Debug)]
pub struct Guarded {
    io: Io,
    received: Frames,
    sent: Frames,
    budgets: Budgets,
    share: Arc<Share>,
    /// Bytes that have come from the peer.
    position: u64,
}

/// What the connection ends with.
#[derive(Debug, thiserror::Error)]
#[error("the peer floods the connection ({0}): see outrigger_http2_abuse_total")]
pub struct Flooded(&'static str);

impl Guarded {
    /// A connection that a client opened to us; what comes on it counts in `share`. `scale` multiplies the budgets of [`Flood`]; 0 switches them off.
    pub fn from_client(io: Io, scale: u32, share: Arc<Share>) -> Self {
        let frames = (Frames::of_client(), Frames::of_server());
        Self::new(io, Peer::Client, scale, frames, share)
    }

    /// A connection that we opened to a server.
    pub fn to_server(io: Io, scale: u32, share: Arc<Share>) -> Self {
        let frames = (Frames::of_server(), Frames::of_client());
        Self::new(io, Peer::Server, scale, frames, share)
    }

    fn new(io: Io, peer: Peer, scale: u32, (received, sent): (Frames, Frames), share: Arc<Share>) -> Self {
        Self {
            io,
            received,
            sent,
            budgets: Budgets::new(peer, scale, Instant::now()),
            share,
            position: 0,
        }
    }

    /// Tells from now on whether the peer is heard from.
    pub fn activity(&mut self) -> Activity {
        self.io.activity()
    }

    /// Looks at bytes that came from the peer.
    fn receive(&mut self, bytes: &[u8]) -> Result<(), Flood> {
        let (budgets, mut clock, mut flood) = (&mut self.budgets, None, Ok(()));
        self.position += bytes.len() as u64;
        let (share, position) = (&self.share, self.position);
        self.received.walk(bytes, |frame| {
            if frame.kind == DATA {
                share.arrived(frame.stream, frame.content(), position);
            }
            if flood.is_ok() {
                // One reading of the clock for all that has come at once.
                let clock = &mut clock;
                flood = budgets.received(&frame, move || *clock.get_or_insert_with(Instant::now));
            }
        });
        self.share.keep_within();
        flood
    }

    /// Looks at bytes that went to the peer, the first `count` of `bufs`.
    fn send<'a>(&mut self, bufs: impl IntoIterator<Item = &'a [u8]>, mut count: usize) {
        let (budgets, io) = (&mut self.budgets, &self.io);
        for buf in bufs {
            let sent = &buf[..buf.len().min(count)];
            self.sent.walk(sent, |frame| {
                budgets.sent(&frame);
                if let Some(reason) = farewell(&frame) {
                    io.abused(reason);
                }
            });
            count -= sent.len();
        }
    }

    /// Says goodbye if that can be done without waiting: who floods does not read either.
    fn end(&mut self, reason: &'static str, cx: &mut Context<'_>) -> io::Error {
        self.io.abused(reason);
        tracing::info!(reason, "Closing an HTTP/2 connection that its peer floods");
        if self.sent.is_between() {
            let goodbye = goaway(self.budgets.last_stream());
            let _as_far_as_it_goes = Pin::new(&mut self.io).poll_write(cx, &goodbye);
            let _as_far_as_it_goes = Pin::new(&mut self.io).poll_flush(cx);
        }
        io::Error::other(Flooded(reason))
    }
}

/// A GOAWAY with ENHANCE_YOUR_CALM (RFC 9113 §6.8).
fn goaway(last_stream: u32) -> [u8; 17] {
    let mut frame = [0; 17];
    frame[2] = 8;
    frame[3] = GOAWAY;
    frame[9..13].copy_from_slice(&last_stream.to_be_bytes());
    frame[13..].copy_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
    frame
}

/// Why a GOAWAY of our own blames the peer: the limits of h2 end in one too. `None`: it does not.
fn farewell(frame: &Frame<'_>) -> Option<&'static str> {
    let code = u32::from_be_bytes(frame.look.get(4..8)?.try_into().ok()?);
    Some(match code {
        0x0 | 0x2 => return None, // NO_ERROR, INTERNAL_ERROR
        0x1 => "protocol_error",
        0x3 => "flow_control_error",
        0x6 => "frame_size_error",
        0x9 => "compression_error",
        ENHANCE_YOUR_CALM => match &frame.look[8..] {
            b"too_many_resets" => "rapid_reset",
            b"too_many_internal_resets" => "made_reset", // CVE-2025-8671
            b"too_many_continuations" => "continuation",
            b"header_list_way_too_large" => "header_list",
            _ => "enhance_your_calm",
        },
        _ => "other_error",
    })
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let guarded = &mut *self;
        let before = buf.filled().len();
        let read = match Pin::new(&mut guarded.io).poll_read(cx, buf) {
            Poll::Pending if guarded.share.poll_ending(cx) => Err(UNREAD),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(read) => {
                read?;
                let flood = guarded.receive(&buf.filled()[before..]);
                if guarded.share.is_ending() {
                    Err(UNREAD)
                } else {
                    flood.map_err(Flood::as_str)
                }
            }
        };
        if let Err(reason) = read {
            buf.set_filled(before);
            return Poll::Ready(Err(guarded.end(reason, cx)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.send([buf], written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        self.send(bufs.iter().map(|buf| &**buf), written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::http::h2::backlog::testing::boundless;
    use crate::http::h2::frames::{PING, PREFACE, SETTINGS};
    use crate::net::io::Meter;

    /// Remembers why connections were ended.
    #[derive(Debug, Default)]
    struct Reasons(Mutex<Vec<&'static str>>);

    impl Meter for Reasons {
        fn opened(&self) {}
        fn read(&self, _bytes: usize) {}
        fn written(&self, _bytes: usize) {}
        fn abused(&self, reason: &'static str) {
            self.0.lock().unwrap().push(reason);
        }
        fn closed(&self, _errno: Option<i32>) {}
    }

    /// A connection of a client, its other end, and what is reported of it.
    fn guarded() -> (Guarded, DuplexStream, Arc<Reasons>) {
        let (near, far) = duplex(1 << 20);
        let reasons = Arc::<Reasons>::default();
        let io = Io::pipe(near).metered(reasons.clone());
        let guarded = Guarded::from_client(io, 1, Share::of_client(&boundless(), 0));
        (guarded, far, reasons)
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, payload.len() as u8, kind, 0, 0, 0, 0, 0];
        frame.extend(payload);
        frame
    }

    #[tokio::test]
    async fn what_is_no_flood_passes_unchanged() {
        let (mut guarded, mut far, reasons) = guarded();
        let sent = [PREFACE, &frame(SETTINGS, b""), &frame(PING, b"pingpong")].concat();
        far.write_all(&sent).await.unwrap();
        let mut read = vec![0; sent.len()];
        guarded.read_exact(&mut read).await.unwrap();
        assert_eq!(read, sent);
        assert!(reasons.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_flood_ends_the_connection_with_a_goodbye_and_a_reason() {
        let (mut guarded, mut far, reasons) = guarded();
        far.write_all(PREFACE).await.unwrap();
        far.write_all(&frame(PING, b"pingpong").repeat(600))
            .await
            .unwrap();
        let error = guarded.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert!(error.to_string().contains("(ping)"), "{error}");
        drop(guarded);
        let mut goodbye = Vec::new();
        far.read_to_end(&mut goodbye).await.unwrap();
        assert_eq!(goodbye, frame(GOAWAY, b"\0\0\0\0\0\0\0\x0b"));
        assert_eq!(*reasons.0.lock().unwrap(), ["ping"]);
    }

    #[tokio::test]
    async fn nothing_is_written_into_the_middle_of_a_frame() {
        let (mut guarded, mut far, _) = guarded();
        guarded.write_all(&frame(PING, b"pingpong")[..12]).await.unwrap();
        far.write_all(PREFACE).await.unwrap();
        far.write_all(&frame(PING, b"pingpong").repeat(600))
            .await
            .unwrap();
        guarded.read_to_end(&mut Vec::new()).await.unwrap_err();
        drop(guarded);
        let mut written = Vec::new();
        far.read_to_end(&mut written).await.unwrap();
        assert_eq!(written.len(), 12);
    }

    #[tokio::test]
    async fn a_goodbye_of_the_library_that_blames_the_peer_is_counted() {
        for (code, text, reason) in [
            (0x0, "", None),
            (0x2, "", None),
            (0x1, "", Some("protocol_error")),
            (0xb, "too_many_internal_resets", Some("made_reset")),
            (0xb, "header_list_way_too_large", Some("header_list")),
            (0xb, "something new", Some("enhance_your_calm")),
        ] {
            let (mut guarded, _far, reasons) = guarded();
            let payload = [&[0, 0, 0, 7, 0, 0, 0, code], text.as_bytes()].concat();
            guarded.write_all(&frame(GOAWAY, &payload)).await.unwrap();
            assert_eq!(
                reasons.0.lock().unwrap().first().copied(),
                reason,
                "{code} {text}"
            );
        }
    }
}
