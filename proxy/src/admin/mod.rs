//! The admin server: probes and metrics for whom the policy of its port admits, and for those within the pod the log filter, the environment
//! and shutdown.
//!
//! | file | holds |
//! |---|---|
//! | [`pages`] | what is answered, path by path |
//! | `access` | who may ask: the inbound policy of the port |
//! | `connection` | one connection: plain or mesh TLS, HTTP/1 or HTTP/2 |
//! | [`readiness`] | the conditions under which `/ready` says so |
//! | [`environment`] | `/env.json`, without secrets |
//! | `negotiate` | formats and compression |

mod access;
mod connection;
pub mod environment;
mod negotiate;
pub mod pages;
pub mod readiness;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::drain::Drain;
use crate::live::Live;
use crate::tls::Credentials;
pub use environment::Environment;
pub use pages::Admin;
pub use readiness::{Condition, Readiness};

/// Connections that are served at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1_000;
/// How long to wait when the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until draining starts, then finishes what runs. Everything happens on the runtime that polls this.
///
/// TLS that names this proxy's server name ends here, with the credentials there are at that time.
pub async fn serve(
    listener: TcpListener,
    admin: Arc<Admin>,
    credentials: Live<Credentials>,
    mut drain: Drain,
) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = drain.started() => return,
            accepted = accept(&listener, &room) => accepted,
        };
        match accepted {
            Ok((tcp, peer, place)) => {
                let (admin, credentials, drain) = (admin.clone(), credentials.clone(), drain.clone());
                tokio::spawn(async move {
                    if let Err(error) = connection::serve(tcp, peer, admin, credentials, drain).await {
                        tracing::debug!(%peer, %error, "An admin connection ended early");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "The admin server can't accept a connection; is the limit of open files too low?");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = room.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (tcp, peer) = listener.accept().await?;
    Ok((tcp, peer, place))
}

#[cfg(test)]
mod tests;
