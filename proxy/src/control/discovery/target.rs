//! Profile and policy of a destination, joined to the one policy that the data path follows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_policy::endpoint::Endpoint;
use outrigger_policy::outbound::OutboundPolicy;
use outrigger_policy::profile::{effective, forward};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::info;

use crate::config;
use crate::control::discovery::answer::Answer;
use crate::control::discovery::outbound_policy::LookupAnswer;
use crate::control::discovery::profile::ProfileAnswer;
use crate::live::{Live, Publisher};

/// How long a new destination waits for the control plane.
const FIRST_ANSWER: Duration = Duration::from_secs(3);

/// Why nothing is known of a destination: `Kind::Discovery`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// The control plane was silent.
    #[error("no answer about {0} from the control plane within {FIRST_ANSWER:?}")]
    Timeout(SocketAddr),
    /// It refused to answer.
    #[error("the control plane refused to answer about {0}: {1}")]
    Refused(SocketAddr, Arc<str>),
}

/// Which addresses the control plane has something to say about.
#[derive(Clone, Debug)]
pub(crate) struct Networks {
    /// Those that may have a profile.
    pub(crate) profile: config::Networks,
    /// Those of the cluster; may be empty.
    pub(crate) cluster: config::Networks,
}

impl Networks {
    pub(crate) fn may_have_profile(&self, dst: SocketAddr) -> bool {
        self.profile.contains(dst.ip())
    }

    /// Whether the address is certainly none of the mesh's. Without any network configured none is.
    fn are_foreign_to(&self, dst: SocketAddr) -> bool {
        let nothing_configured = self.profile.0.is_empty() && self.cluster.0.is_empty();
        !nothing_configured && !self.profile.contains(dst.ip()) && !self.cluster.contains(dst.ip())
    }
}

/// Waits for both answers, then keeps their join current.
pub(crate) async fn join(
    dst: SocketAddr,
    mut profile: Live<ProfileAnswer>,
    mut lookup: Live<LookupAnswer>,
    networks: &Networks,
    runtime: &Handle,
) -> Result<Live<OutboundPolicy>, DiscoveryError> {
    let both = async { tokio::join!(answered(&mut profile), answered(&mut lookup)) };
    let first = match timeout(FIRST_ANSWER, both).await {
        Ok((_, Answer::Refused(why))) => return Err(DiscoveryError::Refused(dst, why)),
        Ok((profile, lookup)) => decide(dst, &profile, &lookup),
        Err(_) => None,
    };
    let first = match first {
        Some(policy) => policy,
        None if networks.are_foreign_to(dst) => {
            info!(%dst, "forwarding to an address outside the mesh without an answer from the control plane");
            forward("fallback", Endpoint::bare(dst))
        }
        None => return Err(DiscoveryError::Timeout(dst)),
    };
    let (publisher, live) = Live::new(first);
    runtime.spawn(async move {
        tokio::select! {
            () = keep(dst, profile, lookup, &publisher) => {}
            () = publisher.unused() => {}
        }
    });
    Ok(live)
}

/// Publishes the join of each new pair of answers. Never returns: it holds the streams open.
async fn keep(
    dst: SocketAddr,
    mut profile: Live<ProfileAnswer>,
    mut lookup: Live<LookupAnswer>,
    publisher: &Publisher<OutboundPolicy>,
) {
    loop {
        let seen = (profile.get_and_mark_seen(), lookup.get_and_mark_seen());
        if let Some(policy) = decide(dst, &seen.0, &seen.1)
            && *publisher.get() != policy
        {
            publisher.set(policy);
        }
        // A stream that has ended for good changes nothing any more; the other may.
        tokio::select! {
            Ok(_) = profile.changed() => {}
            Ok(_) = lookup.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// The policy that both answers give together, if both are there.
fn decide(dst: SocketAddr, profile: &ProfileAnswer, lookup: &LookupAnswer) -> Option<OutboundPolicy> {
    match (profile, lookup) {
        (Answer::Known(profile), Answer::Known(lookup)) => Some(effective(dst, profile.as_ref(), lookup)),
        _ => None,
    }
}

/// The first answer that is one. A stream that ended without any has left its reason.
async fn answered<T: Clone + PartialEq>(live: &mut Live<Answer<T>>) -> Answer<T> {
    loop {
        let now = live.get_and_mark_seen();
        if *now != Answer::Waiting || live.changed().await.is_err() {
            return (*live.get()).clone();
        }
    }
}
