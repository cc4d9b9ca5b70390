//! The configuration as a whole: what the charts set is accepted, what is wrong is reported at once, the docs are current.

#![expect(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use outrigger_proxy::config::row::Built;
use outrigger_proxy::config::{Config, DefaultPolicy, Errors, FlowControl, Warning, vars};
use proptest::prelude::*;

const PREFIX: &str = "LINKERD2_PROXY_";

/// What the injector sets on an ordinary pod.
const CHART: &[(&str, &str)] = &[
    ("CORES", "1"),
    ("CORES_MIN", "1"),
    ("SHUTDOWN_ENDPOINT_ENABLED", "false"),
    (
        "LOG",
        "warn,linkerd=info,hickory=error,[{headers}]=off,[{request}]=off",
    ),
    ("LOG_FORMAT", "plain"),
    (
        "DESTINATION_SVC_ADDR",
        "linkerd-dst-headless.linkerd.svc.cluster.local.:8086",
    ),
    (
        "DESTINATION_PROFILE_NETWORKS",
        "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8",
    ),
    (
        "POLICY_SVC_ADDR",
        "linkerd-policy.linkerd.svc.cluster.local.:8090",
    ),
    ("POLICY_WORKLOAD", "{\"ns\":\"emojivoto\", \"pod\":\"web-0\"}\n"),
    ("INBOUND_DEFAULT_POLICY", "all-unauthenticated"),
    (
        "POLICY_CLUSTER_NETWORKS",
        "10.0.0.0/8,100.64.0.0/10,172.16.0.0/12,192.168.0.0/16,fd00::/8",
    ),
    ("CONTROL_STREAM_INITIAL_TIMEOUT", "3s"),
    ("CONTROL_STREAM_IDLE_TIMEOUT", "5m"),
    ("CONTROL_STREAM_LIFETIME", "1h"),
    ("INBOUND_CONNECT_TIMEOUT", "100ms"),
    ("OUTBOUND_CONNECT_TIMEOUT", "1000ms"),
    ("OUTBOUND_DETECT_TIMEOUT", "365d"),
    ("CONTROL_LISTEN_ADDR", "0.0.0.0:4190"),
    ("ADMIN_LISTEN_ADDR", "0.0.0.0:4191"),
    ("OUTBOUND_LISTEN_ADDR", "127.0.0.1:4140"),
    ("OUTBOUND_LISTEN_ADDRS", "127.0.0.1:4140,[::1]:4140"),
    ("INBOUND_LISTEN_ADDR", "[::]:4143"),
    ("INBOUND_IPS", "10.42.0.7,fd00::7"),
    ("INBOUND_PORTS", "80,9090"),
    ("DESTINATION_PROFILE_SUFFIXES", "svc.cluster.local."),
    ("INBOUND_ACCEPT_KEEPALIVE", "10000ms"),
    ("OUTBOUND_CONNECT_USER_TIMEOUT", "30s"),
    ("OUTBOUND_METRICS_HOSTNAME_LABELS", "false"),
    ("INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL", "10s"),
    ("INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT", "3s"),
    (
        "INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION",
        "25,587,3306,4444,5432,6379,9300,11211",
    ),
    (
        "DESTINATION_CONTEXT",
        "{\"ns\":\"emojivoto\", \"nodeName\":\"n1\", \"pod\":\"web-0\"}\n",
    ),
    ("IDENTITY_DIR", "/var/run/linkerd/identity/end-entity"),
    (
        "IDENTITY_TOKEN_FILE",
        "/var/run/secrets/tokens/linkerd-identity-token",
    ),
    (
        "IDENTITY_SVC_ADDR",
        "linkerd-identity-headless.linkerd.svc.cluster.local.:8080",
    ),
    (
        "IDENTITY_LOCAL_NAME",
        "web.emojivoto.serviceaccount.identity.linkerd.cluster.local",
    ),
    (
        "IDENTITY_SVC_NAME",
        "linkerd-identity.linkerd.serviceaccount.identity.linkerd.cluster.local",
    ),
    (
        "DESTINATION_SVC_NAME",
        "linkerd-destination.linkerd.serviceaccount.identity.linkerd.cluster.local",
    ),
    (
        "POLICY_SVC_NAME",
        "linkerd-destination.linkerd.serviceaccount.identity.linkerd.cluster.local",
    ),
];

fn anchors() -> String {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().pem()
}

/// Reads the chart's variables with these changes: a value replaces or adds, `None` removes.
fn read(changes: &[(&str, Option<&str>)]) -> Result<(Config, Vec<Warning>), Errors> {
    let anchors = anchors();
    let find = |name: &str| {
        let name = name.strip_prefix(PREFIX)?;
        let changed = changes.iter().find(|(known, _)| *known == name);
        let set = CHART.iter().find(|(known, _)| *known == name);
        let set = set
            .map(|(_, value)| *value)
            .or_else(|| (name == "IDENTITY_TRUST_ANCHORS").then_some(&*anchors));
        changed.map_or(set, |(_, value)| *value).map(OsString::from)
    };
    Config::from_env(&find)
}

fn config(changes: &[(&str, Option<&str>)]) -> Config {
    read(changes).unwrap().0
}

fn errors(changes: &[(&str, Option<&str>)]) -> String {
    read(changes).unwrap_err().to_string()
}

fn warnings(changes: &[(&str, Option<&str>)]) -> Vec<String> {
    read(changes).unwrap().1.iter().map(Warning::to_string).collect()
}

#[test]
fn what_the_charts_set_is_accepted_without_a_warning() {
    assert_eq!(warnings(&[]), [""; 0]);
    let config = config(&[]);
    assert_eq!(config.outbound.listen.len(), 2);
    assert_eq!(
        config.control.policy.addr.to_string(),
        "linkerd-policy.linkerd.svc.cluster.local.:8090"
    );
    assert_eq!(config.control.policy.connect.timeout, Duration::from_secs(1));
    assert_eq!(config.inbound.ports.iter().collect::<Vec<_>>(), [80, 4191, 9090]);
    assert!(config.outbound.informational_headers);
}

#[test]
fn documentation_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    if update_docs() {
        std::fs::write(path, vars::markdown()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == vars::markdown(),
        "run this test with UPDATE_DOCS=1, and look at what changes"
    );
}

#[expect(
    clippy::disallowed_methods,
    reason = "a switch of the test, not configuration of the proxy"
)]
fn update_docs() -> bool {
    std::env::var_os("UPDATE_DOCS").is_some()
}

#[test]
fn help_names_every_variable() {
    let help = vars::help();
    assert!(vars::rows().all(|row| help.contains(row.name)));
}

#[test]
fn every_lacking_capability_is_marked_in_the_documentation() {
    let docs = vars::markdown();
    for row in vars::rows() {
        let start = format!("| `{}` |", row.name);
        let line = docs.lines().find(|line| line.starts_with(&start)).unwrap();
        assert_eq!(line.contains("**No effect"), row.built != Built::Yes, "{line}");
    }
}

#[test]
fn every_default_is_read_by_its_own_parser() {
    for row in vars::rows() {
        if let Some(default) = row.default {
            assert_eq!((row.check)(default), Ok(()), "{}", row.name);
        }
    }
}

#[test]
fn names_are_unique() {
    let names: Vec<_> = vars::rows()
        .flat_map(|row| row.aliases.iter().chain([&row.name]))
        .collect();
    let unique: BTreeSet<_> = names.iter().collect();
    assert_eq!(unique.len(), names.len());
}

#[test]
fn every_variable_is_looked_up_under_each_of_its_names() {
    let asked = RefCell::new(BTreeSet::new());
    let lookup = |name: &str| {
        asked.borrow_mut().insert(name.to_owned());
        None
    };
    Config::from_env(&lookup).unwrap_err();
    for name in vars::rows().flat_map(|row| row.aliases.iter().chain([&row.name])) {
        assert!(
            asked.borrow().contains(*name),
            "{name} is in the table, and nothing reads it"
        );
    }
}

#[test]
fn every_error_is_reported_at_once() {
    let text = errors(&[
        ("POLICY_WORKLOAD", None),
        ("INBOUND_CONNECT_TIMEOUT", Some("1.5s")),
        ("TAP_SVC_NAME", Some("no identity")),
        ("IDENTITY_DIR", Some("")),
    ]);
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(
        text.lines()
            .any(|line| line == "LINKERD2_PROXY_IDENTITY_DIR=\"\" is not valid: expected a path")
    );
    assert!(
        text.contains("LINKERD2_PROXY_POLICY_WORKLOAD must be set: "),
        "{text}"
    );
    assert!(
        text.contains("LINKERD2_PROXY_INBOUND_CONNECT_TIMEOUT=\"1.5s\" is not valid: "),
        "{text}"
    );
}

#[test]
fn nothing_set_names_what_is_required() {
    let text = Config::from_env(&|_| None).unwrap_err().to_string();
    let required = [
        "DESTINATION_SVC_ADDR",
        "POLICY_SVC_ADDR",
        "POLICY_WORKLOAD",
        "IDENTITY_TRUST_ANCHORS",
        "IDENTITY_SERVER_ID",
        "IDENTITY_SERVER_NAME",
        "IDENTITY_DIR",
        "IDENTITY_TOKEN_FILE",
        "IDENTITY_SVC_ADDR",
    ];
    assert_eq!(text.lines().count(), required.len(), "{text}");
    for name in required {
        assert!(
            text.contains(&format!("{PREFIX}{name} must be set")),
            "{name}: {text}"
        );
    }
}

#[test]
fn a_value_that_is_not_unicode_is_refused() {
    let garbled = || OsString::from_vec(vec![b'1', 0xff]);
    let lookup = |name: &str| (name == "LINKERD2_PROXY_LOG").then(garbled);
    let text = Config::from_env(&lookup).unwrap_err().to_string();
    assert!(
        text.contains("LINKERD2_PROXY_LOG=\"1\u{fffd}\" is not valid: it is not valid Unicode"),
        "{text}"
    );
}

#[test]
fn long_values_are_not_repeated_in_full() {
    let nonsense = "-----BEGIN CERTIFICATE-----\n".to_owned() + &"x".repeat(5000);
    let text = errors(&[("IDENTITY_TRUST_ANCHORS", Some(&nonsense))]);
    assert!(text.len() < 400 && text.contains("(5028 bytes)"), "{text}");
}

#[test]
fn anchors_have_to_be_certificates() {
    assert!(errors(&[("IDENTITY_TRUST_ANCHORS", Some(""))]).contains("at least one PEM certificate"));
    let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let text = errors(&[("IDENTITY_TRUST_ANCHORS", Some(nonsense))]);
    assert!(text.contains("certificate 1 can't be a trust anchor"), "{text}");
    let two = anchors() + &anchors();
    assert_eq!(
        config(&[("IDENTITY_TRUST_ANCHORS", Some(&two))])
            .identity
            .trust_anchors
            .0
            .len(),
        2
    );
}

#[test]
fn a_controller_on_this_host_is_spoken_to_in_plaintext() {
    for addr in ["localhost.:8086", "127.0.0.1:8086", "[::1]:8086"] {
        let changes = [
            ("DESTINATION_SVC_ADDR", Some(addr)),
            ("DESTINATION_SVC_NAME", None),
        ];
        let destination = config(&changes).control.destination;
        assert_eq!(destination.identity, None);
        assert_eq!(destination.connect.timeout, Duration::from_millis(100));
        assert_eq!(destination.addr.to_string(), addr);
    }
}

#[test]
fn a_controller_elsewhere_needs_a_name() {
    let text = errors(&[("POLICY_SVC_NAME", None)]);
    let expected = "POLICY_SVC_ADDR and LINKERD2_PROXY_POLICY_SVC_NAME must be specified together";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn identity_and_server_name_have_to_agree() {
    let split = |id, name| {
        [
            ("IDENTITY_LOCAL_NAME", None),
            ("IDENTITY_SERVER_ID", Some(id)),
            ("IDENTITY_SERVER_NAME", Some(name)),
        ]
    };
    let text = errors(&split("spiffe://root/web", "web.ns"));
    assert!(
        text.contains("requires a TLS Id and server name to be the same"),
        "{text}"
    );
    assert_eq!(
        config(&split("Web.ns.", "web.ns")).identity.server_name.as_str(),
        "web.ns"
    );
}

#[test]
fn a_mesh_without_identities_is_refused() {
    assert!(errors(&[("IDENTITY_DISABLED", Some("1"))]).contains("IDENTITY_DISABLED"));
    assert!(read(&[("IDENTITY_DISABLED", Some(""))]).is_ok());
}

#[test]
fn cluster_policies_need_networks_and_audit_does_not() {
    let without = ("POLICY_CLUSTER_NETWORKS", None);
    for policy in ["cluster-authenticated", "cluster-unauthenticated"] {
        let change = ("INBOUND_DEFAULT_POLICY", Some(policy));
        assert!(read(&[change]).is_ok());
        assert!(errors(&[change, without]).contains("names none"));
    }
    let audit = config(&[("INBOUND_DEFAULT_POLICY", Some("audit")), without]);
    assert_eq!(
        audit.control.discovery.default_inbound.policy,
        DefaultPolicy::Audit
    );
    assert!(read(&[("INBOUND_DEFAULT_POLICY", Some("all-tls-unauthenticated"))]).is_err());
}

#[test]
fn an_unset_default_policy_is_warned_about() {
    let unset = [("INBOUND_DEFAULT_POLICY", None)];
    assert_eq!(
        config(&unset).control.discovery.default_inbound.policy,
        DefaultPolicy::AllUnauthenticated
    );
    assert!(warnings(&unset)[0].contains("all-unauthenticated holds"));
}

#[test]
fn stream_timeouts_have_to_be_ordered() {
    assert!(errors(&[("CONTROL_STREAM_IDLE_TIMEOUT", Some("2h"))]).contains("must not be longer"));
    let initial_and_lifetime = [
        ("CONTROL_STREAM_IDLE_TIMEOUT", None),
        ("CONTROL_STREAM_LIFETIME", Some("1s")),
    ];
    assert!(errors(&initial_and_lifetime).contains("must not be longer"));
    let empty = config(&[("CONTROL_STREAM_IDLE_TIMEOUT", Some(""))]);
    assert_eq!(empty.control.stream_timeouts.idle, None);
}

#[test]
fn backoff_bounds_are_set_together() {
    let min = ("OUTBOUND_CONNECT_EXP_BACKOFF_MIN", Some("1s"));
    let max = |value| ("OUTBOUND_CONNECT_EXP_BACKOFF_MAX", Some(value));
    assert!(errors(&[min]).contains("must be set together"));
    assert!(errors(&[min, max("1ms")]).contains("must not be longer"));
    assert_eq!(config(&[min, max("2s")]).outbound.connect.backoff.jitter, 0.0);
    assert_eq!(config(&[]).outbound.connect.backoff.jitter, 0.1);
}

#[test]
fn one_window_alone_has_no_effect() {
    let stream = ("INBOUND_SERVER_HTTP2_INITIAL_STREAM_WINDOW_SIZE", Some("1000000"));
    let connection = (
        "INBOUND_SERVER_HTTP2_INITIAL_CONNECTION_WINDOW_SIZE",
        Some("2000000"),
    );
    let windows = |changes: &[_]| match config(changes).inbound.http2_server.flow_control {
        FlowControl::Fixed { stream, connection } => Some((stream, connection)),
        FlowControl::Streams(_) => None,
    };
    assert_eq!(windows(&[stream]), None);
    assert_eq!(windows(&[stream, connection]), Some((1_000_000, 2_000_000)));
    assert_eq!(
        windows(&[
            stream,
            ("INBOUND_SERVER_HTTP2_ADAPTIVE_FLOW_CONTROL", Some("true"))
        ]),
        None
    );
}

#[test]
fn frame_sizes_that_http2_forbids_are_refused() {
    for size in ["0", "16383", "16777216"] {
        assert!(
            read(&[("OUTBOUND_SERVER_HTTP2_MAX_FRAME_SIZE", Some(size))]).is_err(),
            "{size}"
        );
    }
}

#[test]
fn both_spellings_of_the_idle_limit_are_read() {
    let short = ("MAX_IDLE_CONNS_PER_ENDPOINT", Some("7"));
    assert_eq!(config(&[short]).inbound.pool.max_idle, 7);
    let long = ("INBOUND_MAX_IDLE_CONNS_PER_ENDPOINT", Some("8"));
    assert_eq!(config(&[short, long]).inbound.pool.max_idle, 8);
}

#[test]
fn an_error_names_the_spelling_that_was_used() {
    let doubled = "LINKERD2_PROXY_IDENTITY_SPIRE_EXP_BACKOFF_MIN";
    assert!(errors(&[(doubled, Some("soon"))]).contains(&format!("{PREFIX}{doubled}=\"soon\"")));
}

#[test]
fn invalid_worker_counts_are_ignored_with_a_warning() {
    let changes = [("CORES_MAX", Some("many")), ("CORES_MAX_RATIO", Some("1.5"))];
    assert_eq!(config(&changes).process.workers.count(8), 1);
    assert_eq!(warnings(&changes).len(), 2);
}

#[test]
fn what_is_not_built_is_warned_about_once() {
    let warnings = warnings(&[
        (
            "TAP_SVC_NAME",
            Some("tap.linkerd-viz.serviceaccount.identity.linkerd.cluster.local"),
        ),
        ("INBOUND_PORTS_REQUIRE_IDENTITY", Some("80")),
        ("INBOUND_PORTS_REQUIRE_TLS", Some("81")),
    ]);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings.iter().any(|text| {
        text.contains("INBOUND_PORTS_REQUIRE_IDENTITY, LINKERD2_PROXY_INBOUND_PORTS_REQUIRE_TLS")
    }));
}

#[test]
fn lifetimes_of_dns_answers_that_contradict_each_other_are_refused() {
    let max = ("DNS_MAX_TTL", Some("9s"));
    assert!(errors(&[("DNS_MIN_TTL", Some("10s")), max]).contains("must not be longer than"));
    assert_eq!(
        config(&[max]).control.policy.dns.max,
        Some(Duration::from_secs(9))
    );
}

#[test]
fn ports_that_require_an_identity_are_left_to_the_controller_with_a_warning() {
    let warnings = warnings(&[("INBOUND_PORTS_REQUIRE_IDENTITY", Some("8080"))]);
    assert!(
        warnings[0].contains("the policy controller enforces it"),
        "{warnings:?}"
    );
}

#[test]
fn an_invalid_access_log_does_not_stop_the_proxy() {
    assert!(read(&[("ACCESS_LOG", Some("nginx"))]).is_ok());
}

#[test]
fn ingress_mode_keeps_informational_headers_from_the_application() {
    let ingress = ("INGRESS_MODE", Some("true"));
    assert!(!config(&[ingress]).outbound.informational_headers);
    let shown = ("OUTBOUND_DISABLE_INFORMATIONAL_HEADERS", Some("false"));
    assert!(config(&[ingress, shown]).outbound.informational_headers);
}

proptest! {
    #[test]
    fn garbage_in_any_variable_never_panics(index in 0..vars::rows().count(), value in "\\PC*") {
        let row = vars::rows().nth(index).unwrap();
        let lookup = |name: &str| (name == row.name).then(|| OsString::from(&value));
        prop_assert!(Config::from_env(&lookup).is_err(), "what is required is missing");
    }

    #[test]
    fn a_value_is_refused_with_a_reason_of_one_line(
        index in 0..vars::rows().count(),
        value in "[0-9a-z:./,\\[\\]\n-]{0,24}",
    ) {
        let row = vars::rows().nth(index).unwrap();
        if let Err(reason) = (row.check)(&value) {
            prop_assert!(!reason.is_empty() && !reason.contains('\n'), "{}: {reason:?}", row.name);
        }
    }
}
