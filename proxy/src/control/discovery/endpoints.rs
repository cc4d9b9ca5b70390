//! `Destination.Get`: the endpoints of a service, and every change of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_policy::endpoint::Endpoint;
use outrigger_proto::decode::DecodeError;
use outrigger_proto::decode::endpoint::{addr_set, weighted_addr_set};
use outrigger_proto::destination::destination_client::DestinationClient;
use outrigger_proto::destination::{self as api, GetDestination, update};
use tokio::runtime::Handle;
use tracing::warn;

use crate::control::channel::Channel;
use crate::control::stream::{MAX_MESSAGE, Update, Upkeep, follow};
use crate::live::{Live, Publisher};

/// Endpoints kept of one service. More are refused: the set stays as it was.
pub const MAX_ENDPOINTS: usize = 10_000;

/// What is known of a service's endpoints.
#[derive(Clone, Debug, PartialEq)]
pub enum Endpoints {
    /// Nothing yet.
    Waiting,
    /// The latest.
    Known {
        /// Whether the service exists; without it there are no endpoints.
        exists: bool,
        /// The endpoints by address. Those that did not change are the same `Arc` as before.
        endpoints: Arc<BTreeMap<SocketAddr, Arc<Endpoint>>>,
    },
}

/// Why an update of endpoints was refused.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("update: empty")]
    Empty,
    #[error("more than {MAX_ENDPOINTS} endpoints: split the service")]
    TooMany,
}

/// Asks for endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    client: DestinationClient<Channel>,
    context: Arc<str>,
    upkeep: Upkeep,
}

/// The set as it stands, and whether it is from an older stream: then the next `add` replaces it.
#[derive(Debug, Default)]
struct Set {
    endpoints: BTreeMap<SocketAddr, Arc<Endpoint>>,
    exists: bool,
    stale: bool,
}

impl Source {
    pub(crate) fn new(channel: Channel, context: Arc<str>, upkeep: Upkeep) -> Self {
        Self {
            client: DestinationClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
            context,
            upkeep,
        }
    }

    /// Follows the endpoints of `path` (`name:port`).
    pub(crate) fn watch(&self, path: Arc<str>, runtime: &Handle) -> Live<Endpoints> {
        let (publisher, live) = Live::new(Endpoints::Waiting);
        let source = self.clone();
        runtime.spawn(async move {
            tokio::select! {
                () = source.run(&path, &publisher) => {}
                () = publisher.unused() => {}
            }
        });
        live
    }

    async fn run(&self, path: &str, publisher: &Publisher<Endpoints>) {
        let open = || {
            let mut client = self.client.clone();
            let request = GetDestination {
                path: path.to_owned(),
                context_token: self.context.to_string(),
                ..GetDestination::default()
            };
            async move { client.get(request).await }
        };
        let mut set = Set::default();
        let ended = follow(&self.upkeep, open, |update| {
            set.apply(update)?;
            let known = set.known();
            if *publisher.get() != known {
                publisher.set(known);
            }
            Ok::<_, Refused>(())
        })
        .await;
        warn!(path, code = ?ended.code(), message = ended.message(), "the control plane refused a service; its endpoints stay as they were");
        if *publisher.get() == Endpoints::Waiting {
            publisher.set(Set::default().known());
        }
    }
}

impl Set {
    /// Applies all of an update or, if it is refused, nothing of it.
    fn apply(&mut self, update: Update<api::Update>) -> Result<(), Refused> {
        self.stale |= update.first;
        match update.message.update.ok_or(Refused::Empty)? {
            update::Update::Add(add) => self.add(weighted_addr_set(&add)?),
            update::Update::Remove(remove) => {
                for addr in addr_set(&remove)? {
                    self.endpoints.remove(&addr);
                }
                Ok(())
            }
            update::Update::NoEndpoints(none) => {
                *self = Self {
                    exists: none.exists,
                    ..Self::default()
                };
                Ok(())
            }
        }
    }

    fn add(&mut self, added: Vec<Endpoint>) -> Result<(), Refused> {
        let mut old = BTreeMap::new();
        let mut next = match self.stale {
            true => BTreeMap::new(),
            false => self.endpoints.clone(),
        };
        if self.stale {
            old.clone_from(&self.endpoints);
        }
        for endpoint in added {
            let same = next.get(&endpoint.addr).or_else(|| old.get(&endpoint.addr));
            let same = same.filter(|known| ***known == endpoint).cloned();
            next.insert(endpoint.addr, same.unwrap_or_else(|| Arc::new(endpoint)));
        }
        if next.len() > MAX_ENDPOINTS {
            return Err(Refused::TooMany);
        }
        *self = Self {
            endpoints: next,
            exists: true,
            stale: false,
        };
        Ok(())
    }

    fn known(&self) -> Endpoints {
        Endpoints::Known {
            exists: self.exists,
            endpoints: Arc::new(self.endpoints.clone()),
        }
    }
}
