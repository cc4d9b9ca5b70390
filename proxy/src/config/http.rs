//! How HTTP is spoken: pools, queues and HTTP/2 settings, for both directions.

use std::time::Duration;

use crate::config::env::Reader;
use crate::config::row::{OptionalVar, Var};
use crate::config::value::{FrameSize, Window};
use crate::config::vars;

/// Idle HTTP/1 connections to one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// How many are kept.
    pub max_idle: usize,
    /// For how long.
    pub idle_timeout: Duration,
}

/// What is taken of a message's head, and for how long it is waited for. The same for HTTP/1 and HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of a request's head, or of its trailers.
    pub max_bytes: usize,
    /// Header fields.
    pub max_fields: usize,
    /// How long an HTTP/1 head may take from its first byte to its last.
    pub timeout: Option<Duration>,
    /// How long an HTTP/1 client that has said all may wait for an answer before it is taken to have gone.
    pub half_closed: Duration,
    /// How long an HTTP/1 connection stays open that is idle when a drain has begun.
    pub drain_idle: Duration,
}

/// HTTP/2 on connections that the proxy opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Client {
    /// The window of a stream, in bytes.
    pub stream_window: u32,
    /// The window of a connection, in bytes.
    pub connection_window: u32,
    /// How many times the budgets of frames are as large as built in; 0: there are none.
    pub flood_scale: u32,
    /// Connections to one endpoint that take new streams.
    pub max_connections: usize,
    /// How long a connection may have no stream; it may be half as long again.
    pub idle_timeout: Duration,
    /// How old a connection gets before it takes no more streams, give or take a tenth.
    pub max_age: Duration,
}

/// HTTP/2 on connections that the proxy accepts. Unset: the library's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2Server {
    /// How long a client may take until it begins (RFC 9113 §3.4).
    pub preface_timeout: Duration,
    /// How windows are sized.
    pub flow_control: FlowControl,
    /// PINGs, if any are sent.
    pub keep_alive: Option<KeepAlive>,
    /// Streams that a client may have open.
    pub max_concurrent_streams: u32,
    /// How old a connection gets before it takes no more streams, give or take a tenth.
    pub max_age: Option<Duration>,
    /// How long a connection may have no stream; it may be twice as long.
    pub max_idle: Option<Duration>,
    /// The largest frame that is accepted, in bytes.
    pub max_frame_size: Option<u32>,
    /// The largest header list that is decoded, in bytes (RFC 9113 §6.5.2).
    pub max_header_list_size: u32,
    /// Streams that a client may have reset before they were looked at.
    pub max_pending_accept_reset_streams: Option<usize>,
    /// Bytes buffered for sending, per stream.
    pub max_send_buf_size: Option<usize>,
    /// How many times the budgets of frames are as large as built in; 0: there are none.
    pub flood_scale: u32,
}

/// How windows are sized, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowControl {
    /// A stream's as given, a connection's so large that its streams never use it up.
    Streams(u32),
    /// As given.
    Fixed {
        /// The window of a stream.
        stream: u32,
        /// The window of a connection.
        connection: u32,
    },
}

/// PINGs that find dead connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// How often one is sent.
    pub interval: Duration,
    /// How long it may stay unanswered.
    pub timeout: Duration,
}

/// What is taken of a message's head.
pub(in crate::config) fn head_limits(r: &mut Reader<'_>) -> HeadLimits {
    HeadLimits {
        max_bytes: r.read(&vars::HTTP_MAX_HEAD_SIZE),
        max_fields: r.read(&vars::HTTP_MAX_HEADERS),
        timeout: r.read(&vars::HTTP1_HEAD_TIMEOUT).0,
        half_closed: r.read(&vars::HTTP1_HALF_CLOSE_TIMEOUT),
        // Whoever is idle must not use the grace period up.
        drain_idle: r
            .read(&vars::HTTP1_DRAIN_IDLE_TIMEOUT)
            .min(r.read(&vars::SHUTDOWN_GRACE_PERIOD) / 2),
    }
}

/// HTTP/2 on connections that the proxy opens.
pub(in crate::config) fn client(r: &mut Reader<'_>) -> Http2Client {
    Http2Client {
        stream_window: r.read(&vars::HTTP2_INITIAL_STREAM_WINDOW_SIZE).0,
        connection_window: r.read(&vars::HTTP2_INITIAL_CONNECTION_WINDOW_SIZE).0,
        flood_scale: r.read(&vars::HTTP2_FLOOD_SCALE),
        max_connections: r.read(&vars::HTTP2_MAX_CONNECTIONS_PER_ENDPOINT).max(1),
        idle_timeout: r.read(&vars::HTTP2_CONNECTION_IDLE_TIMEOUT),
        max_age: r.read(&vars::HTTP2_CONNECTION_MAX_AGE),
    }
}

/// HTTP/2 on connections from the mesh.
pub(in crate::config) fn inbound_server(r: &mut Reader<'_>) -> Http2Server {
    const VARS: ServerVars = ServerVars {
        preface: vars::INBOUND_DETECT_TIMEOUT,
        adaptive: vars::INBOUND_SERVER_HTTP2_ADAPTIVE_FLOW_CONTROL,
        stream_window: vars::INBOUND_SERVER_HTTP2_INITIAL_STREAM_WINDOW_SIZE,
        connection_window: vars::INBOUND_SERVER_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE,
        interval: vars::INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL,
        timeout: vars::INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT,
        streams: vars::INBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS,
        age: vars::INBOUND_SERVER_HTTP2_MAX_AGE,
        idle: vars::INBOUND_SERVER_HTTP2_MAX_IDLE,
        frame: vars::INBOUND_SERVER_HTTP2_MAX_FRAME_SIZE,
        headers: vars::INBOUND_SERVER_HTTP2_MAX_HEADER_LIST_SIZE,
        resets: vars::INBOUND_SERVER_HTTP2_MAX_PENDING_ACCEPT_RESET_STREAMS,
        send: vars::INBOUND_SERVER_HTTP2_MAX_SEND_BUF_SIZE,
    };
    server(r, &VARS)
}

/// HTTP/2 on connections from the application.
pub(in crate::config) fn outbound_server(r: &mut Reader<'_>) -> Http2Server {
    const VARS: ServerVars = ServerVars {
        preface: vars::OUTBOUND_DETECT_TIMEOUT,
        adaptive: vars::OUTBOUND_SERVER_HTTP2_ADAPTIVE_FLOW_CONTROL,
        stream_window: vars::OUTBOUND_SERVER_HTTP2_INITIAL_STREAM_WINDOW_SIZE,
        connection_window: vars::OUTBOUND_SERVER_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE,
        interval: vars::OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL,
        timeout: vars::OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT,
        streams: vars::OUTBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS,
        age: vars::OUTBOUND_SERVER_HTTP2_MAX_AGE,
        idle: vars::OUTBOUND_SERVER_HTTP2_MAX_IDLE,
        frame: vars::OUTBOUND_SERVER_HTTP2_MAX_FRAME_SIZE,
        headers: vars::OUTBOUND_SERVER_HTTP2_MAX_HEADER_LIST_SIZE,
        resets: vars::OUTBOUND_SERVER_HTTP2_MAX_PENDING_ACCEPT_RESET_STREAMS,
        send: vars::OUTBOUND_SERVER_HTTP2_MAX_SEND_BUF_SIZE,
    };
    server(r, &VARS)
}

/// The variables of one direction.
struct ServerVars {
    preface: Var<Duration>,
    adaptive: Var<bool>,
    stream_window: Var<Window>,
    connection_window: Var<Window>,
    interval: OptionalVar<Duration>,
    timeout: OptionalVar<Duration>,
    streams: Var<u32>,
    age: OptionalVar<Duration>,
    idle: OptionalVar<Duration>,
    frame: OptionalVar<FrameSize>,
    headers: OptionalVar<u32>,
    resets: OptionalVar<usize>,
    send: OptionalVar<usize>,
}

fn server(r: &mut Reader<'_>, vars: &ServerVars) -> Http2Server {
    let (interval, timeout) = (r.optional(&vars.interval), r.optional(&vars.timeout));
    Http2Server {
        preface_timeout: r.read(&vars.preface),
        flow_control: flow_control(r, vars),
        keep_alive: interval
            .zip(timeout)
            .map(|(interval, timeout)| KeepAlive { interval, timeout }),
        max_concurrent_streams: r.read(&vars.streams),
        max_age: r.optional(&vars.age),
        max_idle: r.optional(&vars.idle),
        max_frame_size: r.optional(&vars.frame).map(|size| size.0),
        max_header_list_size: r.optional(&vars.headers).unwrap_or_else(|| header_list(r)),
        max_pending_accept_reset_streams: r.optional(&vars.resets),
        max_send_buf_size: r.optional(&vars.send),
        flood_scale: r.read(&vars::HTTP2_FLOOD_SCALE),
    }
}

/// Four times what a head may have, names counted: so it is the proxy that refuses what is too large, with an answer and
/// a count, where the library would only end the stream.
fn header_list(r: &mut Reader<'_>) -> u32 {
    let bytes = r.read(&vars::HTTP_MAX_HEAD_SIZE).saturating_mul(4);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// One window alone has no effect, as in Linkerd.
fn flow_control(r: &mut Reader<'_>, vars: &ServerVars) -> FlowControl {
    let both = r.is_set(&vars.stream_window.row) && r.is_set(&vars.connection_window.row);
    let (stream, connection) = (r.read(&vars.stream_window), r.read(&vars.connection_window));
    if r.read(&vars.adaptive) {
        FlowControl::Streams(WIDE_STREAM_WINDOW)
    } else if both {
        FlowControl::Fixed {
            stream: stream.0,
            connection: connection.0,
        }
    } else {
        FlowControl::Streams(STREAM_WINDOW)
    }
}

/// Holds a body of 64 KiB whole, which 65,535 bytes do not, and what a path of 4 Gbit/s with 0.5 ms has under way.
const STREAM_WINDOW: u32 = 256 << 10;
/// What no path within a cluster has under way.
const WIDE_STREAM_WINDOW: u32 = 4 << 20;
