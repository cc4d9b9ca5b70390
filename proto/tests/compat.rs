//! The contract is Linkerd's: every message of `linkerd2-proxy-api`, both ways, and every service.
//!
//! A random value is made by walking the descriptor of a message, field by field, from a tape of random bytes. It is
//! decoded by one side, encoded, decoded by the other, encoded, and decoded by the first again: what comes back must
//! be what was sent. That alone would not notice a field that *neither* side knows, since both drop it; so what comes
//! back is also read by the descriptor it was made from, and must equal the value. Done with our descriptors and with
//! theirs, this leaves no field that one side has and the other has not, or has otherwise. As a tape may miss a
//! field, each field of each message is sent alone, too; and the descriptors themselves are compared.

mod values;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use linkerd2_proxy_api as theirs;
use outrigger_proto as ours;
use proptest::prelude::*;
use prost::{Message, Name};
use protox::prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, ReflectMessage,
};

use self::values::{FIRST_EXTENSION, Tape, fill, pool, random};

static OURS: LazyLock<DescriptorPool> =
    LazyLock::new(|| pool(&Path::new(env!("CARGO_MANIFEST_DIR")).join("api")));

static THEIRS: LazyLock<DescriptorPool> = LazyLock::new(|| pool(&their_protos()));

/// Messages that only our extensions use.
const EXTENSIONS: [&str; 3] = [
    "io.linkerd.proxy.outbound.Rewrite",
    "io.linkerd.proxy.outbound.Delay",
    "io.linkerd.proxy.outbound.Mirror",
];

#[test]
fn every_message_of_theirs_and_of_ours_is_in_the_table() {
    let table: BTreeSet<String> = messages().into_keys().collect();
    assert_eq!(names(&THEIRS), table);
    let mut own = names(&OURS);
    own.retain(|name| !name.starts_with("transport.l5d.io.") && !EXTENSIONS.contains(&name.as_str()));
    assert_eq!(own, table);
}

#[test]
fn every_field_of_every_message_crosses_alone() {
    for (name, trip) in messages() {
        for pool in [&OURS, &THEIRS] {
            let descriptor = pool.get_message_by_name(&name).expect("in the table");
            trip(&DynamicMessage::new(descriptor.clone()));
            for field in descriptor
                .fields()
                .filter(|field| field.number() < FIRST_EXTENSION)
            {
                let mut value = DynamicMessage::new(descriptor.clone());
                let bytes = [1; 4096];
                fill(&mut value, &field, &mut Tape::without_extensions(&bytes), 0);
                trip(&value);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_values_of_every_message_cross_both_ways(tape in prop::collection::vec(any::<u8>(), 0..1500)) {
        for (name, trip) in messages() {
            for pool in [&OURS, &THEIRS] {
                let descriptor = pool.get_message_by_name(&name).expect("in the table");
                trip(&random(descriptor, &mut Tape::without_extensions(&tape), 0));
            }
        }
    }
}

#[test]
fn fields_have_the_same_names_numbers_and_types() {
    for name in names(&THEIRS) {
        let [our, their] = [&OURS, &THEIRS].map(|pool| {
            let message = pool.get_message_by_name(&name).expect("compared above");
            message
                .fields()
                .filter(|field| field.number() < FIRST_EXTENSION)
                .map(|field| describe(&field))
                .collect::<BTreeSet<_>>()
        });
        assert_eq!(our, their, "{name}");
    }
}

#[test]
fn enumerations_have_the_same_values() {
    let values = |pool: &DescriptorPool| -> BTreeMap<String, Vec<(String, i32)>> {
        let one = |e: EnumDescriptor| {
            let values = e.values().map(|v| (v.name().to_owned(), v.number())).collect();
            (e.full_name().to_owned(), values)
        };
        pool.all_enums()
            .filter(|e| ours_to_tell(e.full_name()))
            .map(one)
            .collect()
    };
    assert_eq!(values(&OURS), values(&THEIRS));
}

#[test]
fn services_have_the_same_paths_messages_and_streams() {
    let methods = |pool: &DescriptorPool| -> BTreeSet<String> {
        let methods = pool
            .services()
            .flat_map(|service| service.methods().collect::<Vec<_>>());
        methods
            .map(|m| {
                let stream = |streams: bool| if streams { "stream " } else { "" };
                format!(
                    "/{}/{}({}{}) -> {}{}",
                    m.parent_service().full_name(),
                    m.name(),
                    stream(m.is_client_streaming()),
                    m.input().full_name(),
                    stream(m.is_server_streaming()),
                    m.output().full_name(),
                )
            })
            .collect()
    };
    assert_eq!(methods(&OURS), methods(&THEIRS));
    assert!(
        methods(&OURS)
            .iter()
            .any(|m| m.starts_with("/io.linkerd.proxy.destination.Destination/Get("))
    );
}

#[test]
fn generated_servers_answer_to_the_same_names() {
    let pairs = [
        (
            ours::destination::destination_server::SERVICE_NAME,
            theirs::destination::destination_server::SERVICE_NAME,
        ),
        (
            ours::identity::identity_server::SERVICE_NAME,
            theirs::identity::identity_server::SERVICE_NAME,
        ),
        (
            ours::inbound::inbound_server_policies_server::SERVICE_NAME,
            theirs::inbound::inbound_server_policies_server::SERVICE_NAME,
        ),
        (
            ours::outbound::outbound_policies_server::SERVICE_NAME,
            theirs::outbound::outbound_policies_server::SERVICE_NAME,
        ),
        (
            ours::tap::tap_server::SERVICE_NAME,
            theirs::tap::tap_server::SERVICE_NAME,
        ),
    ];
    for (our, their) in pairs {
        assert_eq!(our, their);
    }
    assert_eq!(pairs.len(), THEIRS.services().len());
}

/// One message: from a value to ours, theirs and back, and the other way round.
fn trip<O, T>(value: &DynamicMessage)
where
    O: Message + Default + PartialEq + Debug,
    T: Message + Default + PartialEq + Debug,
{
    let sent = value.encode_to_vec();
    let read = |bytes: &[u8]| DynamicMessage::decode(value.descriptor(), bytes).expect("well-formed");
    // Read once: a field set to its default is not on the wire.
    let same = |bytes: &[u8]| assert_eq!(read(bytes), read(&sent));
    let our = O::decode(&*sent).expect("we read it");
    let their = T::decode(&*our.encode_to_vec()).expect("they read ours");
    let back = their.encode_to_vec();
    assert_eq!(O::decode(&*back).expect("we read theirs"), our);
    same(&back);
    let their = T::decode(&*sent).expect("they read it");
    let our = O::decode(&*their.encode_to_vec()).expect("we read theirs");
    let back = our.encode_to_vec();
    assert_eq!(T::decode(&*back).expect("they read ours"), their);
    same(&back);
}

fn describe(field: &FieldDescriptor) -> String {
    format!(
        "{} = {} {:?} {:?} list={} map={} packed={} presence={} oneof={:?}",
        field.name(),
        field.number(),
        field.cardinality(),
        field.kind(),
        field.is_list(),
        field.is_map(),
        field.is_packed(),
        field.supports_presence(),
        field.containing_oneof().map(|oneof| oneof.name().to_owned()),
    )
}

fn names(pool: &DescriptorPool) -> BTreeSet<String> {
    let messages = pool.all_messages().filter(|m| !m.is_map_entry());
    let names = messages.map(|m| m.full_name().to_owned());
    names.filter(|name| ours_to_tell(name)).collect()
}

/// Not one of protobuf's own, which both sides take from `prost-types`.
fn ours_to_tell(name: &str) -> bool {
    !name.starts_with("google.protobuf.")
}

/// The published crate ships its contract beside its code, whose place the compiler noted next to this test.
fn their_protos() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let notes = std::fs::read_dir(test.with_file_name("")).expect("a directory");
    let notes = notes.map(|entry| entry.expect("an entry").path()).filter(|path| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        name.starts_with("linkerd2_proxy_api-") && name.ends_with(".d")
    });
    let sources = notes.flat_map(|note| {
        let text = std::fs::read_to_string(note).expect("dependency notes");
        let files = text
            .split_whitespace()
            .filter(|file| file.ends_with("src/lib.rs"));
        files.map(PathBuf::from).collect::<Vec<_>>()
    });
    let mut roots = sources.filter_map(|lib| Some(lib.parent()?.parent()?.join("proto")));
    roots
        .find(|dir| dir.is_dir())
        .expect("linkerd2-proxy-api was compiled for this test")
}

/// Every message of theirs with its round trip.
macro_rules! messages {
    ($($($part:ident)::+),* $(,)?) => {
        fn messages() -> BTreeMap<String, fn(&DynamicMessage)> {
            BTreeMap::from([$((
                ours::$($part)::+::full_name(),
                trip::<ours::$($part)::+, theirs::$($part)::+> as fn(&DynamicMessage),
            )),*])
        }
    };
}

messages! {
    destination::GetDestination,
    destination::Update,
    destination::AddrSet,
    destination::WeightedAddrSet,
    destination::WeightedAddr,
    destination::TlsIdentity,
    destination::tls_identity::DnsLikeIdentity,
    destination::tls_identity::UriLikeIdentity,
    destination::AuthorityOverride,
    destination::NoEndpoints,
    destination::ProtocolHint,
    destination::protocol_hint::H2,
    destination::protocol_hint::Opaque,
    destination::protocol_hint::OpaqueTransport,
    destination::Http2ClientParams,
    destination::http2_client_params::FlowControl,
    destination::http2_client_params::KeepAlive,
    destination::http2_client_params::Internals,
    destination::DestinationProfile,
    destination::Route,
    destination::RetryBudget,
    destination::ResponseClass,
    destination::RequestMatch,
    destination::request_match::Seq,
    destination::PathMatch,
    destination::ResponseMatch,
    destination::response_match::Seq,
    destination::HttpStatusRange,
    destination::WeightedDst,
    grpc_route::GrpcRouteMatch,
    grpc_route::GrpcRpcMatch,
    grpc_route::GrpcFailureInjector,
    http_route::HostMatch,
    http_route::host_match::Suffix,
    http_route::HttpRouteMatch,
    http_route::PathMatch,
    http_route::HeaderMatch,
    http_route::QueryParamMatch,
    http_route::RequestHeaderModifier,
    http_route::ResponseHeaderModifier,
    http_route::RequestRedirect,
    http_route::PathModifier,
    http_route::HttpFailureInjector,
    http_route::Ratio,
    http_route::Timeouts,
    http_types::HttpMethod,
    http_types::Scheme,
    http_types::Headers,
    http_types::headers::Header,
    identity::CertifyRequest,
    identity::CertifyResponse,
    inbound::PortSpec,
    inbound::Server,
    inbound::ProxyProtocol,
    inbound::proxy_protocol::Detect,
    inbound::proxy_protocol::Http1,
    inbound::proxy_protocol::Http2,
    inbound::proxy_protocol::Grpc,
    inbound::proxy_protocol::Opaque,
    inbound::proxy_protocol::Tls,
    inbound::Authz,
    inbound::Network,
    inbound::Authn,
    inbound::authn::PermitUnauthenticated,
    inbound::authn::PermitMeshTls,
    inbound::authn::permit_mesh_tls::PermitClientIdentities,
    inbound::Identity,
    inbound::IdentitySuffix,
    inbound::HttpRoute,
    inbound::http_route::Rule,
    inbound::http_route::Filter,
    inbound::GrpcRoute,
    inbound::grpc_route::Rule,
    inbound::grpc_route::Filter,
    inbound::HttpLocalRateLimit,
    inbound::http_local_rate_limit::Override,
    inbound::http_local_rate_limit::r#override::ClientIdentities,
    inbound::http_local_rate_limit::Limit,
    meta::Metadata,
    meta::Resource,
    net::IpAddress,
    net::IpNetwork,
    net::IPv6,
    net::TcpAddress,
    opaque_route::Invalid,
    opaque_route::Forbidden,
    outbound::TrafficSpec,
    outbound::OutboundPolicy,
    outbound::ProxyProtocol,
    outbound::proxy_protocol::Detect,
    outbound::proxy_protocol::Opaque,
    outbound::proxy_protocol::Http1,
    outbound::proxy_protocol::Http2,
    outbound::proxy_protocol::Grpc,
    outbound::proxy_protocol::Tls,
    outbound::HttpRoute,
    outbound::http_route::Rule,
    outbound::http_route::Filter,
    outbound::http_route::Distribution,
    outbound::http_route::distribution::Empty,
    outbound::http_route::distribution::FirstAvailable,
    outbound::http_route::distribution::RandomAvailable,
    outbound::http_route::Retry,
    outbound::http_route::retry::Conditions,
    outbound::http_route::retry::conditions::StatusRange,
    outbound::http_route::RouteBackend,
    outbound::http_route::WeightedRouteBackend,
    outbound::GrpcRoute,
    outbound::grpc_route::Rule,
    outbound::grpc_route::Filter,
    outbound::grpc_route::Distribution,
    outbound::grpc_route::distribution::Empty,
    outbound::grpc_route::distribution::FirstAvailable,
    outbound::grpc_route::distribution::RandomAvailable,
    outbound::grpc_route::Retry,
    outbound::grpc_route::retry::Conditions,
    outbound::grpc_route::RouteBackend,
    outbound::grpc_route::WeightedRouteBackend,
    outbound::OpaqueRoute,
    outbound::opaque_route::Rule,
    outbound::opaque_route::Filter,
    outbound::opaque_route::Distribution,
    outbound::opaque_route::distribution::Empty,
    outbound::opaque_route::distribution::FirstAvailable,
    outbound::opaque_route::distribution::RandomAvailable,
    outbound::opaque_route::RouteBackend,
    outbound::opaque_route::WeightedRouteBackend,
    outbound::TlsRoute,
    outbound::tls_route::Rule,
    outbound::tls_route::Filter,
    outbound::tls_route::Distribution,
    outbound::tls_route::distribution::Empty,
    outbound::tls_route::distribution::FirstAvailable,
    outbound::tls_route::distribution::RandomAvailable,
    outbound::tls_route::RouteBackend,
    outbound::tls_route::WeightedRouteBackend,
    outbound::Backend,
    outbound::backend::EndpointDiscovery,
    outbound::backend::endpoint_discovery::DestinationGet,
    outbound::backend::BalanceP2c,
    outbound::backend::balance_p2c::PeakEwma,
    outbound::backend::balance_p2c::PenaltyPeakEwma,
    outbound::Queue,
    outbound::FailureAccrual,
    outbound::failure_accrual::ConsecutiveFailures,
    outbound::failure_accrual::Unified,
    outbound::EjectionConfig,
    outbound::ExponentialBackoff,
    tap::ObserveRequest,
    tap::observe_request::Match,
    tap::observe_request::r#match::Seq,
    tap::observe_request::r#match::Label,
    tap::observe_request::r#match::Tcp,
    tap::observe_request::r#match::tcp::Netmask,
    tap::observe_request::r#match::tcp::PortRange,
    tap::observe_request::r#match::Http,
    tap::observe_request::r#match::http::StringMatch,
    tap::observe_request::Extract,
    tap::observe_request::extract::Http,
    tap::observe_request::extract::http::Headers,
    tap::Eos,
    tap::TapEvent,
    tap::tap_event::EndpointMeta,
    tap::tap_event::RouteMeta,
    tap::tap_event::Http,
    tap::tap_event::http::StreamId,
    tap::tap_event::http::RequestInit,
    tap::tap_event::http::ResponseInit,
    tap::tap_event::http::ResponseEnd,
    tls_route::SniMatch,
    tls_route::sni_match::Suffix,
}
