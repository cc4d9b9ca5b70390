//! The client's side of a handshake: mutual TLS to a named workload.

use outrigger_policy::name::{DnsName, Identity};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::credentials::{Credentials, TRANSPORT_HEADER_ALPN};
use crate::tls::error::{Error, Refusal};
use crate::tls::verify::{names, names_identity};

/// An encrypted connection to the workload that was asked for.
#[derive(Debug)]
pub struct Connected<I> {
    /// The plaintext side.
    pub stream: TlsStream<I>,
    /// Whether the server takes a transport header; then one has to be written first.
    pub header_negotiated: bool,
}

/// Shakes hands with SNI `server_name` and requires that the server's certificate carries `expect`.
///
/// Before the first certificate of our own the client stays anonymous. Waits as long as the peer takes: the caller
/// sets the limit. [`Error::WrongIdentity`] becomes `Kind::PeerIdentity` on the data path.
pub async fn connect<I>(
    credentials: &Credentials,
    io: I,
    server_name: &DnsName,
    expect: &Identity,
    offer_header: bool,
) -> Result<Connected<I>, Error>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(server_name.as_str().to_owned()).map_err(|e| {
        Error::PeerCertificate(Refusal::Other(format!(
            "the server name {server_name} can't be an SNI: {e}"
        )))
    })?;
    let stream = TlsConnector::from(credentials.client_config(offer_header).clone())
        .connect(name, io)
        .await
        .map_err(Error::from_handshake)?;
    let (_, connection) = stream.get_ref();
    let leaf = connection.peer_certificates().and_then(|chain| chain.first());
    if !leaf.is_some_and(|leaf| names_identity(leaf, expect)) {
        return Err(Error::WrongIdentity {
            expected: expect.clone(),
            found: leaf.map(names).unwrap_or_default(),
        });
    }
    let header_negotiated = connection.alpn_protocol() == Some(TRANSPORT_HEADER_ALPN);
    Ok(Connected {
        stream,
        header_negotiated,
    })
}
