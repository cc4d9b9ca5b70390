//! The server's side of a handshake: terminates mesh TLS and learns who the client is.

use outrigger_policy::name::Identity;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::tls::credentials::{Credentials, TRANSPORT_HEADER_ALPN};
use crate::tls::error::Error;
use crate::tls::verify::first_identity;

/// A terminated connection.
#[derive(Debug)]
pub struct Accepted<I> {
    /// The plaintext side.
    pub stream: TlsStream<I>,
    /// Who the client proved to be; `None` without a client certificate.
    pub client: Option<Identity>,
    /// Whether a transport header follows.
    pub header_negotiated: bool,
}

/// Terminates TLS. A client certificate is asked for and verified if given, never required.
///
/// The transport header is negotiated on `direct` connections only. Waits as long as the peer takes: the caller
/// sets the limit. What the peer sent is not logged here.
pub async fn accept<I>(credentials: &Credentials, io: I, direct: bool) -> Result<Accepted<I>, Error>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let config = credentials.server_config(direct).ok_or(Error::Uncertified)?;
    let stream = TlsAcceptor::from(config.clone())
        .accept(io)
        .await
        .map_err(Error::from_handshake)?;
    let (_, connection) = stream.get_ref();
    let client = connection
        .peer_certificates()
        .and_then(|chain| first_identity(chain.first()?));
    let header_negotiated = connection.alpn_protocol() == Some(TRANSPORT_HEADER_ALPN);
    Ok(Accepted {
        stream,
        client,
        header_negotiated,
    })
}
