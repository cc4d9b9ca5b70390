//! Pools for tests, of other rooms too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_policy::endpoint::Http2Params;

use crate::http::h2::backlog::testing::boundless;
use crate::http::h2::client::Lifetime;
use crate::http::h2::window::Windows;
use crate::http::pool::metrics::{Metrics, PoolMetrics};
use crate::http::pool::{Pool, Settings};
use crate::net::connect::Options;
use crate::net::io::testing::Unmetered;
use crate::room::Room;
use crate::telemetry::Registry;
use crate::telemetry::labels::Direction;
use crate::tls::dial::Dial;

/// A pool of plain connections to an address.
pub(crate) fn pool(addr: SocketAddr) -> Arc<Pool> {
    let timeout = Duration::from_secs(1);
    Arc::new(Pool::new(
        dial(addr, timeout),
        settings(),
        Http2Params::default(),
        metrics(),
    ))
}

/// Plain connections to an address.
pub(crate) fn dial(addr: SocketAddr, timeout: Duration) -> Dial {
    Dial {
        addr,
        options: Options {
            timeout,
            patience: Duration::ZERO,
            keepalive: None,
            user_timeout: None,
            room: Room::new(1_000),
        },
        peer: None,
        meter: Arc::new(Unmetered),
    }
}

/// What is ordinary.
pub(crate) fn settings() -> Settings {
    Settings {
        max_idle: 10,
        idle_timeout: Duration::from_secs(3),
        backlog: boundless(),
        windows: Windows {
            stream: 65_535,
            connection: 1_048_576,
        },
        flood_scale: 1,
        max_connections: 4,
        lifetime: Lifetime {
            idle: Duration::from_secs(90),
            age: Duration::from_secs(3600),
        },
        fail_fast: Duration::from_secs(3),
    }
}

/// Metrics of their own.
pub(crate) fn metrics() -> PoolMetrics {
    let mut registry = Registry::new(Duration::from_secs(60));
    Metrics::register(&mut registry).pools(Direction::Outbound)
}
