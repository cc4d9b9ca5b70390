//! Connections to the inbound port itself: from peer proxies, with a transport header (spec §3.6).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use outrigger_policy::authz::ClientTls;
use outrigger_policy::name::NameAddr;
use tokio::io::AsyncReadExt;

use crate::error::{Fault, Kind, Side};
use crate::inbound::arrival::{Arrival, Passage};
use crate::inbound::shared::Inbound;
use crate::inbound::tls::in_time;
use crate::net::detect::tls::Hello;
use crate::net::detect::{self, Seen};
use crate::net::header::{self, Decoded, Session, TransportHeader};
use crate::net::io::Io;
use crate::net::listen::Accepted;
use crate::telemetry::labels::TlsAccept;
use crate::tls::server;

/// Whom the connection of a peer proxy is for.
#[derive(Debug)]
pub(super) enum Direct {
    /// The application, with what is spoken to it.
    Here(Arrival, Io, Option<Session>),
    /// Somebody else.
    Through(Passage),
}

/// The connection of a peer proxy, up to the point where it is what the header says; `None`: it left without a word.
pub(super) async fn accept(inbound: &Arc<Inbound>, accepted: Accepted) -> Result<Option<Direct>, Fault> {
    let Accepted {
        mut socket,
        peer: client,
        original_dst: local,
    } = accepted;
    let within = inbound.config.detect_timeout;
    let authenticate = || refused("direct connections must be mutually authenticated");
    let credentials = inbound.credentials.get();
    match detect::client_hello(&mut socket, within).await {
        Err(error) => return Err(Fault::because(Kind::Reset, Side::Client, error)),
        Ok(Seen::Decided(Hello::Tls { sni: Some(sni) })) if sni == *credentials.server_name() => {}
        Ok(Seen::Ended) => return Ok(None),
        Ok(_) => return Err(authenticate()),
    }
    let handshake = Box::pin(server::accept(&credentials, socket, true));
    let server::Accepted {
        stream,
        client: client_id,
        header_negotiated,
    } = in_time(within, handshake).await?;
    let mut io = Io::server(stream);
    let client_id = client_id.ok_or_else(authenticate)?;
    if !header_negotiated {
        return Err(refused("direct connections require transport header negotiation"));
    }
    let header = read_header(&mut io, within).await?;
    inbound.report.transport_header(&header, &client_id);
    // A connection for somebody else is under the policy of our own port.
    let own = inbound.config.listen.port();
    let port = if header.name.is_some() {
        own
    } else {
        header.port.get()
    };
    if header.name.is_none() && port == own {
        return Err(Fault::because(
            Kind::Loop,
            Side::Client,
            format!("inbound connection must not target port {port}"),
        ));
    }
    let arrival = Arrival {
        client,
        dst: SocketAddr::new(local.ip(), port),
        labels: TlsAccept::Terminated {
            client_id: Some(client_id.clone()),
        },
        tls: ClientTls::Terminated(Some(client_id)),
        port: inbound.port(port),
        limit: inbound.limits.direct.clone(),
    };
    let io = io.metered(inbound.report.accepted(&arrival));
    Ok(Some(match header.name {
        None => Direct::Here(arrival, io, header.session),
        Some(name) => Direct::Through(Passage {
            arrival,
            io,
            to: NameAddr {
                name,
                port: header.port,
            },
            session: header.session,
        }),
    }))
}

/// Reads the transport header; what follows it stays to be read.
async fn read_header(io: &mut Io, within: Duration) -> Result<TransportHeader, Fault> {
    let mut buf = BytesMut::new();
    let reading = async {
        loop {
            let n = io
                .read_buf(&mut buf)
                .await
                .map_err(|error| Fault::because(Kind::Reset, Side::Client, error))?;
            let bad = |error| Fault::because(Kind::BadRequest, Side::Client, error);
            match header::decode(&buf).map_err(bad)? {
                Decoded::Complete(header, length) => return Ok((header, length)),
                Decoded::NeedMore if n == 0 => {
                    return Err(refused("the connection ended within its transport header"));
                }
                Decoded::NeedMore => {}
            }
        }
    };
    let (header, length) = match tokio::time::timeout(within, reading).await {
        Ok(result) => result?,
        Err(_elapsed) => {
            return Err(Fault::because(
                Kind::DetectTimeout,
                Side::Client,
                "no transport header came in time",
            ));
        }
    };
    buf.advance(length);
    io.unread(buf);
    Ok(header)
}

fn refused(text: &str) -> Fault {
    Fault::because(Kind::Unauthorized, Side::Client, text.to_owned())
}
