//! Renewal: a certificate at start, and the next one well before it expires.

use std::future::Future;
use std::time::{Duration, SystemTime};

use outrigger_policy::backoff::Backoff;
use tokio::time::sleep;
use tracing::{error, info};

use crate::control::identity::grpc::CertifyError;
use crate::control::metrics::CertificateMetrics;
use crate::control::waits::Waits;
use crate::error::chain;
use crate::live::Publisher;
use crate::tls::Credentials;

/// The share of a certificate's remaining life after which the next one is asked for.
const RENEW_AT: f64 = 0.7;

/// The longest pause between failed attempts while there is a good certificate.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// How often the wall clock is looked at: timers stand still while a machine sleeps, certificates expire all the same.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(60);

/// The shortest and the longest time between two certificates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

/// Publishes one set of credentials after the other, forever. What is published is whole and checked; readers see
/// the old or the new, nothing in between.
pub(crate) async fn renew<F>(
    bounds: Bounds,
    first_pause: Duration,
    clock: impl Fn() -> SystemTime,
    mut certify: impl FnMut() -> F,
    publisher: Publisher<Credentials>,
    metrics: CertificateMetrics,
) where
    F: Future<Output = Result<Credentials, CertifyError>>,
{
    loop {
        let mut failed = Waits::new(pauses(
            bounds,
            first_pause,
            remaining_of(&publisher.get(), clock()),
        ));
        let fresh = loop {
            match certify().await {
                Ok(fresh) => break fresh,
                Err(e) => {
                    metrics.failed.inc();
                    error!(error = %chain(&e), "no new certificate");
                }
            }
            sleep(failed.next()).await;
        };
        metrics.renewed(clock(), fresh.expiry());
        let now = clock();
        let wait = refresh_after(bounds, remaining_of(&fresh, now));
        let due = now.checked_add(wait).unwrap_or(now + bounds.min);
        if !publisher.get().is_certified() {
            info!(id = %fresh.identity(), "Certified identity");
        }
        publisher.set(fresh);
        while let Some(left) = due.duration_since(clock()).ok().filter(|left| !left.is_zero()) {
            sleep(left.min(LOOK_AT_CLOCK)).await;
        }
    }
}

/// When to ask for the next certificate, counted from now.
fn refresh_after(bounds: Bounds, remaining: Duration) -> Duration {
    remaining.mul_f64(RENEW_AT).clamp(bounds.min, bounds.max)
}

/// The pauses between failed attempts: short without a certificate, longer while a good one leaves time, so that an
/// identity service that is down is not met by all proxies at once when it returns.
fn pauses(bounds: Bounds, first: Duration, remaining: Duration) -> Backoff {
    let longest = (remaining / 10).clamp(bounds.min, LONGEST_PAUSE.max(bounds.min));
    let first = first.clamp(Duration::from_millis(10), longest.max(Duration::from_millis(10)));
    Backoff::try_new(first, longest.max(first), 0.5).expect("0 < first ≤ longest, and the jitter is one half")
}

/// The life that a certificate has left; zero without one.
fn remaining_of(credentials: &Credentials, now: SystemTime) -> Duration {
    let left = credentials
        .expiry()
        .and_then(|expiry| expiry.duration_since(now).ok());
    left.unwrap_or_default()
}
