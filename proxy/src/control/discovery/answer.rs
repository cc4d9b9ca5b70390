//! `Answer`: what a lookup has brought so far.

use std::sync::Arc;

/// What a lookup has brought so far.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer<T> {
    /// Nothing yet.
    Waiting,
    /// The latest.
    Known(T),
    /// The control plane refused before it had answered; the reason as it gave it.
    Refused(Arc<str>),
}
