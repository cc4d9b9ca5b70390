//! Why TLS failed: every refusal of a certificate says what was wrong, with both times where time is the reason.

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

use outrigger_policy::name::Identity;
use rustls::CertificateError;
use rustls_pki_types::UnixTime;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Why credentials were refused, or a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The trust anchors can't be read.
    #[error("trust anchors: {0}")]
    Anchors(String),
    /// Our own private key can't be used.
    #[error("private key: {0}")]
    Key(String),
    /// Our own certificate is not usable.
    #[error("own certificate: {0}")]
    OwnCertificate(Refusal),
    /// Our own certificate names somebody else.
    #[error("own certificate is not for {expected}: it names {}", list(found))]
    OwnIdentity {
        /// Who we are.
        expected: Identity,
        /// The names in the certificate.
        found: Vec<String>,
    },
    /// There is no certificate yet to serve with.
    #[error("no certificate yet")]
    Uncertified,
    /// The peer's certificate was refused.
    #[error("peer's certificate: {0}")]
    PeerCertificate(Refusal),
    /// The peer proved an identity, but not the one required: `Kind::PeerIdentity`.
    #[error(
        "certificate does not match TLS identity {expected}: it names {}",
        list(found)
    )]
    WrongIdentity {
        /// Who should have answered.
        expected: Identity,
        /// The names in the certificate.
        found: Vec<String>,
    },
    /// The handshake failed for another reason: the peer's alert, its protocol, or the connection.
    #[error("TLS handshake: {0}")]
    Handshake(#[source] io::Error),
    /// The TLS library refused the configuration: a bug of this proxy.
    #[error("TLS configuration: {0}")]
    Configuration(#[source] rustls::Error),
}

/// Why a certificate was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has expired.
    Expired {
        /// The clock of this machine.
        now: SystemTime,
        /// The end of its validity.
        not_after: SystemTime,
    },
    /// Its validity lies in the future: one of the two clocks is wrong.
    NotYetValid {
        /// The clock of this machine.
        now: SystemTime,
        /// The start of its validity.
        not_before: SystemTime,
    },
    /// No chain leads to a trust anchor.
    UnknownIssuer,
    /// A signature in it does not verify: often an authority of the right name with another key.
    BadSignature,
    /// Anything else.
    Other(String),
}

impl Error {
    /// What a failed handshake was about, as far as the TLS library tells.
    pub(crate) fn from_handshake(error: io::Error) -> Self {
        let cause = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
        match cause {
            Some(rustls::Error::InvalidCertificate(why)) => Self::PeerCertificate(Refusal::from(why)),
            _ => Self::Handshake(error),
        }
    }
}

impl From<&CertificateError> for Refusal {
    fn from(error: &CertificateError) -> Self {
        match error {
            CertificateError::ExpiredContext { time, not_after } => Self::Expired {
                now: system_time(*time),
                not_after: system_time(*not_after),
            },
            CertificateError::NotValidYetContext { time, not_before } => Self::NotYetValid {
                now: system_time(*time),
                not_before: system_time(*not_before),
            },
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::BadSignature => Self::BadSignature,
            other => Self::Other(other.to_string()),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { now, not_after } => {
                write!(
                    f,
                    "expired at {}, it is {} here",
                    rfc3339(*not_after),
                    rfc3339(*now)
                )
            }
            Self::NotYetValid { now, not_before } => write!(
                f,
                "not valid before {}, it is {} here: compare the clocks",
                rfc3339(*not_before),
                rfc3339(*now)
            ),
            Self::UnknownIssuer => f.write_str("not issued under any of the trust anchors"),
            Self::BadSignature => f.write_str(
                "bears the name of a trust anchor, but not its signature: was the authority made anew?",
            ),
            Self::Other(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Refusal {}

/// A time as people read it in logs.
fn rfc3339(time: SystemTime) -> String {
    let whole_seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    i64::try_from(whole_seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{whole_seconds} s after 1970"))
}

fn system_time(time: UnixTime) -> SystemTime {
    // A certificate may claim any time; one that the clock can't express counts as its beginning.
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(time.as_secs()))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "nobody".to_owned()
    } else {
        names.join(", ")
    }
}
