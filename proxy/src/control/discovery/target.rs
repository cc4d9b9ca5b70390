//! Profile and policy of a destination, joined to the one policy that the data path follows.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use outrigger_policy::endpoint::Endpoint;
use outrigger_policy::name::NameAddr;
use outrigger_policy::outbound::OutboundPolicy;
use outrigger_policy::profile::{Lookup, Profile, effective, forward};
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
    #[error(
        "no answer about {0} from the control plane within {FIRST_ANSWER:?}: look whether there is such a destination, and at outrigger_control_connected"
    )]
    Timeout(String),
    /// It refused to answer.
    #[error("the control plane refused to answer about {0}: {1}")]
    Refused(String, Arc<str>),
    /// It knows nobody by this name.
    #[error("the control plane knows nothing of {0}")]
    Nobody(String),
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

/// What a profile and a policy say together; `None`: that there is nobody.
pub type Join = fn(u16, Option<&Profile>, &Lookup) -> Option<OutboundPolicy>;

/// Waits for both answers about an address, then keeps their join current.
pub(crate) async fn by_address(
    dst: SocketAddr,
    answers: Answers,
    networks: &Networks,
    runtime: &Handle,
) -> Result<Live<OutboundPolicy>, DiscoveryError> {
    let decide = move |profile: Option<&Profile>, lookup: &Lookup| Some(effective(dst, profile, lookup));
    let mut answers = answers;
    let first = match answers.first(&dst, &decide).await {
        Err(DiscoveryError::Timeout(_)) if networks.are_foreign_to(dst) => {
            info!(%dst, "forwarding to an address outside the mesh without an answer from the control plane");
            forward("fallback", Endpoint::bare(dst))
        }
        first => first?,
    };
    Ok(publish(first, answers, decide, runtime))
}

/// The same about a name.
pub(crate) async fn by_name(
    name: &NameAddr,
    join: Join,
    mut answers: Answers,
    runtime: &Handle,
) -> Result<Live<OutboundPolicy>, DiscoveryError> {
    let port = name.port.get();
    let decide = move |profile: Option<&Profile>, lookup: &Lookup| join(port, profile, lookup);
    let first = answers.first(name, &decide).await?;
    Ok(publish(first, answers, decide, runtime))
}

/// What the control plane says about a destination.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) profile: Live<ProfileAnswer>,
    pub(crate) lookup: Live<LookupAnswer>,
}

impl Answers {
    /// Waits for both, and joins them.
    async fn first(
        &mut self,
        dst: &impl Display,
        decide: &impl Fn(Option<&Profile>, &Lookup) -> Option<OutboundPolicy>,
    ) -> Result<OutboundPolicy, DiscoveryError> {
        let both = async { tokio::join!(answered(&mut self.profile), answered(&mut self.lookup)) };
        match timeout(FIRST_ANSWER, both).await {
            Ok((_, Answer::Refused(why))) => Err(DiscoveryError::Refused(dst.to_string(), why)),
            Ok((Answer::Known(profile), Answer::Known(lookup))) => {
                decide(profile.as_ref(), &lookup).ok_or_else(|| DiscoveryError::Nobody(dst.to_string()))
            }
            Ok(_) | Err(_) => Err(DiscoveryError::Timeout(dst.to_string())),
        }
    }
}

/// Keeps a join current for as long as it is read.
fn publish(
    first: OutboundPolicy,
    answers: Answers,
    decide: impl Fn(Option<&Profile>, &Lookup) -> Option<OutboundPolicy> + Send + 'static,
    runtime: &Handle,
) -> Live<OutboundPolicy> {
    let (publisher, live) = Live::new(first);
    runtime.spawn(async move {
        tokio::select! {
            () = keep(answers, decide, &publisher) => {}
            () = publisher.unused() => {}
        }
    });
    live
}

/// Publishes the join of each new pair of answers. Never returns: it holds the streams open.
async fn keep(
    mut answers: Answers,
    decide: impl Fn(Option<&Profile>, &Lookup) -> Option<OutboundPolicy>,
    publisher: &Publisher<OutboundPolicy>,
) {
    let Answers { profile, lookup } = &mut answers;
    loop {
        let seen = (profile.get_and_mark_seen(), lookup.get_and_mark_seen());
        if let (Answer::Known(profile), Answer::Known(lookup)) = (&*seen.0, &*seen.1)
            && let Some(policy) = decide(profile.as_ref(), lookup)
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

/// The first answer that is one. A stream that ended without any has left its reason.
async fn answered<T: Clone + PartialEq>(live: &mut Live<Answer<T>>) -> Answer<T> {
    loop {
        let now = live.get_and_mark_seen();
        if *now != Answer::Waiting || live.changed().await.is_err() {
            return (*live.get()).clone();
        }
    }
}
