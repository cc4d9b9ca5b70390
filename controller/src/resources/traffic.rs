//! Annotations of Services, EgressNetworks and routes that say how requests are sent: timeouts, retries, circuit
//! breakers, injected faults.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use http::StatusCode;
use outrigger_policy::backoff::Backoff;
use outrigger_policy::breaker::{Accrual, BreakerPolicy};
use outrigger_policy::classify::GrpcStatus;
use outrigger_policy::outbound::PenaltyParams;
use outrigger_policy::retry::GrpcCodes;
use outrigger_policy::route::filter::{Delay, InjectedFailure, InjectedStatus, Ratio};

use crate::resources::values::simple_duration;

/// How requests are sent, as far as annotations say.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Traffic {
    /// From a request's arrival to the end of its response.
    pub request: Option<Duration>,
    /// From the end of a request to the end of its response.
    pub response: Option<Duration>,
    /// Without a frame in either direction.
    pub idle: Option<Duration>,
    /// When requests are sent again.
    pub retry: Option<Retry>,
    /// When endpoints are shut.
    pub breaker: Option<BreakerPolicy>,
    /// What failures count for in the load estimate.
    pub penalty: Option<PenaltyParams>,
    /// Requests that are answered with a failure, for tests.
    pub fault: Option<InjectedFailure>,
    /// Requests that are made to wait, for tests.
    pub delay: Option<Delay>,
}

/// When requests are sent again.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Attempts after the first, at most; 1 where nothing is said.
    pub limit: Option<u16>,
    /// For each attempt.
    pub timeout: Option<Duration>,
    /// After which HTTP statuses.
    pub http: Option<Vec<RangeInclusive<u16>>>,
    /// After which gRPC codes.
    pub grpc: Option<GrpcCodes>,
}

/// On what an annotation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// A Service or an EgressNetwork.
    Destination,
    /// An HTTPRoute or GRPCRoute.
    Route,
}

const TIMEOUT: &str = "timeout.linkerd.io/";
const RETRY: &str = "retry.linkerd.io/";
const BALANCER: &str = "balancer.linkerd.io/";
const ALPHA: &str = "balancer.alpha.linkerd.io/";
const OWN: &str = "outrigger.dev/";

/// The annotations that are read, and whether on destinations, on routes.
const KNOWN: [(&str, &str, bool, bool); 27] = [
    (TIMEOUT, "request", true, true),
    (TIMEOUT, "response", true, true),
    (TIMEOUT, "idle", true, true),
    (RETRY, "limit", true, true),
    (RETRY, "timeout", true, true),
    (RETRY, "http", true, true),
    (RETRY, "grpc", true, true),
    (BALANCER, "failure-accrual", true, false),
    (BALANCER, "failure-accrual-consecutive-max-failures", true, false),
    (BALANCER, "failure-accrual-consecutive-max-penalty", true, false),
    (BALANCER, "failure-accrual-consecutive-min-penalty", true, false),
    (BALANCER, "failure-accrual-consecutive-jitter-ratio", true, false),
    (ALPHA, "failure-accrual-success-rate-threshold", true, false),
    (ALPHA, "failure-accrual-success-rate-window", true, false),
    (ALPHA, "failure-accrual-success-rate-min-requests", true, false),
    (ALPHA, "failure-accrual-min-requests", true, false),
    (ALPHA, "failure-accrual-honor-retry-after", true, false),
    (ALPHA, "penalize-failures", true, false),
    (ALPHA, "load-biaser-penalty", true, false),
    (ALPHA, "load-biaser-max-retry-after", true, false),
    (OWN, "min-ready-endpoints", true, false),
    (OWN, "fault-status", false, true),
    (OWN, "fault-grpc-code", false, true),
    (OWN, "fault-message", false, true),
    (OWN, "fault-percent", false, true),
    (OWN, "delay", false, true),
    (OWN, "delay-percent", false, true),
];

/// Reads the annotations of an object. The error names the annotation and says what to do.
pub fn read(annotations: &BTreeMap<String, String>, bearer: Bearer) -> Result<Traffic, String> {
    for key in annotations.keys() {
        check_key(key, bearer)?;
    }
    let all = Annotations(annotations);
    Ok(Traffic {
        request: all.timeout("request")?,
        response: all.timeout("response")?,
        idle: all.timeout("idle")?,
        retry: all.retry()?,
        breaker: all.breaker()?,
        penalty: all.penalty()?,
        fault: all.fault()?,
        delay: all.delay()?,
    })
}

/// An annotation that nobody reads would silently do nothing.
fn check_key(key: &str, bearer: Bearer) -> Result<(), String> {
    if ![TIMEOUT, RETRY, BALANCER, ALPHA, OWN]
        .iter()
        .any(|prefix| key.starts_with(prefix))
    {
        return Ok(());
    }
    let known = KNOWN
        .iter()
        .find(|(prefix, name, ..)| key.strip_prefix(prefix) == Some(name));
    let (here, elsewhere) = match (known, bearer) {
        (None, _) => return Err(format!("annotation {key} is not known: remove or correct it")),
        (Some((_, _, here, _)), Bearer::Destination) => (here, "routes"),
        (Some((_, _, _, here)), Bearer::Route) => (here, "Services and EgressNetworks"),
    };
    match here {
        true => Ok(()),
        false => Err(format!("annotation {key} belongs on {elsewhere}: move it there")),
    }
}

struct Annotations<'a>(&'a BTreeMap<String, String>);

impl Annotations<'_> {
    fn text(&self, prefix: &str, name: &str) -> Option<&str> {
        self.0.get(&format!("{prefix}{name}")).map(|text| text.trim())
    }

    /// A value, if it is there; the error names the annotation.
    fn value<T>(
        &self,
        prefix: &str,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let read = self.text(prefix, name).map(read).transpose();
        read.map_err(|reason| format!("annotation {prefix}{name}: {reason}"))
    }

    /// A timeout; 0 is none.
    fn timeout(&self, name: &str) -> Result<Option<Duration>, String> {
        let timeout = self.value(TIMEOUT, name, simple_duration)?;
        Ok(timeout.filter(|timeout| !timeout.is_zero()))
    }

    fn retry(&self) -> Result<Option<Retry>, String> {
        let limit = self
            .value(RETRY, "limit", number::<u16>)?
            .filter(|limit| *limit > 0);
        let timeout = self
            .value(RETRY, "timeout", simple_duration)?
            .filter(|t| !t.is_zero());
        let http = self.value(RETRY, "http", statuses)?;
        let grpc = self.value(RETRY, "grpc", grpc_codes)?;
        let given = limit.is_some() || timeout.is_some() || http.is_some() || grpc.is_some();
        Ok(given.then_some(Retry {
            limit,
            timeout,
            http,
            grpc,
        }))
    }

    fn breaker(&self) -> Result<Option<BreakerPolicy>, String> {
        let max_failures = self.value(
            BALANCER,
            "failure-accrual-consecutive-max-failures",
            number::<u32>,
        )?;
        let max_consecutive = max_failures.unwrap_or(7);
        let backoff = self.backoff()?;
        let unified = self.unified(max_consecutive)?;
        let honour = self.value(ALPHA, "failure-accrual-honor-retry-after", boolean)?;
        let min_ready = self.value(OWN, "min-ready-endpoints", number::<u32>)?;
        let policy = |accrual, respect_hints| BreakerPolicy {
            accrual,
            backoff,
            respect_hints,
            min_ready_endpoints: min_ready.unwrap_or(0),
        };
        self.value(BALANCER, "failure-accrual", |kind| match kind {
            "consecutive" => Ok(policy(Accrual::Consecutive(max_consecutive), false)),
            "unified" => Ok(policy(unified, honour.unwrap_or(false))),
            other => Err(format!("{other:?} is no kind of it: use consecutive or unified")),
        })
    }

    fn backoff(&self) -> Result<Backoff, String> {
        let key = "failure-accrual-consecutive-";
        let max = self.value(BALANCER, &format!("{key}max-penalty"), simple_duration)?;
        let min = self.value(BALANCER, &format!("{key}min-penalty"), simple_duration)?;
        let jitter = self.value(BALANCER, &format!("{key}jitter-ratio"), number::<f64>)?;
        let (min, max) = (
            min.unwrap_or(Duration::from_secs(1)),
            max.unwrap_or(Duration::from_secs(60)),
        );
        Backoff::try_new(min, max, jitter.unwrap_or(0.5))
            .map_err(|error| format!("annotations {BALANCER}{key}*: {error}"))
    }

    fn unified(&self, max_consecutive: u32) -> Result<Accrual, String> {
        let threshold = self.value(ALPHA, "failure-accrual-success-rate-threshold", |text| {
            let rate = number::<f64>(text)?;
            let hundredths = (0.0..=1.0).contains(&rate).then(|| (rate * 10_000.0).round());
            // From 0 to 10,000.
            hundredths
                .map(|h| h as u16)
                .ok_or_else(|| format!("{text:?} is no rate from 0 to 1"))
        })?;
        let window = self.value(ALPHA, "failure-accrual-success-rate-window", |text| {
            let window = simple_duration(text)?;
            match window >= Duration::from_millis(10) {
                true => Ok(window),
                false => Err(format!("{text:?} is shorter than 10ms")),
            }
        })?;
        let min_requests = [
            "failure-accrual-success-rate-min-requests",
            "failure-accrual-min-requests",
        ];
        let mut least = None;
        for name in min_requests {
            least = least.or(self.value(ALPHA, name, |text| match number::<u32>(text)? {
                count if count <= 1_000_000 => Ok(count),
                _ => Err(format!("{text:?} is above 1000000")),
            })?);
        }
        Ok(Accrual::Unified {
            max_consecutive,
            threshold: threshold.unwrap_or(8_000),
            min_requests: least.unwrap_or(5),
            window: window.unwrap_or(Duration::from_secs(10)),
        })
    }

    fn penalty(&self) -> Result<Option<PenaltyParams>, String> {
        let default = PenaltyParams::default();
        let penalty = self.value(ALPHA, "load-biaser-penalty", simple_duration)?;
        let max_retry_after = self.value(ALPHA, "load-biaser-max-retry-after", simple_duration)?;
        let penalize = self.value(ALPHA, "penalize-failures", boolean)?;
        Ok(penalize.unwrap_or(false).then(|| PenaltyParams {
            penalty: penalty.unwrap_or(default.penalty),
            max_retry_after: max_retry_after.unwrap_or(default.max_retry_after),
            ..default
        }))
    }

    fn fault(&self) -> Result<Option<InjectedFailure>, String> {
        let http = self.value(OWN, "fault-status", |text| {
            let status = text
                .parse()
                .ok()
                .and_then(|code: u16| StatusCode::from_u16(code).ok());
            let status = status.filter(|status| (400..=599).contains(&status.as_u16()));
            status
                .map(InjectedStatus::Http)
                .ok_or_else(|| format!("{text:?} is no status from 400 to 599"))
        })?;
        let grpc = self.value(OWN, "fault-grpc-code", |text| match number::<u16>(text)? {
            code @ 1..=16 => Ok(InjectedStatus::Grpc(GrpcStatus(code))),
            _ => Err(format!("{text:?} is no gRPC code from 1 to 16")),
        })?;
        let ratio = self
            .value(OWN, "fault-percent", percent)?
            .unwrap_or(Ratio::ALWAYS);
        let message = self
            .text(OWN, "fault-message")
            .unwrap_or("injected by annotation")
            .into();
        match (http, grpc) {
            (Some(_), Some(_)) => Err(format!(
                "annotations {OWN}fault-status and {OWN}fault-grpc-code: give one"
            )),
            (None, None) => Ok(None),
            (Some(status), None) | (None, Some(status)) => Ok(Some(InjectedFailure {
                status,
                message,
                ratio,
            })),
        }
    }

    fn delay(&self) -> Result<Option<Delay>, String> {
        let ratio = self
            .value(OWN, "delay-percent", percent)?
            .unwrap_or(Ratio::ALWAYS);
        let duration = self
            .value(OWN, "delay", simple_duration)?
            .filter(|delay| !delay.is_zero());
        Ok(duration.map(|duration| Delay { duration, ratio }))
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no number that fits here"))
}

fn boolean(text: &str) -> Result<bool, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is neither true nor false"))
}

fn percent(text: &str) -> Result<Ratio, String> {
    let ratio = text.parse().ok().and_then(|percent| Ratio::new(percent, 100));
    ratio.ok_or_else(|| format!("{text:?} is no whole number from 0 to 100"))
}

/// `5xx`, `gateway-error`, `503` or `500-504`, separated by commas.
fn statuses(text: &str) -> Result<Vec<RangeInclusive<u16>>, String> {
    let one = |item: &str| match item {
        "5xx" => Ok(500..=599),
        "gateway-error" => Ok(502..=504),
        item => {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let (first, last) = (first.parse().ok(), last.parse().ok());
            let range = first.zip(last).map(|(first, last): (u16, u16)| first..=last);
            let valid = range.filter(|r| *r.start() >= 100 && r.start() <= r.end() && *r.end() <= 599);
            valid.ok_or_else(|| format!("{item:?} is none of 5xx, gateway-error, 503, 500-504"))
        }
    };
    text.split(',').map(|item| one(item.trim())).collect()
}

/// Names of gRPC codes, separated by commas.
fn grpc_codes(text: &str) -> Result<GrpcCodes, String> {
    text.split(',').map(str::trim).try_fold(GrpcCodes::default(), |codes, item| {
        let code = match item {
            "cancelled" => 1,
            "deadline-exceeded" => 4,
            "resource-exhausted" => 8,
            "internal" => 13,
            "unavailable" => 14,
            other => {
                return Err(format!(
                    "{other:?} is none of cancelled, deadline-exceeded, internal, resource-exhausted, unavailable"
                ));
            }
        };
        Ok(codes.with(GrpcStatus(code)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)], bearer: Bearer) -> Result<Traffic, String> {
        let annotations = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        read(&annotations.collect(), bearer)
    }

    #[test]
    fn one_key_of_a_retry_is_enough() {
        let retry = |key, value| of(&[(key, value)], Bearer::Route).unwrap().retry.unwrap();
        let http = retry("retry.linkerd.io/http", "5xx, gateway-error,404,500-504")
            .http
            .unwrap();
        assert_eq!(http, [500..=599, 502..=504, 404..=404, 500..=504]);
        assert_eq!(retry("retry.linkerd.io/timeout", "1s").limit, None);
        assert_eq!(retry("retry.linkerd.io/limit", "3").limit, Some(3));
        let grpc = retry("retry.linkerd.io/grpc", "internal").grpc.unwrap();
        assert!(grpc.contains(GrpcStatus(13)));
        assert_eq!(
            of(&[("retry.linkerd.io/limit", "0")], Bearer::Route)
                .unwrap()
                .retry,
            None
        );
    }

    #[test]
    fn a_bad_value_is_named_with_its_key() {
        for (key, value) in [
            ("retry.linkerd.io/http", "6xx"),
            ("retry.linkerd.io/grpc", "ok"),
            ("retry.linkerd.io/limit", "-1"),
            ("timeout.linkerd.io/request", "1.5s"),
            ("timeout.linkerd.io/requests", "1s"),
            ("balancer.linkerd.io/failure-accrual", "some"),
            (
                "balancer.linkerd.io/failure-accrual-consecutive-min-penalty",
                "2h",
            ),
            (
                "balancer.linkerd.io/failure-accrual-consecutive-jitter-ratio",
                "NaN",
            ),
            (
                "balancer.alpha.linkerd.io/failure-accrual-success-rate-threshold",
                "1.1",
            ),
            ("balancer.alpha.linkerd.io/penalize-failures", "yes"),
            ("outrigger.dev/fault-status", "503"),
        ] {
            let error = of(&[(key, value)], Bearer::Destination).unwrap_err();
            let stem = key.rsplit_once('-').map_or(key, |(stem, _)| stem);
            assert!(error.contains(stem.get(..20).unwrap_or(stem)), "{error}");
        }
    }

    #[test]
    fn breakers_have_the_defaults_of_the_documentation() {
        let breaker = |kind| {
            of(
                &[("balancer.linkerd.io/failure-accrual", kind)],
                Bearer::Destination,
            )
            .unwrap()
            .breaker
            .unwrap()
        };
        assert_eq!(breaker("consecutive").accrual, Accrual::Consecutive(7));
        assert_eq!(breaker("consecutive").backoff.max(), Duration::from_secs(60));
        assert!(matches!(
            breaker("unified").accrual,
            Accrual::Unified {
                max_consecutive: 7,
                threshold: 8_000,
                min_requests: 5,
                ..
            }
        ));
    }

    #[test]
    fn a_fault_is_http_or_grpc_for_a_share_of_requests() {
        let fault = |pairs: &[(&str, &str)]| of(pairs, Bearer::Route).map(|traffic| traffic.fault);
        let half = fault(&[
            ("outrigger.dev/fault-status", "503"),
            ("outrigger.dev/fault-percent", "50"),
        ])
        .unwrap();
        assert_eq!(half.unwrap().ratio, Ratio::new(50, 100).unwrap());
        assert!(
            fault(&[
                ("outrigger.dev/fault-status", "503"),
                ("outrigger.dev/fault-grpc-code", "14")
            ])
            .is_err()
        );
        assert!(fault(&[("outrigger.dev/fault-status", "200")]).is_err());
    }
}
