//! Host matchers: exact names and suffixes, for HTTP hosts and TLS server names.

use std::sync::Arc;

/// Which hosts (or server names) a route applies to. Comparison ignores case, and a trailing dot of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMatch {
    /// This name, in lower case.
    Exact(Arc<str>),
    /// `*.` this name, in lower case with its leading dot: at least one label more.
    Suffix(Arc<str>),
}

/// How closely a matcher describes a host; the greater wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostSpecificity {
    /// The route is for every host.
    Any,
    /// A suffix of this many bytes.
    Suffix(usize),
    /// The host itself.
    Exact,
}

impl HostMatch {
    /// This host, folded to lower case, without a trailing dot.
    pub fn exact(name: &str) -> Self {
        Self::Exact(without_dot(name).to_ascii_lowercase().into())
    }

    /// Every host below this name, which is folded to lower case; a leading `*.` or `.` may be there or not.
    pub fn suffix(name: &str) -> Self {
        let name = name.strip_prefix('*').unwrap_or(name);
        let name = without_dot(name.strip_prefix('.').unwrap_or(name));
        Self::Suffix(format!(".{}", name.to_ascii_lowercase()).into())
    }

    /// Every host below a name whose labels come last first (`HostMatch.Suffix.reverse_labels`).
    pub fn suffix_of_reverse_labels<S: AsRef<str>>(labels: &[S]) -> Self {
        let name: Vec<&str> = labels.iter().rev().map(AsRef::as_ref).collect();
        Self::suffix(&name.join("."))
    }

    /// How closely this describes the host (a name without a port); `None` when it does not apply.
    pub fn specificity(&self, host: &str) -> Option<HostSpecificity> {
        let host = without_dot(host);
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name).then_some(HostSpecificity::Exact),
            Self::Suffix(suffix) => {
                let start = host.len().checked_sub(suffix.len()).filter(|start| *start > 0)?;
                host.as_bytes()[start..]
                    .eq_ignore_ascii_case(suffix.as_bytes())
                    .then_some(HostSpecificity::Suffix(suffix.len()))
            }
        }
    }
}

/// The most specific of the matchers that apply to the host; no matchers mean any host.
pub fn most_specific(matchers: &[HostMatch], host: &str) -> Option<HostSpecificity> {
    if matchers.is_empty() {
        return Some(HostSpecificity::Any);
    }
    matchers.iter().filter_map(|m| m.specificity(host)).max()
}

/// The host of an authority `[userinfo@]host[:port]` (RFC 3986 §3.2); IPv6 addresses keep their brackets.
pub fn of_authority(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.starts_with('[') {
        return host.find(']').map_or(host, |end| &host[..=end]);
    }
    host.split_once(':').map_or(host, |(host, _)| host)
}

fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_host_ignores_case_and_a_trailing_dot() {
        let host = HostMatch::exact("Web.Example.com");
        for same in ["web.example.com", "WEB.example.com", "web.example.com."] {
            assert_eq!(host.specificity(same), Some(HostSpecificity::Exact), "{same}");
        }
        assert_eq!(host.specificity("a.web.example.com"), None);
    }

    #[test]
    fn a_suffix_needs_at_least_one_label_more() {
        let host = HostMatch::suffix_of_reverse_labels(&["com", "Example"]);
        assert_eq!(host, HostMatch::suffix("*.example.com"));
        assert!(host.specificity("a.b.EXAMPLE.com").is_some());
        for other in ["example.com", ".example.com", "badexample.com", "", "é.com"] {
            assert_eq!(host.specificity(other), None, "{other}");
        }
    }

    #[test]
    fn the_exact_host_beats_the_longer_suffix_which_beats_any() {
        let matchers = [HostMatch::suffix("com"), HostMatch::suffix("b.com")];
        assert_eq!(
            most_specific(&matchers, "a.b.com"),
            Some(HostSpecificity::Suffix(6))
        );
        assert!(HostSpecificity::Exact > HostSpecificity::Suffix(200));
        assert!(most_specific(&[], "x") < most_specific(&matchers, "a.com"));
    }

    #[test]
    fn the_host_of_an_authority_has_no_port_and_no_userinfo() {
        for (authority, host) in [
            ("web:80", "web"),
            ("web", "web"),
            ("", ""),
            ("web:80@evil:1", "evil"),
            ("[::1]:80", "[::1]"),
            ("[::1", "[::1"),
        ] {
            assert_eq!(of_authority(authority), host, "{authority}");
        }
    }
}
