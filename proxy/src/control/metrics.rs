//! What is counted about the control plane.

use std::sync::Arc;

use crate::telemetry::text::{EncodeLabels, LabelWriter};
use crate::telemetry::{Counter, Family, Gauge, Registry};

/// Connections to the control plane and the streams on them.
#[derive(Clone, Debug)]
pub struct Metrics {
    connected: Family<Client, Gauge>,
    connect_failures: Family<Client, Counter>,
    reopened: Family<Stream, Counter>,
    undecodable: Family<Stream, Counter>,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Client(&'static str);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Stream(&'static str);

impl Metrics {
    /// Adds the families to `/metrics`.
    pub fn register(registry: &mut Registry) -> Self {
        use crate::telemetry::Name;
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
        }
    }

    pub(crate) fn channel(&self, client: &'static str) -> ChannelMetrics {
        ChannelMetrics {
            connected: self.connected.handle(Client(client)),
            failures: self.connect_failures.handle(Client(client)),
        }
    }

    pub(crate) fn stream(&self, stream: &'static str) -> StreamMetrics {
        StreamMetrics {
            reopened: self.reopened.handle(Stream(stream)),
            undecodable: self.undecodable.handle(Stream(stream)),
        }
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
