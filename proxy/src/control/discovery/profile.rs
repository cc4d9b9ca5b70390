//! `Destination.GetProfile`: what a service profile, or the endpoint behind an address, adds.

use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_policy::Unsupported;
use outrigger_policy::name::NameAddr;
use outrigger_policy::profile::Profile;
use outrigger_proto::decode::profile::profile as decode;
use outrigger_proto::destination::destination_client::DestinationClient;
use outrigger_proto::destination::{DestinationProfile, GetDestination};
use tokio::runtime::Handle;
use tonic::Code;
use tracing::debug;

use crate::control::channel::Channel;
use crate::control::discovery::answer::Answer;
use crate::control::stream::{MAX_MESSAGE, Update, Upkeep, follow};
use crate::live::{Live, Publisher};

/// The profile of a destination; `None` where it has none.
pub(crate) type ProfileAnswer = Answer<Option<Profile>>;

/// Asks for profiles.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    client: DestinationClient<Channel>,
    context: Arc<str>,
    upkeep: Upkeep,
}

/// The answer where nobody needs to be asked.
pub(crate) fn none() -> Live<ProfileAnswer> {
    Live::fixed(Answer::Known(None))
}

impl Source {
    pub(crate) fn new(channel: Channel, context: Arc<str>, upkeep: Upkeep) -> Self {
        Self {
            client: DestinationClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
            context,
            upkeep,
        }
    }

    /// Follows the profile of an address.
    pub(crate) fn of_address(&self, dst: SocketAddr, runtime: &Handle) -> Live<ProfileAnswer> {
        self.clone().watch(dst.to_string(), runtime)
    }

    /// Follows the profile of a name.
    pub(crate) fn of_name(&self, name: &NameAddr, runtime: &Handle) -> Live<ProfileAnswer> {
        self.clone().watch(name.to_string(), runtime)
    }

    fn watch(self, dst: String, runtime: &Handle) -> Live<ProfileAnswer> {
        let (publisher, live) = Live::new(Answer::Waiting);
        runtime.spawn(async move {
            tokio::select! {
                () = self.run(dst, &publisher) => {}
                () = publisher.unused() => {}
            }
        });
        live
    }

    async fn run(&self, dst: String, publisher: &Publisher<ProfileAnswer>) {
        let open = || {
            let mut client = self.client.clone();
            let request = GetDestination {
                path: dst.clone(),
                context_token: self.context.to_string(),
                ..GetDestination::default()
            };
            async move {
                let opened = client.get_profile(request).await;
                // Nobody has this name yet, which is an answer too; somebody may have it later.
                if opened
                    .as_ref()
                    .is_err_and(|status| status.code() == Code::NotFound)
                {
                    none_yet(publisher);
                }
                opened
            }
        };
        let ended = follow(&self.upkeep, open, |update| apply(update, publisher)).await;
        debug!(%dst, code = ?ended.code(), message = ended.message(), "no profile");
        none_yet(publisher);
    }
}

/// There is none, unless there was one before.
fn none_yet(publisher: &Publisher<ProfileAnswer>) {
    if *publisher.get() == Answer::Waiting {
        publisher.set(Answer::Known(None));
    }
}

fn apply(
    update: Update<DestinationProfile>,
    publisher: &Publisher<ProfileAnswer>,
) -> Result<(), outrigger_proto::decode::DecodeError> {
    let decoded = decode(update.message);
    if let Err(e) = &decoded
        && *publisher.get() == Answer::Waiting
    {
        // The profile may have asked for anything: without an older one that could be followed, nothing passes.
        let unsupported = Some(Unsupported::new(format!(
            "the profile can't be read: {e}: ask the controller"
        )));
        publisher.set(Answer::Known(Some(Profile {
            unsupported,
            ..Profile::default()
        })));
    }
    let answer = Answer::Known(Some(decoded?));
    if *publisher.get() != answer {
        publisher.set(answer);
    }
    Ok(())
}
