//! The record of one request and its response. It finishes exactly once, and then everybody is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderMap, Response, StatusCode, Version};
use outrigger_policy::classify::{self, Class, GrpcStatus};
use tokio::time::Instant;

use crate::balance::endpoint::Picked;
use crate::error::{BoxError, Fault, Kind, Side};
use crate::http::body::{Body, End, Track, Tracked};
use crate::http::closing::Closing;
use crate::http::h2::reason;
use crate::http::headers;
use crate::http::respond::{self, Asked};
use crate::net::detect::first::First;
use crate::net::detect::http::Preface;
use crate::net::io::Meter;
use crate::telemetry::handles::Handles;
use crate::telemetry::http::Outcome;
use crate::telemetry::labels::DetectResult;
use crate::telemetry::transport::TransportHandle;

/// One request and its response.
///
/// It travels with the response's body. Whatever learns of a response learns of it here: metrics, load, limits.
#[derive(Debug)]
pub struct Exchange {
    started: Instant,
    /// Who is counting; `None` until the request has an endpoint or a route.
    handles: Option<Arc<Handles>>,
    /// The endpoint at work; let go when the answer's first byte has come.
    picked: Option<Picked>,
    status: StatusCode,
    grpc: Option<GrpcStatus>,
    /// Whether the message is gRPC, so that trailers matter.
    is_grpc: bool,
    _permit: Option<Permit>,
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

    /// A request has arrived that there is no room for.
    pub fn refused() -> Self {
        Self {
            started: Instant::now(),
            handles: None,
            picked: None,
            status: StatusCode::OK,
            grpc: None,
            is_grpc: false,
            _permit: None,
        }
    }

    /// The request is counted here, and goes out now.
    pub fn dispatch(&mut self, handles: &Arc<Handles>) {
        self.failed("unclassified");
        handles.request();
        self.handles = Some(handles.clone());
    }

    /// When the request arrived.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The endpoint that has been chosen; one chosen before has failed to take the request.
    pub fn at(&mut self, picked: Picked) {
        self.picked = Some(picked);
    }

    /// Follows the answer to its end.
    pub fn track(mut self, response: Response<Body>) -> Response<Tracked<Self>> {
        self.status = response.status();
        self.is_grpc = headers::is_grpc(response.headers());
        if self.is_grpc {
            self.grpc = GrpcStatus::of(response.headers());
        }
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
        // How soon it failed says nothing of how fast the endpoint is.
        self.picked = None;
        if asked.version == Version::HTTP_2
            && let Some(reason) = fault.source.as_deref().and_then(|source| reason::of(source))
            && let Some(source) = fault.source.take()
        {
            self.failed(reset_label(reason));
            return Err(source);
        }
        if fault.kind.answer().close && asked.version == Version::HTTP_2 {
            closing.ask();
        }
        Ok(self.track(respond::to_fault(&fault, context, asked)))
    }

    /// There will be no response, or another endpoint is to give it.
    fn failed(&mut self, error: &'static str) {
        if let Some(handles) = self.handles.take() {
            handles.response(Outcome {
                status: None,
                success: false,
                grpc: None,
                error,
            });
        }
    }

    fn record(&self, error: &'static str) {
        let Some(handles) = &self.handles else { return };
        let class = if error.is_empty() {
            classify::response(self.status, self.grpc)
        } else {
            Class::Failure
        };
        handles.response(Outcome {
            status: Some(self.status.as_u16()),
            success: class == Class::Success,
            grpc: self.grpc.map(|grpc| grpc.0),
            error,
        });
    }
}

impl Track for Exchange {
    fn first_frame(&mut self) {
        let now = Instant::now();
        if let Some(handles) = &self.handles {
            handles.latency(self.status.as_u16(), now.saturating_duration_since(self.started));
        }
        if let Some(picked) = self.picked.take() {
            picked.answered(now);
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if self.is_grpc {
            self.grpc = GrpcStatus::of(trailers).or(self.grpc);
        }
    }

    fn finish(self, end: End<'_>) {
        self.record(match end {
            End::Complete | End::Dropped => "",
            End::Failed(error) => reason::of(error).map_or("unclassified", reset_label),
        });
    }
}

/// The `error` label of a response that an HTTP/2 reset broke off.
fn reset_label(reason: h2::Reason) -> &'static str {
    match reason {
        h2::Reason::NO_ERROR => "h2(NO_ERROR)",
        h2::Reason::PROTOCOL_ERROR => "h2(PROTOCOL_ERROR)",
        h2::Reason::INTERNAL_ERROR => "h2(INTERNAL_ERROR)",
        h2::Reason::FLOW_CONTROL_ERROR => "h2(FLOW_CONTROL_ERROR)",
        h2::Reason::REFUSED_STREAM => "h2(REFUSED_STREAM)",
        h2::Reason::CANCEL => "h2(CANCEL)",
        h2::Reason::ENHANCE_YOUR_CALM => "h2(ENHANCE_YOUR_CALM)",
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
        self.read.add(bytes as u64);
    }

    fn written(&self, bytes: usize) {
        self.written.add(bytes as u64);
    }

    fn abused(&self, reason: &'static str) {
        Self::abused(self, reason);
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
        assert!(size_of::<Exchange>() <= 96, "{}", size_of::<Exchange>());
    }
}
