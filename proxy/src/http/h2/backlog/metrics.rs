//! What is counted of the backlog.

use std::sync::Arc;

use crate::telemetry::labels::Direction;
use crate::telemetry::{Counter, Family, Gauge, Name, Registry};

/// The families.
#[derive(Clone, Debug)]
pub struct Metrics {
    held: Family<Direction, Gauge>,
    full: Family<Direction, Counter>,
    given_up: Family<Direction, Counter>,
}

/// The handles of one direction.
#[derive(Clone, Debug, Default)]
pub struct Handles {
    pub(super) held: Arc<Gauge>,
    pub(super) full: Arc<Counter>,
    pub(super) given_up: Arc<Counter>,
}

impl Metrics {
    /// Registers the families.
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            held: registry.gauge(
                Name::classic("outrigger_http2_unread_bytes"),
                "Memory of what has come on HTTP/2 streams and was not read yet, about",
            ),
            full: registry.counter(
                Name::classic("outrigger_http2_unread_full_total"),
                "How often what was unread had reached LINKERD2_PROXY_HTTP2_MAX_UNREAD_BYTES, and streams were given up",
            ),
            given_up: registry.counter(
                Name::classic("outrigger_http2_unread_streams_given_up_total"),
                "HTTP/2 streams that were given up since nobody read them while memory was short",
            ),
        }
    }

    /// The handles of one direction.
    pub fn of(&self, direction: Direction) -> Handles {
        Handles {
            held: self.held.handle(direction),
            full: self.full.handle(direction),
            given_up: self.given_up.handle(direction),
        }
    }
}
