//! What is counted about the control plane.

use std::sync::Arc;
use std::time::SystemTime;

use crate::control::requests::RequestMetrics;
use crate::telemetry::text::{EncodeLabels, LabelWriter};
use crate::telemetry::{Counter, Family, Gauge, Name, Registry};

/// Connections to the control plane and the streams on them.
#[derive(Clone, Debug)]
pub struct Metrics {
    connected: Family<Client, Gauge>,
    connect_failures: Family<Client, Counter>,
    reopened: Family<Stream, Counter>,
    undecodable: Family<Stream, Counter>,
    requests: RequestMetrics,
    resolutions: Family<Resolution, Counter>,
    expiration: Family<(), Gauge>,
    refreshed: Family<(), Gauge>,
    refreshes: Family<Outcome, Counter>,
}

/// Who of the proxy speaks to the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    /// Gets the certificate, and so has to do without.
    Identity,
    /// Asks for endpoints and profiles.
    Destination,
    /// Asks for policies.
    Policy,
}

/// The handles of one channel.
#[derive(Clone, Debug)]
pub(crate) struct ChannelMetrics {
    /// 1 while there is a connection.
    pub(crate) connected: Arc<Gauge>,
    /// Attempts that failed: TCP, TLS or the other's identity.
    pub(crate) failures: Arc<Counter>,
    /// Requests, by where they are sent to.
    pub(crate) requests: RequestMetrics,
    /// Questions to DNS.
    pub(crate) dns: DnsMetrics,
}

/// The handles of one client's questions to DNS.
#[derive(Clone, Debug)]
pub(crate) struct DnsMetrics {
    pub(crate) srv: Resolutions,
    /// A and AAAA together.
    pub(crate) address: Resolutions,
}

/// The handles of questions for one type of record.
#[derive(Clone, Debug)]
pub(crate) struct Resolutions {
    pub(crate) found: Arc<Counter>,
    /// Without an address, for whatever reason.
    pub(crate) missing: Arc<Counter>,
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
struct Resolution {
    client: Client,
    record_type: &'static str,
    result: &'static str,
}

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
            requests: RequestMetrics::register(registry),
            resolutions: registry.counter(
                Name::open("control_dns_resolutions_total"),
                "Questions to DNS for the control plane; not_found is every one that brought no address, for whatever reason",
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

    pub(crate) fn channel(&self, client: Client) -> ChannelMetrics {
        ChannelMetrics {
            connected: self.connected.handle(client),
            failures: self.connect_failures.handle(client),
            requests: self.requests.clone(),
            dns: DnsMetrics {
                srv: self.resolutions(client, "SRV"),
                address: self.resolutions(client, "A/AAAA"),
            },
        }
    }

    fn resolutions(&self, client: Client, record_type: &'static str) -> Resolutions {
        let handle = |result| {
            self.resolutions.handle(Resolution {
                client,
                record_type,
                result,
            })
        };
        Resolutions {
            found: handle("ok"),
            missing: handle("not_found"),
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

impl Client {
    /// Its name in logs and labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Destination => "destination",
            Self::Policy => "policy",
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
        out.label("client", self.name());
    }
}

impl EncodeLabels for Resolution {
    const DOC: &'static str = "client, record_type, result";

    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("client", self.client.name());
        out.label("record_type", self.record_type);
        out.label("result", self.result);
    }
}

impl EncodeLabels for Stream {
    const DOC: &'static str = "stream";

    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("stream", self.0);
    }
}
