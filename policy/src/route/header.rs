//! Header and query-parameter matchers.

use std::sync::Arc;

use http::header::HeaderName;
use regex::Regex;

/// A header that must be there with this value; any one of several values may match.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderMatch {
    /// The header.
    pub name: HeaderName,
    /// Its value.
    pub value: ValueMatch,
}

/// A query parameter that must be there with this value (form-urlencoded, any occurrence).
#[derive(Clone, Debug, PartialEq)]
pub struct QueryMatch {
    /// The parameter.
    pub name: Arc<str>,
    /// Its value.
    pub value: ValueMatch,
}

/// A value: exact bytes, or a pattern for the whole of it.
#[derive(Clone, Debug)]
pub enum ValueMatch {
    /// Equal, case-sensitive.
    Exact(Arc<[u8]>),
    /// The pattern matches the whole value.
    Regex(Regex),
}

impl PartialEq for ValueMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}
