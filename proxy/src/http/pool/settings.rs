//! How pools behave.

use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::http::h2::backlog::Backlog;
use crate::http::h2::client::Lifetime;
use crate::http::h2::window::Windows;

/// How a pool behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// HTTP/1 connections kept without a request.
    pub max_idle: usize,
    /// How long an HTTP/1 connection is kept without a request.
    pub idle_timeout: Duration,
    /// HTTP/2 flow control.
    pub windows: Windows,
    /// Where HTTP/2 that nobody has read yet counts.
    pub backlog: Arc<Backlog>,
    /// A multiple of the budgets of HTTP/2 frames.
    pub flood_scale: u32,
    /// HTTP/2 connections that may take new streams at the same time.
    pub max_connections: usize,
    /// How long an HTTP/2 connection takes new streams.
    pub lifetime: Lifetime,
    /// How long a request waits for room on an HTTP/2 connection.
    pub fail_fast: Duration,
}

impl Settings {
    /// As they are configured.
    pub fn new(
        pool: &config::Pool,
        http2: &config::Http2Client,
        backlog: Arc<Backlog>,
        fail_fast: Duration,
    ) -> Self {
        Self {
            max_idle: pool.max_idle,
            idle_timeout: pool.idle_timeout,
            windows: Windows::from(http2),
            backlog,
            flood_scale: http2.flood_scale,
            max_connections: http2.max_connections,
            lifetime: Lifetime {
                idle: http2.idle_timeout,
                age: http2.max_age,
            },
            fail_fast,
        }
    }
}
