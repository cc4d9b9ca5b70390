//! The proxy's own certificate as `/metrics` shows it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::telemetry::metric::{Counter, Gauge};
use crate::telemetry::registry::{Family, Registry};
use crate::telemetry::text::{EncodeLabels, LabelWriter, Name};

/// The proxy's own certificate, and the attempts to renew it.
#[derive(Clone, Debug)]
pub struct CertificateMetrics {
    expiration: Family<(), Gauge>,
    refreshed: Family<(), Gauge>,
    succeeded: Arc<Counter>,
    failed: Arc<Counter>,
    /// What is shown once there is a certificate; kept, so that it is never forgotten as idle.
    shown: Option<(Arc<Gauge>, Arc<Gauge>)>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Refresh {
    Ok,
    Error,
}

impl CertificateMetrics {
    /// Registers the families.
    pub fn register(registry: &mut Registry) -> Self {
        let refreshes = registry.counter(
            Name::open("control_identity_cert_refreshes_total"),
            "The number of times this proxy's mTLS identity certificate has been refreshed",
        );
        Self {
            expiration: registry.gauge(
                Name::open("control_identity_cert_expiration_timestamp_seconds"),
                "Time when this proxy's current mTLS identity certificate will expire (in seconds since the UNIX epoch)",
            ),
            refreshed: registry.gauge(
                Name::open("control_identity_cert_refresh_timestamp_seconds"),
                "Time when this proxy's mTLS identity certificate was last issued (in seconds since the UNIX epoch)",
            ),
            succeeded: refreshes.handle(Refresh::Ok),
            failed: refreshes.handle(Refresh::Error),
            shown: None,
        }
    }

    /// A certificate came at `now`, and is valid until `expires`.
    pub fn renewed(&mut self, now: SystemTime, expires: SystemTime) {
        let find = || (self.expiration.handle(()), self.refreshed.handle(()));
        let (expiration, refreshed) = self.shown.get_or_insert_with(find);
        expiration.set(unix_seconds(expires));
        refreshed.set(unix_seconds(now));
        self.succeeded.inc();
    }

    /// No certificate came.
    pub fn failed(&self) {
        self.failed.inc();
    }
}

fn unix_seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX))
}

impl EncodeLabels for Refresh {
    const DOC: &'static str = "result";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        let result = match self {
            Self::Ok => "ok",
            Self::Error => "error",
        };
        out.label("result", result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn a_renewal_shows_until_when_the_certificate_is_valid() {
        let mut registry = Registry::new(Duration::from_secs(60));
        let mut metrics = CertificateMetrics::register(&mut registry);
        metrics.failed();
        metrics.renewed(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(86_400));
        let text = registry.encode(Instant::now());
        for line in [
            "control_identity_cert_expiration_timestamp_seconds 86400\n",
            "control_identity_cert_refreshes_total{result=\"ok\"} 1\n",
            "control_identity_cert_refreshes_total{result=\"error\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
