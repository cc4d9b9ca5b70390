//! Who is on the other side: chains checked against the trust anchors, names read from SANs.
//!
//! Host names are not compared: a mesh certificate names a workload, not the address that was dialled. The client
//! compares the identity afterwards ([`names_identity`]), the server learns it ([`first_identity`]).

use std::sync::Arc;

use outrigger_policy::name::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::aws_lc_rs as algorithm;
use webpki::{EndEntityCert, KeyUsage};

use crate::tls::anchors::TrustAnchors;

/// What peers may sign with: ECDSA and Ed25519 anywhere, RSA PKCS#1 within chains (TLS 1.3 has no other use for it).
pub(crate) static SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        algorithm::ECDSA_P256_SHA256,
        algorithm::ECDSA_P256_SHA384,
        algorithm::ECDSA_P384_SHA256,
        algorithm::ECDSA_P384_SHA384,
        algorithm::ECDSA_P521_SHA256,
        algorithm::ECDSA_P521_SHA384,
        algorithm::ECDSA_P521_SHA512,
        algorithm::ED25519,
        algorithm::RSA_PKCS1_2048_8192_SHA256,
        algorithm::RSA_PKCS1_2048_8192_SHA384,
        algorithm::RSA_PKCS1_2048_8192_SHA512,
    ],
    mapping: &[
        (
            SignatureScheme::ECDSA_NISTP256_SHA256,
            &[algorithm::ECDSA_P256_SHA256],
        ),
        (
            SignatureScheme::ECDSA_NISTP384_SHA384,
            &[algorithm::ECDSA_P384_SHA384],
        ),
        (
            SignatureScheme::ECDSA_NISTP521_SHA512,
            &[algorithm::ECDSA_P521_SHA512],
        ),
        (SignatureScheme::ED25519, &[algorithm::ED25519]),
        (
            SignatureScheme::RSA_PKCS1_SHA256,
            &[algorithm::RSA_PKCS1_2048_8192_SHA256],
        ),
        (
            SignatureScheme::RSA_PKCS1_SHA384,
            &[algorithm::RSA_PKCS1_2048_8192_SHA384],
        ),
        (
            SignatureScheme::RSA_PKCS1_SHA512,
            &[algorithm::RSA_PKCS1_2048_8192_SHA512],
        ),
    ],
};

/// Checks that a chain leads to a trust anchor and is valid at this time, for this use.
pub(crate) fn verify_chain(
    anchors: &TrustAnchors,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    usage: KeyUsage,
) -> Result<(), CertificateError> {
    let leaf = EndEntityCert::try_from(leaf).map_err(certificate_error)?;
    leaf.verify_for_usage(
        SIGNATURES.all,
        anchors.as_slice(),
        intermediates,
        now,
        usage,
        None,
        None,
    )
    .map(|_path| ())
    .map_err(certificate_error)
}

/// Whether the certificate carries this identity as a SAN: a DNS name regardless of case, a URI exactly.
pub(crate) fn names_identity(leaf: &CertificateDer<'_>, identity: &Identity) -> bool {
    let Ok(leaf) = EndEntityCert::try_from(leaf) else {
        return false;
    };
    match identity {
        Identity::Dns(name) => leaf
            .valid_dns_names()
            .any(|san| san.eq_ignore_ascii_case(name.as_str())),
        Identity::Uri(uri) => leaf.valid_uri_names().any(|san| san == &**uri),
    }
}

/// The identity that a client's certificate proves: its first SAN that is a DNS name or a URI.
pub(crate) fn first_identity(leaf: &CertificateDer<'_>) -> Option<Identity> {
    let certificate = EndEntityCert::try_from(leaf).ok()?;
    let dns = certificate
        .valid_dns_names()
        .find_map(|san| Some((san, outrigger_policy::name::DnsName::parse(san).ok()?)))
        .map(|(san, name)| (san, Identity::Dns(name)));
    let uri = certificate.valid_uri_names().find_map(|san| {
        let parsed = Identity::parse(san).ok()?;
        matches!(parsed, Identity::Uri(_)).then_some((san, parsed))
    });
    match (dns, uri) {
        // Both texts are slices of the same certificate: the one that starts earlier stands first in it.
        (Some((dns, name)), Some((uri, id))) => Some(if dns.as_ptr() < uri.as_ptr() { name } else { id }),
        (Some((_, identity)), None) | (None, Some((_, identity))) => Some(identity),
        (None, None) => None,
    }
}

/// Every DNS name and URI in the certificate, for messages.
pub(crate) fn names(leaf: &CertificateDer<'_>) -> Vec<String> {
    let Ok(leaf) = EndEntityCert::try_from(leaf) else {
        return Vec::new();
    };
    leaf.valid_dns_names()
        .chain(leaf.valid_uri_names())
        .map(ToOwned::to_owned)
        .collect()
}

/// Accepts any server with a chain to the anchors.
#[derive(Debug)]
pub(crate) struct AnyMeshServer(pub(crate) TrustAnchors);

impl ServerCertVerifier for AnyMeshServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_chain(&self.0, leaf, intermediates, now, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(never_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}

/// Accepts clients without a certificate, and any client with a chain to the anchors.
#[derive(Debug)]
pub(crate) struct AnyMeshClient(pub(crate) TrustAnchors);

impl ClientCertVerifier for AnyMeshClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: a mesh client has one certificate and needs no help to choose.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        verify_chain(&self.0, leaf, intermediates, now, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(never_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}

/// TLS 1.2 is not compiled in; the trait asks all the same.
fn never_tls12() -> rustls::Error {
    rustls::Error::General("TLS 1.2 is not spoken".to_owned())
}

/// Keeps the kinds that become TLS alerts of their own (RFC 8446 §6.2) or carry times; boxes the rest.
fn certificate_error(error: webpki::Error) -> CertificateError {
    match error {
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::BadDer | webpki::Error::BadDerTime | webpki::Error::TrailingData(_) => {
            CertificateError::BadEncoding
        }
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
}
