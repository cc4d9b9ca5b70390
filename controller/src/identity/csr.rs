//! Certificate signing requests (RFC 2986): what a proxy may ask for, and nothing more.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::FromDer;

/// The longest request that is read, in bytes. One with a P-256 key and one name needs about 400.
pub const MAX_CSR: usize = 16 * 1024;

/// A request that was checked: its maker holds the key and asked for exactly this identity.
#[derive(Debug)]
pub struct Request {
    /// What the certificate will name.
    pub identity: String,
    /// The key it will certify.
    pub key: SubjectPublicKeyInfo,
}

/// Why a signing request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Longer than [`MAX_CSR`].
    #[error("the certificate signing request is longer than {MAX_CSR} bytes")]
    TooLong,
    /// Not one whole PKCS#10 request.
    #[error("the certificate signing request is not a PKCS#10 request in DER")]
    Malformed,
    /// Not signed by the key that it asks to have certified.
    #[error("the certificate signing request is not signed by its own key")]
    Signature,
    /// It does not have exactly one DNS name which is the requested identity.
    #[error("the certificate signing request must hold exactly one DNS name: the requested identity")]
    DnsName,
    /// It asks for a name that is not a DNS name.
    #[error("the certificate signing request must hold no subject alternative name other than one DNS name")]
    OtherName,
    /// Its common name is another one.
    #[error("the common name of the certificate signing request must be empty or the requested identity")]
    CommonName,
    /// Not an ECDSA P-256 key.
    #[error("the key of the certificate signing request must be ECDSA P-256")]
    Key,
}

impl Request {
    /// Checks that `der` asks for `identity` only, with a P-256 key whose holder signed it.
    pub fn check(der: &[u8], identity: &str) -> Result<Self, CsrError> {
        if der.len() > MAX_CSR {
            return Err(CsrError::TooLong);
        }
        let (rest, csr) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !rest.is_empty() {
            return Err(CsrError::Malformed);
        }
        check_names(&csr, identity)?;
        let key = p256_key(&csr)?;
        // Proof of possession: without it, somebody could have a certificate for a key that is another's.
        csr.verify_signature().map_err(|_| CsrError::Signature)?;
        Ok(Self {
            identity: identity.to_owned(),
            key,
        })
    }
}

fn check_names(csr: &X509CertificationRequest<'_>, identity: &str) -> Result<(), CsrError> {
    let info = &csr.certification_request_info;
    for name in info.subject.iter_common_name() {
        let text = name.as_str().map_err(|_| CsrError::CommonName)?;
        if !text.is_empty() && text != identity {
            return Err(CsrError::CommonName);
        }
    }
    let mut found = false;
    for attribute in info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(request) = attribute.parsed_attribute() else {
            continue;
        };
        for extension in &request.extensions {
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
                continue;
            };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(dns) if *dns == identity && !found => found = true,
                    GeneralName::DNSName(_) => return Err(CsrError::DnsName),
                    _ => return Err(CsrError::OtherName),
                }
            }
        }
    }
    if found { Ok(()) } else { Err(CsrError::DnsName) }
}

fn p256_key(csr: &X509CertificationRequest<'_>) -> Result<SubjectPublicKeyInfo, CsrError> {
    let key = &csr.certification_request_info.subject_pki;
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
    if key.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return Err(CsrError::Key);
    }
    SubjectPublicKeyInfo::from_der(key.raw).map_err(|_| CsrError::Key)
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256,
        PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, SanType,
    };

    use super::*;

    const WEB: &str = "web.emoji.serviceaccount.identity.linkerd.cluster.local";

    fn params(names: Vec<SanType>) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names;
        params
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn signed(params: &CertificateParams, key: &KeyPair) -> Vec<u8> {
        params.serialize_request(key).unwrap().der().to_vec()
    }

    fn check(params: &CertificateParams) -> Option<CsrError> {
        let key = KeyPair::generate().unwrap();
        Request::check(&signed(params, &key), WEB).err()
    }

    #[test]
    fn a_request_for_the_identity_alone_is_accepted() {
        assert_eq!(check(&params(vec![dns(WEB)])), None);
        let mut named = params(vec![dns(WEB)]);
        named.distinguished_name.push(DnType::CommonName, WEB);
        assert_eq!(check(&named), None);
    }

    #[test]
    fn a_request_that_names_anything_else_is_refused() {
        assert_eq!(check(&params(vec![])), Some(CsrError::DnsName));
        assert_eq!(check(&params(vec![dns("other")])), Some(CsrError::DnsName));
        assert_eq!(
            check(&params(vec![dns(WEB), dns("other")])),
            Some(CsrError::DnsName)
        );
        assert_eq!(check(&params(vec![dns(WEB), dns(WEB)])), Some(CsrError::DnsName));
        let address = SanType::IpAddress([10, 0, 0, 1].into());
        assert_eq!(check(&params(vec![dns(WEB), address])), Some(CsrError::OtherName));
        let uri = SanType::URI("spiffe://x/y".try_into().unwrap());
        assert_eq!(check(&params(vec![uri])), Some(CsrError::OtherName));
        let mut named = params(vec![dns(WEB)]);
        named.distinguished_name.push(DnType::CommonName, "other");
        assert_eq!(check(&named), Some(CsrError::CommonName));
    }

    #[test]
    fn keys_other_than_p256_are_refused() {
        for algorithm in [&PKCS_RSA_SHA256, &PKCS_ECDSA_P384_SHA384] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let der = signed(&params(vec![dns(WEB)]), &key);
            assert_eq!(Request::check(&der, WEB).unwrap_err(), CsrError::Key);
        }
    }

    #[test]
    fn a_request_for_a_key_that_its_maker_does_not_hold_is_refused() {
        let mine = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let theirs = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut der = signed(&params(vec![dns(WEB)]), &mine);
        let point = mine.public_key_raw();
        let at = der.windows(point.len()).position(|w| w == point).unwrap();
        der[at..at + point.len()].copy_from_slice(theirs.public_key_raw());
        assert_eq!(Request::check(&der, WEB).unwrap_err(), CsrError::Signature);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_check_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..600)) {
            proptest::prop_assert!(Request::check(&bytes, WEB).is_err());
        }

        /// Some bytes carry no meaning (unused bits); what is signed cannot be turned into something else.
        #[test]
        fn a_changed_request_is_refused_or_means_the_same(at in 0_usize..4096, bit in 0_u8..8) {
            use rcgen::PublicKeyData;
            static KEY: std::sync::LazyLock<KeyPair> = std::sync::LazyLock::new(|| KeyPair::generate().unwrap());
            let mut der = signed(&params(vec![dns(WEB)]), &KEY);
            let at = at % der.len();
            der[at] ^= 1 << bit;
            if let Ok(request) = Request::check(&der, WEB) {
                proptest::prop_assert_eq!(request.key.der_bytes(), KEY.der_bytes());
            }
        }
    }

    #[test]
    fn garbage_and_excess_are_refused() {
        let key = KeyPair::generate().unwrap();
        let mut der = signed(&params(vec![dns(WEB)]), &key);
        assert_eq!(Request::check(b"not DER", WEB).unwrap_err(), CsrError::Malformed);
        assert_eq!(
            Request::check(&der[..der.len() - 1], WEB).unwrap_err(),
            CsrError::Malformed
        );
        der.push(0);
        assert_eq!(Request::check(&der, WEB).unwrap_err(), CsrError::Malformed);
        assert_eq!(
            Request::check(&vec![0; MAX_CSR + 1], WEB).unwrap_err(),
            CsrError::TooLong
        );
    }
}
