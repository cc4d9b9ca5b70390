//! `/metrics` as a whole: Prometheus can read it, names are unique, and the docs are current.

#![expect(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outrigger_policy::name::{Identity, ResourceRef};
use outrigger_proxy::app;
use outrigger_proxy::exchange::Limit;
use outrigger_proxy::http::replay::Memory;
use outrigger_proxy::outbound;
use outrigger_proxy::outbound::memory::Memories;
use outrigger_proxy::room::Rooms;
use outrigger_proxy::telemetry::connections;
use outrigger_proxy::telemetry::handles::Handles;
use outrigger_proxy::telemetry::http::{EndpointLabels, Outcome};
use outrigger_proxy::telemetry::labels::{
    Authz, DetectResult, Dst, NoTls, Parent, Route, Srv, Target, TlsAccept, TlsConnect,
};
use outrigger_proxy::telemetry::transport::TransportLabels;
use outrigger_proxy::telemetry::{Format, Registry};

/// Every family.
struct All {
    registry: Registry,
    metrics: app::Metrics,
}

impl All {
    fn register() -> Self {
        let mut registry = Registry::new(Duration::from_secs(600));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let metrics = app::Metrics::register(&mut registry, runtime.handle());
        connections::register(&mut registry, &Rooms::new(1), &Rooms::new(1));
        let memories = Memories {
            retries: Memory::new(1),
            mirrors: Memory::new(1),
            copies: Limit::new(1),
        };
        memories.register(&mut registry);
        Self { registry, metrics }
    }

    /// What a proxy prints that has carried one request each way, from and to hostile names.
    fn after_traffic(format: Format) -> String {
        let Self { registry, metrics } = Self::register();
        let target = Target("[2001:db8::1]:8080".parse().unwrap());
        let meta = Arc::new(ResourceRef::of_default("a \"quoted\" \\ name\nwith a line break"));
        let (srv, parent) = (
            Srv {
                meta: meta.clone(),
                port: 8080,
            },
            Parent(meta.clone()),
        );
        let client_id =
            Some(Identity::parse("web.ns.serviceaccount.identity.linkerd.cluster.local").unwrap());
        let tls = TlsAccept::Terminated { client_id };
        let (route, authz) = (Route(meta.clone()), Authz(meta));
        let dst = [
            ("pod", "web-1"),
            ("not a.name", "x"),
            ("not_a_name", "y"),
            ("", ""),
        ];
        let dst = dst.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let sent = EndpointLabels::Outbound {
            authority: Some("web:80".into()),
            target,
            tls: TlsConnect::NoIdentity(NoTls::NotProvided),
            dst: Dst(Arc::new(dst.into())),
        };
        let received = EndpointLabels::Inbound {
            target,
            tls: tls.clone(),
            srv: srv.clone(),
            route,
            authz,
        };
        for endpoint in [sent.clone(), received] {
            let handles = Handles::new(&metrics.http, endpoint);
            handles.request();
            handles.latency(200, Duration::from_millis(7));
            let reset = Outcome {
                status: None,
                success: false,
                grpc: Some(14),
                error: "h2(CANCEL)",
            };
            handles.response(Outcome {
                status: Some(200),
                success: true,
                grpc: None,
                error: "",
            });
            handles.response(reset);
        }
        let accept = TransportLabels::InboundAccept {
            target,
            tls,
            srv: srv.clone(),
        };
        let connect = TransportLabels::OutboundConnect(Arc::new(sent));
        for labels in [
            accept,
            connect,
            TransportLabels::InboundConnect,
            TransportLabels::OutboundAccept { target },
        ] {
            let connection = metrics.transport.handle(labels);
            connection.opened();
            connection.closed(Some(104));
        }
        metrics.inbound.detect_seconds.handle(srv).observe(0.05);
        let result = DetectResult::Http1;
        metrics
            .outbound
            .detect_results
            .handle(outbound::metrics::Detected { result, parent })
            .inc();
        registry.encode_as(format, Instant::now())
    }
}

#[test]
fn prometheus_can_read_what_is_printed() {
    let text = All::after_traffic(Format::Classic);
    keep("metrics.txt", &text);
    let mut kinds = BTreeMap::new();
    let mut series = BTreeSet::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.split(' ');
            if let (Some("TYPE"), Some(family), Some(kind)) = (words.next(), words.next(), words.next()) {
                assert!(kinds.insert(family, kind).is_none(), "{family} is typed twice");
            }
            continue;
        }
        let (id, value) = line.rsplit_once(' ').unwrap();
        value.parse::<f64>().unwrap();
        assert!(series.insert(id), "{id} is printed twice");
        let (name, labels) = id.split_once('{').unwrap_or((id, "}"));
        let suffixes = ["", "_bucket", "_count", "_sum", "_total"];
        let typed = |suffix: &&str| {
            name.strip_suffix(*suffix)
                .is_some_and(|family| kinds.contains_key(family))
        };
        assert!(suffixes.iter().any(typed), "{name} has no type");
        let names = label_names(labels.strip_suffix('}').unwrap());
        let unique: BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), unique.len(), "a label is repeated: {line}");
        assert_eq!(
            name.ends_with("_bucket"),
            names.last().is_some_and(|last| last == "le"),
            "{line}"
        );
    }
    assert!(series.len() > 50, "{text}");
}

/// For `promtool check metrics` and other readers, and for curiosity.
fn keep(name: &str, text: &str) {
    fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), text).unwrap();
}

#[test]
fn openmetrics_readers_find_each_sample_under_the_family_that_was_announced() {
    let text = All::after_traffic(Format::OpenMetrics);
    keep("metrics.openmetrics.txt", &text);
    let text = text.strip_suffix("# EOF\n").unwrap();
    let (mut family, mut samples) = (("", ""), 0);
    let mut announced = BTreeSet::new();
    for line in text.lines() {
        match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
            ["#", "HELP", name, _] => {
                assert!(announced.insert(name), "{name} is announced twice");
                family = (name, "");
            }
            ["#", "TYPE", name, kind] => {
                assert_eq!(family, (name, ""));
                family = (name, kind);
            }
            ["#", "UNIT", name, unit] => {
                assert!(name == family.0 && name.ends_with(&format!("_{unit}")), "{line}");
            }
            _ => {
                let name = line.split(['{', ' ']).next().unwrap();
                let suffix = name.strip_prefix(family.0).unwrap();
                let suffixes: &[&str] = match family.1 {
                    "counter" => &["_total"],
                    "gauge" => &[""],
                    "histogram" => &["_bucket", "_count", "_sum"],
                    other => panic!("{other} is no type of ours"),
                };
                assert!(suffixes.contains(&suffix), "{line}");
                let bound = line.split_once("le=\"").map(|(_, rest)| rest);
                assert!(
                    bound.is_none_or(|bound| bound.starts_with("+Inf") || bound.contains(['.', 'e'])),
                    "{line}"
                );
                samples += 1;
            }
        }
    }
    assert!(samples > 50, "{text}");
}

/// The names of labels, each of which must be followed by a quoted value without stray quotes or line breaks.
fn label_names(labels: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = labels;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").unwrap();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(
            name.starts_with(char::is_alphabetic) && name.chars().all(is_name),
            "{name:?}"
        );
        names.push(name.to_owned());
        let unescaped = |(at, _): &(usize, &str)| {
            let slashes = after[..*at].bytes().rev().take_while(|b| *b == b'\\').count();
            slashes % 2 == 0
        };
        let (end, _) = after.match_indices('"').find(unescaped).unwrap();
        let after = &after[end + 1..];
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    names
}

#[test]
fn no_two_families_share_a_name() {
    let families = All::register().registry.describe();
    let names: BTreeSet<_> = families
        .iter()
        .map(|family| family.name.as_str().to_owned())
        .collect();
    assert_eq!(names.len(), families.len());
}

#[test]
fn a_counter_ends_in_total_and_nothing_else_does() {
    for family in All::register().registry.describe() {
        let name = family.name.as_str();
        assert_eq!(
            family.kind.as_str() == "counter",
            name.ends_with("_total"),
            "{name}"
        );
    }
}

#[test]
fn the_documentation_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = documentation(&All::register().registry);
    if updating() {
        fs::write(&path, &text).unwrap();
    }
    let current = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        current == text,
        "docs/metrics.md is out of date: run this test with UPDATE_DOCS=1, and look at what changes"
    );
}

fn documentation(registry: &Registry) -> String {
    let mut text = String::from(HEAD);
    for family in registry.describe() {
        let (name, kind, help) = (family.name.as_str(), family.kind.as_str(), family.help);
        let labels = match family.labels {
            "" => String::new(),
            labels => format!("`{}`", labels.replace('|', "\\|")),
        };
        text.push_str(&format!("| `{name}` | {kind} | {labels} | {help} |\n"));
    }
    text
}

const HEAD: &str = "\
# Metrics

Printed from the registered families (`UPDATE_DOCS=1 cargo test -p outrigger-proxy --test metrics` rewrites it).

`GET /metrics` on the admin port answers in the Prometheus text format, and in OpenMetrics 1.0 whoever accepts
`application/openmetrics-text`; compressed with gzip if that is accepted. Names, labels and `le` texts are those of Linkerd's
proxy, so that dashboards and alerts keep working (in OpenMetrics every `le` has a fraction, `1.0` for `1`, as Prometheus 3
stores it in any case); families that start with `outrigger_` are our own.

- A family without a sample is not printed.
- A label set that nothing uses and that has not changed for `LINKERD2_PROXY_METRICS_RETAIN_IDLE` is forgotten.
- A family holds at most 10,000 label sets. What comes then is counted in one series labelled `overflow=\"true\"`, and
  `outrigger_metrics_overflow_total` says in which family that happened.

| Labels written short | stand for |
|---|---|
| `target_*` | `target_addr`, `target_ip`, `target_port`: the address that was connected to |
| `tls \u{2026}` | `tls=\"true\"` with `client_id` or `server_id`, `tls=\"opaque\"` with `sni`, `tls=\"no_identity\"` with `no_tls_reason` |
| `srv_*` | `srv_group`, `srv_kind`, `srv_name`, `srv_port`: the Server that an inbound port is under |
| `route_*`, `authz_*` | `\u{2026}_group`, `\u{2026}_kind`, `\u{2026}_name`: the route taken, the authorization that admitted the client |
| `dst_*` | what discovery says about the endpoint |
| `parent_*` | `parent_group`, `parent_kind`, `parent_namespace`, `parent_name`, `parent_port`, `parent_section_name` |
| `backend_*` | `backend_group`, `backend_kind`, `backend_namespace`, `backend_name`, `backend_port`, `backend_section_name` |
| `name?` | left out when there is none |

Of the families of Linkerd's proxy these are not here, or have less to say:

| Family | because |
|---|---|
| `stack_*` | there are no stacks of services to create, poll and drop |
| `control_*_balancer_*`, `opentelemetry_*` | the control plane is not balanced over (`outrigger_control_*` says how it goes), and traces are not exported |
| `tokio_rt_*` but four | the runtime shows them only when it is built to, at a cost for every task |
| `…_balancer_p2c_updates_total{op=\"Reset\"}` | a new list of endpoints is told apart into those that have come and those that have gone |
| `…_balancer_queue_*` | there is no queue: `queue_length` counts those who wait, and the gate is shut from the first who has waited in vain to the next who has not |
| `request_total` and the like, of the admin port | probes and scrapes are no requests of the application |
| label `hostname` | it is empty, as with Linkerd unless hostname labels are switched on |

| Family | Type | Labels | What it says |
|---|---|---|---|
";

#[expect(
    clippy::disallowed_methods,
    reason = "a switch of the test, not configuration of the proxy"
)]
fn updating() -> bool {
    std::env::var_os("UPDATE_DOCS").is_some()
}
