//! Readiness: a few named conditions, all of which must be met.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

/// Whether this proxy can take traffic, and if not, why.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<watch::Sender<Vec<State>>>);

/// One thing that readiness depends on.
#[derive(Debug)]
pub struct Condition {
    index: usize,
    readiness: Readiness,
}

#[derive(Clone, Debug)]
struct State {
    name: &'static str,
    met: Met,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Met {
    Yes,
    /// A certificate that is valid until then.
    Until(SystemTime),
    No(Cow<'static, str>),
}

impl Readiness {
    /// Ready, until conditions are added.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Vec::new())))
    }

    /// Adds a condition that is not met yet, for this reason. Add all before the first probe is answered.
    pub fn condition(&self, name: &'static str, reason: impl Into<Cow<'static, str>>) -> Condition {
        let met = Met::No(reason.into());
        let mut index = 0;
        self.0.send_modify(|states| {
            index = states.len();
            states.push(State { name, met });
        });
        let readiness = self.clone();
        Condition { index, readiness }
    }

    /// What is missing at `now`, each as `name: reason`; nothing when ready.
    pub fn missing(&self, now: SystemTime) -> Vec<String> {
        missing(&self.0.borrow(), now)
    }

    /// Waits until every condition is met.
    pub async fn ready(&self) {
        let mut changes = self.0.subscribe();
        // The sender lives in `self`, so the wait can't fail.
        let _ready = changes
            .wait_for(|states| missing(states, SystemTime::now()).is_empty())
            .await;
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Condition {
    /// It is met from now on.
    pub fn met(&self) {
        self.set(Met::Yes);
    }

    /// It is met until this time, and then no more unless it is set again.
    pub fn met_until(&self, time: SystemTime) {
        self.set(Met::Until(time));
    }

    /// It is not met, for this reason.
    pub fn unmet(&self, reason: impl Into<Cow<'static, str>>) {
        self.set(Met::No(reason.into()));
    }

    fn set(&self, met: Met) {
        self.readiness
            .0
            .send_modify(|states| states[self.index].met = met);
    }
}

fn missing(states: &[State], now: SystemTime) -> Vec<String> {
    let reason = |state: &State| match &state.met {
        Met::Yes => None,
        Met::Until(time) if now < *time => None,
        Met::Until(_) => Some(format!("{}: expired", state.name)),
        Met::No(reason) => Some(format!("{}: {reason}", state.name)),
    };
    states.iter().filter_map(reason).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn all_conditions_must_be_met() {
        let readiness = Readiness::new();
        let identity = readiness.condition("identity", "no certificate yet");
        let listeners = readiness.condition("listeners", "not bound yet");
        listeners.met();
        assert_eq!(readiness.missing(UNIX_EPOCH), ["identity: no certificate yet"]);
        identity.met();
        assert!(readiness.missing(UNIX_EPOCH).is_empty());
        listeners.unmet("draining");
        assert_eq!(readiness.missing(UNIX_EPOCH), ["listeners: draining"]);
    }

    #[test]
    fn a_certificate_that_has_expired_is_not_enough() {
        let readiness = Readiness::new();
        let expiry = UNIX_EPOCH + Duration::from_secs(1);
        readiness.condition("identity", "none").met_until(expiry);
        assert!(readiness.missing(UNIX_EPOCH).is_empty());
        assert_eq!(readiness.missing(expiry), ["identity: expired"]);
    }

    #[tokio::test]
    async fn who_waits_is_woken_when_the_last_condition_is_met() {
        let readiness = Readiness::new();
        let condition = readiness.condition("identity", "none");
        let waiting = tokio::spawn(async move { readiness.ready().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        condition.met();
        waiting.await.unwrap();
    }
}
