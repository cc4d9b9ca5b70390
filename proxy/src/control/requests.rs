//! What is counted of the requests to the control plane, as Linkerd counts them.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, StatusCode};
use outrigger_policy::classify::{self, Class, GrpcStatus};
use outrigger_policy::name::Identity;

use crate::config::ControlAddr;
use crate::telemetry::http::{LATENCY_MS, Outcome};
use crate::telemetry::labels::{NoTls, TlsConnect};
use crate::telemetry::text::{EncodeLabels, LabelWriter};
use crate::telemetry::{Counter, Family, Histogram, Registry};

/// Requests to the control plane, and what came of them.
#[derive(Clone, Debug)]
pub(crate) struct RequestMetrics {
    requests: Family<Service, Counter>,
    responses: Family<Response, Counter>,
    latency_ms: Family<Latency, Histogram>,
}

/// A service of the control plane, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Service {
    addr: Arc<str>,
    tls: TlsConnect,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Response {
    service: Service,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Latency {
    service: Service,
    status: u16,
}

/// The requests to one service.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    metrics: RequestMetrics,
    service: Service,
}

/// A request, until the stream that answers it has ended: it is counted when it is dropped.
#[derive(Debug)]
pub(crate) struct Asked {
    requests: Requests,
    at: Instant,
    status: Option<StatusCode>,
    grpc: Option<GrpcStatus>,
    begun: bool,
}

impl RequestMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        Self {
            requests: registry.counter("control_request_total", "Requests to the control plane"),
            responses: registry.counter(
                "control_response_total",
                "Answers of the control plane that have ended: streams, for the most part",
            ),
            latency_ms: registry.histogram(
                "control_response_latency_ms",
                "Milliseconds between a request to the control plane and the first frame of its answer",
                LATENCY_MS,
            ),
        }
    }

    /// The requests to the service at this address.
    pub(crate) fn to(&self, addr: &ControlAddr) -> Requests {
        let identity = addr.identity.as_ref();
        let tls = match identity.and_then(|name| Identity::parse(name.as_str()).ok()) {
            Some(server_id) => TlsConnect::Originated { server_id },
            None => TlsConnect::NoIdentity(NoTls::Loopback),
        };
        Requests {
            metrics: self.clone(),
            service: Service {
                addr: addr.addr.to_string().into(),
                tls,
            },
        }
    }
}

impl Requests {
    /// Counts a request that is sent now.
    pub(crate) fn ask(&self) -> Asked {
        self.metrics.requests.handle(self.service.clone()).inc();
        Asked {
            requests: self.clone(),
            at: Instant::now(),
            status: None,
            grpc: None,
            begun: false,
        }
    }
}

impl Asked {
    /// The head of the answer has come; it may be all there is.
    pub(crate) fn head(&mut self, status: StatusCode, fields: &HeaderMap) {
        self.status = Some(status);
        self.grpc = GrpcStatus::of(fields);
    }

    /// The next frame has come, or the end.
    pub(crate) fn frame(&mut self, trailers: Option<&HeaderMap>) {
        if let Some(trailers) = trailers {
            self.grpc = GrpcStatus::of(trailers).or(self.grpc);
        }
        if let (false, Some(status)) = (self.begun, self.status) {
            self.begun = true;
            let latency = Latency {
                service: self.requests.service.clone(),
                status: status.as_u16(),
            };
            let milliseconds = self.at.elapsed().as_secs_f64() * 1e3;
            self.requests
                .metrics
                .latency_ms
                .handle(latency)
                .observe(milliseconds);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let class = |status| classify::response(status, self.grpc);
        let outcome = Outcome {
            status: self.status.map(|status| status.as_u16()),
            success: self.status.is_some_and(|status| class(status) == Class::Success),
            grpc: self.grpc.map(|grpc| grpc.0),
            error: match self.status {
                Some(_) => "",
                None => "unclassified",
            },
        };
        let service = self.requests.service.clone();
        let responses = &self.requests.metrics.responses;
        responses.handle(Response { service, outcome }).inc();
    }
}

impl EncodeLabels for Service {
    const DOC: &'static str = "addr, tls …";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("addr", &self.addr);
        self.tls.encode(out);
    }
}

impl EncodeLabels for Response {
    const DOC: &'static str = "addr, tls …, status_code?, classification, grpc_status, error";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.service.encode(out);
        self.outcome.encode(out);
    }
}

impl EncodeLabels for Latency {
    const DOC: &'static str = "addr, tls …, status_code";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.service.encode(out);
        out.label("status_code", self.status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::address;
    use std::time::Duration;

    #[test]
    fn a_request_is_counted_with_its_answer_or_without_one() {
        let mut registry = Registry::new(Duration::from_secs(60));
        let metrics = RequestMetrics::register(&mut registry);
        let requests = metrics.to(&address("127.0.0.1:8086".parse().unwrap(), Some("linkerd.test")));
        let mut asked = requests.ask();
        asked.head(StatusCode::OK, &HeaderMap::new());
        let trailers =
            [("grpc-status", "14")].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        asked.frame(Some(&trailers.into_iter().collect()));
        drop(asked);
        drop(requests.ask());
        let text = registry.encode(Instant::now());
        let of = "addr=\"127.0.0.1:8086\",tls=\"true\",server_id=\"linkerd.test\"";
        for line in [
            format!("control_request_total{{{of}}} 2\n"),
            format!(
                "control_response_total{{{of},status_code=\"200\",classification=\"failure\",grpc_status=\"14\",error=\"\"}} 1\n"
            ),
            format!(
                "control_response_total{{{of},classification=\"failure\",grpc_status=\"\",error=\"unclassified\"}} 1\n"
            ),
            format!("control_response_latency_ms_count{{{of},status_code=\"200\"}} 1\n"),
        ] {
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
}
