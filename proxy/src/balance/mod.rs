//! The balancer: picks the less loaded of two endpoints, or waits for one.

pub mod endpoint;
pub mod siblings;

use std::sync::Arc;
use std::time::Duration;

use outrigger_policy::balance::p2c::{self, Weights};
use tokio::time::{Instant, timeout};

use crate::balance::endpoint::{Endpoint, Picked, Standing};
use crate::balance::siblings::Siblings;
use crate::error::{Fault, Kind, Side};
use crate::live::{Live, Publisher};
use crate::telemetry::balancer::{BalancerHandles, Census, Observed};

/// The endpoints of one backend.
#[derive(Clone, Debug)]
pub struct Balancer {
    endpoints: Live<Endpoints>,
    siblings: Arc<Siblings>,
}

/// Endpoints in use.
#[derive(Debug, Default)]
pub struct Endpoints {
    list: Vec<Arc<Endpoint>>,
    /// Only where they differ.
    weights: Option<Weights>,
    service: Service,
}

/// What discovery says of the service that a balancer is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// Nothing yet.
    #[default]
    Unheard,
    /// That there is none.
    Unknown,
    /// That there is one, with or without endpoints.
    Known,
}

impl Endpoints {
    /// These, with the weights that discovery gives them.
    pub fn new(list: Vec<Arc<Endpoint>>) -> Self {
        let weights = Weights::new(list.iter().map(|endpoint| endpoint.description().weight));
        Self {
            list,
            weights,
            service: Service::Known,
        }
    }

    /// None: there is no such service.
    pub fn of_nobody() -> Self {
        Self {
            service: Service::Unknown,
            ..Self::default()
        }
    }

    /// All of them.
    pub fn list(&self) -> &[Arc<Endpoint>] {
        &self.list
    }

    /// Whether there are endpoints, and none of them could be connected to.
    fn are_unreachable(&self) -> bool {
        !self.list.is_empty() && !self.list.iter().any(|endpoint| endpoint.is_reachable())
    }

    /// How many there are in each state.
    fn census(&self) -> Census {
        let mut census = Census::default();
        for endpoint in &self.list {
            let count = match endpoint.standing() {
                Standing::Ready => &mut census.ready,
                Standing::Unreachable => &mut census.unreachable,
                Standing::Shut => &mut census.shut,
                Standing::Probation => &mut census.probation,
            };
            *count += 1;
        }
        census
    }

    /// Why none of them takes a request, and what to look at.
    fn why_none(&self) -> String {
        let all = self.list.len();
        match self.service {
            // A control plane need not say anything of a service that has none.
            Service::Unheard => {
                "no endpoints: the control plane has named none so far. Look whether pods are selected \
                                 by the service, and ready, and at outrigger_control_connected"
                    .to_owned()
            }
            Service::Unknown => {
                "no endpoints, since the control plane knows no such service: look at the name and \
                                 port of the backend"
                    .to_owned()
            }
            Service::Known if all == 0 => {
                "no endpoints: look whether pods are selected by the service, and ready".to_owned()
            }
            Service::Known => {
                let census = self.census();
                let (shut, unreachable) = (census.shut + census.probation, census.unreachable);
                format!(
                    "of {all} endpoints {shut} are shut by their circuit breaker and {unreachable} can't be connected \
                     to: look at response_total of each, and at their logs"
                )
            }
        }
    }

    /// `load(endpoint, share)`, the share being its weight in proportion to the mean.
    fn choose(&self, load: impl Fn(&Endpoint, f64) -> Option<f64>) -> Option<&Arc<Endpoint>> {
        let rng = &mut fastrand::Rng::new();
        let chosen = match &self.weights {
            None => p2c::choose(self.list.len(), rng, |i| load(&self.list[i], 1.0)),
            Some(weights) => weights.choose(rng, |i, share| load(&self.list[i], share)),
        };
        Some(&self.list[chosen?])
    }
}

impl Balancer {
    /// A balancer over one endpoint that never changes.
    pub fn fixed(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoints: Live::fixed(Endpoints::new(vec![endpoint])),
            siblings: Arc::default(),
        }
    }

    /// A balancer without endpoints so far, and the end that gives it some, made with `siblings`.
    pub fn empty(siblings: Arc<Siblings>) -> (Publisher<Endpoints>, Self) {
        let (publisher, endpoints) = Live::new(Endpoints::default());
        (publisher, Self { endpoints, siblings })
    }

    /// Whether a request would not have to wait now.
    pub fn is_ready(&self) -> bool {
        self.endpoints
            .get()
            .list
            .iter()
            .any(|endpoint| endpoint.is_ready())
    }

    /// An endpoint could not be connected to: others are preferred for a while. Once that holds for all, discovery is
    /// asked again.
    pub fn unreachable(&self, endpoint: &Endpoint) {
        endpoint.unreachable();
        if self.endpoints.get().are_unreachable() {
            self.siblings.lose();
        }
    }

    /// Picks an endpoint; if none may be tried, waits for one, as long as `fail_fast` allows.
    /// `handles` are told how long that takes.
    pub async fn pick(
        &self,
        now: Instant,
        fail_fast: Duration,
        handles: &BalancerHandles,
    ) -> Result<Picked, Fault> {
        match self.try_pick(endpoint::on_clock(now)) {
            Some(picked) => {
                handles.at_once();
                Ok(picked)
            }
            None => Box::pin(self.wait(fail_fast, handles)).await,
        }
    }

    /// The less loaded of two; where none can be connected to, one is tried all the same: to wait helps nobody. One
    /// whose breaker is shut is left alone.
    fn try_pick(&self, now: Duration) -> Option<Picked> {
        let endpoints = self.endpoints.get();
        // Another thread may take the one request that a probation allows: each time fewer are left to choose from.
        for _ in 0..=endpoints.list.len() {
            let chosen = endpoints
                .choose(|endpoint, share| endpoint.load(now, share))
                .or_else(|| endpoints.choose(|endpoint, share| endpoint.load_if_reachable(now, share)))?;
            if let Some(picked) = Picked::new(chosen.clone(), now) {
                return Some(picked);
            }
        }
        None
    }

    /// Waits until discovery brings an endpoint, or the breaker of one lets a request through.
    async fn wait(&self, fail_fast: Duration, handles: &BalancerHandles) -> Result<Picked, Fault> {
        let waiting = handles.wait();
        let mut endpoints = self.endpoints.clone();
        let arrival = async {
            loop {
                // Registered before the look, so that nothing is missed between the two.
                let mut opened = std::pin::pin!(self.siblings.opened());
                let _not_yet = futures_util::poll!(opened.as_mut());
                let list = endpoints.get_and_mark_seen();
                if let Some(picked) = self.try_pick(endpoint::now()) {
                    return picked;
                }
                tokio::select! {
                    changed = endpoints.changed() => if changed.is_err() {
                        // Those there are stay: only their breakers can change anything.
                        tokio::select! {
                            () = opened => {}
                            () = next_probation(&list.list) => {}
                        }
                    },
                    () = opened.as_mut() => {}
                    () = next_probation(&list.list) => {}
                }
            }
        };
        let Ok(picked) = timeout(fail_fast, arrival).await else {
            waiting.failed();
            return Err(Fault::because(
                Kind::FailFast,
                Side::Proxy,
                self.endpoints.get().why_none(),
            ));
        };
        waiting.served();
        Ok(picked)
    }
}

impl Observed for Balancer {
    fn census(&self) -> Census {
        let (added, removed) = self.siblings.changes();
        Census {
            added,
            removed,
            ..self.endpoints.get().census()
        }
    }
}

/// Waits until the first breaker lets a request through by itself.
async fn next_probation(endpoints: &[Arc<Endpoint>]) {
    let next = endpoints
        .iter()
        .filter_map(|endpoint| endpoint.shut_until())
        .min();
    match next {
        Some(until) => tokio::time::sleep(until.saturating_sub(endpoint::now())).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::endpoint::Params;
    use crate::balance::endpoint::testing::endpoint;
    use crate::error::chain;
    use futures_util::FutureExt;
    use outrigger_policy::backoff::Backoff;
    use outrigger_policy::breaker::{Accrual, BreakerPolicy, Outcome};
    use outrigger_policy::outbound::LoadParams;

    const FAIL_FAST: Duration = Duration::from_secs(3);

    #[tokio::test]
    async fn a_request_waits_for_the_first_endpoint() {
        let (publisher, balancer) = Balancer::empty(Arc::default());
        let waiting = tokio::spawn(async move {
            balancer
                .pick(Instant::now(), FAIL_FAST, &BalancerHandles::unseen())
                .await
        });
        tokio::task::yield_now().await;
        publisher.set(Endpoints::new(vec![endpoint(1)]));
        let picked = waiting.await.unwrap().unwrap();
        assert_eq!(picked.endpoint().description().addr.port(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_endpoint_a_request_fails_fast() {
        let (publisher, balancer) = Balancer::empty(Arc::default());
        for (endpoints, why) in [
            (Endpoints::default(), "has named none so far"),
            (Endpoints::of_nobody(), "knows no such service"),
            (
                Endpoints::new(Vec::new()),
                "no endpoints: look whether pods are selected",
            ),
        ] {
            publisher.set(endpoints);
            let fault = balancer
                .pick(Instant::now(), FAIL_FAST, &BalancerHandles::unseen())
                .await
                .unwrap_err();
            let text = chain(&fault);
            assert!(
                text.starts_with("service in fail-fast: ") && text.contains(why),
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn discovery_is_asked_again_once_no_endpoint_can_be_connected_to() {
        let (publisher, balancer) = Balancer::empty(Arc::default());
        publisher.set(Endpoints::new(vec![endpoint(1), endpoint(2)]));
        let list = balancer.endpoints.get().list.clone();
        balancer.unreachable(&list[0]);
        assert!(balancer.siblings.lost().now_or_never().is_none());
        balancer.unreachable(&list[1]);
        assert!(balancer.siblings.lost().now_or_never().is_some());
        assert!(balancer.siblings.lost().now_or_never().is_none());
    }

    #[tokio::test]
    async fn an_endpoint_that_can_not_be_reached_is_avoided_while_another_can() {
        let (publisher, balancer) = Balancer::empty(Arc::default());
        publisher.set(Endpoints::new(vec![endpoint(1), endpoint(2)]));
        balancer.endpoints.get().list()[0].unreachable();
        for _ in 0..50 {
            let picked = balancer
                .pick(Instant::now(), FAIL_FAST, &BalancerHandles::unseen())
                .await
                .unwrap();
            assert_eq!(picked.endpoint().description().addr.port(), 2);
        }
    }

    #[tokio::test]
    async fn with_every_endpoint_unreachable_one_is_tried_all_the_same() {
        let balancer = Balancer::fixed(endpoint(1));
        balancer.endpoints.get().list()[0].unreachable();
        assert!(!balancer.is_ready());
        assert_eq!(balancer.census().unreachable, 1);
        assert!(
            balancer
                .pick(Instant::now(), FAIL_FAST, &BalancerHandles::unseen())
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn an_endpoint_is_load_for_as_long_as_it_is_picked() {
        let balancer = Balancer::fixed(endpoint(1));
        let idle = balancer.endpoints.get().list()[0]
            .load_if_reachable(endpoint::now(), 1.0)
            .unwrap();
        let picked = balancer
            .pick(Instant::now(), FAIL_FAST, &BalancerHandles::unseen())
            .await
            .unwrap();
        assert!(picked.endpoint().load_if_reachable(endpoint::now(), 1.0).unwrap() > idle * 1.5);
        let endpoint = picked.endpoint().clone();
        drop(picked);
        assert!(endpoint.load_if_reachable(endpoint::now(), 1.0).unwrap() <= idle);
    }

    /// A balancer over endpoints that one failure shuts for a second.
    fn guarded(ports: &[u16]) -> (Publisher<Endpoints>, Balancer) {
        let second = Duration::from_secs(1);
        let breaker = BreakerPolicy {
            accrual: Accrual::Consecutive(1),
            backoff: Backoff::try_new(second, second, 0.0).unwrap(),
            respect_hints: false,
            min_ready_endpoints: 0,
        };
        let params = Params {
            load: LoadParams::default(),
            breaker: Some(breaker),
        };
        let siblings = Arc::<Siblings>::default();
        let list: Vec<_> = ports
            .iter()
            .map(|port| endpoint::testing::guarded(*port, params, &siblings))
            .collect();
        siblings.count(list.len());
        let (publisher, balancer) = Balancer::empty(siblings);
        publisher.set(Endpoints::new(list));
        (publisher, balancer)
    }

    async fn pick(balancer: &Balancer) -> Picked {
        balancer
            .pick(Instant::now(), FAIL_FAST, &BalancerHandles::unseen())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_shut_endpoint_is_left_alone_while_another_is_ready() {
        let (_publisher, balancer) = guarded(&[1, 2]);
        let mut failing = pick(&balancer).await;
        let shut = failing.endpoint().description().addr;
        failing.judge(Outcome::Failure);
        assert_eq!(balancer.siblings.shut(), 1);
        let census = balancer.census();
        assert_eq!((census.ready, census.shut), (1, 1));
        for _ in 0..50 {
            assert_ne!(pick(&balancer).await.endpoint().description().addr, shut);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn with_all_shut_a_request_waits_for_the_probation_and_the_next_for_its_end() {
        let (_publisher, balancer) = guarded(&[1]);
        pick(&balancer).await.judge(Outcome::Failure);
        assert!(!balancer.is_ready());
        let started = Instant::now();
        let mut probe = pick(&balancer).await;
        assert_eq!(started.elapsed().as_secs(), 1);
        assert_eq!(balancer.census().probation, 1);
        let other = balancer.clone();
        let waiting = tokio::spawn(async move { pick(&other).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        probe.judge(Outcome::Success);
        waiting.await.unwrap();
        assert_eq!(balancer.siblings.shut(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_whose_client_goes_away_leaves_the_endpoint_to_the_next() {
        let (_publisher, balancer) = guarded(&[1]);
        pick(&balancer).await.judge(Outcome::Failure);
        drop(pick(&balancer).await);
        let started = Instant::now();
        pick(&balancer).await.judge(Outcome::Success);
        assert!(started.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_stays_shut_fails_requests_in_time() {
        let (_publisher, balancer) = guarded(&[1]);
        pick(&balancer).await.judge(Outcome::Failure);
        let _probe = pick(&balancer).await;
        let fault = balancer
            .pick(Instant::now(), FAIL_FAST, &BalancerHandles::unseen())
            .await
            .unwrap_err();
        assert_eq!(fault.kind, Kind::FailFast);
        let text = chain(&fault);
        assert!(
            text.contains("of 1 endpoints 1 are shut by their circuit breaker and 0"),
            "{text}"
        );
    }
}
