//! Names: identities of workloads, and references to Kubernetes objects.

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;

/// A DNS name in lower case without a trailing dot (RFC 1035 §2.3.1, underscores allowed).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsName(Arc<str>);

/// The text is not a DNS name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidDnsName;

impl DnsName {
    /// Reads a name of at most 253 bytes, whose labels have 1 to 63 letters, digits, `-` or `_`.
    pub fn parse(text: &str) -> Result<Self, InvalidDnsName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() || text.len() > 253 {
            return Err(InvalidDnsName);
        }
        let label_ok = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if !text.split('.').all(label_ok) || text.parse::<std::net::IpAddr>().is_ok() {
            return Err(InvalidDnsName);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InvalidDnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a DNS name")
    }
}

impl std::error::Error for InvalidDnsName {}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A service's name with a port, `name:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NameAddr {
    /// The name.
    pub name: DnsName,
    /// The port.
    pub port: NonZeroU16,
}

impl NameAddr {
    /// Reads `name[:port]`; without a port it is HTTP's own, 80.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, port) = match text.split_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                (name, port.parse().ok()?)
            }
            Some(_) => return None,
            None => (text, 80),
        };
        Some(Self {
            name: DnsName::parse(name).ok()?,
            port: NonZeroU16::new(port)?,
        })
    }
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

/// Who a workload is: the name in the SAN of its certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Identity {
    /// `<sa>.<ns>.serviceaccount.identity.<control-plane-ns>.<trust-domain>`.
    Dns(DnsName),
    /// A SPIFFE ID (`spiffe://trust-domain/path`) or another absolute URI.
    Uri(Arc<str>),
}

impl Identity {
    /// Reads a URI when the text holds `://`, a DNS name otherwise.
    pub fn parse(text: &str) -> Result<Self, InvalidDnsName> {
        match text.split_once("://") {
            Some((scheme, rest)) => {
                let printable = text.len() <= 2048 && text.bytes().all(|b| (0x21..0x7f).contains(&b));
                if scheme.is_empty() || rest.is_empty() || !printable {
                    return Err(InvalidDnsName);
                }
                Ok(Self::Uri(text.into()))
            }
            None => DnsName::parse(text).map(Self::Dns),
        }
    }

    /// The identity as it stands in a certificate, a header or a metric label.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Dns(name) => name.as_str(),
            Self::Uri(uri) => uri,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A Kubernetes object (or a part of one) that a policy came from; it fills metric labels and messages.
///
/// A default that stands for no object has an empty group and namespace, and the kind `default`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceRef {
    /// API group: `policy.linkerd.io`, `core`, or empty for a default.
    pub group: Arc<str>,
    /// Kind as the control plane spells it: `server`, `Service`, `default`.
    pub kind: Arc<str>,
    /// Namespace; empty where the API does not carry one (inbound) and for defaults.
    pub namespace: Arc<str>,
    /// Object name, or the name of the default.
    pub name: Arc<str>,
    /// A named section of the object (Gateway API `sectionName`); empty when the whole is meant.
    pub section: Arc<str>,
    /// The port the object is referred to by, if any.
    pub port: Option<u16>,
}

impl ResourceRef {
    /// A default that stands for no Kubernetes object.
    pub fn of_default(name: impl Into<Arc<str>>) -> Self {
        let empty: Arc<str> = "".into();
        Self {
            group: empty.clone(),
            kind: "default".into(),
            namespace: empty.clone(),
            name: name.into(),
            section: empty,
            port: None,
        }
    }

    /// Whether this is a default, not an object.
    pub fn is_default(&self) -> bool {
        self.group.is_empty() && &*self.kind == "default"
    }
}

impl fmt::Display for ResourceRef {
    /// `kind.namespace.name[:port]`, and `default.name` for defaults.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, ".{}", self.namespace)?;
        }
        write!(f, ".{}", self.name)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_names_are_folded_and_lose_the_trailing_dot() {
        assert_eq!(
            DnsName::parse("Web.Emoji.SVC.").unwrap().as_str(),
            "web.emoji.svc"
        );
    }

    #[test]
    fn what_is_not_a_dns_name_is_refused() {
        for bad in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a b",
            "10.0.0.1",
            "a/b",
            &"x".repeat(64),
        ] {
            assert!(DnsName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_spiffe_id_is_a_uri_identity() {
        let id = Identity::parse("spiffe://root.linkerd.cluster.local/workload").unwrap();
        assert!(matches!(id, Identity::Uri(_)));
        assert!(Identity::parse("spiffe://").is_err());
        assert!(Identity::parse("spiffe://a b").is_err());
    }

    #[test]
    fn a_default_prints_its_name_only() {
        assert_eq!(
            ResourceRef::of_default("fallback").to_string(),
            "default.fallback"
        );
    }
}
