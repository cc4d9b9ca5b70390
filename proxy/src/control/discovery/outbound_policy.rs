//! `OutboundPolicies.Watch`: the policy of a destination.

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_policy::Unsupported;
use outrigger_policy::name::{NameAddr, ResourceRef};
use outrigger_policy::outbound::{OutboundPolicy, OutboundProtocol};
use outrigger_policy::profile::Lookup;
use outrigger_proto::EXTENSIONS;
use outrigger_proto::decode::{self, DecodeError};
use outrigger_proto::encode::endpoint::tcp_address;
use outrigger_proto::outbound::outbound_policies_client::OutboundPoliciesClient;
use outrigger_proto::outbound::{self as api, TrafficSpec, traffic_spec};
use tokio::runtime::Handle;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};
use tracing::{debug, warn};

use crate::control::channel::Channel;
use crate::control::discovery::answer::Answer;
use crate::control::stream::{MAX_MESSAGE, Update, Upkeep, follow};
use crate::live::{Live, Publisher};

/// The policy of a destination, or that there is none.
pub(crate) type LookupAnswer = Answer<Lookup>;

/// Asks for outbound policies.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    client: OutboundPoliciesClient<Channel>,
    workload: Arc<str>,
    upkeep: Upkeep,
}

impl Source {
    pub(crate) fn new(channel: Channel, workload: Arc<str>, upkeep: Upkeep) -> Self {
        Self {
            client: OutboundPoliciesClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
            workload,
            upkeep,
        }
    }

    /// Follows the policy of an address.
    pub(crate) fn of_address(&self, dst: SocketAddr, runtime: &Handle) -> Live<LookupAnswer> {
        self.watch(
            traffic_spec::Target::Addr(tcp_address(dst)),
            dst.to_string(),
            runtime,
        )
    }

    /// Follows the policy of a name.
    pub(crate) fn of_name(&self, name: &NameAddr, runtime: &Handle) -> Live<LookupAnswer> {
        let authority = name.to_string();
        self.watch(
            traffic_spec::Target::Authority(authority.clone()),
            authority,
            runtime,
        )
    }

    /// `dst` is the target as logs have it.
    fn watch(&self, target: traffic_spec::Target, dst: String, runtime: &Handle) -> Live<LookupAnswer> {
        let (publisher, live) = Live::new(Answer::Waiting);
        let source = self.clone();
        runtime.spawn(async move {
            tokio::select! {
                () = source.run(target, &dst, &publisher) => {}
                () = publisher.unused() => {}
            }
        });
        live
    }

    async fn run(&self, target: traffic_spec::Target, dst: &str, publisher: &Publisher<LookupAnswer>) {
        let open = || {
            let mut client = self.client.clone();
            let mut request = Request::new(TrafficSpec {
                source_workload: self.workload.to_string(),
                target: Some(target.clone()),
            });
            let says = MetadataValue::from_static("1");
            request.metadata_mut().insert(EXTENSIONS, says);
            async move { client.watch(request).await }
        };
        let ended = follow(&self.upkeep, open, |update| apply(update, publisher)).await;
        if *publisher.get() == Answer::Waiting {
            publisher.set(refused(dst, &ended));
        } else {
            warn!(%dst, code = ?ended.code(), message = ended.message(), "the control plane ended a policy; the last one stays in force");
        }
    }
}

/// What a terminal code means before there was a policy.
fn refused(dst: &str, status: &Status) -> LookupAnswer {
    debug!(%dst, code = ?status.code(), message = status.message(), "no policy");
    match status.code() {
        Code::NotFound | Code::Unimplemented => Answer::Known(Lookup::NotFound),
        code => Answer::Refused(format!("{code:?}: {}", status.message()).into()),
    }
}

fn apply(
    update: Update<api::OutboundPolicy>,
    publisher: &Publisher<LookupAnswer>,
) -> Result<(), DecodeError> {
    let decoded = decode::outbound::policy(update.message);
    if let Err(e) = &decoded
        && *publisher.get() == Answer::Waiting
    {
        publisher.set(Answer::Known(Lookup::Found(invalid(e))));
    }
    let answer = Answer::Known(Lookup::Found(decoded?));
    if *publisher.get() != answer {
        publisher.set(answer);
    }
    Ok(())
}

/// What stands in for a first policy that can't be read.
fn invalid(error: &DecodeError) -> OutboundPolicy {
    OutboundPolicy {
        parent: Arc::new(ResourceRef::of_default("invalid")),
        protocol: OutboundProtocol::Invalid(Unsupported::new(format!(
            "the policy can't be read: {error}: ask the controller"
        ))),
        authority: "".into(),
        budget: None,
    }
}
