//! Dialling: TCP, then mutual TLS and the transport header where the endpoint asks for them.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::BytesMut;
use outrigger_policy::endpoint::EndpointTls;
use outrigger_policy::name::DnsName;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

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
            return self.patiently(session).await;
        };
        let turn = peer.turns.take(self.options.timeout).await?;
        let connected = connect::in_time(&self.options, self.steps(session)).await;
        turn.ended(&connected);
        connected
    }

    /// A listener that is slow to accept lets its queue fill, and the kernel then drops what asks for a connection
    /// without a word. It would ask again by itself, but only after a second, when the timeout has often passed.
    async fn patiently(&self, session: Option<Session>) -> Result<Io, Fault> {
        let end = Instant::now() + self.options.patience;
        loop {
            match connect::in_time(&self.options, self.steps(session)).await {
                Err(fault) if fault.kind == Kind::ConnectTimeout && Instant::now() < end => {
                    self.meter.asked_again();
                }
                connected => return connected,
            }
        }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::net::{TcpSocket, TcpStream};

    use super::*;
    use crate::room::Room;

    /// How often a connection was asked for again.
    #[derive(Debug, Default)]
    struct Again(AtomicUsize);

    impl Meter for Again {
        fn opened(&self) {}
        fn read(&self, _bytes: usize) {}
        fn written(&self, _bytes: usize) {}
        fn abused(&self, _reason: &'static str) {}
        fn asked_again(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        fn closed(&self, _errno: Option<i32>) {}
    }

    #[tokio::test]
    async fn a_listener_whose_queue_is_full_is_asked_again_until_it_accepts() {
        const TIMEOUT: Duration = Duration::from_millis(50);
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut queue = Vec::new();
        while let Ok(connected) = tokio::time::timeout(TIMEOUT, TcpStream::connect(addr)).await {
            queue.push(connected.unwrap());
        }
        let again = Arc::new(Again::default());
        let options = Options {
            timeout: TIMEOUT,
            patience: Duration::ZERO,
            keepalive: None,
            user_timeout: None,
            room: Room::new(1),
        };
        let mut dial = Dial {
            addr,
            options,
            peer: None,
            meter: again.clone(),
        };
        let fault = dial.connect(None).await.unwrap_err();
        assert_eq!(
            (fault.kind, again.0.load(Ordering::SeqCst)),
            (Kind::ConnectTimeout, 0)
        );
        dial.options.patience = Duration::from_secs(30);
        let accepting = async {
            while again.0.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
            for _ in &queue {
                listener.accept().await.unwrap();
            }
        };
        let (connected, ()) = tokio::join!(dial.connect(None), accepting);
        connected.unwrap();
    }
}
