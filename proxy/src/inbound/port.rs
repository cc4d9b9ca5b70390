//! A port of the application: its policy, and what was learnt of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use outrigger_policy::inbound::{InboundPolicy, InboundProtocol};
use outrigger_policy::port::PortPolicy;

use crate::live::Live;
use crate::net::detect::first::Hint;

/// A port of the application.
#[derive(Debug)]
pub struct Port {
    /// What it accepts.
    pub policy: Live<PortPolicy>,
    hint: Hint,
    /// The policy that the hint was learnt under, by its address.
    learnt_under: AtomicUsize,
}

impl Port {
    /// A port that nothing has been learnt of.
    pub fn new(policy: Live<PortPolicy>) -> Self {
        Self {
            policy,
            hint: Hint::default(),
            learnt_under: AtomicUsize::new(0),
        }
    }

    /// Whether the application was seen to speak first, under this policy.
    pub fn hint(&self, policy: &Arc<PortPolicy>) -> &Hint {
        let policy = Arc::as_ptr(policy) as usize;
        if self.learnt_under.swap(policy, Ordering::Relaxed) != policy {
            self.hint.forget();
        }
        &self.hint
    }
}

/// Whether the application may be dialled before the client has spoken: only where being allowed to connect is all
/// that matters, whatever the client then says.
pub fn may_dial_early(policy: &InboundPolicy) -> bool {
    match &policy.protocol {
        InboundProtocol::Detect { routes, .. } => routes.rules().all(|(meta, rule)| {
            rule.unenforced(meta).is_none()
                && rule.filters.is_empty()
                && rule.authorizations == policy.authorizations
        }),
        InboundProtocol::Opaque | InboundProtocol::Tls => true,
        InboundProtocol::Http1(_)
        | InboundProtocol::Http2(_)
        | InboundProtocol::Grpc(_)
        | InboundProtocol::Invalid(_) => false,
    }
}
