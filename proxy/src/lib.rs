//! The data plane: a transparent proxy beside an application. The map of the crate; see `ARCHITECTURE.md`.

#![forbid(unsafe_code)]

pub mod admin;
pub mod app;
pub mod balance;
pub mod cache;
pub mod config;
pub mod control;
pub mod drain;
pub mod error;
pub mod exchange;
pub mod gateway;
pub mod http;
pub mod inbound;
pub mod live;
pub mod net;
pub mod outbound;
pub mod reclaim;
pub mod room;
pub mod telemetry;
pub mod tls;
