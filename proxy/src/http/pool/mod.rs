//! Connections to one address: an idle stack for HTTP/1, a few shared connections for HTTP/2.

mod failed;
mod http1;
mod http2;
pub mod metrics;
mod settings;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use self::failed::Failed;
pub use self::settings::Settings;

use std::sync::Arc;

use http::{Request, Response, Version};
use outrigger_policy::endpoint::Http2Params;

use crate::error::Fault;
use crate::http::body::Body;
use crate::http::http1::client::Http1;
use crate::http::interim::Interims;
use crate::http::pool::metrics::PoolMetrics;
use crate::net::io::Io;
use crate::tls::dial::Dial;

/// Connections to one address.
#[derive(Debug)]
pub struct Pool {
    dial: Arc<Dial>,
    http1: Arc<http1::Connections>,
    http2: Arc<http2::Connections>,
}

impl Pool {
    /// A pool without connections; they are opened when requests need them.
    pub fn new(dial: Dial, settings: Settings, params: Http2Params, metrics: PoolMetrics) -> Self {
        let dial = Arc::new(dial);
        Self {
            http1: http1::Connections::new(dial.clone(), settings.clone()),
            http2: http2::Connections::new(dial.clone(), settings, params, metrics),
            dial,
        }
    }

    /// How the address is dialled.
    pub fn dial(&self) -> &Dial {
        &self.dial
    }

    /// Sends a request by the version it has, and takes its body; of its head it may leave as much as it likes. The
    /// answer's body carries the connection back into the pool.
    /// Interim ones go to `interims`.
    pub async fn send(
        &self,
        request: &mut Request<Body>,
        interims: &Interims,
    ) -> Result<Response<Body>, Failed> {
        match request.version() {
            Version::HTTP_2 => self.http2.send(request, interims).await,
            _ => self.http1.send(request, interims).await,
        }
    }

    /// Takes a connection in that somebody else has opened.
    pub fn adopt_http1(&self, connection: Http1) {
        self.http1.adopt(connection);
    }

    /// The same for HTTP/2, with prior knowledge.
    pub async fn adopt_http2(&self, io: Io) -> Result<(), Fault> {
        self.http2.adopt(io).await
    }

    /// How many HTTP/1 connections are idle.
    #[cfg(test)]
    pub(in crate::http) fn idle(&self) -> usize {
        self.http1.idle()
    }

    /// How many HTTP/2 connections take new streams.
    #[cfg(test)]
    pub(in crate::http) fn connections(&self) -> usize {
        self.http2.len()
    }
}
