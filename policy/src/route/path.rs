//! Path matchers.

use std::sync::Arc;

use regex::Regex;

/// Which paths a rule applies to, matched raw.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// Equal.
    Exact(Arc<str>),
    /// A prefix of whole segments; a trailing slash of the pattern is ignored.
    Prefix(Arc<str>),
    /// The pattern matches the whole path.
    Regex(Regex),
}

impl PartialEq for PathMatch {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b)) | (Self::Prefix(a), Self::Prefix(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}
