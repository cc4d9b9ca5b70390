//! Trust anchors: the certificates that every chain of the mesh has to lead to.

use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::tls::error::Error;

/// The certificates that every chain of the mesh has to lead to. At least one.
#[derive(Clone, Debug)]
pub struct TrustAnchors(Arc<[TrustAnchor<'static>]>);

impl TrustAnchors {
    /// Reads every certificate of a PEM text.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let certificates = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| Error::Anchors(format!("not PEM: {e}")))?;
        Self::from_der(&certificates)
    }

    /// Takes certificates as they are.
    pub fn from_der(certificates: &[CertificateDer<'_>]) -> Result<Self, Error> {
        if certificates.is_empty() {
            return Err(Error::Anchors(
                "no certificate found: give at least one in PEM".to_owned(),
            ));
        }
        certificates
            .iter()
            .enumerate()
            .map(|(i, der)| match webpki::anchor_from_trusted_cert(der) {
                Ok(anchor) => Ok(anchor.to_owned()),
                Err(e) => Err(Error::Anchors(format!(
                    "certificate {} can't be used: {e}",
                    i + 1
                ))),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn as_slice(&self) -> &[TrustAnchor<'static>] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::testing::Ca;

    #[test]
    fn several_anchors_come_from_one_text() {
        let pem = format!("{}\n{}", Ca::new("one").pem(), Ca::new("two").pem());
        assert_eq!(TrustAnchors::from_pem(&pem).unwrap().as_slice().len(), 2);
    }

    #[test]
    fn text_without_a_certificate_is_refused() {
        for bad in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            assert!(
                matches!(TrustAnchors::from_pem(bad), Err(Error::Anchors(_))),
                "{bad:?}"
            );
        }
    }
}
