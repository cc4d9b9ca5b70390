//! The multicluster gateway: connections of peer proxies that are for somebody else go in by the policy of our own port, and
//! out again to the service that they name (spec §3G).
//!
//! `inbound` hands such a connection back once its TLS is terminated and its transport header read; from there on the two
//! directions meet here, and nowhere else.

pub mod forwarded;
pub mod http;
pub mod shared;
pub mod tcp;

use std::sync::Arc;

use tokio::net::TcpListener;

use crate::error::Fault;
use crate::gateway::http::Connection;
use crate::gateway::shared::Gateway;
use crate::http::{h2, http1};
use crate::inbound;
use crate::inbound::arrival::Passage;
use crate::net::header::Session;
use crate::net::listen::{self, Accepted, OriginalDst};

/// Accepts connections from the mesh until draining starts. All but those for somebody else are `inbound`'s alone.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener, original_dst: OriginalDst) {
    let inbound = &gateway.inbound;
    let room = inbound.rooms.accepted.clone();
    let drain = inbound.drain.clone();
    let serve = move |accepted| connection(gateway.clone(), accepted);
    listen::accept_loop(listener, room, original_dst, drain, serve).await;
}

/// One connection, to its end.
async fn connection(gateway: Arc<Gateway>, accepted: Accepted) {
    let (peer, dst) = (accepted.peer, accepted.original_dst);
    let served = match inbound::connection(&gateway.inbound, accepted).await {
        Ok(Some(passage)) => Box::pin(pass(&gateway, *passage)).await,
        Ok(None) => Ok(()),
        Err(fault) => Err(fault),
    };
    if let Err(fault) = served {
        inbound::closed(&gateway.inbound, peer, dst, &fault);
    }
}

/// A connection for somebody else, to its end.
async fn pass(gateway: &Arc<Gateway>, passage: Passage) -> Result<(), Fault> {
    match passage.session {
        None => tcp::pass(gateway, passage).await,
        Some(session) => serve_http(gateway, passage, session).await,
    }
}

async fn serve_http(gateway: &Arc<Gateway>, passage: Passage, session: Session) -> Result<(), Fault> {
    let Passage { arrival, io, to, .. } = passage;
    let (config, drain) = (&gateway.inbound.config, gateway.inbound.drain.clone());
    let connection = Connection::new(gateway.clone(), arrival, to);
    let closing = connection.client.closing.clone();
    let service = move |request, interims| http::request(connection.clone(), request, interims);
    match session {
        Session::Http1 => {
            inbound::ended(http1::server::serve(io, service, config.head_limits, closing, drain).await);
        }
        Session::Http2 => {
            let (settings, backlog) = (&config.http2_server, &gateway.inbound.backlog);
            inbound::ended(h2::server::serve(io, service, settings, backlog, closing, drain).await);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the future: every connection from the mesh keeps it.
    const CONNECTION: usize = 2_700;

    #[test]
    fn a_connection_that_is_not_for_somebody_else_pays_little_for_the_possibility() {
        fn future_size<A, B, F>(_function: impl Fn(A, B) -> F) -> usize {
            size_of::<F>()
        }
        let size = future_size(connection);
        assert!(size <= CONNECTION, "{size} bytes");
    }
}
