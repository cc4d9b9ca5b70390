//! Host matchers: exact names and suffixes.

use std::sync::Arc;

/// Which hosts (or server names) a route applies to. Comparison ignores case, and a trailing dot of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMatch {
    /// This name, in lower case.
    Exact(Arc<str>),
    /// `*.` this name, in lower case with its leading dot: at least one label more.
    Suffix(Arc<str>),
}
