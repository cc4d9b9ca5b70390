//! HTTP/2 to a server: a connection, the streams on it, and what drives it.

use std::future::{pending, poll_fn};
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use ::h2::client::{Builder, ResponseFuture, SendRequest};
use ::h2::ext::Protocol;
use ::h2::{PingPong, Reason, SendStream};
use bytes::Bytes;
use futures_util::future::{self, Either};
use http::{Request, Response};
use http_body::Body as _;
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
use crate::http::h2::wire::{Wire, Writes};
use crate::http::h2::{keep_alive, recv};
use crate::http::interim::Interims;
use crate::http::rarely::rarely;
use crate::net::io::Activity;

/// No peer allows so many streams: what h2 is told until the peer has said how many.
const UNKNOWN: usize = usize::MAX - 1;
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
    sender: SendRequest<Bytes>,
    slots: Arc<Slots>,
    share: Arc<Share>,
    writes: Writes,
}

/// A stream whose request's head is on its way.
#[derive(Debug)]
pub struct Stream {
    response: ResponseFuture,
    /// Where the body goes; `None`: there is none.
    request: Option<SendStream<Bytes>>,
    claim: Claim,
    slot: Slot,
    writes: Writes,
    /// Those before it was opened.
    writes_before: u64,
}

/// Drives a connection.
#[derive(Debug)]
pub struct Driver {
    connection: ::h2::client::Connection<Wire, Bytes>,
    slots: Arc<Slots>,
    pings: Option<Pings>,
}

/// PINGs that find out whether a silent peer is still there.
#[derive(Debug)]
struct Pings {
    pings: PingPong,
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
    Failed(::h2::Error),
}

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It failed, or the peer speaks something else.
    #[error("HTTP/2")]
    Http2(#[from] ::h2::Error),
    /// The peer closed it.
    #[error("the server closed the connection before it said anything")]
    Closed,
}

/// Why no stream was opened. The request is as it was.
#[derive(Debug)]
pub enum Unopened {
    /// The peer allows no more of them now.
    Full,
    /// The connection takes none any more: the peer said goodbye (GOAWAY), or it has ended.
    Over,
    /// The request asks for a tunnel for a protocol, and the peer takes none (RFC 8441 §3).
    NoTunnel,
    /// The request makes no sense in HTTP/2.
    Malformed(::h2::Error),
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// The server did not process the request, and its body is back whole.
    Unprocessed(::h2::Error),
    /// The stream or the connection broke off.
    Stream(::h2::Error),
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
    let writes = Writes::default();
    let wire = Wire::new(io, writes.clone());
    let (sender, mut connection) = builder(windows, params).handshake(wire).await?;
    let pings = connection.ping_pong();
    let limit = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(Error::Closed)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
        Poll::Pending => match connection.max_concurrent_send_streams() {
            UNKNOWN => Poll::Pending,
            limit => Poll::Ready(Ok(limit)),
        },
    })
    .await?;
    let slots = Slots::new(limit, freed);
    let pings = peer.zip(pings).map(|(((interval, timeout), peer), pings)| Pings {
        pings,
        peer,
        settings: KeepAlive { interval, timeout },
        while_idle: params.keep_alive_while_idle,
    });
    let driver = Driver {
        connection,
        slots: slots.clone(),
        pings,
    };
    let connection = Connection {
        sender,
        slots,
        share,
        writes,
    };
    Ok((connection, driver))
}

fn builder(windows: Windows, params: &Http2Params) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(UNKNOWN)
        .max_header_list_size(MAX_HEADER_LIST)
        .initial_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .data_frame_budget(windows.bookkeeping(STREAMS));
    if let Some(streams) = params.max_concurrent_reset_streams {
        builder.max_concurrent_reset_streams(streams);
    }
    // What a server still sends on streams that clients have given up counts as our own error, over the connection's
    // whole life: thousands of cancelled calls would end a connection that is well.
    builder.max_local_error_reset_streams(None);
    if let Some(size) = params.max_frame_size {
        builder.max_frame_size(size);
    }
    if let Some(size) = params.max_send_buf_size {
        builder.max_send_buffer_size(size);
    }
    builder
}

impl Connection {
    /// Opens a stream with a copy of the request's head, which is needed again if the server refuses it.
    pub fn open(&mut self, request: &Request<Body>) -> Result<Stream, Unopened> {
        if request.extensions().get::<Protocol>().is_some()
            && !self.sender.is_extended_connect_protocol_enabled()
        {
            return Err(Unopened::NoTunnel);
        }
        let slot = self.slots.take().ok_or(Unopened::Full)?;
        let writes_before = self.writes.count();
        let ended = request.body().is_end_stream();
        // A copy, since h2's handle keeps the stream that uses up the limit, and so keeps it from being cancelled.
        let mut sender = self.sender.clone();
        match sender.send_request(copy_of_head(request), ended) {
            Ok((response, stream)) => Ok(Stream {
                claim: self.share.open(response.stream_id().as_u32()),
                response,
                request: (!ended).then_some(stream),
                slot,
                writes: self.writes.clone(),
                writes_before,
            }),
            Err(error) if self.is_over() => {
                tracing::debug!(%error, "an HTTP/2 connection takes no more requests");
                Err(Unopened::Over)
            }
            Err(error) => Err(Unopened::Malformed(error)),
        }
    }

    /// Whether the connection has ended, was said goodbye on, or has no stream left to number.
    fn is_over(&mut self) -> bool {
        let ready = self.sender.poll_ready(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Err(_)))
    }
}

/// A request like this one, without its body.
pub(in crate::http) fn copy_of_head(request: &Request<Body>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.version_mut() = request.version();
    *head.headers_mut() = request.headers().clone();
    // Extended CONNECT (RFC 8441 §4) names its protocol there.
    if let Some(protocol) = request.extensions().get::<Protocol>() {
        head.extensions_mut().insert(protocol.clone());
    }
    head
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
    ) -> Poll<Result<Response<::h2::RecvStream>, Unanswered>> {
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

    /// The answer's head, after those that are interim. h2 drops these if it is asked for the answer before them.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        interims: &Interims,
    ) -> Poll<Result<Response<::h2::RecvStream>, Unanswered>> {
        while let Some(interim) = ready!(self.response.poll_informational(cx)) {
            let interim = interim.map_err(Unanswered::Stream)?;
            interims.pass(interim).map_err(Unanswered::Refused)?;
        }
        let answered = ready!(Pin::new(&mut self.response).poll(cx));
        Poll::Ready(answered.map_err(Unanswered::Stream))
    }

    fn begin(self, response: Response<::h2::RecvStream>, sending: Option<Sending<Body>>) -> Response<Body> {
        let (head, stream) = response.into_parts();
        let held = Held::new(self.slot, sending);
        let body = match recv::body(stream, &head.headers, |stream| self.claim.on(stream)) {
            Body::Received(received) => Body::Answer(Answer::new(received, held)),
            ended => ended,
        };
        Response::from_parts(head, body)
    }

    /// The server says so, or can't have heard of the stream.
    fn was_not_processed(&self, error: &::h2::Error) -> bool {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        // h2 gives this error to streams above the last that the peer has processed (RFC 9113 §6.8), and to no others.
        let above_the_last = error.is_go_away();
        let never_left = error.is_io() && self.writes.count() == self.writes_before;
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
            pings,
        } = self;
        let retiring = pin!(async {
            retire(over(&slots, lifetime).await);
            pending::<()>().await;
        });
        let unanswered = pin!(unanswered(pings, &slots));
        let waiting = pin!(rarely(future::select(retiring, unanswered)));
        let driving = poll_fn(|cx| {
            let polled = Pin::new(&mut connection).poll(cx);
            slots.set_limit(connection.max_concurrent_send_streams());
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
async fn unanswered(pings: Option<Pings>, slots: &Slots) {
    match pings {
        Some(Pings {
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
