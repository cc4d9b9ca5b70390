//! A destination: what leads there, and the router that leads on.

use std::sync::Arc;

use outrigger_policy::outbound::OutboundPolicy;

use crate::live::{Live, Publisher};
use crate::net::detect::first::Hint;
use crate::outbound::builder::Builder;
use crate::outbound::dialled::Dialled;
use crate::outbound::router::Router;

/// A destination: what leads there, and the router that leads on.
#[derive(Debug)]
pub struct Target {
    dialled: Dialled,
    router: Live<Router>,
    hint: Arc<Hint>,
}

impl Target {
    /// Makes a policy live, and keeps it so for as long as the target is held.
    pub fn new(dialled: Dialled, mut policy: Live<OutboundPolicy>, builder: &Arc<Builder>) -> Self {
        let (publisher, router) = Live::new(builder.router(&policy.get_and_mark_seen(), None));
        let hint = Arc::new(Hint::default());
        let rebuilding = rebuild(policy, publisher, hint.clone(), builder.clone());
        builder.spawn(rebuilding);
        Self {
            dialled,
            router,
            hint,
        }
    }

    /// What leads there.
    pub fn dialled(&self) -> &Dialled {
        &self.dialled
    }

    /// The router as it is now.
    pub fn router(&self) -> Arc<Router> {
        self.router.get()
    }

    /// Whether the server there was seen to speak first.
    pub(super) fn hint(&self) -> &Hint {
        &self.hint
    }
}

/// Follows a policy's changes until nobody holds the router.
async fn rebuild(
    mut policy: Live<OutboundPolicy>,
    publisher: Publisher<Router>,
    hint: Arc<Hint>,
    builder: Arc<Builder>,
) {
    loop {
        tokio::select! {
            changed = policy.changed() => match changed {
                Ok(policy) => {
                    hint.forget();
                    publisher.set(builder.router(&policy, Some(&publisher.get())));
                }
                // The last policy stays; its backends must not be forgotten while the target is in use.
                Err(_ended) => return publisher.unused().await,
            },
            () = publisher.unused() => return,
        }
    }
}
