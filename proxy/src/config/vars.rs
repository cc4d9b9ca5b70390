//! The table of variables. `docs/configuration.md` and `--help` are printed from it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use outrigger_policy::name::{DnsName, Identity};

use crate::config::row::{Built, OptionalVar, Row, Var, check};
use crate::config::value::{
    AccessLog, Addresses, DefaultPolicy, FrameSize, HostPort, Jitter, Listeners, LogFormat, Networks, Never,
    OptionalDuration, PortSet, Ratio, Suffixes, TrustAnchors, UnsafeLabels, Value as _, Window,
};

macro_rules! name_of {
    ($name:ident) => {
        concat!("LINKERD2_PROXY_", stringify!($name))
    };
    ($name:ident $full:literal) => {
        $full
    };
}

macro_rules! built {
    () => {
        Built::Yes
    };
    (not_built $capability:literal) => {
        Built::No($capability)
    };
    (follows $capability:literal) => {
        Built::Follows($capability)
    };
}

macro_rules! var {
    (type $type:ty) => { OptionalVar<$type> };
    (type $type:ty, $default:literal) => { Var<$type> };
    (new $row:expr) => { OptionalVar::new($row) };
    (new $row:expr, $default:literal) => { Var::new($row, $default) };
    (default) => { None };
    (default $default:literal) => { Some($default) };
}

/// One constant per variable, and the table of all of them by section.
macro_rules! vars {
    ($(section $title:literal {
        $($(#[doc = $help:literal])+
        $name:ident $(as $full:literal)? $(also $alias:literal)? : $type:ty $(= $default:literal)?
            $(, $mark:ident $capability:literal)?;)+
    })+) => {
        $($($(#[doc = $help])+
        pub const $name: var!(type $type $(, $default)?) = var!(new Row {
            name: name_of!($name $($full)?),
            aliases: &[$($alias)?],
            kind: <$type>::KIND,
            default: var!(default $($default)?),
            help: &[$($help),+],
            built: built!($($mark $capability)?),
            check: check::<$type>,
        } $(, $default)?);)+)+

        /// Every variable, by section.
        pub const SECTIONS: &[(&str, &[Row])] = &[$(($title, &[$($name.row),+])),+];
    };
}

vars! {
    section "Listeners" {
        /// Where the application's outgoing connections arrive.
        OUTBOUND_LISTEN_ADDR: SocketAddr = "127.0.0.1:4140";
        /// The same for IPv4 and IPv6; takes precedence over `…_ADDR`.
        OUTBOUND_LISTEN_ADDRS: Listeners;
        /// Where connections for the application arrive; `[::]:4143` listens on both families.
        INBOUND_LISTEN_ADDR: SocketAddr = "0.0.0.0:4143";
        /// Where tap is served.
        CONTROL_LISTEN_ADDR: SocketAddr = "0.0.0.0:4190", follows "tap";
        /// Where probes, metrics and the rest of the administration are served.
        ADMIN_LISTEN_ADDR: SocketAddr = "127.0.0.1:4191";
    }
    section "Process" {
        /// The least number of worker threads. An invalid value is ignored with a warning, as for all `CORES…`.
        CORES_MIN also "LINKERD2_PROXY_CORES": usize = "1";
        /// The largest number of worker threads.
        CORES_MAX: usize;
        /// The largest number of worker threads, as a share of the processors available; for when `CORES_MAX` is unset.
        CORES_MAX_RATIO: Ratio;
        /// How long connections may take to finish after a signal to end.
        SHUTDOWN_GRACE_PERIOD: Duration = "2m";
        /// Whether `POST /shutdown` on the admin port, from within the pod, ends the proxy as SIGTERM does.
        SHUTDOWN_ENDPOINT_ENABLED: bool = "false";
        /// How long metrics of a target that is no longer used are kept.
        METRICS_RETAIN_IDLE: Duration = "10m";
        /// What is logged, as directives of `tracing`'s `EnvFilter`; the target `linkerd` is the proxy itself, `off` logs nothing.
        LOG: Arc<str> = "warn,linkerd=info,hickory=error";
        /// How log lines look. Whatever is not JSON is plain.
        LOG_FORMAT: LogFormat = "PLAIN";
        /// A line on stderr per inbound request. Any other value writes none.
        ACCESS_LOG: AccessLog, not_built "access log";
    }
    section "Sockets" {
        /// TCP keep-alive of accepted connections: idle time before the first probe. Also for the admin port.
        INBOUND_ACCEPT_KEEPALIVE: Duration;
        /// TCP keep-alive of connections from the application.
        OUTBOUND_ACCEPT_KEEPALIVE: Duration;
        /// TCP keep-alive of connections to the application.
        INBOUND_CONNECT_KEEPALIVE: Duration;
        /// TCP keep-alive of connections to other pods.
        OUTBOUND_CONNECT_KEEPALIVE: Duration;
        /// How long sent data may stay unacknowledged on accepted connections (`TCP_USER_TIMEOUT`).
        INBOUND_ACCEPT_USER_TIMEOUT: Duration;
        /// The same on connections from the application.
        OUTBOUND_ACCEPT_USER_TIMEOUT: Duration;
        /// The same on connections to the application.
        INBOUND_CONNECT_USER_TIMEOUT: Duration;
        /// The same on connections to other pods.
        OUTBOUND_CONNECT_USER_TIMEOUT: Duration;
        /// Connections that may wait to be accepted (`listen(2)`). Also for the admin port.
        INBOUND_TCP_LISTEN_BACKLOG: u32;
        /// Connections that may wait to be accepted.
        OUTBOUND_TCP_LISTEN_BACKLOG: u32;
        /// Connections from the mesh that may be open at the same time, and as many to the application; more wait to be
        /// accepted. Unset: a quarter of the open files that the process may have, without what it needs itself.
        INBOUND_MAX_CONNECTIONS: usize;
        /// The same for connections from the application, and for those to other pods.
        OUTBOUND_MAX_CONNECTIONS: usize;
        /// How long an opaque connection may be silent when one side has ended. Empty: for ever. Nodes forget such
        /// connections after an hour too (`--conntrack-tcp-timeout-close-wait` of kube-proxy).
        TCP_HALF_CLOSED_TIMEOUT: OptionalDuration = "1h";
    }
    section "Detecting protocols and connecting" {
        /// How long to wait for the first bytes of a connection from the mesh before calling it opaque.
        INBOUND_DETECT_TIMEOUT: Duration = "10s";
        /// How long to wait for the first bytes of a connection from the application before calling it opaque.
        OUTBOUND_DETECT_TIMEOUT: Duration = "10s";
        /// How long a client from the mesh may say nothing before the application is dialled, in case that it is the
        /// one that speaks first. Linkerd's proxy has no such variable: it waits for `INBOUND_DETECT_TIMEOUT`.
        INBOUND_SERVER_FIRST_AFTER: Duration = "50ms";
        /// How long the application may say nothing before the server is dialled, in case that it is the one that
        /// speaks first. Linkerd's proxy has no such variable: it waits for `OUTBOUND_DETECT_TIMEOUT`.
        OUTBOUND_SERVER_FIRST_AFTER: Duration = "50ms";
        /// How long a connection to the application may take.
        INBOUND_CONNECT_TIMEOUT: Duration = "300ms";
        /// How long a connection to another pod may take, TLS included.
        OUTBOUND_CONNECT_TIMEOUT: Duration = "1s";
        /// The first wait before connecting to the application again. `MIN` and `MAX` are set together or not at all.
        INBOUND_CONNECT_EXP_BACKOFF_MIN: Duration = "100ms";
        /// The longest wait.
        INBOUND_CONNECT_EXP_BACKOFF_MAX: Duration = "10s";
        /// How much of a wait is added at random at most; 0 if unset while `MIN` and `MAX` are set.
        INBOUND_CONNECT_EXP_BACKOFF_JITTER: Jitter = "0.1";
        /// The first wait before connecting to another pod, or to the control plane, again.
        OUTBOUND_CONNECT_EXP_BACKOFF_MIN: Duration = "100ms";
        /// The longest wait.
        OUTBOUND_CONNECT_EXP_BACKOFF_MAX: Duration = "60s";
        /// How much of a wait is added at random at most; 0 if unset while `MIN` and `MAX` are set.
        OUTBOUND_CONNECT_EXP_BACKOFF_JITTER: Jitter = "0.1";
    }
    section "Limits" {
        /// Requests that may wait for one inbound destination.
        INBOUND_HTTP_QUEUE_CAPACITY: usize = "10000", not_built "queue that requests wait in (`MAX_IN_FLIGHT` bounds them)";
        /// How long a request waits for room on an HTTP/2 connection to the application before it is answered with a failure,
        /// and for how long a connection to the application is asked for again when nobody answers in time: a burst can fill
        /// the queue of an application that is slow to accept.
        INBOUND_HTTP_FAILFAST_TIMEOUT: Duration = "1s";
        /// Connections that may wait for an endpoint of one destination.
        OUTBOUND_TCP_QUEUE_CAPACITY: usize = "10000", not_built "queue that requests wait in (`MAX_IN_FLIGHT` bounds them)";
        /// How long such a connection waits before it is closed.
        OUTBOUND_TCP_FAILFAST_TIMEOUT: Duration = "3s";
        /// Requests that may wait for an endpoint of one destination.
        OUTBOUND_HTTP_QUEUE_CAPACITY: usize = "10000", not_built "queue that requests wait in (`MAX_IN_FLIGHT` bounds them)";
        /// How long a request waits for an endpoint, or for room on an HTTP/2 connection to one, before it is answered with
        /// a failure.
        OUTBOUND_HTTP_FAILFAST_TIMEOUT: Duration = "3s";
        /// Inbound requests in flight; more are answered 503.
        INBOUND_MAX_IN_FLIGHT: usize = "100000";
        /// Outbound requests in flight; more are answered 503.
        OUTBOUND_MAX_IN_FLIGHT: usize = "100000";
        /// Bytes of request bodies that are kept because their requests may be sent again, of all requests together; what
        /// there is no room for is sent once only. Linkerd's proxy has no such variable, and no such limit.
        OUTBOUND_RETRY_MAX_BYTES: usize = "67108864";
        /// Bytes of request bodies that are kept for mirrors, of all requests together, and at most 1 MiB of one; what
        /// there is no room for is not mirrored. Linkerd's proxy has no mirrors.
        OUTBOUND_MIRROR_MAX_BYTES: usize = "16777216";
        /// Copies of requests that are under way to mirrors, or wait for the end of their request; beyond, requests are not
        /// mirrored. Linkerd's proxy has no mirrors.
        OUTBOUND_MIRROR_MAX_IN_FLIGHT: usize = "1000";
        /// Bytes of a request's head, and of its trailers, for HTTP/1 and HTTP/2 alike; more is answered 431 (414 for an
        /// HTTP/1 request line, RESOURCE_EXHAUSTED for gRPC).
        HTTP_MAX_HEAD_SIZE: usize = "65536";
        /// Header fields of a request, for HTTP/1 and HTTP/2 alike; more is answered 431, or RESOURCE_EXHAUSTED for gRPC.
        HTTP_MAX_HEADERS: usize = "100";
        /// How long the head of an HTTP/1 request may take from its first byte to its last; then it is answered 408. The
        /// time between two requests does not count.
        HTTP1_HEAD_TIMEOUT: OptionalDuration = "30s";
        /// How long an HTTP/1 client that has closed its side of the connection may wait for an answer, or for more of it,
        /// before it is taken to have gone and its request is cancelled. `0` cancels at once.
        HTTP1_HALF_CLOSE_TIMEOUT: Duration = "2s";
        /// How long an HTTP/1 connection without a request stays open during a drain: a request that is on its way is
        /// answered, and told that its connection closes. At most half of the grace period; `0` closes at once, as Linkerd's
        /// proxy does.
        HTTP1_DRAIN_IDLE_TIMEOUT: Duration = "3s";
        /// Idle HTTP/1 connections kept to one port of the application. Linkerd's name lacks the `INBOUND_`; both are read.
        INBOUND_MAX_IDLE_CONNS_PER_ENDPOINT also "LINKERD2_PROXY_MAX_IDLE_CONNS_PER_ENDPOINT": usize = "10000";
        /// Idle HTTP/1 connections kept to one endpoint.
        OUTBOUND_MAX_IDLE_CONNS_PER_ENDPOINT: usize = "10000";
        /// How long an idle HTTP/1 connection to the application is kept.
        INBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT: Duration = "3s";
        /// How long an idle HTTP/1 connection to an endpoint is kept.
        OUTBOUND_HTTP1_CONNECTION_POOL_IDLE_TIMEOUT: Duration = "3s";
        /// How long what is known of a destination is kept after its last use.
        OUTBOUND_DISCOVERY_IDLE_TIMEOUT: Duration = "5s";
        /// How long what is known of an inbound port is kept after its last use.
        INBOUND_DISCOVERY_IDLE_TIMEOUT: Duration = "90s";
        /// How long an inbound request waits for its service profile.
        DESTINATION_PROFILE_INITIAL_TIMEOUT: Duration = "500ms", not_built "inbound service profiles";
    }
    section "HTTP/2" {
        /// The window of a stream, for every HTTP/2 connection that the proxy opens. Linkerd's proxy: `65535`.
        HTTP2_INITIAL_STREAM_WINDOW_SIZE: Window = "262144";
        /// The window of a connection, for every HTTP/2 connection that the proxy opens. Less than the windows of its
        /// streams together lets readers that have stopped hold up the others. Linkerd's proxy: `1048576`.
        HTTP2_INITIAL_CONNECTION_WINDOW_SIZE: Window = "1073741824";
        /// What a peer may send of HTTP/2 frames that are cheap for it and dear for the proxy (resets, PING, SETTINGS, …)
        /// before its connection is ended, as a multiple of the built-in budgets; 0: as much as it likes.
        HTTP2_FLOOD_SCALE: u32 = "1";
        /// Memory for what has come on HTTP/2 streams and nobody has read yet, in bytes, for each direction. From half of it
        /// on, streams get windows of 16 KiB; when it is full, streams whose readers have stopped are given up, on
        /// connections that hold more than their part. Linkerd's proxy: any amount.
        HTTP2_MAX_UNREAD_BYTES: usize = "268435456";
        /// HTTP/2 connections to one endpoint, or to one port of the application, that take new requests. There is one,
        /// unless the server allows fewer streams at a time than are needed; if there can't be more, requests wait for
        /// room as long as for an endpoint (`…_HTTP_FAILFAST_TIMEOUT`). Linkerd's proxy opens one only.
        HTTP2_MAX_CONNECTIONS_PER_ENDPOINT: usize = "16";
        /// How long an HTTP/2 connection to a server is kept without a request; it may be half as long again. Linkerd's
        /// proxy keeps it for ever.
        HTTP2_CONNECTION_IDLE_TIMEOUT: Duration = "90s";
        /// How old an HTTP/2 connection to a server gets before it takes no more requests, give or take a tenth; it ends
        /// with the last of those that it has. Linkerd's proxy keeps it for ever.
        HTTP2_CONNECTION_MAX_AGE: Duration = "1h";
        /// Whether streams get windows of 4 MiB, enough for any path within a cluster; then the sizes below are not
        /// used. Linkerd's proxy measures the path instead.
        INBOUND_SERVER_HTTP2_ADAPTIVE_FLOW_CONTROL: bool = "false";
        /// The window of a stream, on connections from the mesh. Used only if the connection's is set too.
        INBOUND_SERVER_HTTP2_INITIAL_STREAM_WINDOW_SIZE: Window = "262144";
        /// The window of a connection, on connections from the mesh. Used only if the stream's is set too.
        INBOUND_SERVER_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE: Window = "1073741824";
        /// How long a PING may stay unanswered. Used only if the interval is set too.
        INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT: Duration;
        /// How often a PING is sent. Used only if the timeout is set too.
        INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL: Duration;
        /// Streams that a client may have open at the same time. Linkerd's proxy: any number.
        INBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS: u32 = "1024";
        /// How old a connection gets before it takes no more streams (GOAWAY), give or take a tenth; it ends with the
        /// last of them. Unset: any age. Linkerd's proxy has no such variable.
        INBOUND_SERVER_HTTP2_MAX_AGE: Duration;
        /// How long a connection may have no stream before it is closed; it may be twice as long. Unset: for ever.
        /// Linkerd's proxy has no such variable.
        INBOUND_SERVER_HTTP2_MAX_IDLE: Duration;
        /// The largest frame that is accepted, 16384 to 16777215.
        INBOUND_SERVER_HTTP2_MAX_FRAME_SIZE: FrameSize;
        /// The largest header list that is decoded, with 32 bytes for each field (RFC 9113 §6.5.2). Unset: four times
        /// `HTTP_MAX_HEAD_SIZE`, which is what requests are held to.
        INBOUND_SERVER_HTTP2_MAX_HEADER_LIST_SIZE: u32;
        /// Streams that a client may have reset before they were looked at (CVE-2023-44487).
        INBOUND_SERVER_HTTP2_MAX_PENDING_ACCEPT_RESET_STREAMS: usize;
        /// Bytes of DATA that wait to be written on a connection. Unset: 131072.
        INBOUND_SERVER_HTTP2_MAX_SEND_BUF_SIZE: usize;
        /// As for inbound, on connections from the application.
        OUTBOUND_SERVER_HTTP2_ADAPTIVE_FLOW_CONTROL: bool = "false";
        /// As for inbound, on connections from the application.
        OUTBOUND_SERVER_HTTP2_INITIAL_STREAM_WINDOW_SIZE: Window = "262144";
        /// As for inbound, on connections from the application.
        OUTBOUND_SERVER_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE: Window = "1073741824";
        /// As for inbound, on connections from the application.
        OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT: Duration;
        /// As for inbound, on connections from the application.
        OUTBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL: Duration;
        /// As for inbound, on connections from the application.
        OUTBOUND_SERVER_HTTP2_MAX_CONCURRENT_STREAMS: u32 = "1024";
        /// As for inbound, on connections from the application.
        OUTBOUND_SERVER_HTTP2_MAX_AGE: Duration;
        /// As for inbound, on connections from the application.
        OUTBOUND_SERVER_HTTP2_MAX_IDLE: Duration;
        /// As for inbound, on connections from the application.
        OUTBOUND_SERVER_HTTP2_MAX_FRAME_SIZE: FrameSize;
        /// As for inbound, on connections from the application.
        OUTBOUND_SERVER_HTTP2_MAX_HEADER_LIST_SIZE: u32;
        /// As for inbound, on connections from the application.
        OUTBOUND_SERVER_HTTP2_MAX_PENDING_ACCEPT_RESET_STREAMS: usize;
        /// As for inbound, on connections from the application.
        OUTBOUND_SERVER_HTTP2_MAX_SEND_BUF_SIZE: usize;
    }
    section "Outbound traffic and labels" {
        /// Whether requests from the application may name their destination in `l5d-dst-override: name[:port]`, as an ingress
        /// controller has them do; others go where they were sent. The controller has to set that field itself, or remove what
        /// its clients send.
        INGRESS_MODE: bool = "false";
        /// Whether `l5d-proxy-error`, `l5d-proxy-connection` and `grpc-message` are kept from the application. Unset: as `INGRESS_MODE`.
        OUTBOUND_DISABLE_INFORMATIONAL_HEADERS: bool;
        /// Whether outbound route metrics are labelled with the request's host name.
        OUTBOUND_METRICS_HOSTNAME_LABELS: bool = "false", not_built "host name labels";
        /// `unsafe` labels inbound metrics with the authority that the client chose.
        INBOUND_METRICS_AUTHORITY_LABELS: UnsafeLabels = "", not_built "authority labels";
        /// Names that may have a service profile; others, of those that requests or peer proxies give, are not asked about.
        DESTINATION_PROFILE_SUFFIXES: Suffixes = "svc.cluster.local.";
        /// Addresses that may have a service profile.
        DESTINATION_PROFILE_NETWORKS: Networks = "";
        /// Names that the inbound side may carry on to, as a multicluster gateway. Unset: none.
        INBOUND_GATEWAY_SUFFIXES: Suffixes = "";
    }
    section "Policy" {
        /// The policy controller. Required.
        POLICY_SVC_ADDR: HostPort;
        /// The controller's TLS identity. Required unless its address is a loopback address or `localhost`.
        POLICY_SVC_NAME: DnsName;
        /// Who this proxy is, in the control plane's words; sent as it stands. Required.
        POLICY_WORKLOAD: Arc<str>;
        /// The networks that `cluster-…` default policies admit.
        POLICY_CLUSTER_NETWORKS: Networks = "";
        /// What holds for a port until the control plane has spoken: `deny`, `audit`, or
        /// `{all,cluster}-{authenticated,unauthenticated}`. `cluster-…` needs `POLICY_CLUSTER_NETWORKS`.
        INBOUND_DEFAULT_POLICY: DefaultPolicy = "all-unauthenticated";
        /// Ports whose policies are watched from the start. The admin port always is.
        INBOUND_PORTS: PortSet = "";
        /// Ports that the default policy treats as opaque.
        INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION: PortSet = "";
        /// Ports that require an identity. The policy controller applies it; the proxy does not.
        INBOUND_PORTS_REQUIRE_IDENTITY: PortSet = "", not_built "enforcement in the proxy (the policy controller enforces it)";
        /// Ports that require TLS. The policy controller applies it; the proxy does not.
        INBOUND_PORTS_REQUIRE_TLS: PortSet = "", not_built "enforcement in the proxy (the policy controller enforces it)";
        /// Whether requests are refused (400) whose path has dot segments, `//`, `%2e`, `%2f`, `%5c` or a backslash, where
        /// the client may not take every route of the port: the application could read them as another path. Linkerd's
        /// proxy has no such variable: it lets them through.
        INBOUND_STRICT_PATHS: bool = "true";
        /// The pod's addresses: inbound connections to others are refused, outbound ones to these skip TLS. Unset: any.
        INBOUND_IPS: Addresses;
    }
    section "Identity" {
        /// A mesh without identities is not supported: must be empty.
        IDENTITY_DISABLED: Never;
        /// Certificates of the authorities that the mesh trusts. Required.
        IDENTITY_TRUST_ANCHORS: TrustAnchors;
        /// This proxy's identity and server name, where both are the same.
        IDENTITY_LOCAL_NAME: DnsName;
        /// This proxy's identity. `IDENTITY_SERVER_ID` and `…_NAME` are required unless `IDENTITY_LOCAL_NAME` is set.
        IDENTITY_SERVER_ID: Identity;
        /// The server name that clients send for this proxy (SNI).
        IDENTITY_SERVER_NAME: DnsName;
        /// The directory of `key.p8` and `csr.der`. Required. If both are missing they are made.
        IDENTITY_DIR: PathBuf;
        /// The service account token; read again for every certificate. Required.
        IDENTITY_TOKEN_FILE: PathBuf;
        /// The identity service. Required.
        IDENTITY_SVC_ADDR: HostPort;
        /// The identity service's TLS identity. Required unless its address is a loopback address or `localhost`.
        IDENTITY_SVC_NAME: DnsName;
        /// The shortest time between two certificates.
        IDENTITY_MIN_REFRESH: Duration = "10s";
        /// The longest time between two certificates.
        IDENTITY_MAX_REFRESH: Duration = "24h";
        /// The socket of a SPIFFE Workload API.
        IDENTITY_SPIRE_WORKLOAD_API_ADDRESS also "LINKERD2_PROXY_IDENTITY_SPIRE_SOCKET": Arc<str>, not_built "SPIRE client";
        /// The first wait before connecting to it again. Linkerd's name has the prefix twice; both are read.
        IDENTITY_SPIRE_EXP_BACKOFF_MIN also "LINKERD2_PROXY_LINKERD2_PROXY_IDENTITY_SPIRE_EXP_BACKOFF_MIN": Duration = "100ms", follows "SPIRE client";
        /// The longest wait.
        IDENTITY_SPIRE_EXP_BACKOFF_MAX also "LINKERD2_PROXY_LINKERD2_PROXY_IDENTITY_SPIRE_EXP_BACKOFF_MAX": Duration = "1s", follows "SPIRE client";
        /// How much of a wait is added at random at most.
        IDENTITY_SPIRE_EXP_BACKOFF_JITTER also "LINKERD2_PROXY_LINKERD2_PROXY_IDENTITY_SPIRE_EXP_BACKOFF_JITTER": Jitter = "0.1", follows "SPIRE client";
    }
    section "Control plane" {
        /// The destination service. Required.
        DESTINATION_SVC_ADDR: HostPort;
        /// The destination service's TLS identity. Required unless its address is a loopback address or `localhost`.
        DESTINATION_SVC_NAME: DnsName;
        /// What the destination service is told of this proxy; sent as it stands.
        DESTINATION_CONTEXT: Arc<str> = "";
        /// How long a control stream may take to its first message. At most the idle timeout. Not for a loopback controller, as all three.
        CONTROL_STREAM_INITIAL_TIMEOUT: OptionalDuration;
        /// How long a control stream may be silent. At most the lifetime.
        CONTROL_STREAM_IDLE_TIMEOUT: OptionalDuration;
        /// How long a control stream may live.
        CONTROL_STREAM_LIFETIME: OptionalDuration;
        /// The only identity that may tap. Unset: nobody.
        TAP_SVC_NAME: Identity, not_built "tap";
        /// The least time that addresses of the control plane are used for before DNS is asked again. Never below 5 s.
        DNS_MIN_TTL: Duration;
        /// The longest time. At least the least; 5 s if it is less.
        DNS_MAX_TTL: Duration;
    }
    section "Tracing" {
        /// The collector of spans (OTLP). Unset: no spans are sent.
        TRACE_COLLECTOR_SVC_ADDR: HostPort, not_built "tracing";
        /// The collector's TLS identity.
        TRACE_COLLECTOR_SVC_NAME: DnsName, follows "tracing";
        /// The service's name in spans.
        TRACE_SERVICE_NAME: Arc<str>, follows "tracing";
        /// A file of attributes for all spans.
        TRACE_ATTRIBUTES_PATH: PathBuf, follows "tracing";
        /// Attributes for all spans, one `key=value` per line.
        TRACE_EXTRA_ATTRIBUTES: Arc<str>, follows "tracing";
        /// The same by OpenTelemetry's name; takes precedence.
        OTEL_RESOURCE_ATTRIBUTES as "OTEL_RESOURCE_ATTRIBUTES": Arc<str>, follows "tracing";
        /// The host's name in spans.
        HOSTNAME as "HOSTNAME": Arc<str>, follows "tracing";
    }
}

/// Every variable.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    SECTIONS.iter().flat_map(|(_, rows)| rows.iter())
}

/// Whether a variable of this name is read, under its first name or another.
pub fn is_known(name: &str) -> bool {
    rows().any(|row| row.name == name || row.aliases.contains(&name))
}

/// The text of `docs/configuration.md`.
pub fn markdown() -> String {
    let mut text = String::from(PREFACE);
    for (title, rows) in SECTIONS {
        let _infallible = write!(
            text,
            "\n## {title}\n\n| Variable | Value | Default | Effect |\n|---|---|---|---|\n"
        );
        for row in *rows {
            let default = match row.default {
                Some("") => "empty".to_owned(),
                Some(default) => format!("`{default}`"),
                None => "unset".to_owned(),
            };
            let (name, kind, help) = (row.name, row.kind, effect(row));
            let _infallible = writeln!(text, "| `{name}` | {kind} | {default} | {help} |");
        }
    }
    text
}

/// The text of `--help`.
pub fn help() -> String {
    let mut text = String::from(USAGE);
    for (title, rows) in SECTIONS {
        let _infallible = writeln!(text, "\n{title}");
        for row in *rows {
            let default = row.default.filter(|default| !default.is_empty());
            let default = default.map(|default| format!(" [{default}]")).unwrap_or_default();
            let (name, help) = (row.name, effect(row).replace('`', "").replace("**", ""));
            let _infallible = writeln!(text, "  {name}{default}\n      {help}");
        }
    }
    text
}

fn effect(row: &Row) -> String {
    let mut text = row
        .help
        .iter()
        .map(|line| line.trim())
        .collect::<Vec<_>>()
        .join(" ");
    for alias in row.aliases {
        let _infallible = write!(text, " Also read as `{alias}`.");
    }
    match row.built {
        Built::Yes => {}
        Built::No(capability) => {
            let _infallible = write!(
                text,
                " **No effect: this version has no {capability}.** A value is validated, and a warning logged."
            );
        }
        Built::Follows(capability) => {
            let _infallible = write!(
                text,
                " **No effect: this version has no {capability}.** A value is validated."
            );
        }
    }
    text
}

const USAGE: &str = "\
outrigger-proxy: a transparent mesh proxy beside an application.

Usage: outrigger-proxy [--help | --version]

Everything is configured by environment variables, here with their defaults in brackets.
";

const PREFACE: &str = "\
# Configuration of the proxy

The proxy is configured by environment variables, under the names that Linkerd's control plane sets. This file is printed from the table in
`proxy/src/config/vars.rs` (`UPDATE_DOCS=1 cargo test -p outrigger-proxy --test configuration` rewrites it); `outrigger-proxy --help` prints the same.

All variables are read at the start. Every value that is not valid is reported, one line each, and the proxy ends with exit code 64.
Variables that are not listed are ignored.

## Values

| Value | Grammar |
|---|---|
| duration | a whole number and a unit, `ms`, `s`, `m`, `h` or `d`; a bare `0` too. At most `36500d`. `1.5s` and `1m30s` are not valid |
| number, bytes | decimal digits |
| ratio | a decimal fraction |
| `true` or `false` | exactly this |
| IP:port | IPv6 in brackets: `[::1]:4140` |
| host:port | an IP address or a DNS name, and the port. A trailing dot makes the name absolute |
| ports | a comma-separated list of ports and ranges: `80,8000-8099` |
| networks | a comma-separated list of CIDRs: `10.0.0.0/8,fd00::/8` |
| IP addresses | a comma-separated list, without blanks |
| DNS suffixes | a comma-separated list; `.` stands for every name; upper and lower case are the same, a trailing dot does not matter |
| identity | a DNS name, or a URI such as `spiffe://domain/path` |
| PEM | one or more certificates |
| text | anything in Unicode |
";
