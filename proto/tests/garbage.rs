//! Whatever bytes arrive where a message is expected, decoding them ends: in a policy or in an error, never in a panic.

mod values;

use std::path::Path;
use std::sync::LazyLock;

use outrigger_proto::{decode, destination, inbound, outbound};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use protox::prost_reflect::DescriptorPool;

use self::values::{Tape, pool, random};

static CONTRACT: LazyLock<DescriptorPool> =
    LazyLock::new(|| pool(&Path::new(env!("CARGO_MANIFEST_DIR")).join("api")));

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_bytes_are_read_to_their_end(bytes in vec(any::<u8>(), 0..400)) {
        read(&bytes);
    }

    #[test]
    fn messages_with_random_contents_are_read_to_their_end(tape in vec(any::<u8>(), 0..3000)) {
        for name in ["destination.Update", "destination.DestinationProfile", "outbound.OutboundPolicy", "inbound.Server"] {
            let message = CONTRACT.get_message_by_name(&format!("io.linkerd.proxy.{name}")).expect("in the contract");
            read(&random(message, &mut Tape::new(&tape), 0).encode_to_vec());
        }
    }
}

#[test]
fn messages_with_every_field_are_read_to_their_end() {
    let tape = [1; 65_536];
    for message in CONTRACT.all_messages() {
        read(&random(message, &mut Tape::new(&tape), 0).encode_to_vec());
    }
}

/// Reads the bytes as each message that a proxy receives.
fn read(bytes: &[u8]) {
    if let Ok(update) = destination::Update::decode(bytes) {
        match update.update {
            Some(destination::update::Update::Add(set)) => drop(decode::endpoint::weighted_addr_set(&set)),
            Some(destination::update::Update::Remove(set)) => drop(decode::endpoint::addr_set(&set)),
            Some(destination::update::Update::NoEndpoints(_)) | None => {}
        }
    }
    if let Ok(profile) = destination::DestinationProfile::decode(bytes) {
        drop(decode::profile::profile(profile));
    }
    if let Ok(policy) = outbound::OutboundPolicy::decode(bytes) {
        drop(decode::outbound::policy(policy));
    }
    if let Ok(server) = inbound::Server::decode(bytes) {
        drop(decode::inbound::server(server));
    }
}
