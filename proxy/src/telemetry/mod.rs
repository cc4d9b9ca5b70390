//! What is observed: metrics, logs.
//!
//! | file | holds |
//! |---|---|
//! | [`registry`] | every family that `/metrics` prints, and how long a label set is remembered |
//! | [`metric`] | counters, gauges and histograms: plain atomics |
//! | [`text`] | what `/metrics` looks like: OpenMetrics, and the classic text in Linkerd's two dialects |
//! | [`labels`] | label groups with the exact names and order that dashboards query |
//! | [`http`], [`transport`] | the families that both directions share |
//! | [`route`], [`profile`] | those of outbound routes and their backends, of ServiceProfile routes |
//! | [`inbound_route`] | those of inbound routes |
//! | [`balancer`], [`tcp_route`] | those of balancers, and of routes for what is not HTTP |
//! | [`handles`] | the HTTP metrics of one endpoint, resolved |
//! | [`shared`] | resolved metrics, for connections with the same labels |
//! | [`refusals`] | the latest refusals of inbound traffic, for `/refusals` |
//! | [`process`], [`runtime`] | the process itself, and the threads that carry traffic |
//! | [`log`] | the log filter and the two line formats |

pub mod balancer;
pub mod connections;
pub mod handles;
pub mod http;
pub mod inbound_route;
pub mod labels;
pub mod log;
pub mod metric;
pub mod process;
pub mod profile;
pub mod refusals;
pub mod registry;
pub mod route;
pub mod runtime;
pub mod shared;
pub mod tcp_route;
pub mod text;
pub mod transport;

pub use metric::{Counter, Gauge, Histogram};
pub use registry::{Family, Registry};
pub use text::{Format, Name};
