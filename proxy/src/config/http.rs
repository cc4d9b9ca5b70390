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
}

/// HTTP/2 on connections that the proxy accepts. Unset: the library's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2Server {
    /// How windows are sized.
    pub flow_control: FlowControl,
    /// PINGs, if any are sent.
    pub keep_alive: Option<KeepAlive>,
    /// Streams that a client may have open.
    pub max_concurrent_streams: Option<u32>,
    /// The largest frame that is accepted, in bytes.
    pub max_frame_size: Option<u32>,
    /// The largest header list that is accepted, in bytes (RFC 9113 §6.5.2).
    pub max_header_list_size: Option<u32>,
    /// Streams that a client may have reset before they were looked at.
    pub max_pending_accept_reset_streams: Option<usize>,
    /// Bytes buffered for sending, per stream.
    pub max_send_buf_size: Option<usize>,
    /// How many times the budgets of frames are as large as built in; 0: there are none.
    pub flood_scale: u32,
}

/// How windows are sized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowControl {
    /// By the measured bandwidth-delay product.
    Adaptive,
    /// As given, in bytes.
    Fixed {
        /// The window of a stream.
        stream_window: u32,
        /// The window of a connection.
        connection_window: u32,
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
    }
}

/// HTTP/2 on connections that the proxy opens.
pub(in crate::config) fn client(r: &mut Reader<'_>) -> Http2Client {
    Http2Client {
        stream_window: r.read(&vars::HTTP2_INITIAL_STREAM_WINDOW_SIZE).0,
        connection_window: r.read(&vars::HTTP2_INITIAL_CONNECTION_WINDOW_SIZE).0,
        flood_scale: r.read(&vars::HTTP2_FLOOD_SCALE),
    }
}

/// HTTP/2 on connections from the mesh.
pub(in crate::config) fn inbound_server(r: &mut Reader<'_>) -> Http2Server {
    const VARS: ServerVars = ServerVars {
        adaptive: vars::INBOUND_SERVER_HTTP2_ADAPTIVE_FLOW_CONTROL,
        stream_window: vars::INBOUND_SERVER_HTTP2_INITIAL_STREAM_WINDOW_SIZE,
        connection_window: vars::INBOUND_SERVER_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE,
        interval: vars::INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL,
        timeout: vars::INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT,
        streams: vars::INBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS,
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
        adaptive: vars::OUTBOUND_SERVER_HTTP2_ADAPTIVE_FLOW_CONTROL,
        stream_window: vars::OUTBOUND_SERVER_HTTP2_INITIAL_STREAM_WINDOW_SIZE,
        connection_window: vars::OUTBOUND_SERVER_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE,
        interval: vars::OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL,
        timeout: vars::OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT,
        streams: vars::OUTBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS,
        frame: vars::OUTBOUND_SERVER_HTTP2_MAX_FRAME_SIZE,
        headers: vars::OUTBOUND_SERVER_HTTP2_MAX_HEADER_LIST_SIZE,
        resets: vars::OUTBOUND_SERVER_HTTP2_MAX_PENDING_ACCEPT_RESET_STREAMS,
        send: vars::OUTBOUND_SERVER_HTTP2_MAX_SEND_BUF_SIZE,
    };
    server(r, &VARS)
}

/// The variables of one direction.
struct ServerVars {
    adaptive: Var<bool>,
    stream_window: Var<Window>,
    connection_window: Var<Window>,
    interval: OptionalVar<Duration>,
    timeout: OptionalVar<Duration>,
    streams: OptionalVar<u32>,
    frame: OptionalVar<FrameSize>,
    headers: OptionalVar<u32>,
    resets: OptionalVar<usize>,
    send: OptionalVar<usize>,
}

fn server(r: &mut Reader<'_>, vars: &ServerVars) -> Http2Server {
    let (interval, timeout) = (r.optional(&vars.interval), r.optional(&vars.timeout));
    Http2Server {
        flow_control: flow_control(r, vars),
        keep_alive: interval
            .zip(timeout)
            .map(|(interval, timeout)| KeepAlive { interval, timeout }),
        max_concurrent_streams: r.optional(&vars.streams),
        max_frame_size: r.optional(&vars.frame).map(|size| size.0),
        max_header_list_size: r.optional(&vars.headers),
        max_pending_accept_reset_streams: r.optional(&vars.resets),
        max_send_buf_size: r.optional(&vars.send),
        flood_scale: r.read(&vars::HTTP2_FLOOD_SCALE),
    }
}

/// One window alone has no effect, as in Linkerd.
fn flow_control(r: &mut Reader<'_>, vars: &ServerVars) -> FlowControl {
    let both = r.is_set(&vars.stream_window.row) && r.is_set(&vars.connection_window.row);
    let (stream, connection) = (r.read(&vars.stream_window), r.read(&vars.connection_window));
    if r.read(&vars.adaptive) {
        return FlowControl::Adaptive;
    }
    let chosen = |set: Window, default: u32| if both { set.0 } else { default };
    FlowControl::Fixed {
        stream_window: chosen(stream, 65_535),
        connection_window: chosen(connection, 1 << 20),
    }
}
