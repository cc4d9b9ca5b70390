//! Whatever a file or a proxy says, it is read or refused, and nothing panics.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use outrigger_controller::compile::client::Client;
use outrigger_controller::compile::refusal::Refusal;
use outrigger_controller::compile::settings::Settings;
use outrigger_controller::compile::{extensions, inbound, outbound, profile, service_name::ServiceName};
use outrigger_controller::explain::{self, request::Request};
use outrigger_controller::index::cluster::Cluster;
use outrigger_controller::resources::ports::PortSet;
use outrigger_controller::source::manifest;
use outrigger_policy::authz::ClientTls;
use outrigger_proto::encode;
use proptest::prelude::*;

use crate::support::{example, files, pod, web};

/// Reads a text as a file, and asks about what it says. The line of an error is one of the file's.
fn read(text: &str) {
    // To YAML, a carriage return alone ends a line.
    let lines = u64::try_from(text.matches(['\n', '\r']).count()).unwrap() + 1;
    match manifest::read(&Arc::from(Path::new("hostile.yaml")), text) {
        Ok(objects) => ask(&Cluster::build(&objects, Vec::new())),
        Err(error) => assert!((1..=lines).contains(&error.line), "{error:?}"),
    }
}

fn ask(cluster: &Cluster) {
    let (settings, client) = (Settings::default(), Client::of_workload("demo:server").unwrap());
    let name = ServiceName::parse("web.demo.svc", &settings).unwrap();
    encode::outbound::policy(&outbound::to_name(cluster, &settings, &name, &client)).unwrap();
    for port in [80, 443, 3306, 8080] {
        // An answer, which can be sent, or a refusal.
        let _ = inbound_explained(cluster, &settings, port);
        if let Ok(policy) = inbound::of_port(cluster, &settings, &client, port) {
            encode::inbound::server(&policy).unwrap();
        }
        for host in [[10, 96, 0, 10], [10, 96, 0, 11], [192, 0, 2, 1]] {
            let addr: SocketAddr = (host, port).into();
            let _ = outbound_explained(cluster, &settings, &addr.to_string());
            if let Ok(policy) = outbound::to_address(cluster, &settings, addr, &client) {
                encode::outbound::policy(&policy).unwrap();
                encode::outbound::policy(&extensions::without(policy)).unwrap();
            }
        }
        let _ = profile::at(cluster, &settings, &format!("10.77.2.2:{port}"), &client);
        let _ = profile::at(
            cluster,
            &settings,
            &format!("server.web.demo.svc:{port}"),
            &client,
        );
    }
}

fn outbound_explained(cluster: &Cluster, settings: &Settings, to: &str) -> Result<Vec<String>, Refusal> {
    let question = explain::outbound::Question {
        client: Client::of_workload("demo:client").unwrap(),
        to: to.into(),
        request: Request::new(http::Method::GET, "/", &[]),
    };
    explain::outbound::explain(cluster, settings, &question)
}

fn inbound_explained(cluster: &Cluster, settings: &Settings, port: u16) -> Result<Vec<String>, Refusal> {
    let question = explain::inbound::Question {
        workload: Client::of_workload("demo:server").unwrap(),
        port,
        from: [10, 77, 1, 2].into(),
        tls: ClientTls::None,
        request: Request::new(http::Method::GET, "/", &[]),
    };
    explain::inbound::explain(cluster, settings, &question)
}

/// Manifests with everything that this version reads.
fn manifests() -> Vec<String> {
    let mesh = std::fs::read_to_string(example().join("web.yaml")).unwrap();
    let read = |path| std::fs::read_to_string(path).unwrap() + "---\n" + &mesh;
    let mut texts: Vec<_> = files("mesh")
        .chain(files("traffic"))
        .chain(files("access"))
        .map(read)
        .collect();
    texts.push(pod(
        "server",
        "10.77.2.2",
        "config.linkerd.io/opaque-ports: '1-2,http'",
    ));
    texts.push(web("", &[("server", "10.77.2.2")]));
    texts
}

/// What makes YAML different in kind.
fn splinter() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<char>().prop_map(String::from),
        prop::sample::select(vec![
            "\n",
            "---",
            "...",
            "- ",
            ": ",
            "{",
            "}",
            "[",
            "]",
            "&a ",
            "*a",
            "!!int ",
            "|\n",
            "null",
            "-1",
            "99999",
            "\t",
            "''",
            "%YAML 1.2",
            "<<: ",
            "2147483648",
            "0x10",
            "true",
        ])
        .prop_map(String::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_text_is_read_or_refused(splinters in prop::collection::vec(splinter(), 0..60)) {
        read(&splinters.concat());
    }

    #[test]
    fn any_change_of_a_manifest_is_read_or_refused(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        removed in 0..20usize,
        splinter in splinter(),
    ) {
        let manifests = manifests();
        let text: Vec<char> = which.get(&manifests).chars().collect();
        let (before, after) = text.split_at(at.index(text.len()));
        let rest = after.get(removed..).unwrap_or_default();
        read(&before.iter().chain(&splinter.chars().collect::<Vec<_>>()).chain(rest).collect::<String>());
    }

    #[test]
    fn any_name_token_or_list_is_read_or_refused(text in "(\\PC|[:.,{}\"-]|svc|ns|80){0,40}") {
        let settings = Settings::default();
        if let Ok(name) = ServiceName::parse(&text, &settings) {
            prop_assert!(name.port > 0 && !name.name.is_empty() && !name.namespace.is_empty());
        }
        Client::of_context_token(&text);
        Client::of_workload(&text);
        PortSet::parse(&text, |_| Vec::new());
    }

    /// A policy that can't be read any more, whatever else is said, lets nobody in whom it kept out, and opens no way.
    #[test]
    fn a_policy_that_becomes_unreadable_opens_nothing(
        said in prop::sample::subsequence(POLICIES.to_vec(), 1..=POLICIES.len()),
        which in any::<prop::sample::Index>(),
        spoil in prop::sample::select(SPOILT.to_vec()),
    ) {
        let mesh = files("mesh").map(|path| std::fs::read_to_string(path).unwrap() + "---\n");
        let base: String = mesh.collect();
        let mut spoilt = said.clone();
        let policy = spoilt.remove(which.index(said.len()));
        let (good, bad) = if policy.contains(spoil.0) { spoil } else { SPOILT[0] };
        let spoilt = spoilt.concat() + &policy.replacen(good, bad, 1);
        let before = decisions(&parsed(&(base.clone() + &said.concat())));
        let after = decisions(&parsed(&(base + &spoilt)));
        for (was, is) in before.into_iter().zip(after) {
            prop_assert!(was || !is, "{}\n{spoilt}", said.concat());
        }
    }
}

/// What makes a policy unreadable: the good text, and the bad.
const SPOILT: [(&str, &str); 6] = [
    ("spec: {", "spec: {unheard: 1, "),
    ("port: 8080", "port: []"),
    ("podSelector: {}", "podSelector: 5"),
    ("parentRefs: [", "parentRefs: [5, "),
    ("trafficPolicy: Deny", "trafficPolicy: Maybe"),
    ("server: {selector: {}}", "server: 5"),
];

/// Policies that restrict, and policies that let in.
const POLICIES: [&str; 7] = [
    "---\napiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: s, namespace: demo}\nspec: {podSelector: {}, \
     port: 8080}\n",
    "---\napiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: t, namespace: demo}\nspec: {podSelector: {}, \
     port: 8080, accessPolicy: all-unauthenticated}\n",
    "---\napiVersion: policy.linkerd.io/v1beta1\nkind: ServerAuthorization\nmetadata: {name: a, namespace: demo}\nspec: {server: \
     {selector: {}}, client: {unauthenticated: true}}\n",
    "---\napiVersion: policy.linkerd.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: demo}\nspec: \
     {targetRef: {kind: Namespace, name: demo}, requiredAuthenticationRefs: []}\n",
    "---\napiVersion: policy.linkerd.io/v1beta3\nkind: HTTPRoute\nmetadata: {name: i, namespace: demo}\nspec: {parentRefs: \
     [{group: policy.linkerd.io, kind: Server, name: s}]}\n",
    "---\napiVersion: policy.linkerd.io/v1beta3\nkind: HTTPRoute\nmetadata: {name: o, namespace: demo}\nspec: {parentRefs: \
     [{group: core, kind: Service, name: web}]}\n",
    "---\napiVersion: policy.linkerd.io/v1alpha1\nkind: EgressNetwork\nmetadata: {name: e, namespace: demo}\nspec: \
     {trafficPolicy: Deny}\n",
];

fn parsed(text: &str) -> Cluster {
    Cluster::build(
        &manifest::read(&Arc::from(Path::new("open.yaml")), text).unwrap(),
        Vec::new(),
    )
}

/// Whether an unknown client is let in, on a few ports, and whether a client gets out, to a few addresses.
fn decisions(cluster: &Cluster) -> Vec<bool> {
    let said = |lines: Result<Vec<String>, Refusal>| lines.unwrap_or_default();
    let settings = Settings::default();
    let inbound = [8080, 3306].map(|port| {
        let lines = said(inbound_explained(cluster, &settings, port));
        lines.iter().any(|line| line.contains("is allowed by"))
    });
    let outbound = ["web:80", "192.0.2.1:80"].map(|to| {
        let lines = said(outbound_explained(cluster, &settings, to));
        let answer = lines.iter().skip_while(|line| !line.is_empty());
        answer
            .into_iter()
            .any(|line| line.trim_start().starts_with("leads to"))
            && !lines
                .iter()
                .any(|line| line.contains("denies what no route allows"))
    });
    inbound.into_iter().chain(outbound).collect()
}
