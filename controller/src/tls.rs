//! TLS of the control plane: its own leaves, renewed while it runs, and what its listeners ask of clients.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::watch;

use crate::identity::{Ca, IssueError};

/// How often the clock is looked at. A timer for the whole wait would be late on a machine that slept meanwhile.
const LOOK: Duration = Duration::from_secs(30);

/// What a listener asks of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// A certificate is checked if there is one: who asks for the first has none.
    Optional,
    /// No certificate of this mesh, no connection.
    Required,
}

/// One of the control plane's own names and the certificate that is current for it.
///
/// Each handshake reads it; nothing else knows that it changes.
#[derive(Clone, Debug)]
pub struct Leaf {
    name: Arc<str>,
    current: watch::Receiver<Option<Arc<CertifiedKey>>>,
}

/// Renews a [`Leaf`].
#[derive(Debug)]
pub struct Renewal {
    ca: Arc<Ca>,
    name: Arc<str>,
    lifetime: Duration,
    due: SystemTime,
    current: watch::Sender<Option<Arc<CertifiedKey>>>,
}

/// Why the control plane has no certificate of its own.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// The CA did not issue it.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// There is no key for it.
    #[error("making a key failed")]
    Key(#[source] rcgen::Error),
    /// Certificate and key do not fit the TLS library.
    #[error("the certificate can not be used")]
    Use(#[source] rustls::Error),
}

/// Why a listener can not have TLS.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The root is not usable as a trust anchor.
    #[error("the CA certificate can not be used as a trust anchor")]
    Anchor(#[source] rustls::Error),
    /// The check of client certificates could not be set up.
    #[error("client certificates can not be checked")]
    Verifier(#[from] VerifierBuilderError),
    /// The protocol versions could not be set up.
    #[error("TLS 1.3 can not be used")]
    Version(#[source] rustls::Error),
}

impl Leaf {
    /// Issues the first certificate for `name`. Without one (the CA is expired) the listener still stands, refuses
    /// every handshake, and the renewal goes on trying.
    pub fn issue(ca: Arc<Ca>, name: &str, lifetime: Duration) -> (Self, Renewal) {
        let (sender, current) = watch::channel(None);
        let name: Arc<str> = name.into();
        let mut renewal = Renewal {
            ca,
            name: name.clone(),
            lifetime,
            due: SystemTime::now(),
            current: sender,
        };
        renewal.renew();
        (Self { name, current }, renewal)
    }
}

impl Renewal {
    /// Renews the certificate at 70 % of its lifetime, until nobody uses it.
    pub async fn run(mut self) {
        loop {
            tokio::select! {
                () = self.current.closed() => return,
                () = tokio::time::sleep(self.wait(SystemTime::now())) => {}
            }
            if SystemTime::now() >= self.due {
                self.renew();
            }
        }
    }

    fn wait(&self, now: SystemTime) -> Duration {
        let left = self.due.duration_since(now).unwrap_or_default();
        left.clamp(Duration::from_secs(1), LOOK)
    }

    fn renew(&mut self) {
        let now = SystemTime::now();
        match certify(&self.ca, &self.name, self.lifetime, now) {
            Ok((key, expiry)) => {
                let lifetime = expiry.duration_since(now).unwrap_or_default();
                self.due = now + lifetime.mul_f64(0.7);
                self.current.send_replace(Some(key));
                tracing::debug!(name = %self.name, ?lifetime, "own certificate issued");
            }
            Err(error) => {
                self.due = now + LOOK;
                tracing::error!(name = %self.name, error = %error, "no own certificate");
            }
        }
    }
}

impl ResolvesServerCert for Leaf {
    /// The certificate, if the client asked for this name. Another name (or none) is answered with an alert.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name()?;
        if !asked.eq_ignore_ascii_case(&self.name) {
            tracing::debug!(asked, have = %self.name, "a client asked for another name");
            return None;
        }
        self.current.borrow().clone()
    }
}

/// The one TLS provider: the hybrid post-quantum key exchange first.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
        aws_lc_rs::kx_group::SECP384R1,
    ];
    Arc::new(provider)
}

/// Terminates TLS 1.3 under `leaf`'s name, and checks client certificates against the mesh's root.
pub fn server(ca: &Ca, leaf: Leaf, clients: ClientCertificate) -> Result<Arc<ServerConfig>, ServerError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(ServerError::Version)?
        .with_client_cert_verifier(verifier(ca, clients)?)
        .with_cert_resolver(Arc::new(leaf));
    // Optional for the client: Linkerd's proxies send no ALPN here, other gRPC clients insist on it.
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn verifier(ca: &Ca, clients: ClientCertificate) -> Result<Arc<dyn ClientCertVerifier>, ServerError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.root().clone()).map_err(ServerError::Anchor)?;
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    Ok(match clients {
        ClientCertificate::Required => builder.build()?,
        ClientCertificate::Optional => builder.allow_unauthenticated().build()?,
    })
}

fn certify(
    ca: &Ca,
    name: &str,
    lifetime: Duration,
    now: SystemTime,
) -> Result<(Arc<CertifiedKey>, SystemTime), LeafError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(LeafError::Key)?;
    let issued = ca.issue(name, &key, lifetime, now)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let certified = CertifiedKey::from_der(vec![issued.leaf], key, &provider()).map_err(LeafError::Use)?;
    Ok((Arc::new(certified), issued.expiry))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn leaf(root_made: SystemTime) -> (Leaf, Renewal) {
        let (certificate, key) = Ca::make(root_made).unwrap();
        let ca = Arc::new(Ca::load(&certificate, &key).unwrap());
        Leaf::issue(ca, "linkerd-identity.linkerd", DAY)
    }

    fn serial(leaf: &Leaf) -> Vec<u8> {
        let current = leaf.current.borrow().clone().unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&current.cert[0]).unwrap();
        parsed.raw_serial().to_vec()
    }

    #[test]
    fn a_leaf_is_due_at_seven_tenths_of_its_life() {
        let (_leaf, renewal) = leaf(SystemTime::now());
        let wait = renewal.due.duration_since(SystemTime::now()).unwrap();
        let tenth = DAY.as_secs() / 10;
        assert_eq!((wait.as_secs() + 60) / tenth, 7);
        assert_eq!(renewal.wait(SystemTime::now()), LOOK);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leaf_that_is_due_is_replaced_and_handshakes_see_it() {
        let (mut leaf, mut renewal) = leaf(SystemTime::now());
        let first = serial(&leaf);
        leaf.current.mark_unchanged();
        renewal.due = SystemTime::now();
        let running = tokio::spawn(renewal.run());
        leaf.current.changed().await.unwrap();
        assert_ne!(serial(&leaf), first);
        drop(leaf);
        running.await.unwrap();
    }

    #[test]
    fn an_expired_authority_leaves_the_listener_without_a_leaf_and_is_asked_again() {
        let (leaf, renewal) = leaf(SystemTime::UNIX_EPOCH + DAY);
        assert!(leaf.current.borrow().is_none());
        assert!(renewal.due > SystemTime::now());
    }

    #[test]
    fn the_hybrid_key_exchange_comes_first() {
        assert_eq!(provider().kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }
}
