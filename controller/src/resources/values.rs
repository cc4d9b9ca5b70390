//! Values that several kinds of policies have, read strictly: what is not known is an error.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use ipnet::IpNet;
use serde::Deserialize;

/// What a selector asks of labels. All of its parts must hold; an empty one takes everything.
#[derive(Clone, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    /// Labels with these values.
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Conditions on labels.
    pub match_expressions: Option<Vec<Expression>>,
}

/// A condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expression {
    /// The label.
    pub key: String,
    /// What must hold of it.
    pub operator: Operator,
    /// The values that `In` and `NotIn` speak of.
    pub values: Option<Vec<String>>,
}

/// What must hold of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Operator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// A network, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Cidr(pub IpNet);

/// A network with exceptions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRange {
    /// The network.
    pub cidr: Cidr,
    /// Parts of it that do not count.
    pub except: Option<Vec<Cidr>>,
}

/// A reference to an object, as the Gateway API and Linkerd's policies write it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectRef {
    /// API group; empty or `core` for Kubernetes' own.
    pub group: Option<String>,
    /// Kind.
    pub kind: Option<String>,
    /// Namespace; the referring object's own where none is given.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

/// A duration as the Gateway API writes it (GEP-2257: `1h30m`, at most five digits and a unit, at most four times).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct GatewayDuration(pub Duration);

impl Selector {
    /// Whether it takes an object with these labels.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let equal = self
            .match_labels
            .iter()
            .flatten()
            .all(|(key, value)| labels.get(key) == Some(value));
        equal && self.match_expressions.iter().flatten().all(|e| e.holds(labels))
    }
}

impl Expression {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.iter().flatten().any(|v| v == value));
        match self.operator {
            Operator::In => listed,
            Operator::NotIn => !listed,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl ObjectRef {
    /// Whether an object of this group and kind is meant. Kubernetes' own group has two spellings; kinds ignore case,
    /// as Linkerd's controller does.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        let own = match self.group.as_deref().unwrap_or_default() {
            "core" => "",
            group => group,
        };
        own.eq_ignore_ascii_case(group) && self.kind.as_deref().is_some_and(|k| k.eq_ignore_ascii_case(kind))
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind.as_deref().unwrap_or("object"))?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let net = match text.parse::<IpNet>() {
            Ok(net) => Some(net.trunc()),
            Err(_) => text.parse::<IpAddr>().ok().map(IpNet::from),
        };
        net.map(Self)
            .ok_or_else(|| format!("{text:?} is neither a network (10.0.0.0/8) nor an address"))
    }
}

impl TryFrom<String> for GatewayDuration {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let refused = || format!("{text:?} is no duration: write 10s, 250ms or 1m30s");
        let mut rest = text.as_str();
        let mut total = Duration::ZERO;
        for _ in 0..4 {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let letters = rest[digits..].bytes().take_while(u8::is_ascii_lowercase).count();
            let (number, unit) = rest[..digits + letters].split_at(digits);
            let number: u32 = number.parse().map_err(|_| refused())?;
            let unit = unit_of(unit).filter(|_| digits <= 5).ok_or_else(refused)?;
            total += unit * number;
            rest = &rest[digits + letters..];
            if rest.is_empty() {
                return Ok(Self(total));
            }
        }
        Err(refused())
    }
}

/// The units of the Gateway API.
fn unit_of(unit: &str) -> Option<Duration> {
    Some(match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return None,
    })
}

/// A duration as Linkerd's annotations and profiles write it: a whole number and `ms`, `s`, `m`, `h` or `d`, or a bare
/// `0`.
pub fn simple_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let refused = || format!("{text:?} is no duration: write a whole number and ms, s, m, h or d, as 500ms");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().map_err(|_| refused())?;
    let unit = match unit {
        "d" => Duration::from_secs(86_400),
        unit => unit_of(unit).ok_or_else(refused)?,
    };
    unit.checked_mul(number).ok_or_else(refused)
}

/// The name of a namespace or an object that a reference may leave out.
pub fn namespace_or(given: Option<&str>, own: &Arc<str>) -> Arc<str> {
    given
        .filter(|ns| !ns.is_empty())
        .map_or_else(|| own.clone(), Arc::from)
}

/// The status of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u16")]
pub struct RedirectStatus(pub StatusCode);

impl TryFrom<u16> for RedirectStatus {
    type Error = String;

    fn try_from(code: u16) -> Result<Self, String> {
        let status = StatusCode::from_u16(code).ok().filter(StatusCode::is_redirection);
        status
            .map(Self)
            .ok_or_else(|| format!("{code} is no redirect: use 301, 302, 303, 307 or 308"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_holds_when_all_of_its_parts_do() {
        let selector: Selector = serde_json::from_str(
            r#"{"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]},
                {"key": "old", "operator": "DoesNotExist"}]}"#,
        )
        .unwrap();
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        assert!(selector.selects(&labels(&[("app", "web")])));
        for other in [
            &[("app", "api")][..],
            &[("app", "web"), ("tier", "x")],
            &[("app", "web"), ("old", "")],
        ] {
            assert!(!selector.selects(&labels(other)), "{other:?}");
        }
        assert!(Selector::default().selects(&labels(&[])));
    }

    #[test]
    fn a_selector_with_a_misspelt_field_is_refused_and_takes_not_everything() {
        assert!(serde_json::from_str::<Selector>(r#"{"matchLabel": {"app": "web"}}"#).is_err());
    }

    #[test]
    fn a_network_may_be_one_address() {
        let cidr = |text: &str| Cidr::try_from(text.to_owned()).map(|cidr| cidr.0.to_string());
        assert_eq!(cidr("10.1.2.3/8").as_deref(), Ok("10.0.0.0/8"));
        assert_eq!(cidr("::1").as_deref(), Ok("::1/128"));
        assert!(cidr("10.0.0.0/33").is_err() && cidr("all").is_err());
    }

    #[test]
    fn durations_have_two_grammars() {
        let gateway = |text: &str| GatewayDuration::try_from(text.to_owned()).map(|d| d.0.as_millis());
        assert_eq!(gateway("1h30m10s500ms"), Ok(5_410_500));
        assert_eq!(gateway("0s"), Ok(0));
        for bad in ["", "1", "1d", "100000s", "1s1s1s1s1s", "1.5s", "-1s", "ß"] {
            assert!(gateway(bad).is_err(), "{bad}");
        }
        assert_eq!(simple_duration("2d"), Ok(Duration::from_secs(172_800)));
        assert_eq!(simple_duration("0"), Ok(Duration::ZERO));
        for bad in ["", "5", "1s5ms", "1.5s", "-1s", "99999999999s", "ms", "1ß"] {
            assert!(simple_duration(bad).is_err(), "{bad}");
        }
    }
}
