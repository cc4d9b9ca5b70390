//! The proxy's identity: a key of its own, and a certificate that is renewed in time.

mod csr;
pub(crate) mod grpc;
pub(crate) mod renewal;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

pub use self::csr::DirectoryError;
use self::grpc::{Applicant, CertifyError};
use self::renewal::{Bounds, renew};
use crate::config;
use crate::control::channel::Channel;
use crate::control::metrics::{Client, Metrics};
use crate::live::{Ended, Live};
use crate::tls::{self, Credentials, TrustAnchors};

/// How often to say that there is still no certificate.
const REMIND: Duration = Duration::from_secs(15);

/// Why the identity can't be set up: configuration errors, exit 64.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The identity directory.
    #[error("identity directory")]
    Directory(#[from] DirectoryError),
    /// The token file has to be there from the start.
    #[error("the token {0} can't be used: {1}")]
    Token(std::path::PathBuf, String),
    /// The trust anchors.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// Asks for a certificate on `runtime`, and for the next one in time, for as long as the runtime lives.
///
/// What is returned holds the trust anchors only until [`certified`]; that suffices to call the control plane.
pub fn start(
    config: &config::Identity,
    http2: &config::Http2Client,
    metrics: &Metrics,
    runtime: &Handle,
) -> Result<Live<Credentials>, StartError> {
    let applicant = applicant(config)?;
    let bounds = Bounds {
        min: config.min_refresh,
        max: config.max_refresh.max(config.min_refresh),
    };
    let first = Credentials::anchors_only(
        &applicant.anchors,
        applicant.identity.clone(),
        applicant.server_name.clone(),
    )?;
    let (publisher, credentials) = Live::new(first);
    let anonymous = Credentials::anchors_only(
        &applicant.anchors,
        applicant.identity.clone(),
        applicant.server_name.clone(),
    )?;
    let service = Arc::new(Service {
        applicant,
        addr: config.service.clone(),
        http2: *http2,
        anonymous: Live::fixed(anonymous),
        metrics: metrics.clone(),
        runtime: runtime.clone(),
    });
    let certify = move || service.clone().certify();
    let (pause, metrics) = (config.service.connect.backoff.min, metrics.certificate());
    runtime.spawn(renew(bounds, pause, SystemTime::now, certify, publisher, metrics));
    Ok(credentials)
}

/// The identity service, and what it is asked.
struct Service {
    applicant: Applicant,
    addr: config::ControlAddr,
    http2: config::Http2Client,
    /// Never with a certificate: the token says who asks, and an expired certificate would be refused for ever.
    anonymous: Live<Credentials>,
    metrics: Metrics,
    runtime: Handle,
}

impl Service {
    /// One attempt. It makes a connection of its own: an idle one might be dead, and the service be behind many.
    async fn certify(self: Arc<Self>) -> Result<Credentials, CertifyError> {
        let metrics = self.metrics.channel(Client::Identity);
        let credentials = self.anonymous.clone();
        let channel = Channel::open(
            Client::Identity,
            &self.addr,
            &self.http2,
            credentials,
            metrics,
            &self.runtime,
        )?;
        self.applicant.certify(channel).await
    }
}

/// Waits for the first certificate, and says so now and then. An error means that the renewal has died.
pub async fn certified(credentials: &Live<Credentials>) -> Result<(), Ended> {
    let mut credentials = credentials.clone();
    let mut reminder = interval(REMIND);
    reminder.set_missed_tick_behavior(MissedTickBehavior::Delay);
    reminder.tick().await;
    while !credentials.get_and_mark_seen().is_certified() {
        tokio::select! {
            changed = credentials.changed() => { changed?; }
            _ = reminder.tick() => warn!("Waiting for identity to be initialized..."),
        }
    }
    Ok(())
}

fn applicant(config: &config::Identity) -> Result<Applicant, StartError> {
    let token = &config.token_file;
    match std::fs::metadata(token) {
        Ok(file) if file.len() > 0 => {}
        Ok(_) => return Err(StartError::Token(token.clone(), "it is empty".to_owned())),
        Err(e) => return Err(StartError::Token(token.clone(), e.to_string())),
    }
    Ok(Applicant {
        anchors: TrustAnchors::from_der(&config.trust_anchors.0)?,
        identity: config.id.clone(),
        server_name: config.server_name.clone(),
        token_file: token.clone(),
        keys: csr::load_or_make(&config.dir, &config.id)?,
    })
}
