//! `InboundServerPolicies.WatchPort`: what a port accepts.

use std::sync::Arc;

use outrigger_policy::Unsupported;
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol};
use outrigger_policy::name::ResourceRef;
use outrigger_policy::port::PortPolicy;
use outrigger_proto::decode::{self, DecodeError};
use outrigger_proto::inbound::inbound_server_policies_client::InboundServerPoliciesClient;
use outrigger_proto::inbound::{PortSpec, Server};
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::config::DefaultInbound;
use crate::control::channel::Channel;
use crate::control::discovery::default_policy;
use crate::control::stream::{MAX_MESSAGE, Update, Upkeep, follow};
use crate::live::{Live, Publisher};

/// Asks for inbound policies.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    client: InboundServerPoliciesClient<Channel>,
    workload: Arc<str>,
    default: DefaultInbound,
    upkeep: Upkeep,
}

impl Source {
    pub(crate) fn new(channel: Channel, workload: Arc<str>, default: DefaultInbound, upkeep: Upkeep) -> Self {
        Self {
            client: InboundServerPoliciesClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
            workload,
            default,
            upkeep,
        }
    }

    /// Follows the policy of a port; the default holds until the first answer.
    pub(crate) fn watch(&self, port: u16, runtime: &Handle) -> Live<PortPolicy> {
        let (publisher, live) = Live::new(PortPolicy::new(default_policy::of_port(&self.default, port)));
        let source = self.clone();
        runtime.spawn(async move {
            tokio::select! {
                () = source.run(port, &publisher) => {}
                () = publisher.unused() => {}
            }
        });
        live
    }

    async fn run(&self, port: u16, publisher: &Publisher<PortPolicy>) {
        let open = || {
            let mut client = self.client.clone();
            let request = PortSpec {
                workload: self.workload.to_string(),
                port: port.into(),
            };
            async move { client.watch_port(request).await }
        };
        let mut known = false;
        let ended = follow(&self.upkeep, open, |update| {
            apply(port, update, publisher, &mut known)
        })
        .await;
        warn!(port, code = ?ended.code(), message = ended.message(), "the control plane has no policy for a port; what held before stays in force");
    }
}

/// `known`: a policy that could be read has arrived before.
fn apply(
    port: u16,
    update: Update<Server>,
    publisher: &Publisher<PortPolicy>,
    known: &mut bool,
) -> Result<(), DecodeError> {
    let decoded = decode::inbound::server(update.message);
    if let Err(e) = &decoded
        && !*known
    {
        publisher.set(PortPolicy::new(invalid(e)));
    }
    let policy = decoded?;
    *known = true;
    let before = publisher.get();
    let (was, is) = (before.protocol.name(), policy.protocol.name());
    if was != is {
        info!(port, was, is, server = %policy.meta, "The protocol of a port has changed, for connections from now on");
    }
    if **before != policy {
        publisher.set(before.updated(policy));
    }
    Ok(())
}

/// What stands in for a first policy that can't be read.
fn invalid(error: &DecodeError) -> InboundPolicy {
    InboundPolicy {
        meta: Arc::new(ResourceRef::of_default("invalid")),
        protocol: InboundProtocol::Invalid(Unsupported::new(format!(
            "the server can't be read: {error}: ask the controller"
        ))),
        authorizations: Arc::default(),
        rate_limit: None,
    }
}
