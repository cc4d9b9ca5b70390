//! The balancer: picks the less loaded of two endpoints, or waits for one.

pub mod endpoint;

use std::sync::Arc;
use std::time::Duration;

use outrigger_policy::balance::p2c;
use tokio::time::{Instant, timeout};

use crate::balance::endpoint::{Endpoint, Picked};
use crate::error::{Fault, Kind, Side};
use crate::live::{Live, Publisher};

/// The endpoints of one backend.
#[derive(Clone, Debug)]
pub struct Balancer {
    endpoints: Live<Vec<Arc<Endpoint>>>,
}

impl Balancer {
    /// A balancer over one endpoint that never changes.
    pub fn fixed(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoints: Live::fixed(vec![endpoint]),
        }
    }

    /// A balancer without endpoints so far, and the end that gives it some.
    pub fn empty() -> (Publisher<Vec<Arc<Endpoint>>>, Self) {
        let (publisher, endpoints) = Live::new(Vec::new());
        (publisher, Self { endpoints })
    }

    /// Whether a request would not have to wait now.
    pub fn is_ready(&self) -> bool {
        self.endpoints.get().iter().any(|endpoint| endpoint.is_ready())
    }

    /// Picks an endpoint; if there is none at all, waits for one, as long as `fail_fast` allows.
    pub async fn pick(&self, now: Instant, fail_fast: Duration) -> Result<Picked, Fault> {
        match self.try_pick(endpoint::on_clock(now)) {
            Some(picked) => Ok(picked),
            None => Box::pin(self.wait(fail_fast)).await,
        }
    }

    /// The less loaded of two; where none can be connected to, one is tried all the same: to wait helps nobody.
    fn try_pick(&self, now: Duration) -> Option<Picked> {
        let endpoints = self.endpoints.get();
        let mut rng = fastrand::Rng::new();
        let chosen = p2c::choose(endpoints.len(), &mut rng, |i| endpoints[i].load(now)).or_else(|| {
            p2c::choose(endpoints.len(), &mut rng, |i| {
                Some(endpoints[i].load_regardless(now))
            })
        })?;
        Some(Picked::new(endpoints[chosen].clone(), now))
    }

    /// Waits until discovery brings an endpoint.
    async fn wait(&self, fail_fast: Duration) -> Result<Picked, Fault> {
        let mut endpoints = self.endpoints.clone();
        let arrival = async {
            loop {
                endpoints.get_and_mark_seen();
                if let Some(picked) = self.try_pick(endpoint::now()) {
                    return picked;
                }
                if endpoints.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        timeout(fail_fast, arrival)
            .await
            .map_err(|_elapsed| Fault::new(Kind::FailFast, Side::Proxy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::endpoint::testing::endpoint;

    const FAIL_FAST: Duration = Duration::from_secs(3);

    #[tokio::test]
    async fn a_request_waits_for_the_first_endpoint() {
        let (publisher, balancer) = Balancer::empty();
        let waiting = tokio::spawn(async move { balancer.pick(Instant::now(), FAIL_FAST).await });
        tokio::task::yield_now().await;
        publisher.set(vec![endpoint(1)]);
        let picked = waiting.await.unwrap().unwrap();
        assert_eq!(picked.endpoint().description().addr.port(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_endpoint_a_request_fails_fast() {
        let (_publisher, balancer) = Balancer::empty();
        assert_eq!(
            balancer.pick(Instant::now(), FAIL_FAST).await.unwrap_err().kind,
            Kind::FailFast
        );
    }

    #[tokio::test]
    async fn an_endpoint_that_can_not_be_reached_is_avoided_while_another_can() {
        let (publisher, balancer) = Balancer::empty();
        publisher.set(vec![endpoint(1), endpoint(2)]);
        balancer.endpoints.get()[0].unreachable();
        for _ in 0..50 {
            let picked = balancer.pick(Instant::now(), FAIL_FAST).await.unwrap();
            assert_eq!(picked.endpoint().description().addr.port(), 2);
        }
    }

    #[tokio::test]
    async fn with_every_endpoint_unreachable_one_is_tried_all_the_same() {
        let balancer = Balancer::fixed(endpoint(1));
        balancer.endpoints.get()[0].unreachable();
        assert!(!balancer.is_ready());
        assert!(balancer.pick(Instant::now(), FAIL_FAST).await.is_ok());
    }

    #[tokio::test]
    async fn an_endpoint_is_load_for_as_long_as_it_is_picked() {
        let balancer = Balancer::fixed(endpoint(1));
        let idle = balancer.endpoints.get()[0].load_regardless(endpoint::now());
        let picked = balancer.pick(Instant::now(), FAIL_FAST).await.unwrap();
        assert!(picked.endpoint().load_regardless(endpoint::now()) > idle * 1.5);
        let endpoint = picked.endpoint().clone();
        drop(picked);
        assert!(endpoint.load_regardless(endpoint::now()) <= idle);
    }
}
