//! HTTP/2 to a server: a connection, the streams on it, and what drives it.

use std::future::{pending, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::{self, Either};
use http::{Request, Response};
use http_body::Body as _;
pub use outrigger_http2::client::Unopened;
use outrigger_http2::client::{self, Config, Opener};
use outrigger_http2::{Pings, Reason, Recv, Send as SendStream};
use outrigger_policy::endpoint::Http2Params;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::config::KeepAlive;
use crate::error::Fault;
use crate::http::body::{self, Body};
use crate::http::h2::answer::{Answer, Held};
use crate::http::h2::backlog::{Claim, Share};
use crate::http::h2::guard::Guarded;
use crate::http::h2::send::{self, Broken, Sending};
use crate::http::h2::slots::{Slot, Slots};
use crate::http::h2::window::Windows;
use crate::http::h2::{keep_alive, recv};
use crate::http::interim::Interims;
use crate::http::rarely::rarely;
use crate::net::io::Activity;

/// The largest header list that is accepted, bytes (RFC 9113 §6.5.2).
const MAX_HEADER_LIST: u32 = 16 << 10;

/// Streams that a server usually allows at most, for what their bookkeeping may cost.
pub const STREAMS: u32 = 1024;

/// What is large enough for any path: what a peer may send where windows are to follow the path.
const WIDE: Windows = Windows {
    stream: 4 << 20,
    connection: 1 << 30,
};

/// Opens streams on one connection. Once it is dropped, the connection ends with the last of them.
#[derive(Debug)]
pub struct Connection {
    opener: Opener,
    slots: Arc<Slots>,
    share: Arc<Share>,
}

/// A stream whose request's head is on its way.
#[derive(Debug)]
pub struct Stream {
    response: Recv,
    /// Where the body goes; `None`: there is none.
    request: Option<SendStream>,
    claim: Claim,
    slot: Slot,
}

/// Drives a connection.
#[derive(Debug)]
pub struct Driver {
    connection: client::Connection<Guarded>,
    slots: Arc<Slots>,
    keep_alive: Option<Asking>,
}

/// PINGs that find out whether a silent peer is still there.
#[derive(Debug)]
struct Asking {
    pings: Pings,
    peer: Activity,
    settings: KeepAlive,
    while_idle: bool,
}

/// How long a connection takes new streams.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    /// Without any stream.
    pub idle: Duration,
    /// In any case.
    pub age: Duration,
}

/// Why a connection ended, or takes no new streams.
#[derive(Debug)]
pub enum End {
    /// It had no stream for long.
    Idle,
    /// It is old.
    Age,
    /// The peer closed it, or all that had to be done on it is done.
    Closed,
    /// The peer left a PING unanswered.
    Unanswered,
    /// It failed, or the peer did not keep to the protocol.
    Failed(outrigger_http2::Error),
}

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It failed, or the peer speaks something else.
    #[error("HTTP/2")]
    Http2(#[from] outrigger_http2::Error),
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The server did not process the request, and its body is back whole.
    Unprocessed(outrigger_http2::Error),
    /// The stream or the connection broke off.
    Stream(outrigger_http2::Error),
    /// The request's own body did.
    Request(body::Error),
    /// What came before the answer is not taken.
    Refused(Fault),
}

/// The windows of a connection: what discovery says of it goes before what is configured.
pub fn windows(configured: Windows, params: &Http2Params) -> Windows {
    let proposed = if params.adaptive_window { WIDE } else { configured };
    Windows {
        stream: params.stream_window.unwrap_or(proposed.stream),
        connection: params.connection_window.unwrap_or(proposed.connection),
    }
}

/// Starts HTTP/2 with prior knowledge (RFC 9113 §3.3), and waits until the server has said what it allows. `freed` is
/// told when a stream has ended where no more were allowed.
pub async fn connect(
    mut io: Guarded,
    share: Arc<Share>,
    windows: Windows,
    params: &Http2Params,
    freed: Arc<Notify>,
) -> Result<(Connection, Driver), Error> {
    let peer = params.keep_alive.map(|keep_alive| (keep_alive, io.activity()));
    let (opener, connection) = client::handshake(io, &config(windows, params)).await?;
    let slots = Slots::new(connection.max_streams(), freed);
    let keep_alive = peer.map(|((interval, timeout), peer)| Asking {
        pings: connection.pings(),
        peer,
        settings: KeepAlive { interval, timeout },
        while_idle: params.keep_alive_while_idle,
    });
    let driver = Driver {
        connection,
        slots: slots.clone(),
        keep_alive,
    };
    let connection = Connection { opener, slots, share };
    Ok((connection, driver))
}

fn config(windows: Windows, params: &Http2Params) -> Config {
    let defaults = Config::default();
    Config {
        stream_window: windows.stream,
        connection_window: windows.connection,
        max_frame_size: params.max_frame_size.unwrap_or(defaults.max_frame_size),
        max_header_list_size: MAX_HEADER_LIST,
        send_buffer: params.max_send_buf_size.unwrap_or(defaults.send_buffer).max(1),
        remembered_resets: params
            .max_concurrent_reset_streams
            .unwrap_or(defaults.remembered_resets),
    }
}

impl Connection {
    /// Opens a stream with a request's head, which is left as it is: it is needed again if the server refuses it.
    pub fn open(&mut self, request: &Request<Body>) -> Result<Stream, Unopened> {
        let slot = self.slots.take().ok_or(Unopened::Full)?;
        let (response, stream) = self.opener.open(request, request.body().is_end_stream())?;
        Ok(Stream {
            claim: self.share.open(response.id()),
            response,
            request: stream,
            slot,
        })
    }
}

impl Stream {
    /// Sends the body, and waits for the answer. What is left of the body when the answer comes is sent on beside it.
    ///
    /// Interim answers are passed on as they come.
    pub async fn answer(
        mut self,
        body: &mut Body,
        interims: &Interims,
    ) -> Result<Response<Body>, Unanswered> {
        let request = self.request.take();
        let mut untouched = request.is_none();
        let mut sending = request.map(|stream| send::send(stream, mem::take(body), Reason::CANCEL));
        let answered = poll_fn(|cx| self.poll(cx, &mut sending, interims)).await;
        match answered {
            Ok(response) => Ok(self.begin(response, sending)),
            Err(Unanswered::Stream(error)) => {
                if let Some(whole) = sending.and_then(Sending::untouched) {
                    (*body, untouched) = (whole, true);
                }
                if untouched && self.was_not_processed(&error) {
                    return Err(Unanswered::Unprocessed(error));
                }
                Err(Unanswered::Stream(error))
            }
            Err(other) => Err(other),
        }
    }

    /// The answer's head; until it comes, the body goes out.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        sending: &mut Option<Sending<Body>>,
        interims: &Interims,
    ) -> Poll<Result<Response<()>, Unanswered>> {
        if let Poll::Ready(answered) = self.poll_head(cx, interims) {
            return Poll::Ready(answered);
        }
        if let Some(rest) = sending {
            match ready!(Pin::new(rest).poll(cx)) {
                Err(Broken::Body(error)) => return Poll::Ready(Err(Unanswered::Request(error))),
                Ok(()) => *sending = None,
                // The peer wants no more of it, and the answer says why. It may have come since it was asked for: a
                // refusal lets go of no body that nothing was taken from.
                Err(Broken::Peer(_)) => {
                    let answered = self.poll_head(cx, interims);
                    if !matches!(answered, Poll::Ready(Err(_))) {
                        *sending = None;
                    }
                    return answered;
                }
            }
        }
        Poll::Pending
    }

    /// The answer's head, after those that are interim.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        interims: &Interims,
    ) -> Poll<Result<Response<()>, Unanswered>> {
        loop {
            let head = ready!(self.response.poll_head(cx)).map_err(Unanswered::Stream)?;
            if !head.status().is_informational() {
                return Poll::Ready(Ok(head));
            }
            interims.pass(head).map_err(Unanswered::Refused)?;
        }
    }

    fn begin(self, response: Response<()>, sending: Option<Sending<Body>>) -> Response<Body> {
        let (head, ()) = response.into_parts();
        let held = Held::new(self.slot, sending);
        let stream = (!self.response.is_over()).then_some(self.response);
        let body = match recv::body(stream, &head.headers, |stream| self.claim.on(stream)) {
            Body::Received(received) => Body::Answer(Answer::new(received, held)),
            ended => ended,
        };
        Response::from_parts(head, body)
    }

    /// The server says so, or can't have heard of the stream.
    fn was_not_processed(&self, error: &outrigger_http2::Error) -> bool {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        // Streams above the last that the peer has processed have this error (RFC 9113 §6.8), and no others.
        let above_the_last = error.is_go_away();
        let never_left = error.is_io() && !self.response.has_left();
        (error.is_remote() && (refused || above_the_last)) || never_left
    }
}

impl Driver {
    /// Drives the connection until it ends. `retire` is called when it is to take no new streams: whoever has the
    /// [`Connection`] drops it then.
    pub async fn run(self, lifetime: Lifetime, retire: impl FnOnce(End)) -> End {
        let Self {
            mut connection,
            slots,
            keep_alive,
        } = self;
        let retiring = pin!(async {
            retire(over(&slots, lifetime).await);
            pending::<()>().await;
        });
        let unanswered = pin!(unanswered(keep_alive, &slots));
        let waiting = pin!(rarely(future::select(retiring, unanswered)));
        let driving = poll_fn(|cx| {
            let polled = Pin::new(&mut connection).poll(cx);
            slots.set_limit(connection.max_streams());
            if connection.has_room_again() {
                slots.tell();
            }
            polled
        });
        match future::select(driving, waiting).await {
            Either::Left((Ok(()), _)) => End::Closed,
            Either::Left((Err(error), _)) => End::Failed(error),
            Either::Right(_) => End::Unanswered,
        }
    }
}

/// How often a connection is looked at within the time for which it may be idle.
const ROUNDS: u32 = 2;

/// Waits until the connection has lasted long enough.
async fn over(slots: &Slots, lifetime: Lifetime) -> End {
    let idle = async {
        let mut quiet = 0;
        while quiet < ROUNDS {
            sleep(lifetime.idle / ROUNDS).await;
            quiet = if slots.were_idle() { quiet + 1 } else { 0 };
        }
    };
    match future::select(pin!(idle), pin!(sleep(lifetime.age))).await {
        Either::Left(_) => End::Idle,
        Either::Right(_) => End::Age,
    }
}

/// Ends when the peer has left a PING unanswered. Without a stream, it is asked only if that is configured.
async fn unanswered(asking: Option<Asking>, slots: &Slots) {
    match asking {
        Some(Asking {
            pings,
            peer,
            settings,
            while_idle,
        }) => keep_alive::unanswered(pings, peer, settings, || while_idle || !slots.is_idle()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;
    use crate::http::body::testing::Frames;
    use crate::http::h2::backlog::testing::boundless;
    use crate::net::io::Io;

    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    /// RST_STREAM for stream 1, with REFUSED_STREAM.
    const REFUSAL: &[u8] = b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x07";

    #[tokio::test]
    async fn a_refusal_that_comes_between_the_answer_and_the_body_leaves_the_body_whole() {
        let (near, mut far) = duplex(1 << 16);
        far.write_all(SETTINGS).await.unwrap();
        let share = Share::of_server(&boundless(), 0);
        let io = Guarded::to_server(Io::pipe(near), 1, share.clone());
        let (windows, params) = (Windows::of_streams(65_535, 100), Http2Params::default());
        let connecting = connect(io, share, windows, &params, Arc::default());
        let (mut connection, driver) = connecting.await.unwrap();
        let lifetime = Lifetime {
            idle: Duration::from_secs(60),
            age: Duration::from_secs(60),
        };
        let mut driving = Box::pin(driver.run(lifetime, |_end| {}));
        let request = Request::post("http://app/").body(Body::Frames(Frames::stuck()));
        let stream = connection.open(&request.unwrap()).unwrap();
        assert!((&mut driving).now_or_never().is_none(), "the head has left");
        // Until the body is asked for, the server has said nothing.
        let mut body = Body::Frames(Frames::when_asked(move || {
            far.write_all(REFUSAL).now_or_never().unwrap().unwrap();
            assert!((&mut driving).now_or_never().is_none());
        }));
        let answered = stream.answer(&mut body, &Interims::default()).await;
        assert!(
            matches!(answered, Err(Unanswered::Unprocessed(_))),
            "{answered:?}"
        );
        assert!(matches!(body, Body::Frames(_)));
    }
}
