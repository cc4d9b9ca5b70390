//! Policies as they change under load, as protocols change, and for those who must get in whatever they say: the kubelet, and
//! the pod itself.

use outrigger_e2e::http::{self, Echo};
use outrigger_e2e::load::Load;
use outrigger_e2e::mesh::{Mesh, Meshed, until_status};
use outrigger_e2e::metrics::Metrics;
use outrigger_e2e::pod::Pod;
use outrigger_e2e::wait;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// A server for port 8080 that speaks this and, where it is HTTP, marks requests with its version.
fn server(protocol: &str, access: &str) -> String {
    format!(
        "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {{name: web, namespace: demo}}
spec: {{podSelector: {{matchLabels: {{app: server}}}}, port: 8080, proxyProtocol: {protocol}, accessPolicy: {access}}}
"
    )
}

fn marked(version: usize) -> String {
    server("HTTP/1", "all-unauthenticated")
        + &format!(
            "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: marks, namespace: demo}}
spec:
  parentRefs: [{{group: policy.linkerd.io, kind: Server, name: web}}]
  rules:
    - matches: [{{path: {{type: PathPrefix, value: /}}}}]
      filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-version, value: '{version}'}}]}}}}]
"
        )
}

fn version_of(body: &str) -> usize {
    let lines = body.lines();
    let version = lines.filter_map(|line| line.strip_prefix("x-version: ")).next();
    version.map_or(0, |version| version.parse().unwrap())
}

fn get(pod: &Pod, addr: SocketAddr, path: &str) -> u16 {
    http::get(pod, addr, "web", path, &["connection: close"]).status
}

/// A meshed server with an application on 8080, and a meshed client.
fn pair() -> (Mesh, Meshed, Meshed, SocketAddr) {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080]).meshed();
    let client = mesh.pod("client").meshed();
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    Echo::serve(&server, 8080);
    until_status(&client, web, "web", 200);
    (mesh, server, client, web)
}

#[test]
fn once_a_version_has_been_seen_no_request_is_decided_by_an_older_one() {
    const VERSIONS: usize = 12;
    let (mesh, _server, client, web) = pair();
    let (seen, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let ask = || {
        let (pod, seen, stop) = (client.pod(), seen.clone(), stop.clone());
        thread::spawn(move || {
            let (mut stream, mut asked) = (pod.connect(web).unwrap(), 0);
            while !stop.load(Ordering::SeqCst) {
                let at_least = seen.load(Ordering::SeqCst);
                let answer = http::exchange(&mut stream, "web", "/", &[]).unwrap();
                let version = version_of(&answer.body);
                assert_eq!(answer.status, 200, "{answer:?}");
                assert!(version >= at_least, "version {version} after {at_least}");
                seen.fetch_max(version, Ordering::SeqCst);
                asked += 1;
            }
            asked
        })
    };
    let clients: Vec<_> = (0..6).map(|_| ask()).collect();
    for version in 1..=VERSIONS {
        mesh.write("marks.yaml", &marked(version));
        wait::until("the version to be seen", || {
            (seen.load(Ordering::SeqCst) == version).then_some(())
        });
    }
    stop.store(true, Ordering::SeqCst);
    let asked: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    assert!(asked > 10 * VERSIONS, "{asked} requests");
}

#[test]
fn a_protocol_that_changes_is_logged_and_counts_for_new_connections() {
    let (mesh, server_pod, _client, _web) = pair();
    let outside = mesh.node().outside();
    let mut held = outside.connect(server_pod.addr(8080)).unwrap();
    assert_eq!(http::exchange(&mut held, "web", "/", &[]).unwrap().status, 200);
    mesh.write("server.yaml", &server("opaque", "all-unauthenticated"));
    let change = "The protocol of a port has changed, for connections from now on port=8080";
    wait::until(change, || server_pod.proxy().log().contains(change).then_some(()));
    let carried = || {
        let labels = [("direction", "inbound"), ("target_port", "8080")];
        Metrics::of(&server_pod).sum("request_total", &labels)
    };
    // What was HTTP stays HTTP.
    let before = carried();
    assert_eq!(http::exchange(&mut held, "web", "/", &[]).unwrap().status, 200);
    assert_eq!(carried(), before + 1.0);
    // What is new is bytes, whatever they are.
    assert_eq!(get(outside, server_pod.addr(8080), "/"), 200);
    assert_eq!(carried(), before + 1.0);
    // And who may no longer connect, may no longer ask.
    mesh.write("server.yaml", &server("opaque", "deny"));
    wait::until("the connection to be refused", || {
        let answer = http::exchange(&mut held, "web", "/", &[]).unwrap();
        (answer.status == 403).then_some(())
    });
}

#[test]
fn the_kubelet_probes_under_every_policy_without_routes() {
    let mesh = Mesh::start();
    let server_pod = mesh.pod("server").ports(&[8080]).meshed();
    Echo::serve(&server_pod, 8080);
    let manifest = fs::read_to_string(mesh.manifest("pod-server.yaml")).unwrap();
    let probed = manifest.replace(
        "image: app,",
        "image: app, livenessProbe: {httpGet: {path: /live, port: 8080}},",
    );
    assert_ne!(manifest, probed);
    let (kubelet, web) = (mesh.node().outside(), server_pod.addr(8080));
    let closed_but_for_probes = |policy: &str| {
        wait::until(policy, || (get(kubelet, web, "/") == 403).then_some(()));
        assert_eq!(get(kubelet, web, "/live"), 200, "{policy}");
        assert_eq!(get(kubelet, web, "/live/else"), 403, "{policy}");
    };
    for policy in ["deny", "all-authenticated", "cluster-authenticated"] {
        let annotation = format!("annotations: {{ config.linkerd.io/default-inbound-policy: {policy},");
        mesh.write(
            "pod-server.yaml",
            &probed.replacen("annotations: {", &annotation, 1),
        );
        closed_but_for_probes(policy);
        mesh.write("pod-server.yaml", &probed);
        wait::until("the port to be open again", || {
            (get(kubelet, web, "/") == 200).then_some(())
        });
    }
    for protocol in ["HTTP/1", "unknown"] {
        mesh.write("server.yaml", &server(protocol, "deny"));
        closed_but_for_probes(protocol);
    }
}

#[test]
fn the_admin_port_is_under_its_policy_for_all_but_the_pod_itself() {
    let mesh = Mesh::start();
    let server_pod = mesh.pod("server").ports(&[8080]).meshed();
    let (outside, admin) = (mesh.node().outside(), server_pod.addr(4191));
    assert_eq!(get(outside, admin, "/ready"), 200);
    let closed = server("HTTP/1", "deny").replace("port: 8080", "port: 4191");
    mesh.write("admin.yaml", &closed);
    wait::until("the admin port to be closed", || {
        (get(outside, admin, "/metrics") == 403).then_some(())
    });
    assert_eq!(get(outside, admin, "/ready"), 403);
    let within = (Ipv4Addr::LOCALHOST, 4191).into();
    assert_eq!(get(&server_pod, within, "/ready"), 200);
    assert_eq!(get(&server_pod, within, "/metrics"), 200);
    let routed = closed
        + "---
apiVersion: policy.linkerd.io/v1beta3
kind: HTTPRoute
metadata: {name: probes, namespace: demo}
spec:
  parentRefs: [{group: policy.linkerd.io, kind: Server, name: web}]
  rules: [{matches: [{method: GET, path: {type: Exact, value: /ready}}]}]
---
apiVersion: policy.linkerd.io/v1alpha1
kind: NetworkAuthentication
metadata: {name: kubelet, namespace: demo}
spec: {networks: [{cidr: 10.77.0.1/32}]}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: probes, namespace: demo}
spec:
  targetRef: {group: policy.linkerd.io, kind: HTTPRoute, name: probes}
  requiredAuthenticationRefs: [{group: policy.linkerd.io, kind: NetworkAuthentication, name: kubelet}]
";
    mesh.write("admin.yaml", &routed);
    wait::until("the probe to be let in", || {
        (get(outside, admin, "/ready") == 200).then_some(())
    });
    assert_eq!(get(outside, admin, "/metrics"), 404);
}

#[test]
fn one_client_is_let_in_and_shut_out_while_another_never_notices() {
    let (mesh, _server, client, web) = pair();
    let other = mesh.pod("other").meshed();
    until_status(&other, web, "web", 200);
    let load = Load::start(&client, web);
    load.wait_for(20);
    let only_client = server("HTTP/1", "deny")
        + "---
apiVersion: policy.linkerd.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: client, namespace: demo}
spec:
  targetRef: {group: policy.linkerd.io, kind: Server, name: web}
  requiredAuthenticationRefs: [{kind: ServiceAccount, name: client}]
";
    for _ in 0..3 {
        mesh.write("server.yaml", &only_client);
        until_status(&other, web, "web", 403);
        load.wait_for(20);
        mesh.reread(|| fs::remove_file(mesh.manifest("server.yaml")).unwrap());
        until_status(&other, web, "web", 200);
        load.wait_for(20);
    }
    assert_eq!(load.stop(), [""; 0]);
}

#[test]
fn an_injected_failure_is_answered_in_front_of_the_application() {
    let (mesh, server_pod, client, web) = pair();
    let failing = marked(1)
        .replace("name: marks, namespace: demo", "name: marks, namespace: demo, annotations: {outrigger.dev/fault-status: '418', outrigger.dev/fault-percent: '100', outrigger.dev/fault-message: tea}");
    mesh.write("marks.yaml", &failing);
    until_status(&client, web, "web", 418);
    let log = client.proxy().log();
    assert!(
        log.lines()
            .any(|line| line.contains("Remote proxy error") && line.contains("tea")),
        "{log}"
    );
    // Who may not take the route is refused, and never sees the failure.
    mesh.write(
        "marks.yaml",
        &failing.replace(
            "accessPolicy: all-unauthenticated",
            "accessPolicy: all-authenticated",
        ),
    );
    wait::until("the stranger to be refused", || {
        (get(mesh.node().outside(), server_pod.addr(8080), "/") == 403).then_some(())
    });
    assert_eq!(get(&client, web, "/"), 418);
}

#[test]
fn what_is_too_much_is_answered_503_until_bodies_have_ended_and_strangers_take_nothing_from_the_mesh() {
    let mesh = Mesh::start();
    let server_pod = mesh
        .pod("server")
        .ports(&[8080])
        .env("LINKERD2_PROXY_INBOUND_MAX_IN_FLIGHT", "2")
        .meshed();
    let client = mesh.pod("client").meshed();
    let web = mesh.service("web", 80, &[(&server_pod, 8080)]);
    let echo = Echo::serve(&server_pod, 8080);
    until_status(&client, web, "web", 200);
    let (outside, addr) = (mesh.node().outside(), server_pod.addr(8080));
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let pod = outside.clone();
            thread::spawn(move || http::get(&pod, addr, "web", http::GATE, &["connection: close"]).status)
        })
        .collect();
    wait::until("two requests to wait", || (echo.waiting() == 2).then_some(()));
    assert_eq!(get(outside, addr, "/"), 503);
    assert_eq!(get(&client, web, "/"), 200, "peer proxies are counted apart");
    let labels = [("error", "loadshed"), ("target_port", "8080")];
    assert_eq!(
        Metrics::of(&server_pod).sum("inbound_http_errors_total", &labels),
        1.0
    );
    echo.open_gate();
    for answered in waiting {
        assert_eq!(answered.join().unwrap(), 200);
    }
    wait::until("room", || (get(outside, addr, "/") == 200).then_some(()));
}
