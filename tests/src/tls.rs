//! Certificates of any authority, and TLS connections as a stranger would make them.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use time::{Duration, OffsetDateTime};

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Own {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// Who signs certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// From an hour ago for a day.
    Now,
    /// Yesterday only.
    Over,
    /// From tomorrow on.
    Later,
}

/// A certificate that nobody signed, for this name.
pub fn self_signed(name: &str) -> Own {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    Own {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    }
}

impl Authority {
    /// The authority whose `ca.crt` and `ca.key` are in the state directory of a controller.
    pub fn of(state: &Path) -> Self {
        let read = |name| fs::read_to_string(state.join(name)).unwrap();
        let key = KeyPair::from_pem(&read("ca.key")).unwrap();
        Self {
            issuer: Issuer::from_ca_cert_pem(&read("ca.crt"), key).unwrap(),
        }
    }

    /// An authority that nobody knows.
    pub fn stranger() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "stranger");
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for this identity, good for both sides of a connection.
    pub fn issue(&self, identity: &str, validity: Validity) -> Own {
        self.issue_for(&[identity], validity)
    }

    /// A certificate with these alternative names, in this order; they may be none. Its subject claims to be `root`.
    pub fn issue_for(&self, names: &[&str], validity: Validity) -> Own {
        let name = |text: &str| match text.contains("://") {
            true => SanType::URI(text.try_into().unwrap()),
            false => SanType::DnsName(text.try_into().unwrap()),
        };
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names.iter().map(|text| name(text)).collect();
        params.distinguished_name.push(DnType::CommonName, "root");
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = match validity {
            Validity::Now => (now - Duration::hours(1), now + Duration::days(1)),
            Validity::Over => (now - Duration::days(2), now - Duration::days(1)),
            Validity::Later => (now + Duration::days(1), now + Duration::days(2)),
        };
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Own {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Own {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()]
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// A TLS connection to this server name, whoever answers, with or without a certificate of our own.
///
/// Answers everything that comes back until the other side ends the connection.
///
/// # Errors
/// When the handshake fails. With TLS 1.3 a server that refuses our certificate says so only after the handshake, so
/// this fails too when nothing comes back.
pub fn ask(stream: TcpStream, name: &str, own: Option<&Own>, ask: &[u8]) -> io::Result<Vec<u8>> {
    let builder = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone));
    let config = match own {
        Some(own) => builder
            .with_client_auth_cert(own.chain(), own.private_key())
            .map_err(io::Error::other)?,
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(ask)?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // Many end a connection without saying so in TLS.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof || answer.is_empty() => Err(error),
        _ => Ok(answer),
    }
}

/// Terminates TLS with this certificate on every connection, asks for the client's if there are anchors (PEM), and
/// answers the first bytes with `answer`.
pub fn serve(listener: TcpListener, own: &Own, anchors: Option<&str>, answer: &'static [u8]) {
    let builder = ServerConfig::builder();
    let builder = match anchors {
        Some(pem) => builder.with_client_cert_verifier(verifier(pem)),
        None => builder.with_no_client_auth(),
    };
    let config = Arc::new(builder.with_single_cert(own.chain(), own.private_key()).unwrap());
    let answer_one = move |stream: TcpStream| -> io::Result<()> {
        let connection = ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, stream);
        let _ = stream.read(&mut [0; 4096])?;
        stream.write_all(answer)?;
        stream.conn.send_close_notify();
        stream.flush()
    };
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A client that does not like the certificate ends the handshake: that is what tests look at.
            let _ = answer_one(stream);
        }
    });
}

fn verifier(pem: &str) -> Arc<dyn rustls::server::danger::ClientCertVerifier> {
    let mut roots = rustls::RootCertStore::empty();
    for anchor in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(anchor.unwrap()).unwrap();
    }
    WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap()
}

/// Trusts anyone: a test looks at what the other side does.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
