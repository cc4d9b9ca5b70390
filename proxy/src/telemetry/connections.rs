//! How many connections there is room for, and how many are open, as `/metrics` shows it: looked up when scraped.

use std::sync::Arc;
use std::time::Instant;

use crate::room::{Room, Rooms};
use crate::telemetry::labels::Direction;
use crate::telemetry::registry::{Collect, Registry};
use crate::telemetry::text::{Description, Document, EncodeLabels, Kind, LabelWriter, Name, Series};

/// Registers the families over the rooms of both directions.
pub fn register(registry: &mut Registry, inbound: &Rooms, outbound: &Rooms) {
    let of = |direction, rooms: &Rooms| {
        [
            (direction, "src", rooms.accepted.clone()),
            (direction, "dst", rooms.opened.clone()),
        ]
    };
    let [a, b] = of(Direction::Inbound, inbound);
    let [c, d] = of(Direction::Outbound, outbound);
    registry.collector(Connections([a, b, c, d].map(|(direction, peer, room)| Kept {
        direction,
        peer,
        room,
    })));
}

#[derive(Debug)]
struct Connections([Kept; 4]);

/// One kind of connections.
#[derive(Debug)]
struct Kept {
    direction: Direction,
    peer: &'static str,
    room: Arc<Room>,
}

/// A family's name, kind and help, and where its values come from.
type Row = (&'static str, Kind, &'static str, fn(&Room) -> u64);

const FAMILIES: [Row; 4] = [
    (
        "outrigger_connections",
        Kind::Gauge,
        "The number of connections that are open, whatever is known of them yet",
        |room| room.taken() as u64,
    ),
    (
        "outrigger_connections_limit",
        Kind::Gauge,
        "The number of connections that may be open",
        |room| room.limit() as u64,
    ),
    (
        "outrigger_connections_full_total",
        Kind::Counter,
        "How often a connection had to wait to be accepted, or was not opened, because the limit was reached",
        Room::full,
    ),
    (
        "outrigger_connections_starved_total",
        Kind::Counter,
        "How often a connection could not be accepted because the system had no descriptor or memory for it",
        Room::starved,
    ),
];

impl Collect for Connections {
    fn describe(&self) -> Vec<Description> {
        FAMILIES
            .iter()
            .map(|&(name, kind, help, _)| Description {
                name: Name::classic(name),
                kind,
                help,
                labels: Kept::DOC,
            })
            .collect()
    }

    fn collect(&self, _now: Instant, out: &mut Document) {
        for (family, (.., value)) in self.describe().iter().zip(FAMILIES) {
            family.encode(out);
            for kept in &self.0 {
                let mut labels = String::new();
                kept.encode(&mut LabelWriter::new(&mut labels));
                Series::new(out, &family.name, &labels).sample(value(&kept.room));
            }
        }
    }
}

impl EncodeLabels for Kept {
    const DOC: &'static str = "direction, peer";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        self.direction.encode(out);
        out.label("peer", self.peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn open_connections_are_seen_beside_their_limit() {
        let mut registry = Registry::new(Duration::from_secs(60));
        let (inbound, outbound) = (Rooms::new(1), Rooms::new(7));
        register(&mut registry, &inbound, &outbound);
        let _place = inbound.accepted.admit();
        assert!(inbound.accepted.enter().is_none());
        inbound.accepted.starve();
        let text = registry.encode(Instant::now());
        for line in [
            "outrigger_connections{direction=\"inbound\",peer=\"src\"} 1\n",
            "outrigger_connections{direction=\"outbound\",peer=\"dst\"} 0\n",
            "outrigger_connections_limit{direction=\"outbound\",peer=\"src\"} 7\n",
            "outrigger_connections_full_total{direction=\"inbound\",peer=\"src\"} 1\n",
            "outrigger_connections_starved_total{direction=\"inbound\",peer=\"src\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
