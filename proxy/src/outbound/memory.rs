//! What requests that may be sent again, and copies for mirrors, may hold altogether; and what they hold, as `/metrics`
//! shows it: looked up when scraped.

use std::time::Instant;

use crate::config;
use crate::exchange::Limit;
use crate::http::replay::Memory;
use crate::telemetry::registry::{Collect, Registry};
use crate::telemetry::text::{Description, Document, Kind, Name, Series};

/// What all requests together may hold.
#[derive(Clone, Debug)]
pub struct Memories {
    /// Bodies of requests that may be sent again.
    pub retries: Memory,
    /// Bodies of requests that are mirrored.
    pub mirrors: Memory,
    /// Copies of requests that are under way to mirrors.
    pub copies: Limit,
}

impl Memories {
    /// As it is configured.
    pub fn new(config: &config::Outbound) -> Self {
        Self {
            retries: Memory::new(config.retry_bytes),
            mirrors: Memory::new(config.mirror_bytes),
            copies: Limit::new(config.mirrors_in_flight),
        }
    }

    /// Shows what is held in `/metrics`.
    pub fn register(&self, registry: &mut Registry) {
        registry.collector(self.clone());
    }
}

/// A family's name, kind and help, and its value for what is kept.
type Row = (&'static str, Kind, &'static str, fn(&Memory) -> u64);

const KEPT: [Row; 3] = [
    (
        "outrigger_kept_body_bytes",
        Kind::Gauge,
        "Bytes of request bodies that are kept, because the requests may be sent again (retry) or are mirrored (mirror)",
        |memory| memory.held() as u64,
    ),
    (
        "outrigger_kept_body_bytes_limit",
        Kind::Gauge,
        "Bytes of request bodies that may be kept",
        |memory| memory.limit() as u64,
    ),
    (
        "outrigger_kept_body_full_total",
        Kind::Counter,
        "Requests whose bodies were no longer kept because the limit was reached, so that they could not be sent again, or were not mirrored",
        Memory::full,
    ),
];

/// The name and help of a gauge, and its value for copies that are under way.
type Gauge = (&'static str, &'static str, fn(&Limit) -> usize);

const COPIES: [Gauge; 2] = [
    (
        "outrigger_mirror_in_flight",
        "Copies of requests that are under way to mirrors, or wait for the end of their request",
        Limit::taken,
    ),
    (
        "outrigger_mirror_in_flight_limit",
        "Copies of requests that may be under way to mirrors",
        Limit::max,
    ),
];

fn kept((name, kind, help, _): Row) -> Description {
    Description {
        name: Name::classic(name),
        kind,
        help,
        labels: "purpose",
    }
}

fn copies(name: &'static str, help: &'static str) -> Description {
    Description {
        name: Name::classic(name),
        kind: Kind::Gauge,
        help,
        labels: "",
    }
}

impl Collect for Memories {
    fn describe(&self) -> Vec<Description> {
        let copies = COPIES.map(|(name, help, _)| copies(name, help));
        KEPT.map(kept).into_iter().chain(copies).collect()
    }

    fn collect(&self, _now: Instant, out: &mut Document) {
        for row in KEPT {
            let family = kept(row);
            family.encode(out);
            for (labels, memory) in [
                (r#"purpose="retry""#, &self.retries),
                (r#"purpose="mirror""#, &self.mirrors),
            ] {
                Series::new(out, &family.name, labels).sample((row.3)(memory));
            }
        }
        for (name, help, value) in COPIES {
            let family = copies(name, help);
            family.encode(out);
            Series::new(out, &family.name, "").sample(value(&self.copies));
        }
    }
}
