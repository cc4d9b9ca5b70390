//! `io.linkerd.proxy.inbound.InboundServerPolicies` and `io.linkerd.proxy.outbound.OutboundPolicies`.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use outrigger_policy::inbound::InboundPolicy;
use outrigger_policy::outbound::OutboundPolicy;
use outrigger_proto::inbound::inbound_server_policies_server::{
    InboundServerPolicies, InboundServerPoliciesServer,
};
use outrigger_proto::inbound::{PortSpec, Server};
use outrigger_proto::outbound::outbound_policies_server::{OutboundPolicies, OutboundPoliciesServer};
use outrigger_proto::outbound::{TrafficSpec, traffic_spec};
use outrigger_proto::{EXTENSIONS, decode, encode, outbound as wire};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::compile::client::Client;
use crate::compile::refusal::Refusal;
use crate::compile::service_name::ServiceName;
use crate::compile::settings::Settings;
use crate::compile::{extensions, inbound, outbound};
use crate::index::cluster::Cluster;
use crate::serve::follow::{follow, status};

/// Longest request that is read, bytes: a workload and a name.
const MAX_REQUEST_BYTES: usize = 16 << 10;

/// Both policy services.
#[derive(Clone, Debug)]
pub struct Policies {
    cluster: watch::Receiver<Arc<Cluster>>,
    settings: Arc<Settings>,
}

/// Where traffic goes.
enum Target {
    Address(SocketAddr),
    Name(ServiceName),
}

impl Policies {
    /// Answers from a cluster as it changes.
    pub fn new(cluster: watch::Receiver<Arc<Cluster>>, settings: Arc<Settings>) -> Self {
        Self { cluster, settings }
    }

    /// The service for ports, with its limits.
    pub fn into_inbound_service(self) -> InboundServerPoliciesServer<Self> {
        InboundServerPoliciesServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// The service for destinations, with its limits.
    pub fn into_outbound_service(self) -> OutboundPoliciesServer<Self> {
        OutboundPoliciesServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// The question that a port asks.
    fn port(
        &self,
        spec: &PortSpec,
    ) -> Result<impl Fn(&Cluster) -> Result<InboundPolicy, Refusal> + Send + 'static, Status> {
        let port = u16::try_from(spec.port).ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| Status::invalid_argument(format!("port {} is none", spec.port)))?;
        let workload = Client::of_workload(&spec.workload)
            .ok_or_else(|| Status::invalid_argument("the workload is neither JSON nor <namespace>:<pod>"))?;
        let settings = self.settings.clone();
        Ok(move |cluster: &Cluster| inbound::of_port(cluster, &settings, &workload, port))
    }

    /// The question that traffic asks.
    fn traffic(
        &self,
        request: Request<TrafficSpec>,
    ) -> Result<impl Fn(&Cluster) -> Result<OutboundPolicy, Refusal> + Send + 'static, Status> {
        let extended = request.metadata().contains_key(EXTENSIONS);
        let spec = request.into_inner();
        let client = Client::of_workload(&spec.source_workload).unwrap_or_default();
        let settings = self.settings.clone();
        let target = target(spec.target, &settings)?;
        Ok(move |cluster: &Cluster| {
            let policy = match &target {
                Target::Address(addr) => outbound::to_address(cluster, &settings, *addr, &client)?,
                Target::Name(name) => outbound::to_name(cluster, &settings, name, &client),
            };
            Ok(if extended {
                policy
            } else {
                extensions::without(policy)
            })
        })
    }

    fn now(&self) -> Arc<Cluster> {
        self.cluster.borrow().clone()
    }
}

fn target(target: Option<traffic_spec::Target>, settings: &Settings) -> Result<Target, Status> {
    match target {
        None => Err(Status::invalid_argument(
            "a target is required: addr or authority",
        )),
        Some(traffic_spec::Target::Addr(addr)) => decode::endpoint::tcp_address(&addr)
            .map(Target::Address)
            .map_err(|error| Status::invalid_argument(format!("addr: {error}"))),
        Some(traffic_spec::Target::Authority(text)) => match text.parse::<SocketAddr>() {
            Ok(addr) => Ok(Target::Address(addr)),
            Err(_) => ServiceName::parse(&text, settings)
                .map(Target::Name)
                .map_err(status),
        },
    }
}

#[tonic::async_trait]
impl InboundServerPolicies for Policies {
    type WatchPortStream = Pin<Box<dyn Stream<Item = Result<Server, Status>> + Send>>;

    async fn get_port(&self, request: Request<PortSpec>) -> Result<Response<Server>, Status> {
        let policy = self.port(request.get_ref())?(&self.now()).map_err(status)?;
        Ok(Response::new(server(&policy)?))
    }

    async fn watch_port(
        &self,
        request: Request<PortSpec>,
    ) -> Result<Response<Self::WatchPortStream>, Status> {
        let answer = self.port(request.get_ref())?;
        let messages = |_: Option<&InboundPolicy>, now: &InboundPolicy| Ok(vec![server(now)?]);
        Ok(Response::new(Box::pin(follow(
            self.cluster.clone(),
            answer,
            messages,
        )?)))
    }
}

#[tonic::async_trait]
impl OutboundPolicies for Policies {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<wire::OutboundPolicy, Status>> + Send>>;

    async fn get(&self, request: Request<TrafficSpec>) -> Result<Response<wire::OutboundPolicy>, Status> {
        let policy = self.traffic(request)?(&self.now()).map_err(status)?;
        Ok(Response::new(traffic(&policy)?))
    }

    async fn watch(&self, request: Request<TrafficSpec>) -> Result<Response<Self::WatchStream>, Status> {
        let answer = self.traffic(request)?;
        let messages = |_: Option<&OutboundPolicy>, now: &OutboundPolicy| Ok(vec![traffic(now)?]);
        Ok(Response::new(Box::pin(follow(
            self.cluster.clone(),
            answer,
            messages,
        )?)))
    }
}

fn server(policy: &InboundPolicy) -> Result<Server, Status> {
    encode::inbound::server(policy).map_err(|error| Status::internal(error.to_string()))
}

fn traffic(policy: &OutboundPolicy) -> Result<wire::OutboundPolicy, Status> {
    encode::outbound::policy(policy).map_err(|error| Status::internal(error.to_string()))
}
