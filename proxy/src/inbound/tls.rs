//! TLS of connections from the mesh: terminated when it is meant for us, else passed through.

use std::time::Duration;

use outrigger_policy::authz::ClientTls;

use crate::error::{Fault, Kind, Side};
use crate::inbound::shared::Inbound;
use crate::net::detect::tls::Hello;
use crate::net::detect::{self, Seen};
use crate::net::io::{Io, Socket};
use crate::telemetry::labels::TlsAccept;
use crate::tls::Error;
use crate::tls::server;

/// What became of a connection's TLS.
#[derive(Debug)]
pub(super) enum Tls {
    /// It was meant for us, and ends here.
    Terminated(Io, ClientTls, TlsAccept),
    /// It is the application's, with this server name.
    PassedThrough(Socket, String),
    /// There is none.
    None(Socket),
}

/// Terminates TLS whose SNI is ours. `None`: the client left without a word.
pub(super) async fn terminate(inbound: &Inbound, mut socket: Socket) -> Result<Option<Tls>, Fault> {
    let credentials = inbound.credentials.get();
    let seen = detect::client_hello(&mut socket, inbound.config.detect_timeout).await;
    let sni = match seen.map_err(|error| Fault::because(Kind::Reset, Side::Client, error))? {
        Seen::Decided(Hello::Tls { sni }) => sni,
        Seen::Decided(_) => return Ok(Some(Tls::None(socket))),
        Seen::Ended => return Ok(None),
        Seen::TimedOut => {
            return Err(Fault::because(
                Kind::DetectTimeout,
                Side::Client,
                "TLS detection timed out",
            ));
        }
    };
    match sni {
        Some(sni) if sni == *credentials.server_name() => {}
        Some(sni) => return Ok(Some(Tls::PassedThrough(socket, sni.to_string()))),
        // TLS for nobody in particular is the application's, like any other bytes (spec §3.4).
        None => return Ok(Some(Tls::None(socket))),
    }
    let handshake = Box::pin(server::accept(&credentials, socket, false));
    let accepted = in_time(inbound.config.detect_timeout, handshake).await?;
    let labels = TlsAccept::Terminated {
        client_id: accepted.client.clone(),
    };
    Ok(Some(Tls::Terminated(
        Io::server(accepted.stream),
        ClientTls::Terminated(accepted.client),
        labels,
    )))
}

/// Runs a TLS handshake within a time. Box it: it is large, and soon over, and the connection that waits lives long.
pub(super) async fn in_time<T>(
    within: Duration,
    handshake: impl Future<Output = Result<T, Error>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(within, handshake).await {
        Ok(result) => result.map_err(|error| Fault::because(Kind::Tls, Side::Client, error)),
        Err(_elapsed) => Err(Fault::because(
            Kind::DetectTimeout,
            Side::Client,
            "the TLS handshake timed out",
        )),
    }
}
