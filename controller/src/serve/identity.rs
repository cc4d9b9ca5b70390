//! `io.linkerd.proxy.identity.Identity`: issues certificates to proxies that prove who they are.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use outrigger_proto::identity::identity_server::{Identity, IdentityServer};
use outrigger_proto::identity::{CertifyRequest, CertifyResponse};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::identity::csr::MAX_CSR;
use crate::identity::token::MAX_TOKEN;
use crate::identity::{self, CsrError, IssueError, State, TokenError, Trust};

/// How many requests are signed at once; the others wait, and the streams of discovery go on meanwhile.
const MAX_SIGNING: usize = 8;

/// The longest message that is decoded: both limits and some room for the rest.
const MAX_MESSAGE: usize = MAX_CSR + MAX_TOKEN + 4096;

/// The service.
#[derive(Clone, Debug)]
pub struct Certifier {
    state: Arc<State>,
    trust: Trust,
    lifetime: Duration,
    metrics: IdentityMetrics,
    signing: Arc<Semaphore>,
}

/// What the service counts.
#[derive(Clone, Debug, Default)]
pub struct IdentityMetrics {
    issued: Counter,
    refused: Family<Reason, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Why a request was not answered with a certificate.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0} is empty: identity, token and certificate_signing_request are all needed")]
    Empty(&'static str),
    #[error(transparent)]
    Csr(#[from] CsrError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("the token belongs to {token}, the request asks for {asked}: mount the workload's own token")]
    Identity { token: String, asked: String },
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl Certifier {
    /// Issues certificates of `lifetime` from `state`'s CA to the service accounts of `trust`.
    pub fn new(state: Arc<State>, trust: Trust, lifetime: Duration, metrics: IdentityMetrics) -> Self {
        Self {
            state,
            trust,
            lifetime,
            metrics,
            signing: Arc::new(Semaphore::new(MAX_SIGNING)),
        }
    }

    /// The gRPC service, with its limits.
    pub fn into_service(self) -> IdentityServer<Self> {
        IdentityServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }

    fn decide(&self, ask: &CertifyRequest, now: SystemTime) -> Result<CertifyResponse, Refusal> {
        let parts = [
            ("identity", ask.identity.is_empty()),
            ("token", ask.token.is_empty()),
            (
                "certificate_signing_request",
                ask.certificate_signing_request.is_empty(),
            ),
        ];
        if let Some((name, _)) = parts.into_iter().find(|(_, empty)| *empty) {
            return Err(Refusal::Empty(name));
        }
        if now >= self.state.ca.expiry() {
            return Err(IssueError::Expired.into());
        }
        let request = identity::Request::check(&ask.certificate_signing_request, &ask.identity)?;
        let token = self.trust.identity_of(&self.state.tokens.verify(&ask.token)?);
        if token != request.identity {
            let asked = shortened(&request.identity);
            return Err(Refusal::Identity { token, asked });
        }
        let issued = self
            .state
            .ca
            .issue(&request.identity, &request.key, self.lifetime, now)?;
        Ok(CertifyResponse {
            leaf_certificate: issued.leaf.to_vec(),
            // The root signs leaves itself, and every proxy has the root.
            intermediate_certificates: Vec::new(),
            valid_until: Some(issued.expiry.into()),
        })
    }
}

#[tonic::async_trait]
impl Identity for Certifier {
    async fn certify(&self, request: Request<CertifyRequest>) -> Result<Response<CertifyResponse>, Status> {
        let ask = request.into_inner();
        let _permit = self.signing.acquire().await;
        let certifier = self.clone();
        let (identity, answer) = tokio::task::spawn_blocking(move || {
            let answer = certifier.decide(&ask, SystemTime::now());
            (ask.identity, answer)
        })
        .await
        .map_err(|_| Status::internal("the certifier failed; see its log"))?;
        match answer {
            Ok(response) => {
                self.metrics.issued.inc();
                tracing::info!(identity, "certificate issued");
                Ok(Response::new(response))
            }
            Err(refusal) => {
                let reason = refusal.label();
                self.metrics.refused.get_or_create(&Reason { reason }).inc();
                tracing::warn!(identity = %shortened(&identity), reason, %refusal, "certificate refused");
                Err(refusal.into_status())
            }
        }
    }
}

impl Refusal {
    /// Status codes as Linkerd's identity controller gives them, as far as it has the case.
    fn into_status(self) -> Status {
        let text = self.to_string();
        match self {
            Self::Empty(_)
            | Self::Csr(CsrError::TooLong | CsrError::Malformed | CsrError::Signature)
            | Self::Token(TokenError::TooLong | TokenError::Malformed | TokenError::Subject) => {
                Status::invalid_argument(text)
            }
            Self::Csr(CsrError::DnsName | CsrError::OtherName | CsrError::CommonName)
            | Self::Token(
                TokenError::Signature
                | TokenError::Audience
                | TokenError::Issuer
                | TokenError::Expired
                | TokenError::NotYet,
            )
            | Self::Identity { .. } => Status::failed_precondition(text),
            Self::Issue(IssueError::Expired) => Status::unavailable(text),
            Self::Csr(CsrError::Key)
            | Self::Issue(IssueError::Name(_) | IssueError::Sign(_) | IssueError::Random) => {
                Status::internal(text)
            }
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Empty(_) => "empty",
            Self::Csr(CsrError::TooLong) => "csr_too_long",
            Self::Csr(CsrError::Malformed) => "csr_malformed",
            Self::Csr(CsrError::Signature) => "csr_signature",
            Self::Csr(CsrError::DnsName | CsrError::OtherName | CsrError::CommonName) => "csr_name",
            Self::Csr(CsrError::Key) => "csr_key",
            Self::Token(TokenError::TooLong) => "token_too_long",
            Self::Token(TokenError::Malformed) => "token_malformed",
            Self::Token(TokenError::Signature) => "token_signature",
            Self::Token(TokenError::Audience) => "token_audience",
            Self::Token(TokenError::Issuer) => "token_issuer",
            Self::Token(TokenError::Expired) => "token_expired",
            Self::Token(TokenError::NotYet) => "token_not_yet",
            Self::Token(TokenError::Subject) => "token_subject",
            Self::Identity { .. } => "identity",
            Self::Issue(IssueError::Expired) => "ca_expired",
            Self::Issue(_) => "issue",
        }
    }
}

impl IdentityMetrics {
    /// Registers what the service counts.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "identity_certificates_issued",
            "Certificates issued to proxies",
            metrics.issued.clone(),
        );
        registry.register(
            "identity_certificates_refused",
            "Requests for a certificate that were refused, by reason",
            metrics.refused.clone(),
        );
        metrics
    }
}

/// Names come from anybody: no more than what a DNS name can have goes to the log.
fn shortened(name: &str) -> String {
    name.chars()
        .take(253)
        .collect::<String>()
        .escape_debug()
        .to_string()
}
