//! `io.linkerd.proxy.destination.Destination`: endpoints of Services, and what is at an address.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use outrigger_proto::destination::destination_server::{self, DestinationServer};
use outrigger_proto::destination::{DestinationProfile, GetDestination, Update};
use outrigger_proto::encode::endpoint::{update_add, update_remove};
use outrigger_proto::encode::profile::profile as encode;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::compile::client::Client;
use crate::compile::endpoints::{self, Endpoints};
use crate::compile::profile;
use crate::compile::service_name::ServiceName;
use crate::compile::settings::Settings;
use crate::index::cluster::Cluster;
use crate::serve::follow::{follow, status};

/// Longest request that is read, bytes: a name and a token.
const MAX_REQUEST_BYTES: usize = 16 << 10;

/// Most endpoints in one message, so that it stays under gRPC's usual limit of 4 MiB.
const MAX_PER_UPDATE: usize = 2_000;

/// The Destination service.
#[derive(Clone, Debug)]
pub struct Destination {
    cluster: watch::Receiver<Arc<Cluster>>,
    settings: Arc<Settings>,
}

impl Destination {
    /// Answers from a cluster as it changes.
    pub fn new(cluster: watch::Receiver<Arc<Cluster>>, settings: Arc<Settings>) -> Self {
        Self { cluster, settings }
    }

    /// The service, with its limits.
    pub fn into_service(self) -> DestinationServer<Self> {
        DestinationServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }
}

#[tonic::async_trait]
impl destination_server::Destination for Destination {
    type GetStream = Pin<Box<dyn Stream<Item = Result<Update, Status>> + Send>>;
    type GetProfileStream = Pin<Box<dyn Stream<Item = Result<DestinationProfile, Status>> + Send>>;

    async fn get(&self, request: Request<GetDestination>) -> Result<Response<Self::GetStream>, Status> {
        let GetDestination {
            path, context_token, ..
        } = request.into_inner();
        let settings = self.settings.clone();
        let name = ServiceName::parse(&path, &settings).map_err(status)?;
        let client = Client::of_context_token(&context_token);
        let answer = move |cluster: &Cluster| endpoints::of_service(cluster, &settings, &name, &client);
        Ok(Response::new(Box::pin(follow(
            self.cluster.clone(),
            answer,
            updates,
        )?)))
    }

    async fn get_profile(
        &self,
        request: Request<GetDestination>,
    ) -> Result<Response<Self::GetProfileStream>, Status> {
        let GetDestination {
            path, context_token, ..
        } = request.into_inner();
        let settings = self.settings.clone();
        let client = Client::of_context_token(&context_token);
        let answer = move |cluster: &Cluster| profile::at(cluster, &settings, &path, &client);
        Ok(Response::new(Box::pin(follow(
            self.cluster.clone(),
            answer,
            profiles,
        )?)))
    }
}

/// What changed: what is new or different is added before what is gone is removed, so that nobody runs out of
/// endpoints in between. A Service without endpoints gets no message at first, as Linkerd's controller has it.
fn updates(before: Option<&Endpoints>, now: &Endpoints) -> Result<Vec<Update>, Status> {
    let nothing = Endpoints::default();
    let before = before.unwrap_or(&nothing);
    let added = now
        .by_address
        .iter()
        .filter(|(addr, endpoint)| before.by_address.get(addr) != Some(endpoint));
    let added: Vec<_> = added.map(|(_, endpoint)| endpoint.clone()).collect();
    let removed = before
        .by_address
        .keys()
        .filter(|addr| !now.by_address.contains_key(addr));
    let removed: Vec<_> = removed.copied().collect();
    let labels = || {
        now.labels
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let adds = added
        .chunks(MAX_PER_UPDATE)
        .map(|endpoints| update_add(endpoints, labels()));
    Ok(adds
        .chain(removed.chunks(MAX_PER_UPDATE).map(update_remove))
        .collect())
}

fn profiles(
    _before: Option<&profile::Destination>,
    now: &profile::Destination,
) -> Result<Vec<DestinationProfile>, Status> {
    Ok(vec![match now {
        profile::Destination::Service(profile, parent) => encode(profile, Some(parent), None),
        profile::Destination::Endpoint(profile) => encode(profile, None, None),
        profile::Destination::NoSuchPort => DestinationProfile::default(),
    }])
}
