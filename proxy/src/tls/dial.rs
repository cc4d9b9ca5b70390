//! Dialling: TCP, then mutual TLS and the transport header where the endpoint asks for them.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::BytesMut;
use outrigger_policy::endpoint::EndpointTls;
use outrigger_policy::name::DnsName;
use tokio::io::AsyncWriteExt;

use crate::error::{Fault, Kind, Side};
use crate::live::Live;
use crate::net::connect::{self, Options};
use crate::net::header::{Session, TransportHeader};
use crate::net::io::{Io, Meter, Socket};
use crate::tls::client;
use crate::tls::credentials::Credentials;
use crate::tls::error::Error;
use crate::tls::turns::Turns;

/// How one address is dialled.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The address.
    pub addr: SocketAddr,
    /// Timeout and socket options.
    pub options: Options,
    /// The peer proxy that has to answer there; `None`: plain TCP.
    pub peer: Option<Peer>,
    /// Counts connections and their bytes.
    pub meter: Arc<dyn Meter>,
}

/// A peer proxy.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Our own certificate and the anchors, as they are at the time of each handshake.
    pub credentials: Live<Credentials>,
    /// Whom we expect.
    pub tls: EndpointTls,
    /// Where the peer is to send the connection, if it takes a transport header.
    pub header: Option<Target>,
    /// Handshakes wait for their turn.
    pub turns: Arc<Turns>,
}

/// What a transport header says besides the session.
#[derive(Clone, Debug)]
pub struct Target {
    /// The port meant.
    pub port: NonZeroU16,
    /// The name meant, towards a gateway.
    pub name: Option<DnsName>,
    /// The port is opaque: the session is never announced.
    pub opaque: bool,
}

impl Dial {
    /// Opens a connection. `session` is what will be spoken on it, `None` for bytes.
    pub async fn connect(&self, session: Option<Session>) -> Result<Io, Fault> {
        // Boxed, since a handshake is large and soon over: whoever waits for it may live long, and is small so.
        let io = Box::pin(self.in_turn(session)).await?;
        Ok(io.metered(self.meter.clone()))
    }

    async fn in_turn(&self, session: Option<Session>) -> Result<Io, Fault> {
        let Some(peer) = &self.peer else {
            return connect::in_time(&self.options, self.steps(session)).await;
        };
        let turn = peer.turns.take(self.options.timeout).await?;
        let connected = connect::in_time(&self.options, self.steps(session)).await;
        turn.ended(&connected);
        connected
    }

    async fn steps(&self, session: Option<Session>) -> Result<Io, Fault> {
        let socket = connect::tcp(self.addr, &self.options).await?;
        match &self.peer {
            None => Ok(Io::plain(socket)),
            Some(peer) => secure(socket, peer, session).await,
        }
    }
}

/// Handshake, then the transport header if the peer took it up.
async fn secure(socket: Socket, peer: &Peer, session: Option<Session>) -> Result<Io, Fault> {
    let credentials = peer.credentials.get();
    let tls = &peer.tls;
    let offer = peer.header.is_some();
    let connected = client::connect(&credentials, socket, &tls.server_name, &tls.identity, offer)
        .await
        .map_err(fault)?;
    let mut io = Io::client(connected.stream);
    if let (Some(target), true) = (&peer.header, connected.header_negotiated) {
        let session = session.filter(|_| !target.opaque);
        let header = TransportHeader {
            port: target.port,
            name: target.name.clone(),
            session,
        };
        let mut bytes = BytesMut::new();
        header.encode(&mut bytes);
        io.write_all(&bytes)
            .await
            .map_err(|error| Fault::because(Kind::Connect, Side::Server, error))?;
    }
    Ok(io)
}

fn fault(error: Error) -> Fault {
    let kind = if matches!(error, Error::WrongIdentity { .. }) {
        Kind::PeerIdentity
    } else {
        Kind::Tls
    };
    Fault::because(kind, Side::Server, error)
}
