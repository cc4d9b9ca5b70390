//! ServiceProfiles and TrafficSplits: the older forms of routes and of weights.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::Method;
use outrigger_policy::route::pattern::Pattern;
use serde::Deserialize;

/// Routes of a Service and how often they are retried (`linkerd.io` ServiceProfile).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceProfile {
    /// The routes; the first that matches counts.
    pub routes: Option<Vec<ProfileRoute>>,
    /// How many retries there may be.
    pub retry_budget: Option<RetryBudget>,
    /// Where requests go instead.
    pub dst_overrides: Option<Vec<DstOverride>>,
    /// Ports not to be looked into: the Service's annotation says that, this is not followed.
    pub opaque_ports: Option<Vec<String>>,
}

/// A route of a ServiceProfile.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProfileRoute {
    /// Its name, the label `rt_route` of its metrics.
    pub name: String,
    /// What must hold of a request.
    pub condition: RequestCondition,
    /// What its responses count as.
    pub response_classes: Option<Vec<ResponseClass>>,
    /// Whether a request may be sent again.
    #[serde(default)]
    pub is_retryable: bool,
    /// How long until the response's headers.
    pub timeout: Option<GoDuration>,
}

/// What must hold of a request: all that is given, and at least one thing.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestCondition {
    /// All of these.
    pub all: Option<Vec<Self>>,
    /// One of these.
    pub any: Option<Vec<Self>>,
    /// Not this.
    pub not: Option<Box<Self>>,
    /// A regular expression for the whole path.
    pub path_regex: Option<PathRegex>,
    /// The method.
    pub method: Option<ProfileMethod>,
}

/// What responses count as.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResponseClass {
    /// Which responses.
    pub condition: ResponseCondition,
    /// Whether they are failures.
    #[serde(default)]
    pub is_failure: bool,
}

/// What must hold of a response: all that is given, and at least one thing.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseCondition {
    /// All of these.
    pub all: Option<Vec<Self>>,
    /// One of these.
    pub any: Option<Vec<Self>>,
    /// Not this.
    pub not: Option<Box<Self>>,
    /// The status.
    pub status: Option<StatusRange>,
}

/// HTTP statuses from one to another.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WrittenRange")]
pub struct StatusRange(pub RangeInclusive<u16>);

/// How many retries there may be.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryBudget {
    /// As a share of requests.
    pub retry_ratio: f32,
    /// Besides, each second.
    pub min_retries_per_second: u32,
    /// How long a request counts.
    pub ttl: GoDuration,
}

/// Where requests go instead.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DstOverride {
    /// `<service>.<namespace>.svc.<domain>[:port]`.
    pub authority: String,
    /// Its part of the requests.
    pub weight: Quantity,
}

/// Where the requests to a Service go (`split.smi-spec.io` TrafficSplit).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrafficSplit {
    /// The Service, by its name or its full name.
    pub service: String,
    /// Services of the same namespace, with their parts.
    pub backends: Vec<SplitBackend>,
}

/// A Service, and its part of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitBackend {
    /// The Service.
    pub service: String,
    /// Its part.
    pub weight: Quantity,
}

/// A quantity as Kubernetes writes it (`1`, `"500m"`, `"0.5"`), in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "NumberOrText")]
pub struct Quantity(pub u32);

/// A duration as Go writes it: numbers, also with fractions, and `ns`, `us`, `ms`, `s`, `m`, `h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct GoDuration(pub Duration);

/// A regular expression for the whole path. Anchors of its own may be there or not.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PathRegex(pub Pattern);

/// A method.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ProfileMethod(pub Method);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRange {
    min: Option<u16>,
    max: Option<u16>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(f64),
    Text(String),
}

impl ServiceProfile {
    /// What the types of its fields can't say: every condition asks for something.
    pub fn check(&self) -> Result<(), String> {
        for route in self.routes.iter().flatten() {
            let classes = route.response_classes.iter().flatten();
            let empty = route.condition.is_empty() || classes.clone().any(|class| class.condition.is_empty());
            if empty {
                return Err(format!(
                    "route {:?}: a condition asks for nothing: give one",
                    route.name
                ));
            }
        }
        match &self.retry_budget {
            Some(budget) => budget.check(),
            None => Ok(()),
        }
    }
}

impl RetryBudget {
    fn check(&self) -> Result<(), String> {
        let ttl = Duration::from_secs(1)..=Duration::from_secs(60);
        match (0.0..=1000.0).contains(&self.retry_ratio) && ttl.contains(&self.ttl.0) {
            true => Ok(()),
            false => Err("retryBudget: retryRatio must be from 0 to 1000, ttl from 1s to 60s".into()),
        }
    }
}

impl RequestCondition {
    fn is_empty(&self) -> bool {
        let own = self.path_regex.is_some() || self.method.is_some();
        let parts = self.all.iter().chain(&self.any).flatten();
        let hollow = parts.clone().chain(self.not.as_deref()).any(Self::is_empty);
        hollow || !(own || self.not.is_some() || parts.count() > 0)
    }
}

impl ResponseCondition {
    fn is_empty(&self) -> bool {
        let parts = self.all.iter().chain(&self.any).flatten();
        let hollow = parts.clone().chain(self.not.as_deref()).any(Self::is_empty);
        hollow || !(self.status.is_some() || self.not.is_some() || parts.count() > 0)
    }
}

impl TryFrom<WrittenRange> for StatusRange {
    type Error = String;

    /// One bound alone means one status.
    fn try_from(WrittenRange { min, max }: WrittenRange) -> Result<Self, String> {
        let (Some(first), Some(last)) = (min.or(max), max.or(min)) else {
            return Err("a range of statuses needs min or max".into());
        };
        if !(100..=599).contains(&first) || !(first..=599).contains(&last) {
            return Err(format!("{first} to {last} are no statuses from 100 to 599"));
        }
        Ok(Self(first..=last))
    }
}

impl TryFrom<NumberOrText> for Quantity {
    type Error = String;

    fn try_from(written: NumberOrText) -> Result<Self, String> {
        let (text, thousandths) = match &written {
            NumberOrText::Number(number) => (number.to_string(), Some(number * 1000.0)),
            NumberOrText::Text(text) => {
                let (number, unit) = match text.strip_suffix('m') {
                    Some(number) => (number, 1.0),
                    None => match text.strip_suffix('k') {
                        Some(number) => (number, 1_000_000.0),
                        None => (text.as_str(), 1000.0),
                    },
                };
                let number = number.parse::<f64>().ok().filter(|n| n.is_finite());
                (text.clone(), number.map(|number| number * unit))
            }
        };
        thousandths
            .map(f64::ceil)
            .filter(|thousandths| (0.0..=f64::from(u32::MAX / 10)).contains(thousandths))
            // In range, and whole.
            .map(|thousandths| Self(thousandths as u32))
            .ok_or_else(|| format!("{text:?} is no weight: write a number from 0, as 1 or 500m"))
    }
}

impl TryFrom<String> for GoDuration {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let refused = || format!("{text:?} is no duration: write 300ms, 1.5s or 1m30s");
        if text == "0" {
            return Ok(Self(Duration::ZERO));
        }
        if text.is_empty() {
            return Err(refused());
        }
        let mut rest = text.as_str();
        let mut seconds = 0.0;
        while !rest.is_empty() {
            let digits = rest
                .bytes()
                .take_while(|b| b.is_ascii_digit() || *b == b'.')
                .count();
            let letters = rest[digits..]
                .chars()
                .take_while(|c| c.is_alphabetic())
                .map(char::len_utf8)
                .sum::<usize>();
            let (number, unit) = rest[..digits + letters].split_at(digits);
            let number: f64 = number.parse().map_err(|_| refused())?;
            let unit = match unit {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(refused()),
            };
            seconds += number * unit;
            rest = &rest[digits + letters..];
        }
        Duration::try_from_secs_f64(seconds)
            .map(Self)
            .map_err(|_| refused())
    }
}

impl TryFrom<String> for PathRegex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let pattern = text.trim();
        let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
        let pattern = pattern
            .strip_suffix('$')
            .filter(|p| !p.ends_with('\\'))
            .unwrap_or(pattern);
        Pattern::new(pattern).map(Self).map_err(|error| error.to_string())
    }
}

impl TryFrom<String> for ProfileMethod {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Method::from_bytes(text.as_bytes())
            .map(Self)
            .map_err(|_| format!("{text:?} is no HTTP method"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_quantities() {
        let read = |json: &str| serde_json::from_str::<Quantity>(json).map(|q| q.0).ok();
        for (json, expected) in [
            ("1", 1000),
            ("\"500m\"", 500),
            ("\"0.5\"", 500),
            ("90", 90_000),
            ("\"1k\"", 1_000_000),
        ] {
            assert_eq!(read(json), Some(expected), "{json}");
        }
        for bad in ["-1", "\"x\"", "\"\"", "\"NaN\"", "1e30", "\"m\""] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_gos() {
        let read = |text: &str| {
            GoDuration::try_from(text.to_owned())
                .map(|d| d.0.as_micros())
                .ok()
        };
        for (text, expected) in [
            ("300ms", 300_000),
            ("1.5s", 1_500_000),
            ("1m30s", 90_000_000),
            ("5µs", 5),
            ("0", 0),
        ] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for bad in ["", "1", "s", "1x", "-1s", "1..5s", "1s1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_range_with_one_bound_is_one_status() {
        let read = |json: &str| {
            serde_json::from_str::<StatusRange>(json)
                .map(|range| range.0)
                .ok()
        };
        assert_eq!(read(r#"{"min": 500, "max": 599}"#), Some(500..=599));
        assert_eq!(read(r#"{"min": 404}"#), Some(404..=404));
        for bad in ["{}", r#"{"min": 600}"#, r#"{"min": 500, "max": 400}"#] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_path_may_bring_its_anchors() {
        let read = |text: &str| {
            PathRegex::try_from(text.to_owned())
                .map(|p| p.0.as_str().to_owned())
                .ok()
        };
        assert_eq!(read(" ^/a/\\d+$ ").as_deref(), Some("/a/\\d+"));
        assert_eq!(read("/price\\$").as_deref(), Some("/price\\$"));
        assert_eq!(read("("), None);
    }
}
