//! Rate limits of a port: in total and for each client identity (GCRA, ITU-T I.371 annex A).

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::name::{Identity, ResourceRef};

/// How many requests a port takes each second (`HttpLocalRateLimit`); `None` is no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimitPolicy {
    /// The object that says so.
    pub meta: Arc<ResourceRef>,
    /// From all clients together.
    pub total: Option<NonZeroU32>,
    /// From each identity; clients without one share a limit.
    pub identity: Option<NonZeroU32>,
    /// In place of `identity` for the clients named; the first that names a client decides.
    pub overrides: Vec<Override>,
}

/// A limit of its own for some clients, each of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// Requests each second; `None` is no limit.
    pub limit: Option<NonZeroU32>,
    /// For these.
    pub clients: Vec<Identity>,
}

/// A request too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited {
    /// Which limit it exceeds.
    pub scope: Scope,
    /// Requests each second.
    pub limit: NonZeroU32,
}

/// Which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// That of all clients together.
    Total,
    /// That of each identity.
    Identity,
    /// That of the identities named in an override.
    Override,
}

/// The identities that are remembered at the same time for one port. Beyond them, those that are not known share one
/// limit until others have been idle for long enough to be forgotten.
pub const MAX_IDENTITIES: usize = 10_000;

/// Parts of the identities, each with a lock of its own.
const SHARDS: usize = 16;

/// The limits of a port, and what was used of them.
#[derive(Debug)]
pub struct RateLimiter {
    policy: RateLimitPolicy,
    total: Bucket,
    /// Clients without an identity.
    nobody: Bucket,
    /// Clients for whom there is no place.
    crowd: Bucket,
    identities: [Mutex<HashMap<Identity, Bucket>>; SHARDS],
}

/// What was used of one limit: when the last request would have come, had all kept their distance. Nanoseconds.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

impl RateLimiter {
    /// Limits of which nothing was used.
    pub fn new(policy: RateLimitPolicy) -> Self {
        Self {
            policy,
            total: Bucket::default(),
            nobody: Bucket::default(),
            crowd: Bucket::default(),
            identities: Default::default(),
        }
    }

    /// The limits of an update: what was used of a limit that did not change stays used.
    pub fn updated(&self, policy: RateLimitPolicy) -> Self {
        let same_total = policy.total == self.policy.total;
        let same_identity = policy.identity == self.policy.identity;
        let shard = |shard: &Mutex<HashMap<Identity, Bucket>>| {
            let known = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let same = |id: &Identity| policy.limit_of(Some(id)) == self.policy.limit_of(Some(id));
            let kept = known.iter().filter(|(id, _)| same(id));
            Mutex::new(kept.map(|(id, bucket)| (id.clone(), bucket.copy())).collect())
        };
        Self {
            total: self.total.copy_if(same_total),
            nobody: self.nobody.copy_if(same_identity),
            crowd: self.crowd.copy_if(same_identity),
            identities: std::array::from_fn(|i| shard(&self.identities[i])),
            policy,
        }
    }

    /// What it was made from.
    pub fn policy(&self) -> &RateLimitPolicy {
        &self.policy
    }

    /// Lets a request of this client through, or says which limit it exceeds. What one client is refused costs the
    /// others nothing. `now` is a monotonic time since any one epoch.
    pub fn admit(&self, client: Option<&Identity>, now: Duration) -> Result<(), Limited> {
        let now = nanos(now);
        let over_total = |limit| Limited {
            scope: Scope::Total,
            limit,
        };
        if let Some(limit) = self.policy.total
            && !self.total.has(limit, now)
        {
            return Err(over_total(limit));
        }
        if let (scope, Some(limit)) = self.policy.limit_of(client)
            && !self.take(client, scope, limit, now)
        {
            return Err(Limited { scope, limit });
        }
        match self.policy.total {
            Some(limit) if !self.total.take(limit, now) => Err(over_total(limit)),
            _ => Ok(()),
        }
    }

    /// How many identities are remembered.
    pub fn identities(&self) -> usize {
        let len = |shard: &Mutex<HashMap<_, _>>| shard.lock().unwrap_or_else(PoisonError::into_inner).len();
        self.identities.iter().map(len).sum()
    }

    fn take(&self, client: Option<&Identity>, scope: Scope, limit: NonZeroU32, now: u64) -> bool {
        let Some(id) = client else {
            return self.nobody.take(limit, now);
        };
        let mut shard = self.identities[shard_of(id)]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = shard.get(id) {
            return bucket.take(limit, now);
        }
        // Names that the policy itself gives always have a place: how many they are is the control plane's affair.
        if shard.len() >= MAX_IDENTITIES / SHARDS && scope != Scope::Override {
            // What is not ahead of time has its whole burst again: to forget it changes nothing.
            shard.retain(|_, bucket| bucket.0.load(Ordering::Relaxed) > now);
            if shard.len() >= MAX_IDENTITIES / SHARDS {
                drop(shard);
                return self.crowd.take(limit, now);
            }
        }
        shard.entry(id.clone()).or_default().take(limit, now)
    }
}

impl RateLimitPolicy {
    /// Whether it limits anything.
    pub fn limits(&self) -> bool {
        let overrides = self.overrides.iter().any(|o| o.limit.is_some());
        self.total.is_some() || self.identity.is_some() || overrides
    }

    /// The limit that concerns this client alone.
    fn limit_of(&self, client: Option<&Identity>) -> (Scope, Option<NonZeroU32>) {
        let named = client.and_then(|id| self.overrides.iter().find(|o| o.clients.contains(id)));
        match named {
            Some(named) => (Scope::Override, named.limit),
            None => (Scope::Identity, self.identity),
        }
    }
}

impl std::fmt::Display for Limited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scope = match self.scope {
            Scope::Total => "total",
            Scope::Identity => "per-identity",
            Scope::Override => "override",
        };
        write!(f, "{scope} rate limit exceeded: {}rps", self.limit)
    }
}

impl Bucket {
    /// Takes a request, if the burst (as many as the limit lets through in a second) is not used up.
    fn take(&self, limit: NonZeroU32, now: u64) -> bool {
        let next = |last: u64| Self::next(last, limit, now);
        let order = Ordering::Relaxed;
        self.0.fetch_update(order, order, next).is_ok()
    }

    fn has(&self, limit: NonZeroU32, now: u64) -> bool {
        Self::next(self.0.load(Ordering::Relaxed), limit, now).is_some()
    }

    fn next(last: u64, limit: NonZeroU32, now: u64) -> Option<u64> {
        // Rounded up: never faster than the limit.
        let distance = 1_000_000_000u64.div_ceil(limit.get().into());
        let next = last.max(now).saturating_add(distance);
        let burst = distance * u64::from(limit.get());
        (next - now <= burst).then_some(next)
    }

    fn copy(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }

    fn copy_if(&self, same: bool) -> Self {
        if same { self.copy() } else { Self::default() }
    }
}

fn shard_of(id: &Identity) -> usize {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish() as usize % SHARDS
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn id(name: &str) -> Identity {
        Identity::parse(name).unwrap()
    }

    fn policy(total: u32, identity: u32, overrides: &[(&str, u32)]) -> RateLimitPolicy {
        let one = |(name, limit): &(&str, u32)| Override {
            limit: NonZeroU32::new(*limit),
            clients: vec![id(name)],
        };
        RateLimitPolicy {
            meta: Arc::new(ResourceRef::of_default("limit")),
            total: NonZeroU32::new(total),
            identity: NonZeroU32::new(identity),
            overrides: overrides.iter().map(one).collect(),
        }
    }

    fn admitted(limiter: &RateLimiter, client: Option<&Identity>, now: Duration) -> usize {
        (0..1000)
            .take_while(|_| limiter.admit(client, now).is_ok())
            .count()
    }

    #[test]
    fn a_burst_is_as_large_as_the_rate_and_fills_up_again() {
        let limiter = RateLimiter::new(policy(10, 0, &[]));
        assert_eq!(admitted(&limiter, None, SECOND), 10);
        assert_eq!(admitted(&limiter, None, SECOND + SECOND / 2), 5);
        assert_eq!(admitted(&limiter, None, 9 * SECOND), 10);
    }

    #[test]
    fn each_identity_has_its_own_and_clients_without_one_share_theirs() {
        let limiter = RateLimiter::new(policy(0, 3, &[("big.ns", 7), ("free.ns", 0)]));
        for (client, expected) in [
            (Some(id("a.ns")), 3),
            (Some(id("b.ns")), 3),
            (Some(id("big.ns")), 7),
            (Some(id("free.ns")), 1000),
            (None, 3),
            (None, 0),
        ] {
            assert_eq!(
                admitted(&limiter, client.as_ref(), SECOND),
                expected,
                "{client:?}"
            );
        }
        let limited = limiter.admit(Some(&id("big.ns")), SECOND).unwrap_err();
        assert_eq!(limited.to_string(), "override rate limit exceeded: 7rps");
    }

    #[test]
    fn what_one_client_is_refused_costs_the_others_nothing() {
        let limiter = RateLimiter::new(policy(10, 3, &[]));
        for _ in 0..100 {
            limiter.admit(Some(&id("greedy.ns")), SECOND).ok();
        }
        assert_eq!(admitted(&limiter, Some(&id("a.ns")), SECOND), 3);
        assert_eq!(admitted(&limiter, Some(&id("b.ns")), SECOND), 3);
        assert_eq!(admitted(&limiter, Some(&id("c.ns")), SECOND), 1);
        assert_eq!(
            limiter.admit(Some(&id("d.ns")), SECOND).unwrap_err().scope,
            Scope::Total
        );
    }

    #[test]
    fn an_update_keeps_what_was_used_of_limits_that_stay() {
        let limiter = RateLimiter::new(policy(10, 3, &[("a.ns", 5)]));
        assert_eq!(admitted(&limiter, Some(&id("a.ns")), SECOND), 5);
        assert_eq!(admitted(&limiter, Some(&id("b.ns")), SECOND), 3);
        let updated = limiter.updated(policy(10, 3, &[("a.ns", 6)]));
        assert_eq!(admitted(&updated, Some(&id("b.ns")), SECOND), 0);
        assert_eq!(admitted(&updated, Some(&id("a.ns")), SECOND), 2);
        let doubled = limiter.updated(policy(20, 3, &[]));
        assert_eq!(admitted(&doubled, Some(&id("c.ns")), SECOND), 3);
    }

    #[test]
    fn identities_are_bounded_and_the_idle_forgotten() {
        let limiter = RateLimiter::new(policy(0, 1, &[]));
        for i in 0..2 * MAX_IDENTITIES {
            limiter.admit(Some(&id(&format!("client-{i}.ns"))), SECOND).ok();
        }
        assert!(limiter.identities() <= MAX_IDENTITIES);
        assert!(limiter.admit(Some(&id("late.ns")), SECOND).is_err());
        assert!(limiter.admit(Some(&id("late.ns")), 3 * SECOND).is_ok());
        assert!(limiter.identities() < MAX_IDENTITIES, "{}", limiter.identities());
    }

    #[test]
    fn the_highest_rate_and_the_end_of_time_do_not_overflow() {
        let limiter = RateLimiter::new(policy(u32::MAX, 1, &[]));
        assert!(limiter.admit(None, Duration::ZERO).is_ok());
        limiter.admit(None, Duration::MAX).unwrap();
    }
}
