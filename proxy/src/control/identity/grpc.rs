//! `Identity.Certify`: one request for a certificate, and the checks of its answer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use outrigger_policy::name::{DnsName, Identity};
use outrigger_proto::identity::identity_client::IdentityClient;
use outrigger_proto::identity::{CertifyRequest, CertifyResponse};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::timeout;
use tonic::Status;

use crate::control::channel::Channel;
use crate::control::identity::csr::KeyAndRequest;
use crate::tls::{self, Credentials, TrustAnchors};

/// How long an attempt may take, from the first packet to the answer.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Intermediates accepted in an answer.
const MAX_INTERMEDIATES: usize = 16;

/// Who asks: everything of a request that stays the same.
#[derive(Debug)]
pub(crate) struct Applicant {
    pub(crate) anchors: TrustAnchors,
    pub(crate) identity: Identity,
    pub(crate) server_name: DnsName,
    pub(crate) token_file: PathBuf,
    pub(crate) keys: KeyAndRequest,
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertifyError {
    #[error("the token {0} can't be read")]
    Token(PathBuf, #[source] io::Error),
    #[error("the token {0} is empty")]
    EmptyToken(PathBuf),
    #[error("the identity service did not answer within {ATTEMPT:?}")]
    Timeout,
    #[error("the identity service answered {:?}: {}", .0.code(), .0.message())]
    Refused(#[source] Box<Status>),
    #[error("valid_until: missing or out of range")]
    NoExpiry,
    #[error("certificate already expired")]
    AlreadyExpired,
    #[error("intermediate_certificates: more than {MAX_INTERMEDIATES}")]
    ChainTooLong,
    #[error("refused the certificate")]
    Tls(#[from] tls::Error),
    #[error(transparent)]
    Channel(#[from] crate::control::channel::Error),
}

impl Applicant {
    /// Asks for a certificate once, with the token as it stands in its file now.
    pub(crate) async fn certify(&self, channel: Channel) -> Result<Credentials, CertifyError> {
        let request = CertifyRequest {
            identity: self.identity.to_string(),
            token: read_token(&self.token_file).await?,
            certificate_signing_request: self.keys.request.clone(),
        };
        let mut client = IdentityClient::new(channel);
        let response = timeout(ATTEMPT, client.certify(request))
            .await
            .map_err(|_| CertifyError::Timeout)?
            .map_err(|status| CertifyError::Refused(Box::new(status)))?;
        self.check(response.into_inner(), SystemTime::now())
    }

    fn check(&self, response: CertifyResponse, now: SystemTime) -> Result<Credentials, CertifyError> {
        let expiry = response
            .valid_until
            .and_then(|t| SystemTime::try_from(t).ok())
            .ok_or(CertifyError::NoExpiry)?;
        if expiry <= now {
            return Err(CertifyError::AlreadyExpired);
        }
        if response.intermediate_certificates.len() > MAX_INTERMEDIATES {
            return Err(CertifyError::ChainTooLong);
        }
        let chain = std::iter::once(response.leaf_certificate)
            .chain(response.intermediate_certificates)
            .map(CertificateDer::from)
            .collect();
        Ok(Credentials::new(
            &self.anchors,
            self.identity.clone(),
            self.server_name.clone(),
            chain,
            PrivateKeyDer::Pkcs8(self.keys.key.clone_key()),
            expiry,
        )?)
    }
}

/// The token, as it is now: Kubernetes replaces the file from time to time.
pub(crate) async fn read_token(path: &Path) -> Result<Vec<u8>, CertifyError> {
    match tokio::fs::read(path).await {
        Ok(token) if token.is_empty() => Err(CertifyError::EmptyToken(path.to_owned())),
        Ok(token) => Ok(token),
        Err(e) => Err(CertifyError::Token(path.to_owned(), e)),
    }
}
