//! A certificate authority for tests, and pairs of handshakes over a pipe in memory.

use std::time::{Duration, SystemTime};

use outrigger_policy::name::{DnsName, Identity};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::tls::{Credentials, Error, TrustAnchors};

/// An authority that signs whatever a test asks for.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A leaf and its key.
pub(crate) struct Leaf {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: KeyPair,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    pub(crate) fn anchors(&self) -> TrustAnchors {
        TrustAnchors::from_der(&[self.der()]).unwrap()
    }

    /// A leaf with these SANs, after `adjust` has had its way with it.
    pub(crate) fn leaf(&self, sans: &[&str], adjust: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        Leaf {
            certificate: self.sign(&key, sans, adjust),
            key,
        }
    }

    /// Signs a leaf for somebody else's key.
    pub(crate) fn sign(
        &self,
        key: &impl rcgen::PublicKeyData,
        sans: &[&str],
        adjust: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = sans.iter().map(|san| san_of(san)).collect();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        adjust(&mut params);
        params.signed_by(key, &self.0).unwrap().der().clone()
    }

    /// Credentials of a workload under this authority.
    pub(crate) fn credentials(&self, name: &str) -> Credentials {
        self.leaf(&[name], |_| {})
            .credentials(&self.anchors(), name)
            .unwrap()
    }
}

impl Leaf {
    /// Credentials with this leaf, for `name`.
    pub(crate) fn credentials(&self, anchors: &TrustAnchors, name: &str) -> Result<Credentials, Error> {
        self.credentials_until(anchors, name, SystemTime::now() + Duration::from_secs(3600))
    }

    /// The same, with an expiry that the issuer reports; the certificate itself lives on.
    pub(crate) fn credentials_until(
        &self,
        anchors: &TrustAnchors,
        name: &str,
        expiry: SystemTime,
    ) -> Result<Credentials, Error> {
        Credentials::new(
            anchors,
            Identity::parse(name).unwrap(),
            DnsName::parse("web.test").unwrap(),
            vec![self.certificate.clone()],
            private_key(&self.key),
            expiry,
        )
    }
}

/// A key as rustls takes it.
pub(crate) fn private_key(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(key.serialize_der().into())
}

fn san_of(name: &str) -> SanType {
    match name.contains("://") {
        true => SanType::URI(name.try_into().unwrap()),
        false => SanType::DnsName(name.try_into().unwrap()),
    }
}
