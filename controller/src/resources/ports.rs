//! Port sets, as annotations and flags write them: `25,3306,8000-8010,metrics`.

use std::ops::RangeInclusive;
use std::str::FromStr;

/// A set of ports.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PortSet(Vec<RangeInclusive<u16>>);

impl PortSet {
    /// Every port.
    pub fn all() -> Self {
        Self(vec![1..=u16::MAX])
    }

    /// Reads a list of ports, ranges and names; `named` answers the ports of a name.
    ///
    /// Items that are neither are left out and returned with the reason; white space and empty items are no error.
    pub fn parse(text: &str, named: impl Fn(&str) -> Vec<u16>) -> (Self, Vec<String>) {
        let mut set = Self::default();
        let mut refused = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match range(item) {
                Ok(range) => set.0.push(range),
                Err(reason) => match named(item) {
                    ports if ports.is_empty() => refused.push(format!("{item:?} {reason}")),
                    ports => set.0.extend(ports.into_iter().map(|port| port..=port)),
                },
            }
        }
        (set, refused)
    }

    /// Whether the port is one of them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

impl FromStr for PortSet {
    type Err = String;

    /// Ports and ranges only.
    fn from_str(text: &str) -> Result<Self, String> {
        let (set, refused) = Self::parse(text, |_| Vec::new());
        refused.into_iter().next().map_or(Ok(set), Err)
    }
}

impl From<u16> for PortSet {
    fn from(port: u16) -> Self {
        Self(vec![port..=port])
    }
}

impl FromIterator<u16> for PortSet {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        Self(ports.into_iter().map(|port| port..=port).collect())
    }
}

/// `port` or `first-last`.
fn range(item: &str) -> Result<RangeInclusive<u16>, &'static str> {
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
        (Ok(first), Ok(last)) if first > 0 && first <= last => Ok(first..=last),
        (Ok(_), Ok(_)) => Err("is an empty range, or holds port 0"),
        _ => Err("is no port (1 to 65535), no range and no named port of this object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_ranges_and_names_are_read() {
        let named = |name: &str| if name == "db" { vec![5432, 5433] } else { vec![] };
        let (set, refused) = PortSet::parse(" 25, 8000-8010 ,,db,", named);
        assert!(refused.is_empty());
        for port in [25, 8000, 8010, 5433] {
            assert!(set.contains(port), "{port}");
        }
        assert!(!set.contains(26));
    }

    #[test]
    fn a_bad_item_is_named_and_the_others_stay() {
        let (set, refused) = PortSet::parse("0,9-8,70000,web,443", |_| vec![]);
        assert_eq!(refused.len(), 4);
        assert!(refused[3].contains("\"web\""));
        assert_eq!(set, "443".parse().unwrap());
    }
}
