//! The grammars of values: one type and one parser for each kind of variable.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use outrigger_policy::name::{DnsName, Identity};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// A kind of value: how it is called in the documentation, and how it is read.
pub trait Value: Sized {
    /// The kind, as the documentation calls it.
    const KIND: &'static str;

    /// Reads a value; the error says what would have been right.
    fn parse(text: &str) -> Result<Self, String>;
}

/// The longest duration accepted. Deadlines are sums of a moment and a duration, and have to stay representable.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 86_400);

impl Value for Duration {
    const KIND: &'static str = "duration";

    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim_matches(' ');
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let expected = || "expected a whole number and a unit, like 300ms, 10s, 2m, 1h or 365d".to_owned();
        let number = number.parse::<u64>().map_err(|_| expected())?;
        let seconds = match unit {
            "ms" => return within_bounds(Self::from_millis(number)),
            "" if number == 0 => 0,
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(expected()),
        };
        within_bounds(Self::from_secs(number.saturating_mul(seconds)))
    }
}

fn within_bounds(duration: Duration) -> Result<Duration, String> {
    if duration > MAX_DURATION {
        return Err("longer than 36500d".to_owned());
    }
    Ok(duration)
}

/// A duration that an empty text unsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionalDuration(pub Option<Duration>);

impl Value for OptionalDuration {
    const KIND: &'static str = "duration or empty";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self(None)),
            text => Duration::parse(text).map(|duration| Self(Some(duration))),
        }
    }
}

impl Value for bool {
    const KIND: &'static str = "`true` or `false`";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("expected true or false".to_owned()),
        }
    }
}

impl Value for u32 {
    const KIND: &'static str = "number";

    fn parse(text: &str) -> Result<Self, String> {
        whole_number(text, Self::MAX as usize).map(|n| n as Self)
    }
}

impl Value for usize {
    const KIND: &'static str = "number";

    fn parse(text: &str) -> Result<Self, String> {
        whole_number(text, Self::MAX)
    }
}

fn whole_number(text: &str, max: usize) -> Result<usize, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse().ok().filter(|n| digits && *n <= max);
    number.ok_or_else(|| format!("expected a whole number from 0 to {max}"))
}

/// An HTTP/2 flow-control window in bytes, at most 2³¹−1 (RFC 9113 §6.9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(pub u32);

impl Value for Window {
    const KIND: &'static str = "bytes";

    fn parse(text: &str) -> Result<Self, String> {
        whole_number(text, (1 << 31) - 1).map(|n| Self(n as u32))
    }
}

/// The largest payload of an HTTP/2 frame in bytes, 2¹⁴ to 2²⁴−1 (RFC 9113 §6.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameSize(pub u32);

impl Value for FrameSize {
    const KIND: &'static str = "bytes";

    fn parse(text: &str) -> Result<Self, String> {
        match whole_number(text, (1 << 24) - 1) {
            Ok(n) if n >= 1 << 14 => Ok(Self(n as u32)),
            _ => Err("expected a whole number from 16384 to 16777215".to_owned()),
        }
    }
}

/// A share: more than 0, at most 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(pub f64);

impl Value for Ratio {
    const KIND: &'static str = "ratio";

    fn parse(text: &str) -> Result<Self, String> {
        let ratio = text.parse().ok().filter(|r| *r > 0.0 && *r <= 1.0);
        ratio
            .map(Self)
            .ok_or_else(|| "expected a number above 0 and at most 1".to_owned())
    }
}

/// How much of a delay is added at random at most: 0.1 is a tenth. From 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Jitter(pub f64);

impl Value for Jitter {
    const KIND: &'static str = "ratio";

    fn parse(text: &str) -> Result<Self, String> {
        let jitter = text.parse().ok().filter(|j| (0.0..=100.0).contains(j));
        jitter
            .map(Self)
            .ok_or_else(|| "expected a number from 0 to 100".to_owned())
    }
}

impl Value for SocketAddr {
    const KIND: &'static str = "IP:port";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| match HostPort::parse(text) {
            Ok(_) => "host is not an IP address".to_owned(),
            Err(_) => "expected IP:port, with IPv6 in brackets".to_owned(),
        })
    }
}

/// One listener, or two for IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listeners(pub Vec<SocketAddr>);

impl Value for Listeners {
    const KIND: &'static str = "1 or 2 IP:port";

    fn parse(text: &str) -> Result<Self, String> {
        let addresses: Vec<_> = text.split(',').map(SocketAddr::parse).collect::<Result<_, _>>()?;
        match addresses.len() {
            1 | 2 => Ok(Self(addresses)),
            n => Err(format!("expected 1 or 2 addresses, found {n}")),
        }
    }
}

/// A host and the port to reach it at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name to resolve.
    Name {
        /// The name.
        name: DnsName,
        /// It was written with a trailing dot: search domains must not be tried.
        absolute: bool,
    },
}

impl HostPort {
    /// Whether it can only be reached on this host: a loopback address, or the name `localhost`.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.to_canonical().is_loopback(),
            Host::Name { name, .. } => name.as_str() == "localhost",
        }
    }
}

impl std::fmt::Display for HostPort {
    /// As it was configured, with the trailing dot of an absolute name: what a resolver and an `:authority` take.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            Host::Ip(ip) => write!(f, "{}", SocketAddr::new(*ip, self.port)),
            Host::Name { name, absolute } => {
                let dot = if *absolute { "." } else { "" };
                write!(f, "{name}{dot}:{}", self.port)
            }
        }
    }
}

impl Value for HostPort {
    const KIND: &'static str = "host:port";

    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(addr) = text.parse::<SocketAddr>() {
            let (host, port) = (Host::Ip(addr.ip()), addr.port());
            return Ok(Self { host, port });
        }
        let (name, port) = text
            .rsplit_once(':')
            .ok_or("expected host:port, the port is missing")?;
        let port = whole_number(port, usize::from(u16::MAX))? as u16;
        let absolute = name.ends_with('.');
        let name = DnsName::parse(name).map_err(|_| "the host is neither an IP address nor a DNS name")?;
        let host = Host::Name { name, absolute };
        Ok(Self { host, port })
    }
}

/// A set of ports, as ranges in ascending order that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSet(Vec<RangeInclusive<u16>>);

impl PortSet {
    /// Whether the port is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// The ports, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().flat_map(Clone::clone)
    }

    /// The same set with one more port.
    pub fn with(mut self, port: u16) -> Self {
        self.0.push(port..=port);
        Self::merged(self.0)
    }

    fn merged(mut ranges: Vec<RangeInclusive<u16>>) -> Self {
        ranges.sort_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u16>> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if u32::from(*range.start()) <= u32::from(*last.end()) + 1 => {
                    *last = *last.start()..=*range.end().max(last.end());
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }
}

impl Value for PortSet {
    const KIND: &'static str = "ports";

    fn parse(text: &str) -> Result<Self, String> {
        let port = |text: &str| {
            let port = whole_number(text.trim(), usize::from(u16::MAX));
            port.map(|port| port as u16)
                .map_err(|_| format!("{:?} is not a port", text.trim()))
        };
        let mut ranges = Vec::new();
        for item in items(text) {
            let (first, last) = match item.split_once('-') {
                Some((first, last)) => (port(first)?, port(last)?),
                None => (port(item)?, port(item)?),
            };
            if last < first {
                return Err(format!("the range {item} runs backwards"));
            }
            ranges.push(first..=last);
        }
        Ok(Self::merged(ranges))
    }
}

/// The items of a comma-separated list, without blanks and without empty ones.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// A set of networks. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(pub Arc<[IpNet]>);

impl Networks {
    /// Whether the address lies in one of them; an IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        self.0.iter().any(|net| net.contains(&addr))
    }
}

impl Value for Networks {
    const KIND: &'static str = "networks";

    fn parse(text: &str) -> Result<Self, String> {
        let network = |item: &str| {
            item.parse::<IpNet>()
                .map(|net| net.trunc())
                .map_err(|_| format!("{item:?} is not a network like 10.0.0.0/8"))
        };
        items(text).map(network).collect::<Result<_, _>>().map(Self)
    }
}

/// A set of addresses. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses(pub Arc<[IpAddr]>);

impl Addresses {
    /// Whether the address is listed; an IPv4-mapped IPv6 address counts as IPv4.
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.0.contains(&addr.to_canonical())
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Value for Addresses {
    const KIND: &'static str = "IP addresses";

    fn parse(text: &str) -> Result<Self, String> {
        let address = |item: &str| {
            item.parse::<IpAddr>()
                .map(|ip| ip.to_canonical())
                .map_err(|_| format!("{item:?} is not an IP address"))
        };
        text.split(',').map(address).collect::<Result<_, _>>().map(Self)
    }
}

/// Suffixes of DNS names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suffixes(pub Vec<Suffix>);

/// A suffix of DNS names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suffix {
    /// `.`: every name.
    Any,
    /// This name, and those below it.
    Name(DnsName),
}

impl Suffixes {
    /// Whether a name is one of these, or below one.
    pub fn contains(&self, name: &DnsName) -> bool {
        self.0.iter().any(|suffix| match suffix {
            Suffix::Any => true,
            Suffix::Name(suffix) => name
                .as_str()
                .strip_suffix(suffix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
        })
    }
}

impl Value for Suffixes {
    const KIND: &'static str = "DNS suffixes";

    fn parse(text: &str) -> Result<Self, String> {
        let suffix = |item: &str| match item {
            "." => Ok(Suffix::Any),
            item => DnsName::parse(item)
                .map(Suffix::Name)
                .map_err(|_| format!("{item:?} is not a DNS suffix")),
        };
        items(text).map(suffix).collect::<Result<_, _>>().map(Self)
    }
}

impl Value for Identity {
    const KIND: &'static str = "identity";

    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|_| "expected a DNS name or a URI like spiffe://domain/path".to_owned())
    }
}

impl Value for DnsName {
    const KIND: &'static str = "DNS name";

    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|_| "expected a DNS name".to_owned())
    }
}

impl Value for PathBuf {
    const KIND: &'static str = "path";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("expected a path".to_owned()),
            text => Ok(text.into()),
        }
    }
}

impl Value for Arc<str> {
    const KIND: &'static str = "text";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.into())
    }
}

/// Certificates of the authorities that the mesh trusts; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustAnchors(pub Vec<CertificateDer<'static>>);

impl Value for TrustAnchors {
    const KIND: &'static str = "PEM";

    fn parse(text: &str) -> Result<Self, String> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| format!("the PEM can't be read: {error:?}"))?;
        for (i, certificate) in certificates.iter().enumerate() {
            webpki::anchor_from_trusted_cert(certificate)
                .map_err(|error| format!("certificate {} can't be a trust anchor: {error}", i + 1))?;
        }
        match certificates.is_empty() {
            true => Err("expected at least one PEM certificate".to_owned()),
            false => Ok(Self(certificates)),
        }
    }
}

/// Who may connect while the control plane has not said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultPolicy {
    /// Nobody.
    Deny,
    /// Meshed clients, from anywhere.
    AllAuthenticated,
    /// Everybody.
    AllUnauthenticated,
    /// Meshed clients in the cluster networks.
    ClusterAuthenticated,
    /// Everybody in the cluster networks.
    ClusterUnauthenticated,
    /// Everybody; what `deny` would have refused is reported.
    Audit,
}

impl DefaultPolicy {
    /// Whether the policy speaks of the cluster networks.
    pub fn needs_networks(self) -> bool {
        matches!(self, Self::ClusterAuthenticated | Self::ClusterUnauthenticated)
    }
}

impl Value for DefaultPolicy {
    const KIND: &'static str = "policy";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "deny" => Self::Deny,
            "all-authenticated" => Self::AllAuthenticated,
            "all-unauthenticated" => Self::AllUnauthenticated,
            "cluster-authenticated" => Self::ClusterAuthenticated,
            "cluster-unauthenticated" => Self::ClusterUnauthenticated,
            "audit" => Self::Audit,
            _ => {
                return Err(
                    "expected deny, audit, or {all,cluster}-{authenticated,unauthenticated}".to_owned(),
                );
            }
        })
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Plain,
    /// One JSON object per line.
    Json,
}

impl Value for LogFormat {
    const KIND: &'static str = "`plain` or `json`";

    /// Anything but JSON is plain, as in Linkerd.
    fn parse(text: &str) -> Result<Self, String> {
        match text.eq_ignore_ascii_case("json") {
            true => Ok(Self::Json),
            false => Ok(Self::Plain),
        }
    }
}

/// How access log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// None are written.
    Off,
    /// Apache's common log format.
    Apache,
    /// One JSON object per line.
    Json,
}

impl Value for AccessLog {
    const KIND: &'static str = "`apache` or `json`";

    /// Anything else writes none, as in Linkerd.
    fn parse(text: &str) -> Result<Self, String> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "apache" => Self::Apache,
            "json" => Self::Json,
            _ => Self::Off,
        })
    }
}

/// Whether authorities label inbound metrics: their number is up to the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsafeLabels(pub bool);

impl Value for UnsafeLabels {
    const KIND: &'static str = "empty or `unsafe`";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self(false)),
            text if text.eq_ignore_ascii_case("unsafe") => Ok(Self(true)),
            _ => Err("expected unsafe, or nothing".to_owned()),
        }
    }
}

/// What must stay empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Never;

impl Value for Never {
    const KIND: &'static str = "must be empty";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(Self),
            _ => Err("a mesh without identities is not supported: unset it".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_a_whole_number_and_a_unit() {
        let seconds = |text| Duration::parse(text).map(|duration| duration.as_secs_f64());
        assert_eq!(seconds("300ms"), Ok(0.3));
        assert_eq!(seconds(" 10s "), Ok(10.0));
        assert_eq!(seconds("2m"), Ok(120.0));
        assert_eq!(seconds("365d"), Ok(31_536_000.0));
        assert_eq!(seconds("0"), Ok(0.0));
        for bad in [
            "",
            "10",
            "1.5s",
            "1m30s",
            "-1s",
            "+1s",
            "1 s",
            "s",
            "1S",
            "99999999999999999999s",
            "36501d",
        ] {
            assert!(Duration::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn numbers_are_digits_only() {
        assert_eq!(u32::parse("4294967295"), Ok(u32::MAX));
        for bad in ["", "4294967296", "+1", "-1", " 1", "1.0", "0x1"] {
            assert!(u32::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ratios_are_above_zero_and_at_most_one() {
        assert_eq!(Ratio::parse("0.25"), Ok(Ratio(0.25)));
        for bad in ["0", "1.01", "-1", "NaN", "inf", ""] {
            assert!(Ratio::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Jitter::parse("NaN").is_err());
    }

    #[test]
    fn a_socket_address_with_a_name_is_told_so() {
        assert_eq!(
            SocketAddr::parse("localhost:80"),
            Err("host is not an IP address".to_owned())
        );
    }

    #[test]
    fn there_are_at_most_two_listeners() {
        assert!(Listeners::parse("127.0.0.1:1,[::1]:1").is_ok());
        assert!(Listeners::parse("127.0.0.1:1,[::1]:1,127.0.0.2:1").is_err());
        assert!(Listeners::parse("").is_err());
    }

    #[test]
    fn a_host_and_port_prints_as_it_was_written() {
        for text in ["10.0.0.1:80", "[fd00::1]:80", "web.ns.svc:80", "web.ns.svc.:80"] {
            assert_eq!(HostPort::parse(text).unwrap().to_string(), text);
        }
        for bad in [
            "web",
            "web:",
            "web:99999",
            ":80",
            "we b:80",
            "fd00::1:x",
            "10.0.0:",
        ] {
            assert!(HostPort::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn loopback_is_an_address_or_the_name_localhost() {
        for local in [
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
            "localhost:1",
            "LOCALHOST.:1",
        ] {
            assert!(HostPort::parse(local).unwrap().is_loopback(), "{local}");
        }
        assert!(!HostPort::parse("localhost.example:1").unwrap().is_loopback());
    }

    #[test]
    fn a_port_set_reads_blanks_and_ranges() {
        let ports = PortSet::parse(" 80, ,443 , 8000-8002,8003,").unwrap();
        assert_eq!(
            ports.iter().collect::<Vec<_>>(),
            [80, 443, 8000, 8001, 8002, 8003]
        );
        for bad in ["x", "1-", "-1", "2-1", "65536", "1-2-3"] {
            assert!(PortSet::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn networks_hold_addresses_of_their_family() {
        let networks = Networks::parse("10.1.2.3/8, fd00::/8").unwrap();
        let holds = |ip: &str| networks.contains(ip.parse().unwrap());
        assert!(holds("10.9.9.9") && holds("::ffff:10.9.9.9") && holds("fd00::1"));
        assert!(!holds("11.0.0.1"));
        assert!(Networks::parse("10.0.0.1").is_err());
    }

    #[test]
    fn addresses_are_strict() {
        assert!(Addresses::parse("10.0.0.1,fd00::1").is_ok());
        for bad in ["", "10.0.0.1, fd00::1", "10.0.0.1,"] {
            assert!(Addresses::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_dot_is_every_suffix() {
        let name = |text| Suffix::Name(DnsName::parse(text).unwrap());
        let expected = Suffixes(vec![Suffix::Any, name("svc.cluster.local")]);
        assert_eq!(Suffixes::parse(".,SVC.cluster.local."), Ok(expected));
    }

    #[test]
    fn a_suffix_holds_itself_and_what_is_below_it() {
        let suffixes = Suffixes::parse("svc.cluster.local.").unwrap();
        let holds = |name: &str| suffixes.contains(&DnsName::parse(name).unwrap());
        assert!(holds("web.ns.svc.cluster.local") && holds("svc.cluster.local"));
        assert!(!holds("evilsvc.cluster.local") && !holds("cluster.local"));
        assert!(!Suffixes::default().contains(&DnsName::parse("web").unwrap()));
    }

    proptest! {
        #[test]
        fn milliseconds_round_trip(n in 0u64..1_000_000_000) {
            prop_assert_eq!(Duration::parse(&format!("{n}ms")), Ok(Duration::from_millis(n)));
        }

        #[test]
        fn a_port_set_holds_exactly_what_was_listed(
            ranges in prop::collection::vec((any::<u16>(), 0u16..40), 0..8),
            probe in any::<u16>(),
        ) {
            let ranges: Vec<_> = ranges.iter().map(|(a, n)| (*a, a.saturating_add(*n))).collect();
            let text: Vec<_> = ranges.iter().map(|(a, b)| format!("{a}-{b}")).collect();
            let set = PortSet::parse(&text.join(",")).unwrap();
            let probes = ranges.iter().flat_map(|(a, b)| [a.wrapping_sub(1), *a, *b, b.wrapping_add(1)]);
            for probe in probes.chain([probe]) {
                let listed = ranges.iter().any(|(a, b)| (*a..=*b).contains(&probe));
                prop_assert_eq!(set.contains(probe), listed);
            }
            let ports: Vec<_> = set.iter().collect();
            prop_assert!(ports.is_sorted_by(|a, b| a < b));
        }
    }
}
