//! What is counted about the control plane.

use std::sync::Arc;
use std::time::SystemTime;

use crate::telemetry::text::{EncodeLabels, LabelWriter};
use crate::telemetry::{Counter, Family, Gauge, Name, Registry};

/// Connections to the control plane and the streams on them.
#[derive(Clone, Debug)]
pub struct Metrics {
    connected: Family<Client, Gauge>,
    connect_failures: Family<Client, Counter>,
    reopened: Family<Stream, Counter>,
    undecodable: Family<Stream, Counter>,
    expiration: Family<(), Gauge>,
    refreshed: Family<(), Gauge>,
    refreshes: Family<Outcome, Counter>,
}

/// The handles of one connection.
#[derive(Clone, Debug)]
pub(crate) struct ChannelMetrics {
    /// 1 while there is a connection.
    pub(crate) connected: Arc<Gauge>,
    /// Attempts that failed: TCP, TLS or the other's identity.
    pub(crate) failures: Arc<Counter>,
}

/// The handles of one kind of stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamMetrics {
    /// Streams that ended and were opened again.
    pub(crate) reopened: Arc<Counter>,
    /// Messages that could not be used.
    pub(crate) undecodable: Arc<Counter>,
}

/// The handles of the proxy's own certificate.
#[derive(Clone, Debug)]
pub(crate) struct CertificateMetrics {
    expiration: Arc<Gauge>,
    refreshed: Arc<Gauge>,
    ok: Arc<Counter>,
    /// Attempts that brought no certificate.
    pub(crate) failed: Arc<Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Outcome(&'static str);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Client(&'static str);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stream(&'static str);

impl Metrics {
    /// Adds the families to `/metrics`.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            connected: registry.gauge(
                Name::classic("outrigger_control_connected"),
                "Whether there is a connection to this service of the control plane",
            ),
            connect_failures: registry.counter(
                Name::classic("outrigger_control_connect_failures_total"),
                "Attempts to connect to this service of the control plane that failed",
            ),
            reopened: registry.counter(
                Name::classic("outrigger_control_stream_reopened_total"),
                "Streams of the control plane that ended and were opened again",
            ),
            undecodable: registry.counter(
                Name::classic("outrigger_control_undecodable_total"),
                "Messages of the control plane that could not be used; the last good one stays in force",
            ),
            expiration: registry.gauge(
                Name::open("control_identity_cert_expiration_timestamp_seconds"),
                "When the proxy's certificate expires, in seconds since 1970",
            ),
            refreshed: registry.gauge(
                Name::open("control_identity_cert_refresh_timestamp_seconds"),
                "When the proxy's certificate was last renewed, in seconds since 1970",
            ),
            refreshes: registry.counter(
                Name::open("control_identity_cert_refreshes_total"),
                "Attempts to renew the proxy's certificate",
            ),
        }
    }

    pub(crate) fn channel(&self, client: &'static str) -> ChannelMetrics {
        ChannelMetrics {
            connected: self.connected.handle(Client(client)),
            failures: self.connect_failures.handle(Client(client)),
        }
    }

    pub(crate) fn certificate(&self) -> CertificateMetrics {
        CertificateMetrics {
            expiration: self.expiration.handle(()),
            refreshed: self.refreshed.handle(()),
            ok: self.refreshes.handle(Outcome("ok")),
            failed: self.refreshes.handle(Outcome("error")),
        }
    }

    pub(crate) fn stream(&self, stream: &'static str) -> StreamMetrics {
        StreamMetrics {
            reopened: self.reopened.handle(Stream(stream)),
            undecodable: self.undecodable.handle(Stream(stream)),
        }
    }
}

impl CertificateMetrics {
    /// There is a new certificate.
    pub(crate) fn renewed(&self, now: SystemTime, expiry: Option<SystemTime>) {
        self.ok.inc();
        self.refreshed.set(unix_seconds(now));
        if let Some(expiry) = expiry {
            self.expiration.set(unix_seconds(expiry));
        }
    }
}

fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl EncodeLabels for Outcome {
    const DOC: &'static str = "result";

    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("result", self.0);
    }
}

impl EncodeLabels for Client {
    const DOC: &'static str = "client";

    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("client", self.0);
    }
}

impl EncodeLabels for Stream {
    const DOC: &'static str = "stream";

    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("stream", self.0);
    }
}
