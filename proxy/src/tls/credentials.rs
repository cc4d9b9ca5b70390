//! `Credentials`: the rustls configurations of one certificate, built once per rotation.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use outrigger_policy::name::{DnsName, Identity};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use webpki::KeyUsage;

use crate::tls::anchors::TrustAnchors;
use crate::tls::error::{Error, Refusal};
use crate::tls::verify::{AnyMeshClient, AnyMeshServer, SIGNATURES, names, names_identity, verify_chain};

/// The ALPN protocol under which a transport header follows the handshake.
pub const TRANSPORT_HEADER_ALPN: &[u8] = b"transport.l5d.io/v1";

/// Who we are and whom we trust: what a handshake needs, ready to use.
///
/// Read from a `Live<Credentials>` at each handshake; connections keep running on what they were made with.
pub struct Credentials {
    identity: Identity,
    server_name: DnsName,
    expiry: Option<SystemTime>,
    server: Option<Pair<ServerConfig>>,
    client: Pair<ClientConfig>,
}

/// A configuration without ALPN, and one that negotiates the transport header.
struct Pair<C> {
    plain: Arc<C>,
    header: Arc<C>,
}

impl Credentials {
    /// A certificate, checked: its chain leads to the anchors now, it names us, and the key is its own.
    ///
    /// `chain` is the leaf followed by its intermediates.
    pub fn new(
        anchors: &TrustAnchors,
        identity: Identity,
        server_name: DnsName,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        expiry: SystemTime,
    ) -> Result<Self, Error> {
        check_own(anchors, &identity, &chain)?;
        let provider = provider();
        let certified = Arc::new(SingleCertAndKey::from(certified_key(chain, &key)?));
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(Error::Configuration)?
            .with_client_cert_verifier(Arc::new(AnyMeshClient(anchors.clone())))
            .with_cert_resolver(certified.clone());
        let client = client_builder(anchors, provider)?.with_client_cert_resolver(certified);
        Ok(Self {
            identity,
            server_name,
            expiry: Some(expiry),
            server: Some(server_pair(server)),
            client: client_pair(client),
        })
    }

    /// What there is before the first certificate: enough to call the control plane, not to serve.
    pub fn anchors_only(
        anchors: &TrustAnchors,
        identity: Identity,
        server_name: DnsName,
    ) -> Result<Self, Error> {
        Ok(Self {
            identity,
            server_name,
            expiry: None,
            server: None,
            client: client_pair(client_builder(anchors, provider())?.with_no_client_auth()),
        })
    }

    /// Whether there is a certificate to serve with.
    pub fn is_certified(&self) -> bool {
        self.server.is_some()
    }

    /// When the certificate expires, as its issuer said; `None` before the first one.
    pub fn expiry(&self) -> Option<SystemTime> {
        self.expiry
    }

    /// Whom our certificate names.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The SNI under which peers reach us.
    pub fn server_name(&self) -> &DnsName {
        &self.server_name
    }

    pub(crate) fn server_config(&self, direct: bool) -> Option<&Arc<ServerConfig>> {
        self.server.as_ref().map(|pair| pair.choose(direct))
    }

    pub(crate) fn client_config(&self, offer_header: bool) -> &Arc<ClientConfig> {
        self.client.choose(offer_header)
    }
}

impl<C> Pair<C> {
    fn choose(&self, header: bool) -> &Arc<C> {
        if header { &self.header } else { &self.plain }
    }
}

impl fmt::Debug for Credentials {
    /// Without the configurations: they are long, and one holds the private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", &self.identity)
            .field("server_name", &self.server_name)
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}

/// Refuses a certificate that our peers would refuse.
fn check_own(
    anchors: &TrustAnchors,
    identity: &Identity,
    chain: &[CertificateDer<'static>],
) -> Result<(), Error> {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(Error::OwnCertificate(Refusal::Other(
            "the chain is empty".to_owned(),
        )));
    };
    for usage in [KeyUsage::server_auth(), KeyUsage::client_auth()] {
        verify_chain(anchors, leaf, intermediates, UnixTime::now(), usage)
            .map_err(|e| Error::OwnCertificate(Refusal::from(&e)))?;
    }
    if names_identity(leaf, identity) {
        return Ok(());
    }
    Err(Error::OwnIdentity {
        expected: identity.clone(),
        found: names(leaf),
    })
}

fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
) -> Result<CertifiedKey, Error> {
    let key = aws_lc_rs::sign::any_ecdsa_type(key).map_err(|e| Error::Key(e.to_string()))?;
    // Peers need not accept anything else from us (spec of the mesh: ECDSA P-256 with SHA-256).
    if key
        .choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256])
        .is_none()
    {
        return Err(Error::Key("must be ECDSA P-256".to_owned()));
    }
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(Error::Key("the certificate is for another key".to_owned()))
        }
        Err(e) => Err(Error::Key(e.to_string())),
    }
}

fn server_pair(mut config: ServerConfig) -> Pair<ServerConfig> {
    // No resumption: neither tickets nor a session store. Peers don't ask for it, and a resumed session would
    // outlive the verification of its certificate. To switch it on: `send_tls13_tickets`, `ticketer` here.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    let mut header = config.clone();
    header.alpn_protocols = vec![TRANSPORT_HEADER_ALPN.to_vec()];
    Pair {
        plain: Arc::new(config),
        header: Arc::new(header),
    }
}

fn client_pair(mut config: ClientConfig) -> Pair<ClientConfig> {
    // To switch resumption on: here, and tickets in `server_pair`; sessions then have to be kept per endpoint
    // and identity, and dropped at each rotation.
    config.resumption = Resumption::disabled();
    let mut header = config.clone();
    header.alpn_protocols = vec![TRANSPORT_HEADER_ALPN.to_vec()];
    Pair {
        plain: Arc::new(config),
        header: Arc::new(header),
    }
}

fn client_builder(
    anchors: &TrustAnchors,
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, Error> {
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(Error::Configuration)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyMeshServer(anchors.clone()))))
}

/// Suites and groups in the order of preference; the post-quantum hybrid first.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ],
        signature_verification_algorithms: WebPkiSupportedAlgorithms { ..SIGNATURES },
        ..aws_lc_rs::default_provider()
    })
}
