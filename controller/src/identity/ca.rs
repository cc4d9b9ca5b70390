//! The certificate authority of the mesh: its root certificate and key, and the leaves it issues (RFC 5280).

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// How far the clocks of a mesh may differ: a certificate is valid that much earlier and longer than asked for.
pub const CLOCK_SKEW: Duration = Duration::from_secs(20);

/// How long a root made here is valid: ten years, in seconds. It is replaced by replacing the state directory.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// RFC 5280, appendix A.1, `ub-common-name`: longer identities stand in the SAN only.
const MAX_COMMON_NAME: usize = 64;

/// The root of trust: it signs every leaf directly, so a chain is the leaf alone.
#[derive(Debug)]
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    expiry: SystemTime,
}

/// A certificate just issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate in DER.
    pub leaf: CertificateDer<'static>,
    /// When it ends (`NotAfter`).
    pub expiry: SystemTime,
}

/// Why the authority's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The certificate file does not hold exactly one X.509 certificate.
    #[error("it must hold exactly one X.509 certificate in PEM")]
    Certificate,
    /// The certificate is not allowed to sign others.
    #[error("the certificate is not a CA that may sign certificates")]
    NotCa,
    /// The key cannot be read or has another algorithm.
    #[error("the key must be an ECDSA P-256 key in PKCS#8 PEM")]
    Key,
    /// Certificate and key are of different pairs.
    #[error("the certificate's public key does not belong to the private key")]
    Mismatch,
    /// The authority could not be made.
    #[error("it could not be made")]
    Make(#[source] rcgen::Error),
}

/// Why no leaf was issued, though the request was in order.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The root has ended.
    #[error(
        "the CA expired: stop the controller, move ca.crt and ca.key and token.key away from its state directory, \
         start it again and give every proxy the new trust anchors"
    )]
    Expired,
    /// The identity is not a DNS name that a certificate can carry.
    #[error("{0:?} can not stand in a certificate")]
    Name(String),
    /// Signing failed.
    #[error("signing failed")]
    Sign(#[source] rcgen::Error),
    /// There was no randomness.
    #[error("the system gave no random bytes")]
    Random,
}

impl Ca {
    /// Makes a root, valid from an hour before `now`; gives it as certificate and key in PEM.
    pub fn make(now: SystemTime) -> Result<(String, String), CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CaError::Make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("Outrigger mesh root");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = seconds(now - Duration::from_secs(3600));
        params.not_after = seconds(now + ROOT_LIFETIME);
        params.serial_number = Some(serial().map_err(|_| CaError::Key)?);
        let certificate = params.self_signed(&key).map_err(CaError::Make)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// Takes up a root from PEM. An expired one is taken too: it says so whenever it is asked to issue.
    pub fn load(certificate: &str, key: &str) -> Result<Self, CaError> {
        let root = one_certificate(certificate)?;
        let key = KeyPair::from_pem(key).map_err(|_| CaError::Key)?;
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(CaError::Key);
        }
        let (_, parsed) = X509Certificate::from_der(&root).map_err(|_| CaError::Certificate)?;
        let may_sign = match parsed.key_usage() {
            Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
            Err(_) => false,
        };
        if !parsed.is_ca() || !may_sign {
            return Err(CaError::NotCa);
        }
        if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
            return Err(CaError::Mismatch);
        }
        let expiry = parsed.validity().not_after.to_datetime().into();
        let issuer = Issuer::from_ca_cert_der(&root, key).map_err(|_| CaError::Certificate)?;
        Ok(Self { issuer, root, expiry })
    }

    /// The root certificate: the only trust anchor of this mesh.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// When the root ends.
    pub fn expiry(&self) -> SystemTime {
        self.expiry
    }

    /// Issues a leaf for `identity` that holds `key`, valid from `now` for `lifetime` (± [`CLOCK_SKEW`]), and never
    /// longer than the root. Nothing in it comes from the request but the key.
    pub fn issue(
        &self,
        identity: &str,
        key: &impl PublicKeyData,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, IssueError> {
        if now >= self.expiry {
            return Err(IssueError::Expired);
        }
        let expiry = now
            .checked_add(lifetime + CLOCK_SKEW)
            .map_or(self.expiry, |t| t.min(self.expiry));
        let name = identity
            .try_into()
            .map_err(|_| IssueError::Name(identity.to_owned()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = if identity.len() <= MAX_COMMON_NAME {
            common_name(identity)
        } else {
            DistinguishedName::new()
        };
        params.subject_alt_names = vec![SanType::DnsName(name)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.not_before = seconds(now - CLOCK_SKEW);
        params.not_after = seconds(expiry);
        params.serial_number = Some(serial()?);
        let leaf = params.signed_by(key, &self.issuer).map_err(IssueError::Sign)?;
        Ok(Issued {
            leaf: leaf.der().clone(),
            expiry: params.not_after.into(),
        })
    }
}

fn one_certificate(pem: &str) -> Result<CertificateDer<'static>, CaError> {
    let mut found = CertificateDer::pem_slice_iter(pem.as_bytes());
    match (found.next(), found.next()) {
        (Some(Ok(root)), None) => Ok(root),
        _ => Err(CaError::Certificate),
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// X.509 counts whole seconds.
fn seconds(time: SystemTime) -> OffsetDateTime {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time)
}

/// 159 random bits: within the 20 octets of RFC 5280 §4.1.2.2 and positive.
fn serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0; 20];
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| IssueError::Random)?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const WEB: &str = "web.emoji.serviceaccount.identity.linkerd.cluster.local";

    fn made(now: SystemTime) -> Ca {
        let (certificate, key) = Ca::make(now).unwrap();
        Ca::load(&certificate, &key).unwrap()
    }

    fn issue(ca: &Ca, identity: &str) -> Issued {
        let key = KeyPair::generate().unwrap();
        ca.issue(identity, &key, DAY, SystemTime::now()).unwrap()
    }

    fn openssl(arguments: &[&str]) -> String {
        let output = Command::new("openssl").args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    #[test]
    fn openssl_agrees_with_the_chain_and_the_leaf() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let (certificate, key) = Ca::make(SystemTime::now()).unwrap();
        std::fs::write(path("ca.crt"), &certificate).unwrap();
        let leaf = issue(&Ca::load(&certificate, &key).unwrap(), WEB).leaf;
        std::fs::write(path("leaf.der"), &leaf).unwrap();
        openssl(&[
            "x509",
            "-inform",
            "der",
            "-in",
            &path("leaf.der"),
            "-out",
            &path("leaf.pem"),
        ]);
        for purpose in ["sslserver", "sslclient"] {
            openssl(&[
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-CAfile",
                &path("ca.crt"),
                &path("leaf.pem"),
            ]);
        }
        let text = openssl(&["x509", "-in", &path("leaf.pem"), "-noout", "-text"]);
        for part in [
            &format!("DNS:{WEB}\n"),
            &format!("Subject: CN = {WEB}\n"),
            "CA:FALSE",
            "Digital Signature, Key Encipherment\n",
            "TLS Web Server Authentication, TLS Web Client Authentication\n",
            "ecdsa-with-SHA256",
        ] {
            assert!(text.contains(part), "{part} not in {text}");
        }
    }

    #[test]
    fn a_leaf_is_valid_a_little_earlier_and_longer_than_asked_for() {
        let leaf = issue(&made(SystemTime::now()), WEB);
        let (_, parsed) = X509Certificate::from_der(&leaf.leaf).unwrap();
        let validity = parsed.validity();
        let whole = (DAY + 2 * CLOCK_SKEW).as_secs() as i64;
        assert_eq!(
            validity.not_after.timestamp() - validity.not_before.timestamp(),
            whole
        );
        assert_eq!(SystemTime::from(validity.not_after.to_datetime()), leaf.expiry);
    }

    #[test]
    fn no_leaf_outlives_the_root_and_an_expired_root_issues_none() {
        let now = SystemTime::now();
        let nearly = made(now - ROOT_LIFETIME + DAY / 2);
        assert_eq!(issue(&nearly, WEB).expiry, nearly.expiry());
        let key = KeyPair::generate().unwrap();
        let expired = made(now - ROOT_LIFETIME - DAY).issue(WEB, &key, DAY, now);
        assert!(matches!(expired, Err(IssueError::Expired)));
    }

    #[test]
    fn serial_numbers_differ_and_long_names_stand_in_the_san_only() {
        let ca = made(SystemTime::now());
        let long = format!("linkerd-destination.{WEB}");
        let (one, other) = (issue(&ca, &long).leaf, issue(&ca, &long).leaf);
        let one = X509Certificate::from_der(&one).unwrap().1;
        let other = X509Certificate::from_der(&other).unwrap().1;
        assert_ne!(one.raw_serial(), other.raw_serial());
        assert!(one.raw_serial().len() <= 20);
        assert_eq!(one.subject().iter().count(), 0);
        assert!(one.subject_alternative_name().unwrap().unwrap().critical);
    }

    #[test]
    fn what_is_no_usable_authority_is_refused() {
        let now = SystemTime::now();
        let (certificate, key) = Ca::make(now).unwrap();
        let (_, other_key) = Ca::make(now).unwrap();
        let two = format!("{certificate}{certificate}");
        let leaf = rcgen::generate_simple_self_signed(vec![WEB.into()]).unwrap();
        let (leaf_pem, leaf_key) = (leaf.cert.pem(), leaf.signing_key.serialize_pem());
        assert!(matches!(Ca::load("garbage", &key), Err(CaError::Certificate)));
        assert!(matches!(Ca::load(&two, &key), Err(CaError::Certificate)));
        assert!(matches!(Ca::load(&certificate, "garbage"), Err(CaError::Key)));
        assert!(matches!(
            Ca::load(&certificate, &other_key),
            Err(CaError::Mismatch)
        ));
        assert!(matches!(Ca::load(&leaf_pem, &leaf_key), Err(CaError::NotCa)));
    }
}
