//! `Discovery`: what is known of a destination, of a service's endpoints and of a port, as `Live` values.
//!
//! Each `Live` is fed by a stream of its own and ends with its last reader; who wants to share or keep one, does so.
//! Everything runs on the control runtime: decoding a large policy adds to no request's latency.

mod answer;
pub mod default_policy;
mod endpoints;
mod inbound_policy;
mod outbound_policy;
mod profile;
mod target;

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_policy::name::NameAddr;
use outrigger_policy::outbound::OutboundPolicy;
use outrigger_policy::port::PortPolicy;
use tokio::runtime::Handle;

pub use self::endpoints::{Endpoints, MAX_ENDPOINTS};
pub use self::target::{DiscoveryError, Join};
use crate::config;
use crate::control::channel::{self, Channel};
use crate::control::metrics::{Client, Metrics};
use crate::control::stream::{ENDPOINTS, INBOUND, Kind, OUTBOUND, PROFILE, Upkeep};
use crate::control::waits::backoff;
use crate::live::Live;
use crate::tls::Credentials;

/// Asks the control plane, and keeps what it said current. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Discovery(Arc<Sources>);

#[derive(Debug)]
struct Sources {
    destination: Channel,
    policy: Channel,
    endpoints: endpoints::Source,
    profiles: profile::Source,
    outbound: outbound_policy::Source,
    inbound: inbound_policy::Source,
    networks: target::Networks,
    suffixes: config::Suffixes,
    runtime: Handle,
}

impl Discovery {
    /// Starts to connect to the destination service and the policy controller. Streams run on `runtime`.
    pub fn start(
        control: &config::Control,
        credentials: &Live<Credentials>,
        metrics: &Metrics,
        runtime: &Handle,
    ) -> Result<Self, channel::Error> {
        let open = |client, addr| {
            let metrics = metrics.channel(client);
            Channel::open(
                client,
                addr,
                &control.http2_client,
                credentials.clone(),
                metrics,
                runtime,
            )
        };
        let upkeep = |kind: Kind, service: &config::ControlAddr| Upkeep {
            kind,
            backoff: backoff(&service.connect.backoff),
            timeouts: match service.addr.is_loopback() {
                true => config::StreamTimeouts::default(),
                false => control.stream_timeouts,
            },
            metrics: metrics.stream(kind.name),
        };
        let destination = open(Client::Destination, &control.destination)?;
        let policy = open(Client::Policy, &control.policy)?;
        let asked = &control.discovery;
        Ok(Self(Arc::new(Sources {
            endpoints: endpoints::Source::new(
                destination.clone(),
                asked.context.clone(),
                upkeep(ENDPOINTS, &control.destination),
            ),
            profiles: profile::Source::new(
                destination.clone(),
                asked.context.clone(),
                upkeep(PROFILE, &control.destination),
            ),
            outbound: outbound_policy::Source::new(
                policy.clone(),
                asked.workload.clone(),
                upkeep(OUTBOUND, &control.policy),
            ),
            inbound: inbound_policy::Source::new(
                policy.clone(),
                asked.workload.clone(),
                asked.default_inbound.clone(),
                upkeep(INBOUND, &control.policy),
            ),
            networks: target::Networks {
                profile: asked.profile_networks.clone(),
                cluster: asked.default_inbound.cluster_networks.clone(),
            },
            suffixes: asked.profile_suffixes.clone(),
            destination,
            policy,
            runtime: runtime.clone(),
        })))
    }

    /// What holds for connections that the application makes to `dst`; kept current for as long as it is read.
    ///
    /// Waits for the first answers, for at most 3 s. Then an address outside the mesh's networks is forwarded to as
    /// it is, until the control plane says otherwise; any other is an error, never a way around policy.
    pub async fn outbound(&self, dst: SocketAddr) -> Result<Live<OutboundPolicy>, DiscoveryError> {
        let Sources {
            profiles,
            outbound,
            networks,
            runtime,
            ..
        } = &*self.0;
        let profile = match networks.may_have_profile(dst) {
            true => profiles.of_address(dst, runtime),
            false => profile::none(),
        };
        let lookup = outbound.of_address(dst, runtime);
        let answers = target::Answers { profile, lookup };
        target::by_address(dst, answers, networks, runtime).await
    }

    /// What holds for a name, as `join` makes it of profile and policy; kept current for as long as it is read.
    ///
    /// Waits for the first answers, for at most 3 s.
    pub async fn by_name(&self, name: &NameAddr, join: Join) -> Result<Live<OutboundPolicy>, DiscoveryError> {
        let Sources {
            profiles,
            outbound,
            suffixes,
            runtime,
            ..
        } = &*self.0;
        let answers = target::Answers {
            profile: match suffixes.contains(&name.name) {
                true => profiles.of_name(name, runtime),
                false => profile::none(),
            },
            lookup: outbound.of_name(name, runtime),
        };
        target::by_name(name, join, answers, runtime).await
    }

    /// The endpoints of a service, `path` being its `name:port`.
    pub fn endpoints(&self, path: Arc<str>) -> Live<Endpoints> {
        self.0.endpoints.watch(path, &self.0.runtime)
    }

    /// What a port accepts. Never waits: the configured default holds until the control plane has spoken.
    pub fn inbound(&self, port: u16) -> Live<PortPolicy> {
        self.0.inbound.watch(port, &self.0.runtime)
    }

    /// Whether both services are connected. While they are not, what is cached must not be dropped: it could not be
    /// learned again.
    pub fn is_connected(&self) -> bool {
        self.0.destination.is_connected() && self.0.policy.is_connected()
    }
}
