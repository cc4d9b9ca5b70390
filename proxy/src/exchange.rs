//! The record of one request and its response. It finishes exactly once, and then everybody is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, Response, StatusCode, Version};
use outrigger_http2::Reason;
use outrigger_policy::breaker;
use outrigger_policy::classify::{self, Class, GrpcStatus};
use tokio::time::Instant;

use crate::balance::endpoint::Picked;
use crate::error::{BoxError, Fault, Kind, Late, Side};
use crate::http::body::{self, Body, End, Track, Tracked};
use crate::http::closing::Closing;
use crate::http::h2::reason;
use crate::http::headers;
use crate::http::measured::{self, Sent};
use crate::http::respond::{self, Asked};
use crate::net::detect::first::First;
use crate::net::detect::http::Preface;
use crate::net::io::Meter;
use crate::telemetry::handles::Handles;
use crate::telemetry::http::Outcome;
use crate::telemetry::labels::DetectResult;
use crate::telemetry::route::{BackendHandles, How, RouteHandles, Took};
use crate::telemetry::transport::TransportHandle;

/// One request and its response.
///
/// It travels with the response's body. Whatever learns of a response learns of it here: metrics, load, breakers,
/// limits.
#[derive(Debug)]
pub struct Exchange {
    started: Instant,
    /// The attempt under way, or the one that gave the answer.
    attempt: Option<Attempt>,
    /// The route it takes.
    route: Option<Arc<RouteHandles>>,
    /// When the request's body had been sent, if it has one.
    sent: Option<Sent>,
    status: StatusCode,
    grpc: Option<GrpcStatus>,
    /// Whether the message is gRPC, so that trailers matter.
    is_grpc: bool,
    /// What the route reports as having broken it off; empty if nothing did.
    broken: &'static str,
    _permit: Option<Permit>,
}

/// A request that was sent somewhere.
#[derive(Debug)]
struct Attempt {
    /// The endpoint's metrics.
    handles: Arc<Handles>,
    /// The endpoint, outbound.
    picked: Option<Picked>,
    /// The backend's metrics and when it was sent the request, outbound.
    backend: Option<(Arc<BackendHandles>, Instant)>,
}

/// How an attempt ended: with the answer that the exchange knows, or with an error by its two names.
#[derive(Clone, Copy, Debug)]
enum Ended {
    Answered,
    Broken {
        /// Label `error` of `response_total`.
        error: &'static str,
        /// Label `error` of the routes' families.
        how: &'static str,
        /// Whether there was a status before.
        status: bool,
    },
}

/// How many requests may be in flight at the same time.
#[derive(Clone, Debug)]
pub struct Limit(Arc<InFlight>);

#[derive(Debug)]
struct InFlight {
    now: AtomicUsize,
    max: usize,
}

/// A request in flight, until its response has ended.
#[derive(Debug)]
pub struct Permit(Arc<InFlight>);

impl Limit {
    /// At most `max` requests.
    pub fn new(max: usize) -> Self {
        Self(Arc::new(InFlight {
            now: AtomicUsize::new(0),
            max,
        }))
    }

    /// Lets a request in, if there is room.
    pub fn enter(&self) -> Result<Permit, Fault> {
        let permit = Permit(self.0.clone());
        if self.0.now.fetch_add(1, Ordering::Relaxed) >= self.0.max {
            return Err(Fault::new(Kind::Overloaded, Side::Proxy));
        }
        Ok(permit)
    }

    /// Requests that are in flight.
    pub fn taken(&self) -> usize {
        self.0.now.load(Ordering::Relaxed)
    }

    /// Requests that may be.
    pub fn max(&self) -> usize {
        self.0.max
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Exchange {
    /// A request has arrived.
    pub fn open(permit: Permit) -> Self {
        Self {
            _permit: Some(permit),
            ..Self::refused()
        }
    }

    /// A request has arrived that there is no room for, or that goes no further.
    pub fn refused() -> Self {
        Self {
            started: Instant::now(),
            attempt: None,
            route: None,
            sent: None,
            status: StatusCode::OK,
            grpc: None,
            is_grpc: false,
            broken: "",
            _permit: None,
        }
    }

    /// The request takes this route; its body is measured for it.
    pub fn on(&mut self, route: &Arc<RouteHandles>, request: &mut Body) {
        route.request();
        let bytes = route.request_bytes();
        self.sent = bytes.and_then(|bytes| measured::measure(request, bytes));
        self.route = Some(route.clone());
    }

    /// The request is counted here, and goes to the application.
    pub fn dispatch(&mut self, handles: &Arc<Handles>) {
        handles.request();
        self.attempt = Some(Attempt {
            handles: handles.clone(),
            picked: None,
            backend: None,
        });
    }

    /// The request goes to an endpoint of a backend. An attempt before this one has failed to take it.
    pub fn send(&mut self, picked: Picked, backend: Option<&Arc<BackendHandles>>, now: Instant) {
        self.give_up("unclassified", "IO", now);
        let handles = picked.endpoint().handles().clone();
        handles.request();
        if let Some(backend) = backend {
            backend.request();
        }
        self.attempt = Some(Attempt {
            handles,
            picked: Some(picked),
            backend: backend.map(|backend| (backend.clone(), now)),
        });
    }

    /// The endpoint that has the request, outbound.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        let picked = self.attempt.as_ref()?.picked.as_ref()?;
        Some(picked.endpoint().description().addr)
    }

    /// When the request arrived.
    pub fn started(&self) -> Instant {
        self.started
    }

    fn heard(&mut self, response: &Response<Body>) {
        self.status = response.status();
        self.is_grpc = headers::is_grpc(response.headers());
        self.grpc = if self.is_grpc {
            GrpcStatus::of(response.headers())
        } else {
            None
        };
        if let Some(picked) = self.attempt.as_mut().and_then(|attempt| attempt.picked.as_mut()) {
            picked.heard(self.status, self.grpc, response.headers());
        }
    }

    /// This answer, with the gRPC code that stands in its trailers, is not the one that the client gets: the request
    /// is sent again.
    pub fn retried(&mut self, response: &Response<Body>, grpc: Option<GrpcStatus>) {
        self.heard(response);
        self.grpc = grpc.or(self.grpc);
        self.end_attempt(Ended::Answered, Instant::now());
    }

    /// The attempt has ended without an answer, and the request is sent again.
    pub fn retried_after(&mut self, fault: &Fault) {
        let now = Instant::now();
        match attempt_labels(fault) {
            Some((error, how)) => self.give_up(error, how, now),
            None => {
                // What can't be reached is answered for (RFC 9110 §15.6.3), here too.
                self.status = fault.kind.answer().status;
                self.grpc = None;
                self.end_attempt(Ended::Answered, now);
            }
        }
    }

    /// Follows the answer to its end.
    pub fn track(mut self, response: Response<Body>) -> Response<Tracked<Self>> {
        self.heard(&response);
        response.map(|body| Tracked::new(body, self))
    }

    /// Answers a fault; `context` says where it happened.
    ///
    /// An error is one that the client's protocol says better: a stream that the server reset is reset here too.
    pub fn refuse(
        mut self,
        mut fault: Fault,
        asked: Asked,
        context: &str,
        closing: &Closing,
    ) -> Result<Response<Tracked<Self>>, BoxError> {
        let now = Instant::now();
        if asked.version == Version::HTTP_2
            && let Some(reason) = fault.source.as_deref().and_then(|source| reason::of(source))
            && let Some(source) = fault.source.take()
        {
            self.broken = reset_name(reason);
            self.give_up(reset_label(reason), self.broken, now);
            self.finish_route(now);
            return Err(source);
        }
        if let Some((error, how)) = attempt_labels(&fault) {
            self.give_up(error, how, now);
            self.broken = how;
        }
        if let Some(picked) = self.attempt.as_mut().and_then(|attempt| attempt.picked.take()) {
            // How soon it failed says nothing of how fast the endpoint is.
            failed(picked);
        }
        if fault.kind.answer().close && asked.version == Version::HTTP_2 {
            closing.ask();
        }
        let response = respond::to_fault(&fault, context, asked);
        self.status = fault.kind.answer().status;
        self.is_grpc = asked.grpc;
        self.grpc = asked.grpc.then(|| GrpcStatus(fault.kind.answer().grpc.into()));
        Ok(response.map(|body| Tracked::new(body, self)))
    }

    /// There will be no answer of this attempt.
    fn give_up(&mut self, error: &'static str, how: &'static str, now: Instant) {
        let status = false;
        self.end_attempt(Ended::Broken { error, how, status }, now);
    }

    fn end_attempt(&mut self, ended: Ended, now: Instant) {
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        let (error, how, has_status) = match ended {
            Ended::Answered => ("", "", true),
            Ended::Broken { error, how, status } => (error, how, status),
        };
        let class = if error.is_empty() {
            self.class()
        } else {
            Class::Failure
        };
        attempt.handles.response(Outcome {
            status: has_status.then(|| self.status.as_u16()),
            success: class == Class::Success,
            grpc: self.grpc.filter(|_| has_status).map(|grpc| grpc.0),
            error,
        });
        if let Some((backend, sent)) = &attempt.backend {
            let success = class == Class::Success;
            backend.finish(self.how(how, has_status), success, self.since_sent(*sent, now));
        }
        if let Some(mut picked) = attempt.picked {
            picked.judge(self.judgement(class, how));
        }
    }

    /// What the route's classes say of the answer.
    fn class(&self) -> Class {
        let classes = self.route.as_ref().map_or(&[][..], |route| route.classes());
        classify::response_by(classes, self.status, self.grpc)
    }

    fn judgement(&self, class: Class, how: &'static str) -> breaker::Outcome {
        let limited =
            self.status == StatusCode::TOO_MANY_REQUESTS || self.grpc == Some(GrpcStatus::RESOURCE_EXHAUSTED);
        match class {
            _ if how == CANCELLED => breaker::Outcome::Cancelled,
            _ if how.is_empty() && limited => breaker::Outcome::Limited,
            Class::Success => breaker::Outcome::Success,
            Class::Failure => breaker::Outcome::Failure,
        }
    }

    fn how(&self, error: &'static str, has_status: bool) -> How {
        How {
            status: has_status.then(|| self.status.as_u16()),
            grpc: self.grpc.filter(|_| has_status),
            error,
        }
    }

    /// How long ago the request had been sent as a whole, of which sending began at `begun`; zero while it has not.
    fn since_sent(&self, begun: Instant, now: Instant) -> Duration {
        let sent = match self.sent.as_ref().map(Sent::at) {
            None => begun,
            Some(ended) => ended.map_or(now, |ended| ended.max(begun)),
        };
        now.saturating_duration_since(sent)
    }

    fn finish_route(&mut self, now: Instant) {
        let success = self.broken.is_empty() && self.class() == Class::Success;
        if let Some(route) = self.route.take() {
            let how = self.how(self.broken, self.broken.is_empty());
            let took = Took {
                request: now.saturating_duration_since(self.started),
                response: self.since_sent(self.started, now),
            };
            route.finish(how, success, took);
        }
    }
}

impl Track for Exchange {
    fn first_frame(&mut self) {
        let now = Instant::now();
        let latency = now.saturating_duration_since(self.started);
        if let Some(attempt) = &mut self.attempt {
            attempt.handles.latency(self.status.as_u16(), latency);
            if let Some(picked) = &mut attempt.picked {
                picked.answered(now);
            }
        }
        if let Some(route) = &self.route {
            route.latency(self.status, latency);
        }
    }

    fn data(&mut self, bytes: usize) {
        if let Some((backend, _)) = self.attempt.as_ref().and_then(|attempt| attempt.backend.as_ref()) {
            backend.response_frame(bytes);
        } else if let Some(route) = &self.route {
            route.response_frame(bytes);
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if self.is_grpc {
            self.grpc = GrpcStatus::of(trailers).or(self.grpc);
        }
    }

    fn finish(mut self, end: End<'_>) {
        let (error, how) = match end {
            End::Complete => ("", self.broken),
            End::Dropped => ("", CANCELLED),
            End::Failed(body::Error::Late(late, _)) => ("timeout", late_name(*late)),
            End::Failed(error) => reason::of(error).map_or(("unclassified", "IO"), |reason| {
                (reset_label(reason), reset_name(reason))
            }),
        };
        self.broken = how;
        let ended = if error.is_empty() && how != CANCELLED {
            Ended::Answered
        } else {
            let status = true;
            Ended::Broken { error, how, status }
        };
        let now = Instant::now();
        self.end_attempt(ended, now);
        self.finish_route(now);
    }
}

/// The client went away before the end.
const CANCELLED: &str = "CANCEL";

/// An endpoint that could not be reached, or said nothing.
fn failed(mut picked: Picked) {
    picked.judge(breaker::Outcome::Failure);
}

/// The two `error` labels of an attempt that a fault ended, `None` where the fault counts as an answer.
fn attempt_labels(fault: &Fault) -> Option<(&'static str, &'static str)> {
    match fault.kind {
        Kind::Timeout(late) => Some(("timeout", late_name(late))),
        Kind::FailFast => Some(("unclassified", "FAIL_FAST")),
        Kind::Overloaded => Some(("unclassified", "LOAD_SHED")),
        _ => None,
    }
}

fn late_name(late: Late) -> &'static str {
    match late {
        Late::Request => "REQUEST_TIMEOUT",
        Late::Headers | Late::Try => "RESPONSE_HEADERS_TIMEOUT",
        Late::Response => "RESPONSE_STREAM_TIMEOUT",
        Late::Idle => "IDLE_TIMEOUT",
    }
}

/// The `error` label of routes for a stream that was reset.
fn reset_name(reason: Reason) -> &'static str {
    match reason {
        Reason::CANCEL => CANCELLED,
        Reason::REFUSED_STREAM => "REFUSED",
        Reason::ENHANCE_YOUR_CALM => "ENHANCE_YOUR_CALM",
        _ => "RESET",
    }
}

/// The `error` label of a response that an HTTP/2 reset broke off.
fn reset_label(reason: Reason) -> &'static str {
    match reason {
        Reason::NO_ERROR => "h2(NO_ERROR)",
        Reason::PROTOCOL_ERROR => "h2(PROTOCOL_ERROR)",
        Reason::INTERNAL_ERROR => "h2(INTERNAL_ERROR)",
        Reason::FLOW_CONTROL_ERROR => "h2(FLOW_CONTROL_ERROR)",
        Reason::REFUSED_STREAM => "h2(REFUSED_STREAM)",
        Reason::CANCEL => "h2(CANCEL)",
        Reason::ENHANCE_YOUR_CALM => "h2(ENHANCE_YOUR_CALM)",
        _ => "h2(OTHER)",
    }
}

/// What came of looking at a connection's first bytes, for the metrics of both directions. `None`: there were none.
pub fn detected<K>(first: &First<Preface, K>) -> Option<DetectResult> {
    match first {
        First::Client(Preface::Http1, _) => Some(DetectResult::Http1),
        First::Client(Preface::Http2, _) => Some(DetectResult::Http2),
        First::Client(..) => Some(DetectResult::NotHttp),
        First::Server(..) => Some(DetectResult::ServerFirst),
        First::Nobody(_) => Some(DetectResult::ReadTimeout),
        First::Ended => None,
    }
}

/// Connections report their bytes and their end to the transport metrics.
impl Meter for TransportHandle {
    fn opened(&self) {
        Self::opened(self);
    }

    fn read(&self, bytes: usize) {
        Self::read(self, bytes as u64);
    }

    fn written(&self, bytes: usize) {
        Self::written(self, bytes as u64);
    }

    fn abused(&self, reason: &'static str) {
        Self::abused(self, reason);
    }

    fn asked_again(&self) {
        self.asked_again.inc();
    }

    fn closed(&self, errno: Option<i32>) {
        Self::closed(self, errno);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_lets_in_as_many_as_it_says_and_again_when_one_has_gone() {
        let limit = Limit::new(1);
        let first = limit.enter().unwrap();
        assert_eq!(limit.enter().unwrap_err().kind, Kind::Overloaded);
        drop(first);
        assert!(limit.enter().is_ok());
    }

    #[test]
    fn an_exchange_is_small() {
        assert!(size_of::<Exchange>() <= 176, "{}", size_of::<Exchange>());
    }
}
