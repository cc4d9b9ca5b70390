//! Header and query-parameter matchers.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderName;

use crate::Unsupported;
use crate::route::pattern::Pattern;

/// A header that must be there with this value; any one of several values may match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// The header.
    pub name: HeaderName,
    /// Its value.
    pub value: ValueMatch,
}

/// A query parameter that must be there with this value (form-urlencoded, any occurrence).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatch {
    /// The parameter.
    pub name: Arc<str>,
    /// Its value.
    pub value: ValueMatch,
}

/// A value: exact bytes, or a pattern for the whole of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// Equal, case-sensitive.
    Exact(Arc<[u8]>),
    /// The pattern matches the whole value.
    Regex(Pattern),
}

impl HeaderMatch {
    /// Whether one of the header's values matches.
    pub fn matches(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        values.any(|value| self.value.matches(value.as_bytes()))
    }
}

impl QueryMatch {
    /// Whether one of the parameters of that name matches. Allocates only to match a pattern with an encoded value.
    pub fn matches(&self, query: &str) -> bool {
        query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .any(|(name, value)| decoded(name).eq(self.name.bytes()) && self.value.matches_encoded(value))
    }
}

impl ValueMatch {
    /// A pattern for the whole value, refused when it can't be compiled.
    pub fn regex(pattern: &str) -> Result<Self, Unsupported> {
        Pattern::new(pattern).map(Self::Regex)
    }

    /// Whether the value matches.
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => value == &**exact,
            Self::Regex(pattern) => pattern.matches(value),
        }
    }

    fn matches_encoded(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => decoded(value).eq(exact.iter().copied()),
            Self::Regex(pattern) => {
                let plain = if value.contains(['%', '+']) {
                    Cow::Owned(decoded(value).collect())
                } else {
                    Cow::Borrowed(value.as_bytes())
                };
                pattern.matches(&plain)
            }
        }
    }
}

/// The bytes that a form-urlencoded text stands for; a `%` without two hex digits stands for itself
/// (WHATWG URL §1.3, §5.1).
fn decoded(text: &str) -> impl Iterator<Item = u8> {
    let mut rest = text.as_bytes();
    std::iter::from_fn(move || {
        let (byte, after) = match *rest {
            [] => return None,
            [b'+', ref after @ ..] => (b' ', after),
            [b'%', high, low, ref after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex(high) << 4 | hex(low), after)
            }
            [byte, ref after @ ..] => (byte, after),
        };
        rest = after;
        Some(byte)
    })
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, value: ValueMatch) -> QueryMatch {
        QueryMatch {
            name: name.into(),
            value,
        }
    }

    #[test]
    fn any_one_of_a_headers_values_may_match() {
        let header = HeaderMatch {
            name: HeaderName::from_static("x-version"),
            value: ValueMatch::Exact((*b"v2").into()),
        };
        let mut headers = HeaderMap::new();
        assert!(!header.matches(&headers));
        headers.append("x-version", "v1".parse().unwrap());
        assert!(!header.matches(&headers));
        headers.append("x-version", "v2".parse().unwrap());
        assert!(header.matches(&headers));
    }

    #[test]
    fn query_parameters_are_compared_decoded() {
        let exact = query("a b", ValueMatch::Exact((*b"1&2=+").into()));
        assert!(exact.matches("x=1&a+b=no&a%20b=1%262%3d%2B"));
        assert!(!exact.matches("a b=1&2=+"));
        let pattern = query("q", ValueMatch::regex("a c|x%").unwrap());
        assert!(pattern.matches("q=a%20c") && pattern.matches("q=x%") && pattern.matches("q=x%25"));
        assert!(!pattern.matches("q=a%20cc"));
    }

    #[test]
    fn a_parameter_without_a_value_is_empty() {
        let empty = query("debug", ValueMatch::Exact((*b"").into()));
        assert!(empty.matches("debug") && empty.matches("a=1&debug="));
        assert!(!empty.matches("") && !empty.matches("debug=1"));
    }

    #[test]
    fn a_broken_escape_stands_for_itself() {
        let text: Vec<u8> = decoded("%zz%4%41%").collect();
        assert_eq!(text, b"%zz%4A%");
    }
}
