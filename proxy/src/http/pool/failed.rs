//! What a pool says of a request that failed.

use crate::error::{self, Fault};

/// A request that failed.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub fault: Fault,
    /// It is back where it came from, and sending it elsewhere is safe: nothing of it was processed, or it changes nothing.
    pub unsent: bool,
}

impl Failed {
    /// The request is back whole.
    pub(in crate::http) fn unsent(fault: Fault) -> Self {
        Self { fault, unsent: true }
    }

    /// The request may have been processed, or its body is gone.
    pub(in crate::http) fn sent(fault: Fault) -> Self {
        Self { fault, unsent: false }
    }
}

/// The same fault for another request, its cause as text.
pub(in crate::http) fn told_again(fault: &Fault) -> Fault {
    Fault {
        kind: fault.kind,
        side: fault.side,
        source: fault.source.as_deref().map(|cause| error::chain(cause).into()),
        place: None,
    }
}
