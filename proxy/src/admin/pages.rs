//! What the admin server answers, path by path.

use std::error::Error as _;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use outrigger_policy::port::PortPolicy;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::admin::access::Peer;
use crate::admin::environment::{Environment, refusal};
use crate::admin::negotiate;
use crate::admin::readiness::Readiness;
use crate::live::Live;
use crate::telemetry::Registry;
use crate::telemetry::log::Level;
use crate::telemetry::refusals::Refusals;

/// The longest log filter that is read, bytes.
const MAX_FILTER: usize = 8 << 10;
/// How long a request's body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the admin server shows, and what it can do.
#[derive(Debug)]
pub struct Admin {
    /// Who may ask: the inbound policy of the admin port.
    pub policy: Live<PortPolicy>,
    /// The families that `/metrics` prints.
    pub registry: Registry,
    /// What `/ready` answers.
    pub readiness: Readiness,
    /// What `/env.json` shows.
    pub environment: Environment,
    /// What `/refusals` shows.
    pub refusals: Refusals,
    /// What `/proxy-log-level` changes; `None` when nothing is ever logged.
    pub level: Option<Level>,
    /// Whom `/shutdown` tells; `None` when that is not enabled.
    pub shutdown: Option<mpsc::Sender<()>>,
}

/// An answer, complete.
pub(super) type Page = Response<Full<Bytes>>;

impl Admin {
    /// Answers a request, if the policy of the port lets it in.
    pub(super) async fn answer<B>(&self, request: Request<B>, peer: &Peer) -> Page
    where
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static>,
    {
        if let Some(status) = peer.refused(&self.policy.get(), &request) {
            return empty(status);
        }
        let local = peer.is_local();
        let (method, path) = (request.method(), request.uri().path());
        let is_head = method == Method::HEAD;
        let page = match path {
            // Probes send what they like.
            "/live" => text(StatusCode::OK, "live\n"),
            "/ready" => self.ready(),
            "/metrics" => self.metrics(request.headers()),
            "/shutdown" if method != Method::POST => not_allowed(&["POST"]),
            "/shutdown" | "/proxy-log-level" | "/env.json" | "/refusals" if !local => text(
                StatusCode::FORBIDDEN,
                "Requests are only permitted from localhost.",
            ),
            "/shutdown" => self.shutdown(),
            "/proxy-log-level" => self.log_level(request).await,
            "/env.json" if method != Method::GET => not_allowed(&["GET"]),
            "/env.json" => self.environment(&request),
            "/refusals" if method != Method::GET && !is_head => not_allowed(&["GET", "HEAD"]),
            "/refusals" => json(self.refusals.json()),
            _ => empty(StatusCode::NOT_FOUND),
        };
        if is_head {
            page.map(|_| Full::default())
        } else {
            page
        }
    }

    /// The first line is Linkerd's; the reasons follow.
    fn ready(&self) -> Page {
        let missing = self.readiness.missing(SystemTime::now());
        if missing.is_empty() {
            return text(StatusCode::OK, "ready\n");
        }
        let body = format!("not ready\n{}\n", missing.join("\n"));
        page(StatusCode::SERVICE_UNAVAILABLE, body)
    }

    fn metrics(&self, headers: &HeaderMap) -> Page {
        let format = negotiate::metrics_format(headers);
        let body = self.registry.encode_as(format, Instant::now());
        let mut response = match negotiate::accepts_gzip(headers).then(|| negotiate::gzip(&body)) {
            Some(Ok(compressed)) => {
                let mut response = page(StatusCode::OK, compressed);
                let gzip = HeaderValue::from_static("gzip");
                response.headers_mut().insert(CONTENT_ENCODING, gzip);
                response
            }
            // Writing into memory does not fail; if it did, nobody needs compression.
            Some(Err(_)) | None => page(StatusCode::OK, body),
        };
        let content_type = HeaderValue::from_static(format.content_type());
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    }

    fn shutdown(&self) -> Page {
        let Some(shutdown) = &self.shutdown else {
            return text(StatusCode::NOT_FOUND, "shutdown endpoint is not enabled\n");
        };
        if shutdown.is_closed() {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "shutdown listener dropped\n");
        }
        let shutdown = shutdown.clone();
        // Not before the answer is out, which this connection's task writes without waiting; they share a thread.
        tokio::spawn(async move {
            // Full: it has been asked for already. Closed: it is happening.
            let _asked = shutdown.try_send(());
        });
        text(StatusCode::OK, "shutdown\n")
    }

    async fn log_level<B>(&self, request: Request<B>) -> Page
    where
        B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static>,
    {
        let Some(level) = &self.level else {
            return empty(StatusCode::NOT_FOUND);
        };
        match *request.method() {
            Method::GET => match level.current() {
                Ok(filter) => text(StatusCode::OK, filter),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            Method::PUT => match read_filter(request.into_body()).await {
                Ok(filter) => set_level(level, &filter),
                Err(refused) => refused,
            },
            _ => not_allowed(&["GET", "PUT"]),
        }
    }

    fn environment<B>(&self, request: &Request<B>) -> Page {
        let (status, body) = match negotiate::accepts_json(request.headers()) {
            Ok(true) => self.environment.answer(request.uri().query()),
            Ok(false) => (StatusCode::NOT_ACCEPTABLE, "application/json".to_owned()),
            Err(negotiate::NotText) => refusal(StatusCode::BAD_REQUEST, "the Accept header is not text"),
        };
        let mut response = page(status, body);
        if status != StatusCode::NOT_ACCEPTABLE {
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, json);
        }
        response
    }
}

/// The whole body, as text.
async fn read_filter<B>(body: B) -> Result<String, Page>
where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static>,
{
    let Ok(collected) = timeout(BODY_TIMEOUT, Limited::new(body, MAX_FILTER).collect()).await else {
        return Err(text(StatusCode::REQUEST_TIMEOUT, "the body took too long\n"));
    };
    let body = collected.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
        Some(_) => {
            let reason = format!("a log filter has at most {MAX_FILTER} bytes\n");
            text(StatusCode::PAYLOAD_TOO_LARGE, reason)
        }
        None => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    })?;
    String::from_utf8(body.to_bytes().into())
        .map_err(|error| text(StatusCode::BAD_REQUEST, format!("{}\n", error.utf8_error())))
}

fn set_level(level: &Level, filter: &str) -> Page {
    match level.set(filter.trim()) {
        Ok(()) => {
            tracing::info!(filter, "The log filter has been changed");
            empty(StatusCode::NO_CONTENT)
        }
        Err(error) => {
            let source = error.source().map(|source| format!(": {source}"));
            let reason = format!("{error}{}\n", source.unwrap_or_default());
            text(StatusCode::BAD_REQUEST, reason)
        }
    }
}

fn not_allowed(methods: &[&'static str]) -> Page {
    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
    for method in methods {
        let method = HeaderValue::from_static(method);
        response.headers_mut().append(ALLOW, method);
    }
    response
}

fn empty(status: StatusCode) -> Page {
    let mut response = page(status, "");
    if status == StatusCode::NO_CONTENT {
        // RFC 9110 §8.6
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Page {
    let mut response = page(status, body);
    let plain = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

fn json(body: String) -> Page {
    let mut response = page(StatusCode::OK, body);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn page(status: StatusCode, body: impl Into<Bytes>) -> Page {
    let body = body.into();
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_LENGTH, length);
    response
}
