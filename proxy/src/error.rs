//! `Fault`: the one error of the data path, and the one table that says how it is answered.

use std::error::Error as StdError;
use std::fmt;

use ::http::StatusCode;

/// Any error, boxed.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// What went wrong, on whose side. [`Kind`] is `Copy`: refusing a request allocates nothing.
#[derive(Debug)]
pub struct Fault {
    /// What went wrong.
    pub kind: Kind,
    /// Whose side it happened on.
    pub side: Side,
    /// What caused it, if something did.
    pub source: Option<BoxError>,
    /// Where on the way it happened, from the outside to the inside, if that is known.
    pub place: Option<Box<String>>,
}

/// Whose side a fault happened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The peer that sent the request.
    Client,
    /// The peer that should have answered it.
    Server,
    /// This proxy.
    Proxy,
    /// The control plane.
    Control,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No route matches the request.
    NoRoute,
    /// No authorization admits the client.
    Unauthorized,
    /// A rate limit is used up.
    RateLimited,
    /// The path can be read in two ways, where it decides whether the client is let in.
    AmbiguousPath,
    /// No endpoint became ready in time.
    FailFast,
    /// The route has no backend to send to.
    NoBackend,
    /// A backend has no dispatcher.
    NoDispatcher,
    /// Too many requests are in flight.
    Overloaded,
    /// The control plane gave no answer about the destination.
    Discovery,
    /// Connecting failed.
    Connect,
    /// Connecting took too long.
    ConnectTimeout,
    /// The TLS handshake with the server failed.
    Tls,
    /// The server proved another identity than the one required.
    PeerIdentity,
    /// The server ended the exchange before its response headers.
    Reset,
    /// The server's answer is no HTTP, or its end can be read in two ways.
    BadAnswer,
    /// The server takes no tunnels of this kind (RFC 8441 §3).
    NoTunnel,
    /// The policy can't be enforced by this version, or is invalid.
    Policy,
    /// The request makes no sense (RFC 9110 §15.5.1).
    BadRequest,
    /// The bytes are no HTTP/1 message (RFC 9112 §2.2).
    Malformed,
    /// Where the message ends can be read in two ways (RFC 9112 §6.3).
    Framing,
    /// The message is encoded in a way that is not understood (RFC 9112 §6.1).
    TransferEncoding,
    /// The version is not spoken here (RFC 9110 §15.6.6).
    Version,
    /// The head, or the trailers, have more bytes or fields than is allowed (RFC 6585 §5).
    HeadersTooLarge,
    /// The request line alone has more bytes than is allowed (RFC 9110 §15.5.15).
    UriTooLong,
    /// The head began, and did not end in time (RFC 9110 §15.5.9).
    HeadTimeout,
    /// Nothing that tells what the client speaks came in time.
    DetectTimeout,
    /// The response took longer than a policy or the client allows.
    Timeout(Late),
    /// The request would come back to this proxy.
    Loop,
    /// The name is none that this gateway carries on to.
    GatewayDomain,
    /// A bug of this proxy.
    Internal,
}

/// Which limit of time an exchange has exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Late {
    /// That of the whole exchange.
    Request,
    /// That of the time until the response's headers (ServiceProfile routes).
    Headers,
    /// That of one attempt.
    Try,
    /// That of the response, once the request has been sent.
    Response,
    /// That of silence in both directions.
    Idle,
}

/// How a kind of fault is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The gRPC status code.
    pub grpc: u8,
    /// The stable reason code: metrics, logs, `/refusals`.
    pub reason: &'static str,
    /// Whether the client's connection is closed after the answer.
    pub close: bool,
}

impl Kind {
    /// The one table: status, gRPC code, reason, and whether the connection is closed.
    pub const fn answer(self) -> Answer {
        const fn row(status: StatusCode, grpc: u8, reason: &'static str, close: bool) -> Answer {
            Answer {
                status,
                grpc,
                reason,
                close,
            }
        }
        match self {
            Self::NoRoute => row(StatusCode::NOT_FOUND, 5, "no_route", false),
            Self::Unauthorized => row(StatusCode::FORBIDDEN, 7, "unauthorized", false),
            Self::RateLimited => row(StatusCode::TOO_MANY_REQUESTS, 8, "rate_limited", false),
            Self::AmbiguousPath => row(StatusCode::BAD_REQUEST, 3, "ambiguous_path", false),
            Self::FailFast => row(StatusCode::GATEWAY_TIMEOUT, 4, "fail_fast", true),
            Self::NoBackend => row(StatusCode::SERVICE_UNAVAILABLE, 14, "no_backend", true),
            Self::NoDispatcher => row(StatusCode::BAD_GATEWAY, 14, "no_dispatcher", true),
            Self::Overloaded => row(StatusCode::SERVICE_UNAVAILABLE, 14, "overloaded", true),
            Self::Discovery => row(StatusCode::SERVICE_UNAVAILABLE, 14, "discovery", true),
            Self::Connect => row(StatusCode::BAD_GATEWAY, 14, "connect", true),
            Self::ConnectTimeout => row(StatusCode::GATEWAY_TIMEOUT, 4, "connect_timeout", true),
            Self::Tls => row(StatusCode::BAD_GATEWAY, 14, "tls", true),
            Self::PeerIdentity => row(StatusCode::BAD_GATEWAY, 14, "peer_identity", true),
            Self::Reset => row(StatusCode::BAD_GATEWAY, 14, "reset", true),
            Self::BadAnswer => row(StatusCode::BAD_GATEWAY, 14, "bad_answer", true),
            Self::NoTunnel => row(StatusCode::NOT_IMPLEMENTED, 12, "no_tunnel", false),
            Self::Policy => row(StatusCode::INTERNAL_SERVER_ERROR, 13, "policy", true),
            Self::BadRequest => row(StatusCode::BAD_REQUEST, 3, "bad_request", true),
            Self::Malformed => row(StatusCode::BAD_REQUEST, 3, "malformed", true),
            Self::Framing => row(StatusCode::BAD_REQUEST, 3, "framing", true),
            Self::TransferEncoding => row(StatusCode::NOT_IMPLEMENTED, 12, "transfer_encoding", true),
            Self::Version => row(StatusCode::HTTP_VERSION_NOT_SUPPORTED, 12, "version", true),
            Self::HeadersTooLarge => row(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                8,
                "headers_too_large",
                false,
            ),
            Self::UriTooLong => row(StatusCode::URI_TOO_LONG, 8, "uri_too_long", true),
            Self::HeadTimeout => row(StatusCode::REQUEST_TIMEOUT, 4, "head_timeout", true),
            Self::DetectTimeout => row(StatusCode::REQUEST_TIMEOUT, 4, "detect_timeout", true),
            Self::Timeout(late) => row(
                StatusCode::GATEWAY_TIMEOUT,
                4,
                late.reason(),
                matches!(late, Late::Headers),
            ),
            Self::Loop => row(StatusCode::LOOP_DETECTED, 10, "loop", true),
            Self::GatewayDomain => row(StatusCode::NOT_FOUND, 5, "gateway_domain", false),
            Self::Internal => row(StatusCode::INTERNAL_SERVER_ERROR, 13, "internal", true),
        }
    }

    /// What a client is told when there is nothing more precise to say.
    pub const fn message(self) -> &'static str {
        match self {
            Self::NoRoute => "no route found for request",
            Self::Unauthorized => "unauthorized request on route",
            Self::RateLimited => "too many requests",
            Self::AmbiguousPath => "the path can be read in two ways",
            Self::FailFast => "service in fail-fast",
            Self::NoBackend => "service unavailable",
            Self::NoDispatcher => "backend has no dispatcher",
            Self::Overloaded => "too many requests in flight (LINKERD2_PROXY_*_MAX_IN_FLIGHT)",
            Self::Discovery => "the control plane did not answer",
            Self::Connect => "connection failed",
            Self::ConnectTimeout => "connect timed out",
            Self::Tls => "TLS handshake failed",
            Self::PeerIdentity => "the server proved another identity",
            Self::Reset => "the server ended the exchange",
            Self::BadAnswer => "the server's answer makes no sense",
            Self::NoTunnel => "the server takes no tunnels over HTTP/2 (SETTINGS_ENABLE_CONNECT_PROTOCOL)",
            Self::Policy => "the policy can't be enforced",
            Self::BadRequest => "bad request",
            Self::Malformed => "the bytes are no HTTP message",
            Self::Framing => "the message's end is ambiguous",
            Self::TransferEncoding => "the message's transfer coding is not supported",
            Self::Version => "the HTTP version is not supported",
            Self::HeadersTooLarge => "the message's header fields are too large",
            Self::UriTooLong => "the request line is too long",
            Self::HeadTimeout => "the request's head did not end in time",
            Self::DetectTimeout => "the client said too little for too long",
            Self::Timeout(Late::Headers) => "HTTP response timeout",
            Self::Timeout(_) => "timed out waiting for response headers",
            Self::Loop => "the request would come back to this proxy",
            Self::GatewayDomain => "bad gateway domain",
            Self::Internal => "unexpected error",
        }
    }
}

impl Late {
    const fn reason(self) -> &'static str {
        match self {
            Self::Request => "timeout_request",
            Self::Headers => "timeout_headers",
            Self::Try => "timeout_try",
            Self::Response => "timeout_response",
            Self::Idle => "timeout_idle",
        }
    }
}

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "request timeout",
            Self::Headers | Self::Try => "response header timeout",
            Self::Response => "response stream timeout",
            Self::Idle => "idle timeout",
        })
    }
}

impl Fault {
    /// A fault without a cause.
    pub fn new(kind: Kind, side: Side) -> Self {
        Self {
            kind,
            side,
            source: None,
            place: None,
        }
    }

    /// A fault with what caused it.
    pub fn because(kind: Kind, side: Side, source: impl Into<BoxError>) -> Self {
        Self {
            kind,
            side,
            source: Some(source.into()),
            place: None,
        }
    }

    /// The same fault, which happened there; `place` ends in `: `. One that has a place keeps it.
    #[must_use]
    pub fn at(mut self, place: impl FnOnce() -> String) -> Self {
        self.place.get_or_insert_with(|| Box::new(place()));
        self
    }
}

impl fmt::Display for Fault {
    /// One level only: the cause prints itself. See [`chain`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.message())
    }
}

impl StdError for Fault {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn StdError + 'static))
    }
}

/// An error with its causes, joined by `: `.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_every_cause_once() {
        let fault = Fault::because(Kind::Connect, Side::Server, "Connection refused (os error 111)");
        assert_eq!(
            chain(&fault),
            "connection failed: Connection refused (os error 111)"
        );
    }

    #[test]
    fn a_refusal_fits_in_a_few_words() {
        assert!(size_of::<Fault>() <= 32);
    }
}
