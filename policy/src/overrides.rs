//! What a request may say about its own retries and timeouts, where its rule lets it (`l5d-retry-*`, `l5d-timeout`).

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderMap;
use http::header::HeaderName;

use crate::backoff::Backoff;
use crate::retry::{GrpcCodes, RetryOn, RetryPolicy};
use crate::timeouts::Timeouts;

const RETRY_HTTP: HeaderName = HeaderName::from_static("l5d-retry-http");
const RETRY_GRPC: HeaderName = HeaderName::from_static("l5d-retry-grpc");
const RETRY_LIMIT: HeaderName = HeaderName::from_static("l5d-retry-limit");
const RETRY_TIMEOUT: HeaderName = HeaderName::from_static("l5d-retry-timeout");
const TIMEOUT: HeaderName = HeaderName::from_static("l5d-timeout");
const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("l5d-request-timeout");
const RESPONSE_TIMEOUT: HeaderName = HeaderName::from_static("l5d-response-timeout");

/// Retries that one request may ask for, at most.
const MAX_RETRIES: u32 = 100;

/// Request bodies that are kept where only the request itself asks for retries, bytes.
const MAX_REQUEST_BYTES: usize = 64 << 10;

/// The waits where only the request itself asks for retries.
const BACKOFF: (Duration, Duration, f64) = (Duration::from_millis(25), Duration::from_millis(250), 1.0);

/// What a request says about its own retries and timeouts; `None` leaves the rule's.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Overrides {
    /// Statuses after which it is sent again (`l5d-retry-http`).
    pub http: Option<Vec<RangeInclusive<u16>>>,
    /// gRPC codes after which it is sent again (`l5d-retry-grpc`).
    pub grpc: Option<GrpcCodes>,
    /// Attempts after the first (`l5d-retry-limit`).
    pub limit: Option<u32>,
    /// For each attempt (`l5d-retry-timeout`).
    pub per_try: Option<Duration>,
    /// `l5d-request-timeout`, or else `l5d-timeout`.
    pub request: Option<Duration>,
    /// `l5d-response-timeout`.
    pub response: Option<Duration>,
}

impl Overrides {
    /// Takes them out of a request's headers. A value that can't be read says nothing.
    pub fn take(headers: &mut HeaderMap) -> Self {
        let mut take = |name: &HeaderName| headers.remove(name);
        let text = |value: &Option<http::HeaderValue>| value.as_ref()?.to_str().ok().map(str::to_owned);
        let (http, grpc, limit) = (take(&RETRY_HTTP), take(&RETRY_GRPC), take(&RETRY_LIMIT));
        let per_try = take(&RETRY_TIMEOUT);
        let (any, request, response) = (take(&TIMEOUT), take(&REQUEST_TIMEOUT), take(&RESPONSE_TIMEOUT));
        let time = |value| text(value).as_deref().and_then(duration);
        Self {
            http: text(&http).map(|list| list.split(',').filter_map(statuses).collect()),
            grpc: text(&grpc).map(|list| list.split(',').filter_map(code).collect()),
            limit: text(&limit)
                .and_then(|n| n.parse::<u32>().ok())
                .map(|n| n.min(MAX_RETRIES)),
            per_try: time(&per_try),
            request: time(&request).or_else(|| time(&any)),
            response: time(&response),
        }
    }

    /// The rule's timeouts, with those of the request in their place.
    pub fn timeouts(&self, rule: Timeouts) -> Timeouts {
        Timeouts {
            request: self.request.or(rule.request),
            response: self.response.or(rule.response),
            ..rule
        }
    }

    /// Whether it says anything about retries.
    pub fn retries(&self) -> bool {
        self.http.is_some() || self.grpc.is_some() || self.limit.is_some() || self.per_try.is_some()
    }

    /// The rule's retries, with those of the request in their place. Where the rule has none and the request asks for
    /// some: one, of a body of at most 64 KiB, after 25 to 250 ms.
    pub fn retry(&self, rule: Option<&RetryPolicy>) -> Option<RetryPolicy> {
        if !self.retries() {
            return rule.cloned();
        }
        let mut policy = rule.cloned().unwrap_or_else(|| RetryPolicy {
            on: RetryOn::Statuses {
                http: Vec::new(),
                grpc: GrpcCodes::default(),
            },
            max_retries: 1,
            max_request_bytes: MAX_REQUEST_BYTES,
            per_try: None,
            backoff: Backoff::try_new(BACKOFF.0, BACKOFF.1, BACKOFF.2).ok(),
        });
        if self.http.is_some() || self.grpc.is_some() {
            let (http, grpc) = match policy.on {
                RetryOn::Statuses { http, grpc } => (http, grpc),
                RetryOn::Failures => Default::default(),
            };
            policy.on = RetryOn::Statuses {
                http: self.http.clone().unwrap_or(http),
                grpc: self.grpc.unwrap_or(grpc),
            };
        }
        policy.max_retries = self.limit.unwrap_or(policy.max_retries);
        policy.per_try = self.per_try.or(policy.per_try);
        Some(policy)
    }
}

/// `5xx`, `gateway-error`, a status, or a range of them.
fn statuses(text: &str) -> Option<RangeInclusive<u16>> {
    let status = |text: &str| text.parse().ok().filter(|n| (100..=599).contains(n));
    match text {
        "5xx" => Some(500..=599),
        "gateway-error" => Some(502..=504),
        _ => match text.split_once('-') {
            None => status(text).map(|n| n..=n),
            Some((first, last)) => {
                let range = status(first)?..=status(last)?;
                (!range.is_empty()).then_some(range)
            }
        },
    }
}

fn code(text: &str) -> Option<u16> {
    match text {
        "cancelled" => Some(1),
        "deadline-exceeded" => Some(4),
        "resource-exhausted" => Some(8),
        "internal" => Some(13),
        "unavailable" => Some(14),
        _ => None,
    }
}

/// A whole number with a unit (`ms`, `s`, `m`, `h`, `d`), or `0`, which asks for nothing.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let n: u64 = number.parse().ok()?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let duration = Duration::from_millis(n.checked_mul(milliseconds)?);
    (!duration.is_zero()).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(pairs: &[(&'static str, &str)]) -> Overrides {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        headers.insert("l5d-other", "kept".parse().unwrap());
        let overrides = Overrides::take(&mut headers);
        assert_eq!(headers.len(), 1, "{headers:?}");
        overrides
    }

    #[test]
    fn statuses_are_classes_numbers_and_ranges() {
        let http = |text| take(&[("l5d-retry-http", text)]).http.unwrap();
        assert_eq!(
            http("5xx,gateway-error,404,418-420"),
            [500..=599, 502..=504, 404..=404, 418..=420]
        );
        assert_eq!(
            http("99,600,4xx, 500,5-3,504-502,502-"),
            [] as [RangeInclusive<u16>; 0]
        );
    }

    #[test]
    fn codes_go_by_their_names() {
        let grpc = |text| take(&[("l5d-retry-grpc", text)]).grpc.unwrap();
        let all = grpc("cancelled,deadline-exceeded,internal,resource-exhausted,unavailable");
        assert_eq!(all, GrpcCodes::from_iter([1, 4, 8, 13, 14]));
        assert!(grpc("UNAVAILABLE,14").is_empty());
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, milliseconds) in [
            ("7ms", 7),
            ("2s", 2000),
            ("1m", 60_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
        ] {
            let request = take(&[("l5d-timeout", text)]).request;
            assert_eq!(request, Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in [
            "",
            "0",
            "5",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "99999999999999999999s",
            "9999999999999999999d",
        ] {
            assert_eq!(take(&[("l5d-timeout", bad)]).request, None, "{bad}");
        }
    }

    #[test]
    fn the_more_exact_name_of_the_timeout_wins() {
        let both = take(&[
            ("l5d-timeout", "1s"),
            ("l5d-request-timeout", "2s"),
            ("l5d-response-timeout", "3s"),
        ]);
        let timeouts = both.timeouts(Timeouts {
            idle: Some(Duration::from_secs(9)),
            ..Timeouts::default()
        });
        let seconds = [timeouts.request, timeouts.response, timeouts.idle].map(|t| t.unwrap().as_secs());
        assert_eq!(seconds, [2, 3, 9]);
    }

    #[test]
    fn a_request_that_asks_is_tried_once_more_where_its_rule_has_no_retries() {
        let policy = take(&[("l5d-retry-http", "5xx")]).retry(None).unwrap();
        assert_eq!((policy.max_retries, policy.max_request_bytes), (1, 64 << 10));
        assert!(policy.backoff.is_some());
        assert_eq!(take(&[("l5d-timeout", "1s")]).retry(None), None);
    }

    #[test]
    fn what_a_request_does_not_say_stays_as_the_rule_has_it() {
        let grpc = GrpcCodes::from_iter([14]);
        let rule = RetryPolicy {
            on: RetryOn::Statuses {
                http: vec![500..=500],
                grpc,
            },
            max_retries: 5,
            max_request_bytes: 7,
            per_try: None,
            backoff: None,
        };
        let policy = take(&[("l5d-retry-http", "404"), ("l5d-retry-limit", "4000000000")]);
        let policy = policy.retry(Some(&rule)).unwrap();
        let http = vec![404..=404];
        assert_eq!(policy.on, RetryOn::Statuses { http, grpc });
        assert_eq!((policy.max_retries, policy.max_request_bytes), (MAX_RETRIES, 7));
        assert_eq!(take(&[]).retry(Some(&rule)), Some(rule));
    }
}
