//! The admin server: probes and metrics over HTTP/1.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Probes and scrapers are few; more connections wait.
const MAX_CONNECTIONS: usize = 64;

/// How long a client may take to send the head of a request, and a connection to lie idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the process still waits for before it can do its work.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<Vec<&'static str>>>);

/// Answers `/live`, `/ready` and `/metrics`.
#[derive(Clone, Debug)]
pub struct Admin {
    readiness: Readiness,
    registry: Arc<Registry>,
}

impl Readiness {
    /// Not ready until each of these is [`done`](Self::done).
    pub fn waiting_for(steps: impl IntoIterator<Item = &'static str>) -> Self {
        Self(Arc::new(Mutex::new(steps.into_iter().collect())))
    }

    /// A step is done.
    pub fn done(&self, step: &'static str) {
        self.steps().retain(|waiting| *waiting != step);
    }

    /// No longer ready, until the step is done: also how the process says that it is ending.
    pub fn wait_for(&self, step: &'static str) {
        self.steps().push(step);
    }

    fn steps(&self) -> std::sync::MutexGuard<'_, Vec<&'static str>> {
        // A list of words is whole whatever its last holder did.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admin {
    /// Answers from these two.
    pub fn new(readiness: Readiness, registry: Registry) -> Self {
        Self {
            readiness,
            registry: Arc::new(registry),
        }
    }

    /// Serves until it is dropped, its connections with it.
    pub async fn serve(self, socket: TcpListener) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accept = async {
                let slot = slots.clone().acquire_owned().await;
                (slot, socket.accept().await)
            };
            tokio::select! {
                (slot, accepted) = accept => match accepted {
                    Ok((tcp, _)) => {
                        let admin = self.clone();
                        connections.spawn(async move {
                            admin.connection(tcp).await;
                            drop(slot);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accepting an admin connection failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn connection(self, tcp: TcpStream) {
        let service = service_fn(move |request| {
            let response = self.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(tcp), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "admin connection ended");
        }
    }

    /// The answer to a request; its body is never read.
    pub fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if !matches!(path, "/live" | "/ping" | "/ready" | "/metrics") {
            return respond(
                StatusCode::NOT_FOUND,
                TEXT,
                "not found: try /live, /ready or /metrics\n",
            );
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
            refusal
                .headers_mut()
                .insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match path {
            "/live" => respond(StatusCode::OK, TEXT, "live\n"),
            "/ping" => respond(StatusCode::OK, TEXT, "pong\n"),
            "/ready" => self.ready(),
            _ => self.metrics(),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let waiting = self.readiness.steps().join(", ");
        if waiting.is_empty() {
            respond(StatusCode::OK, TEXT, "ready\n")
        } else {
            let text = format!("not ready: waiting for {waiting}\n");
            respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => respond(StatusCode::OK, OPEN_METRICS, text),
            Err(_) => respond(
                StatusCode::INTERNAL_SERVER_ERROR,
                TEXT,
                "the metrics could not be written\n",
            ),
        }
    }
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn ask(admin: &Admin, method: Method, path: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let response = admin.answer(&request);
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_says_what_it_waits_for() {
        let readiness = Readiness::waiting_for(["state", "listeners"]);
        let admin = Admin::new(readiness.clone(), Registry::default());
        readiness.done("state");
        let (status, text) = ask(&admin, Method::GET, "/ready").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "not ready: waiting for listeners\n");
        readiness.done("listeners");
        assert_eq!(ask(&admin, Method::GET, "/ready").await.0, StatusCode::OK);
        readiness.wait_for("the end");
        assert_eq!(
            ask(&admin, Method::GET, "/ready").await.0,
            StatusCode::SERVICE_UNAVAILABLE
        );
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let admin = Admin::new(Readiness::waiting_for([]), Registry::default());
        assert_eq!(ask(&admin, Method::GET, "/other").await.0, StatusCode::NOT_FOUND);
        assert_eq!(
            ask(&admin, Method::POST, "/live").await.0,
            StatusCode::METHOD_NOT_ALLOWED
        );
        assert_eq!(ask(&admin, Method::GET, "/live").await.0, StatusCode::OK);
        assert!(ask(&admin, Method::GET, "/metrics").await.1.ends_with("# EOF\n"));
    }
}
