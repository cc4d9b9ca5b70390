//! The balancer: picks the less loaded of two endpoints, or waits for one.

pub mod endpoint;

use std::sync::Arc;
use std::time::Duration;

use outrigger_policy::balance::p2c;
use tokio::time::timeout;

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
    pub async fn pick(&self, fail_fast: Duration) -> Result<Picked, Fault> {
        match self.try_pick() {
            Some(picked) => Ok(picked),
            None => Box::pin(self.wait(fail_fast)).await,
        }
    }

    /// The less loaded of two; where none can be connected to, one is tried all the same: to wait helps nobody.
    fn try_pick(&self) -> Option<Picked> {
        let endpoints = self.endpoints.get();
        let now = endpoint::now();
        let mut rng = fastrand::Rng::new();
        let chosen = p2c::choose(endpoints.len(), &mut rng, |i| endpoints[i].load(now)).or_else(|| {
            p2c::choose(endpoints.len(), &mut rng, |i| {
                Some(endpoints[i].load_regardless(now))
            })
        })?;
        Some(Picked::new(endpoints[chosen].clone()))
    }

    /// Waits until discovery brings an endpoint.
    async fn wait(&self, fail_fast: Duration) -> Result<Picked, Fault> {
        let mut endpoints = self.endpoints.clone();
        let arrival = async {
            loop {
                endpoints.get_and_mark_seen();
                if let Some(picked) = self.try_pick() {
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
