//! What pools count about connections to servers.

use std::sync::Arc;

use crate::http::h2::client::End;
use crate::telemetry::labels::Direction;
use crate::telemetry::text::{EncodeLabels, LabelWriter};
use crate::telemetry::{Counter, Family, Gauge, Name, Registry};

/// The families.
#[derive(Clone, Debug)]
pub struct Metrics {
    open: Family<Direction, Gauge>,
    ended: Family<Ended, Counter>,
    waited: Family<Direction, Counter>,
    resent: Family<Direction, Counter>,
}

/// The handles of one direction.
#[derive(Clone, Debug)]
pub struct PoolMetrics {
    /// Connections that are open.
    pub open: Arc<Gauge>,
    /// Requests that had to wait for room.
    pub waited: Arc<Counter>,
    /// Requests sent again, since the server had not processed them.
    pub resent: Arc<Counter>,
    idle: Arc<Counter>,
    age: Arc<Counter>,
    closed: Arc<Counter>,
    unanswered: Arc<Counter>,
    failed: Arc<Counter>,
}

/// Why connections of a direction end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Ended {
    direction: Direction,
    cause: &'static str,
}

impl Metrics {
    /// Registers the families.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            open: registry.gauge(
                Name::classic("outrigger_http2_connections"),
                "HTTP/2 connections to servers that are open",
            ),
            ended: registry.counter(
                Name::classic("outrigger_http2_connections_ended_total"),
                "HTTP/2 connections to servers that ended or were told to: closed is the server's doing, or follows idle and age",
            ),
            waited: registry.counter(
                Name::classic("outrigger_http2_requests_waited_total"),
                "Requests that had to wait, since every HTTP/2 connection had as many streams as the server allows",
            ),
            resent: registry.counter(
                Name::classic("outrigger_http2_requests_resent_total"),
                "Requests that were sent again over HTTP/2, since the server had not processed them (GOAWAY, REFUSED_STREAM)",
            ),
        }
    }

    /// The handles of one direction.
    pub fn pools(&self, direction: Direction) -> PoolMetrics {
        let ended = |cause| self.ended.handle(Ended { direction, cause });
        PoolMetrics {
            open: self.open.handle(direction),
            waited: self.waited.handle(direction),
            resent: self.resent.handle(direction),
            idle: ended("idle"),
            age: ended("age"),
            closed: ended("closed"),
            unanswered: ended("unanswered"),
            failed: ended("failed"),
        }
    }
}

impl PoolMetrics {
    /// Counts the end of a connection, or of its taking new streams.
    pub fn ended(&self, end: &End) {
        match end {
            End::Idle => self.idle.inc(),
            End::Age => self.age.inc(),
            End::Closed => self.closed.inc(),
            End::Unanswered => self.unanswered.inc(),
            End::Failed(_) => self.failed.inc(),
        }
    }
}

impl EncodeLabels for Ended {
    const DOC: &'static str = "direction, cause";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.direction.encode(out);
        out.label("cause", self.cause);
    }
}
