//! The key and the signing request of this proxy: `key.p8` and `csr.der` in the identity directory.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use outrigger_policy::name::Identity;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256,
    SanType,
};
use rustls_pki_types::{CertificateSigningRequestDer, PrivatePkcs8KeyDer};
use tracing::{info, warn};

const KEY: &str = "key.p8";
const REQUEST: &str = "csr.der";

/// A private key, and the request for a certificate of it.
#[derive(Debug)]
pub(crate) struct KeyAndRequest {
    /// PKCS #8, ECDSA P-256.
    pub(crate) key: PrivatePkcs8KeyDer<'static>,
    /// PKCS #10, in DER.
    pub(crate) request: Vec<u8>,
}

/// Why the identity directory can't be used: a configuration error.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// One of the two files is there without the other.
    #[error("{0} is there without {1}: restore it, or remove both and they are made anew")]
    Half(PathBuf, PathBuf),
    /// A file can't be read.
    #[error("{0} can't be read: {1}")]
    Read(PathBuf, #[source] io::Error),
    /// A file does not hold what it should.
    #[error("{0}: {1}")]
    Content(PathBuf, String),
    /// The key or the request can't be made.
    #[error("making a key and a signing request for {0}: {1}")]
    Make(Identity, #[source] rcgen::Error),
}

/// Reads both files or, where neither is there, makes them; they are kept if the directory can be written.
pub(crate) fn load_or_make(dir: &Path, identity: &Identity) -> Result<KeyAndRequest, DirectoryError> {
    let (key_path, request_path) = (dir.join(KEY), dir.join(REQUEST));
    match (read(&key_path)?, read(&request_path)?) {
        (Some(key), Some(request)) => check(key, request, &key_path, &request_path),
        (Some(_), None) => Err(DirectoryError::Half(key_path, request_path)),
        (None, Some(_)) => Err(DirectoryError::Half(request_path, key_path)),
        (None, None) => {
            let made = make(identity).map_err(|e| DirectoryError::Make(identity.clone(), e))?;
            match keep(dir, &made) {
                Ok(()) => info!(dir = %dir.display(), "made a key and a signing request"),
                Err(error) => {
                    warn!(dir = %dir.display(), %error, "made a key and a signing request; they can't be kept and last until exit");
                }
            }
            Ok(made)
        }
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, DirectoryError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(DirectoryError::Read(path.to_owned(), e)),
    }
}

/// Finds at start what the issuer would otherwise refuse for ever.
fn check(
    key: Vec<u8>,
    request: Vec<u8>,
    key_path: &Path,
    request_path: &Path,
) -> Result<KeyAndRequest, DirectoryError> {
    let key = PrivatePkcs8KeyDer::from(key);
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).map_err(|e| {
        DirectoryError::Content(
            key_path.to_owned(),
            format!("not an ECDSA P-256 key in PKCS #8: {e}"),
        )
    })?;
    let bad_request = |why| DirectoryError::Content(request_path.to_owned(), why);
    let parsed = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(&request[..]))
        .map_err(|e| bad_request(format!("not a signing request in DER: {e}")))?;
    if rcgen::PublicKeyData::der_bytes(&parsed.public_key) != pair.public_key_raw() {
        return Err(bad_request(format!(
            "is for another key than {}",
            key_path.display()
        )));
    }
    Ok(KeyAndRequest { key, request })
}

/// A new key, and a request for the identity as its only SAN; the subject stays empty, since issuers compare it.
fn make(identity: &Identity) -> Result<KeyAndRequest, rcgen::Error> {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![match identity {
        Identity::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
        Identity::Uri(uri) => SanType::URI((&**uri).try_into()?),
    }];
    let request = params.serialize_request(&pair)?;
    Ok(KeyAndRequest {
        key: pair.serialize_der().into(),
        request: request.der().to_vec(),
    })
}

/// Writes both or neither: a half would be refused at the next start.
fn keep(dir: &Path, made: &KeyAndRequest) -> io::Result<()> {
    let key = dir.join(KEY);
    write_private(&key, made.key.secret_pkcs8_der())?;
    write_private(&dir.join(REQUEST), &made.request).inspect_err(|_| {
        if let Err(error) = fs::remove_file(&key) {
            warn!(path = %key.display(), %error, "left without its request: remove it");
        }
    })
}

/// Under another name first: whoever reads the directory sees the whole file or none.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Identity {
        Identity::parse("web.default.serviceaccount.identity.linkerd.cluster.local").unwrap()
    }

    /// An empty directory of this test's own.
    fn dir(test: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("outrigger-csr-{}-{test}", std::process::id()));
        let _absent = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn what_was_made_is_found_at_the_next_start() {
        let dir = dir("twice");
        let made = load_or_make(&dir, &web()).unwrap();
        let found = load_or_make(&dir, &web()).unwrap();
        assert_eq!(made.request, found.request);
        assert_eq!(made.key.secret_pkcs8_der(), found.key.secret_pkcs8_der());
    }

    #[test]
    fn nobody_else_can_read_the_key() {
        use std::os::unix::fs::PermissionsExt;
        let dir = dir("mode");
        load_or_make(&dir, &web()).unwrap();
        let mode = fs::metadata(dir.join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_request_names_the_identity_and_nothing_else() {
        let made = make(&web()).unwrap();
        let der = CertificateSigningRequestDer::from(made.request);
        let request = CertificateSigningRequestParams::from_der(&der).unwrap().params;
        let name = SanType::DnsName(web().as_str().try_into().unwrap());
        assert_eq!(request.subject_alt_names, [name]);
        assert_eq!(request.distinguished_name, DistinguishedName::new());
    }

    #[test]
    fn half_a_directory_is_refused() {
        for missing in [KEY, REQUEST] {
            let dir = dir(&format!("half-{missing}"));
            load_or_make(&dir, &web()).unwrap();
            fs::remove_file(dir.join(missing)).unwrap();
            assert!(matches!(
                load_or_make(&dir, &web()),
                Err(DirectoryError::Half(..))
            ));
        }
    }

    #[test]
    fn a_request_for_another_key_and_files_of_garbage_are_refused() {
        let dir = dir("garbage");
        load_or_make(&dir, &web()).unwrap();
        let other = make(&web()).unwrap();
        for (file, bytes) in [(REQUEST, &other.request[..]), (REQUEST, b""), (KEY, b"not a key")] {
            fs::write(dir.join(file), bytes).unwrap();
            let refused = load_or_make(&dir, &web());
            assert!(matches!(refused, Err(DirectoryError::Content(..))), "{file}");
        }
    }

    #[test]
    fn a_directory_that_is_not_there_costs_only_the_keeping() {
        let absent = dir("absent").join("nowhere");
        assert!(load_or_make(&absent, &web()).is_ok());
    }
}
