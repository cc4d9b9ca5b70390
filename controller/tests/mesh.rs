//! What the controller tells proxies about `examples/mesh`, and about small meshes beside it, over gRPC as they ask.

#![expect(clippy::unwrap_used, reason = "a test ends where its set-up fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_controller::compile::settings::Settings;
use outrigger_controller::index::cluster::Cluster;
use outrigger_controller::serve::destination::Destination;
use outrigger_controller::serve::policy::Policies;
use outrigger_controller::source::directory::Directory;
use outrigger_controller::source::manifest;
use outrigger_policy::authz::{ClientTls, authorize};
use outrigger_policy::endpoint::{Endpoint, ProtocolHint};
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol};
use outrigger_policy::outbound::{Dispatch, OpaqueAction, OutboundPolicy, OutboundProtocol};
use outrigger_policy::profile::Profile;
use outrigger_policy::route::Head;
use outrigger_proto::destination::destination_client::DestinationClient;
use outrigger_proto::destination::{GetDestination, Update, update};
use outrigger_proto::inbound::PortSpec;
use outrigger_proto::inbound::inbound_server_policies_client::InboundServerPoliciesClient;
use outrigger_proto::outbound::outbound_policies_client::OutboundPoliciesClient;
use outrigger_proto::outbound::{TrafficSpec, traffic_spec};
use outrigger_proto::{decode, encode};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::{Code, Status, Streaming};

const TOKEN: &str = r#"{"ns": "demo", "nodeName": "node-1", "pod": "client"}"#;

/// A mesh whose manifests a test replaces, and the proxy that asks.
struct Mesh {
    cluster: watch::Sender<Arc<Cluster>>,
    routes: Routes,
}

impl Mesh {
    fn of(manifests: &str) -> Self {
        Self::with(manifests, Settings::default())
    }

    fn with(manifests: &str, settings: Settings) -> Self {
        Self::serve(watch::channel(Arc::new(cluster(manifests))).0, settings)
    }

    fn serve(cluster: watch::Sender<Arc<Cluster>>, settings: Settings) -> Self {
        let settings = Arc::new(settings);
        let policies = Policies::new(cluster.subscribe(), settings.clone());
        let routes = Routes::new(Destination::new(cluster.subscribe(), settings).into_service())
            .add_service(policies.clone().into_inbound_service())
            .add_service(policies.into_outbound_service());
        Self { cluster, routes }
    }

    /// The manifests of `examples/mesh`.
    fn example() -> Self {
        let directory = Directory::open(&example()).unwrap();
        let cluster = directory.cluster().borrow().clone();
        assert_eq!(cluster.reports, []);
        Self::serve(watch::channel(cluster).0, Settings::default())
    }

    fn change(&self, manifests: &str) {
        self.cluster.send_replace(Arc::new(cluster(manifests)));
    }

    async fn get(&self, path: &str) -> Result<Streaming<Update>, Status> {
        let request = GetDestination {
            path: path.into(),
            context_token: TOKEN.into(),
            ..Default::default()
        };
        Ok(DestinationClient::new(self.routes.clone())
            .get(request)
            .await?
            .into_inner())
    }

    async fn profile(&self, path: &str) -> Result<Profile, Status> {
        let request = GetDestination {
            path: path.into(),
            context_token: TOKEN.into(),
            ..Default::default()
        };
        let mut stream = DestinationClient::new(self.routes.clone())
            .get_profile(request)
            .await?
            .into_inner();
        Ok(decode::outbound::profile(stream.message().await?.unwrap()).unwrap())
    }

    async fn outbound(&self, target: &str) -> Result<OutboundPolicy, Status> {
        let target = match target.parse() {
            Ok(addr) => traffic_spec::Target::Addr(encode::endpoint::tcp_address(addr)),
            Err(_) => traffic_spec::Target::Authority(target.into()),
        };
        let request = TrafficSpec {
            source_workload: TOKEN.into(),
            target: Some(target),
        };
        let mut stream = OutboundPoliciesClient::new(self.routes.clone())
            .watch(request)
            .await?
            .into_inner();
        Ok(decode::outbound::policy(stream.message().await?.unwrap()).unwrap())
    }

    async fn inbound(&self, workload: &str, port: u32) -> Result<InboundPolicy, Status> {
        let request = PortSpec {
            workload: workload.into(),
            port,
        };
        let mut client = InboundServerPoliciesClient::new(self.routes.clone());
        let mut stream = client.watch_port(request).await?.into_inner();
        Ok(decode::inbound::server(stream.message().await?.unwrap()).unwrap())
    }
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/mesh")
}

fn cluster(manifests: &str) -> Cluster {
    Cluster::build(
        &manifest::read(&Arc::from(Path::new("test.yaml")), manifests).unwrap(),
        Vec::new(),
    )
}

/// A pod of the mesh with lines of its own under `metadata.annotations`.
fn pod(name: &str, ip: &str, annotations: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: demo\n  labels: \
         {{linkerd.io/control-plane-ns: linkerd, app: web}}\n  annotations: {{{annotations}}}\nspec:\n  \
         serviceAccountName: web\n  containers: [{{name: web, ports: [{{name: http, containerPort: 8080}}], livenessProbe: \
         {{httpGet: {{path: '/live?x', port: http}}}}}}]\nstatus: {{podIP: {ip}}}\n"
    )
}

/// Service `web`, 80 to 8080, with the given pods (name, address) behind it.
fn web(annotations: &str, pods: &[(&str, &str)]) -> String {
    let endpoints: String = pods
        .iter()
        .map(|(name, ip)| format!("- {{addresses: [{ip}], targetRef: {{kind: Pod, name: {name}}}}}\n"))
        .collect();
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: demo, annotations: \
         {{{annotations}}}}}\nspec: {{clusterIP: 10.96.0.1, ports: [{{name: http, port: 80}}]}}\n---\napiVersion: \
         discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-1, namespace: demo, labels: \
         {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints:\n\
         {endpoints}"
    )
}

async fn added(stream: &mut Streaming<Update>) -> BTreeMap<String, Endpoint> {
    match stream.message().await.unwrap().unwrap().update.unwrap() {
        update::Update::Add(set) => {
            let endpoints = decode::endpoint::weighted_addr_set(&set).unwrap();
            endpoints
                .into_iter()
                .map(|endpoint| (endpoint.addr.to_string(), endpoint))
                .collect()
        }
        other => panic!("an add was expected: {other:?}"),
    }
}

async fn removed(stream: &mut Streaming<Update>) -> Vec<String> {
    match stream.message().await.unwrap().unwrap().update.unwrap() {
        update::Update::Remove(set) => decode::endpoint::addr_set(&set)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect(),
        other => panic!("a remove was expected: {other:?}"),
    }
}

#[tokio::test]
async fn the_example_is_complete() {
    let mesh = Mesh::example();
    let web = mesh.outbound("10.96.0.10:80").await.unwrap();
    assert_eq!(&*web.authority, "web.demo.svc.cluster.local:80");
    assert!(matches!(web.protocol, OutboundProtocol::Detect { .. }));
    let greeter = mesh.outbound("10.96.0.11:50051").await.unwrap();
    assert!(matches!(greeter.protocol, OutboundProtocol::Http2(_)));
    let mariadb = mesh.outbound("10.96.0.12:3306").await.unwrap();
    assert!(matches!(mariadb.protocol, OutboundProtocol::Opaque(_)));
    assert!(mesh.profile("10.96.0.12:3306").await.unwrap().opaque);
    let probes = mesh
        .inbound(r#"{"ns": "demo", "pod": "server"}"#, 8080)
        .await
        .unwrap();
    let InboundProtocol::Detect { routes, .. } = probes.protocol else {
        panic!("{probes:?}")
    };
    assert_eq!(routes.routes.len(), 2);
}

#[tokio::test]
async fn an_endpoint_in_the_mesh_has_an_identity_and_hints() {
    let mesh = Mesh::example();
    let mut stream = mesh.get("web.demo.svc.cluster.local:443").await.unwrap();
    let endpoint = &added(&mut stream).await["10.77.2.2:8443"];
    let tls = endpoint.tls.as_ref().unwrap();
    assert_eq!(
        tls.identity.as_str(),
        "server.demo.serviceaccount.identity.linkerd.cluster.local"
    );
    assert_eq!(tls.server_name.as_str(), tls.identity.as_str());
    assert_eq!(endpoint.hint, ProtocolHint::Http2);
    assert_eq!(endpoint.transport_port.unwrap().get(), 4143);
    for (label, value) in [
        ("service", "web"),
        ("namespace", "demo"),
        ("pod", "server"),
        ("serviceaccount", "server"),
    ] {
        assert_eq!(endpoint.labels[label], value);
    }
}

#[tokio::test]
async fn endpoints_come_and_go() {
    let (a, b) = (pod("a", "10.1.0.1", ""), pod("b", "10.1.0.2", ""));
    let mesh = Mesh::of(&format!("{a}{b}{}", web("", &[])));
    let mut stream = mesh.get("web.demo.svc.cluster.local:80").await.unwrap();
    mesh.change(&format!("{a}{b}{}", web("", &[("a", "10.1.0.1")])));
    assert_eq!(added(&mut stream).await.len(), 1);
    mesh.change(&format!("{a}{b}{}", web("", &[("b", "10.1.0.2")])));
    assert!(added(&mut stream).await.contains_key("10.1.0.2:8080"));
    assert_eq!(removed(&mut stream).await, ["10.1.0.1:8080"]);
    mesh.change(&a);
    assert_eq!(stream.message().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_reader_that_sleeps_gets_the_newest_state_only() {
    let pods = pod("a", "10.1.0.1", "");
    let mesh = Mesh::of(&format!("{pods}{}", web("", &[])));
    let mut stream = mesh.get("web.demo.svc.cluster.local:80").await.unwrap();
    for last in 1..=100 {
        let a = pod("a", &format!("10.1.0.{last}"), "");
        mesh.change(&format!("{a}{}", web("", &[("a", &format!("10.1.0.{last}"))])));
    }
    assert_eq!(
        added(&mut stream).await.into_keys().collect::<Vec<_>>(),
        ["10.1.0.100:8080"]
    );
}

#[tokio::test]
async fn endpoints_outside_the_mesh_are_spoken_to_plainly() {
    let annotations = "config.linkerd.io/skip-inbound-ports: '8080'";
    let foreign =
        pod("foreign", "10.1.0.2", "").replace("control-plane-ns: linkerd", "control-plane-ns: other");
    let pods = pod("skipped", "10.1.0.1", annotations) + &foreign;
    let web = web(
        "",
        &[
            ("skipped", "10.1.0.1"),
            ("foreign", "10.1.0.2"),
            ("absent", "10.1.0.3"),
        ],
    );
    let mesh = Mesh::of(&format!("{pods}{web}"));
    let endpoints = added(&mut mesh.get("web.demo.svc.cluster.local").await.unwrap()).await;
    assert_eq!(endpoints.len(), 2, "the pod that is not defined is left out");
    for endpoint in endpoints.values() {
        assert_eq!((&endpoint.tls, endpoint.hint), (&None, ProtocolHint::Unknown));
    }
}

#[tokio::test]
async fn questions_without_an_answer_have_the_codes_that_proxies_know() {
    let external = "---\napiVersion: v1\nkind: Service\nmetadata: {name: out, namespace: demo}\nspec: {type: \
                    ExternalName, externalName: example.com}\n";
    let mesh = Mesh::of(&format!("{}{external}", web("", &[])));
    let code = |result: Result<Streaming<Update>, Status>| result.unwrap_err().code();
    assert_eq!(
        code(mesh.get("gone.demo.svc.cluster.local:80").await),
        Code::NotFound
    );
    assert_eq!(code(mesh.get("10.96.0.1:80").await), Code::InvalidArgument);
    assert_eq!(
        code(mesh.get("out.demo.svc.cluster.local:80").await),
        Code::InvalidArgument
    );
    assert_eq!(
        mesh.outbound("10.96.9.9:80").await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        mesh.outbound("example.com:80").await.unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(
        mesh.inbound("demo:gone", 80).await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        mesh.inbound("{}", 80).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(
        mesh.inbound("demo:a", 0).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn two_services_at_one_address_are_refused() {
    let twin = web("", &[]).replace("name: web, namespace", "name: twin, namespace");
    let mesh = Mesh::of(&(web("", &[]) + &twin.replace("name: web-1", "name: twin-1")));
    let refused = mesh.profile("10.96.0.1:80").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("demo/web") && refused.message().contains("demo/twin"));
}

#[tokio::test]
async fn a_port_that_a_service_does_not_have_is_forbidden() {
    let mesh = Mesh::of(&web("", &[]));
    assert_eq!(mesh.profile("10.96.0.1:81").await.unwrap(), Profile::default());
    let policy = mesh.outbound("10.96.0.1:81").await.unwrap();
    let OutboundProtocol::Opaque(route) = policy.protocol else {
        panic!("{policy:?}")
    };
    assert_eq!(
        (&*route.meta.name, route.action),
        ("undefined-port", OpaqueAction::Forbid)
    );
}

#[tokio::test]
async fn addresses_outside_the_cluster_are_forwarded_to() {
    let mesh = Mesh::of("");
    let policy = mesh.outbound("192.0.2.1:443").await.unwrap();
    assert_eq!(policy.parent.to_string(), "default.egress-fallback");
    let OutboundProtocol::Detect { opaque, .. } = policy.protocol else {
        panic!("{policy:?}")
    };
    let OpaqueAction::Forward(to) = opaque.action else {
        panic!("{opaque:?}")
    };
    let Dispatch::Forward(endpoint) = &to.backends().next().unwrap().dispatch else {
        panic!("{to:?}")
    };
    assert_eq!(endpoint.addr.to_string(), "192.0.2.1:443");
}

#[tokio::test]
async fn a_pod_is_found_by_its_address() {
    let mesh = Mesh::example();
    let profile = mesh.profile("10.77.2.2:3306").await.unwrap();
    let endpoint = profile.endpoint.unwrap();
    assert!(profile.opaque && endpoint.tls.is_some());
    assert_eq!(
        (endpoint.hint, &*endpoint.labels["namespace"]),
        (ProtocolHint::Opaque, "demo")
    );
    let unknown = mesh.profile("10.77.9.9:6379").await.unwrap();
    assert_eq!(
        unknown.endpoint,
        Some(Endpoint::bare("10.77.9.9:6379".parse().unwrap()))
    );
    assert!(unknown.opaque);
}

#[tokio::test]
async fn the_application_protocol_of_a_port_decides() {
    let spoken = async |app_protocol: &str| {
        let web = web("", &[]).replace("port: 80}", &format!("port: 80, appProtocol: {app_protocol}}}"));
        Mesh::of(&web)
            .outbound("web.demo.svc.cluster.local")
            .await
            .unwrap()
            .protocol
    };
    assert!(matches!(spoken("HTTP").await, OutboundProtocol::Http1(_)));
    assert!(matches!(
        spoken("kubernetes.io/h2c").await,
        OutboundProtocol::Http2(_)
    ));
    assert!(matches!(spoken("https").await, OutboundProtocol::Opaque(_)));
}

#[tokio::test]
async fn opaque_ports_are_inherited_from_the_namespace_and_known_by_name() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: demo, annotations: \
                     {config.linkerd.io/opaque-ports: 'http, 1-2'}}\n";
    let pods = pod("a", "10.1.0.1", "");
    let mesh = Mesh::of(&format!("{namespace}{pods}{}", web("", &[("a", "10.1.0.1")])));
    assert!(matches!(
        mesh.outbound("10.96.0.1:80").await.unwrap().protocol,
        OutboundProtocol::Opaque(_)
    ));
    assert_eq!(
        mesh.inbound("demo:a", 8080).await.unwrap().protocol,
        InboundProtocol::Opaque
    );
    assert!(matches!(
        mesh.inbound("demo:a", 3306).await.unwrap().protocol,
        InboundProtocol::Detect { .. }
    ));
}

#[tokio::test]
async fn a_default_policy_is_the_pods_then_its_namespaces_then_the_controllers() {
    let name = async |namespace: &str, pod_says: &str| {
        let key = "config.linkerd.io/default-inbound-policy";
        let says = |policy: &str| {
            if policy.is_empty() {
                String::new()
            } else {
                format!("{key}: {policy}")
            }
        };
        let namespace = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: demo, annotations: {{{}}}}}\n",
            says(namespace)
        );
        let mesh = Mesh::of(&(namespace + &pod("a", "10.1.0.1", &says(pod_says))));
        mesh.inbound("demo:a", 8080).await.unwrap().meta.name.to_string()
    };
    assert_eq!(name("", "").await, "all-unauthenticated");
    assert_eq!(name("cluster-authenticated", "").await, "cluster-authenticated");
    assert_eq!(name("cluster-authenticated", "deny").await, "deny");
    assert_eq!(name("", "everybody").await, "deny", "what can't be read denies");
}

#[tokio::test]
async fn the_kubelet_may_probe_where_others_need_an_identity() {
    let annotations = "config.linkerd.io/proxy-require-identity-inbound-ports: '8080'";
    let mesh = Mesh::of(&pod("a", "10.1.0.1", annotations));
    let policy = mesh.inbound("demo:a", 8080).await.unwrap();
    assert_eq!(&*policy.meta.name, "all-authenticated");
    let InboundProtocol::Detect { routes, .. } = &policy.protocol else {
        panic!("{policy:?}")
    };
    let permitted = |method, path| {
        let headers = http::HeaderMap::new();
        let head = Head {
            host: "a",
            path,
            query: None,
            headers: &headers,
            method: &method,
        };
        let rule = routes.find(&head).unwrap().then;
        authorize(
            &rule.authorizations,
            "10.77.0.1".parse().unwrap(),
            &ClientTls::None,
        )
        .map(|permit| permit.by.name.to_string())
    };
    assert_eq!(permitted(http::Method::GET, "/live").as_deref(), Ok("probe"));
    assert!(permitted(http::Method::POST, "/live").is_err());
    assert!(permitted(http::Method::GET, "/live/x").is_err());
}

#[tokio::test]
async fn a_server_is_not_enforced_so_its_port_denies_everybody() {
    let server = "---\napiVersion: policy.linkerd.io/v1beta3\nkind: Server\nmetadata: {name: strict, namespace: \
                  demo}\nspec: {podSelector: {matchLabels: {app: web}}, port: http, proxyProtocol: HTTP/1}\n";
    let mesh = Mesh::of(&(pod("a", "10.1.0.1", "") + server));
    let report = mesh.cluster.borrow().reports[0].to_string();
    assert!(
        report.contains("Server demo/strict") && report.contains("denies everybody"),
        "{report}"
    );
    let policy = mesh.inbound("demo:a", 8080).await.unwrap();
    assert_eq!(&*policy.meta.name, "strict");
    let client = "10.1.0.9".parse().unwrap();
    assert!(authorize(&policy.authorizations, client, &ClientTls::None).is_err());
    assert_eq!(
        &*mesh.inbound("demo:a", 8081).await.unwrap().meta.name,
        "all-unauthenticated"
    );
}

#[tokio::test]
async fn routes_and_annotations_that_are_not_enforced_refuse_their_service() {
    let route = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: \
                 demo}\nspec: {parentRefs: [{group: core, kind: Service, name: web, port: 80}]}\n";
    for manifests in [web("", &[]) + route, web("retry.linkerd.io/http: 5xx", &[])] {
        let mesh = Mesh::of(&manifests);
        assert_eq!(mesh.cluster.borrow().reports.len(), 1);
        let policy = mesh.outbound("10.96.0.1:80").await.unwrap();
        let OutboundProtocol::Detect { http1, http2, opaque } = policy.protocol else {
            panic!("{policy:?}")
        };
        assert!(
            http1
                .rules()
                .chain(http2.rules())
                .all(|(_, rule)| rule.backends.is_err())
        );
        assert!(matches!(opaque.action, OpaqueAction::Invalid(_)));
    }
}

#[tokio::test]
async fn an_egress_network_is_not_enforced_so_its_clients_reach_nothing_there() {
    let network = "apiVersion: policy.linkerd.io/v1alpha1\nkind: EgressNetwork\nmetadata: {name: e, namespace: \
                   demo}\nspec: {trafficPolicy: Deny, networks: [{cidr: 192.0.2.0/24, except: [192.0.2.9/32]}]}\n";
    let mesh = Mesh::of(network);
    let forwards = async |addr| {
        let policy = mesh.outbound(addr).await.unwrap();
        let OutboundProtocol::Detect { opaque, .. } = policy.protocol else {
            panic!("{policy:?}")
        };
        matches!(opaque.action, OpaqueAction::Forward(_))
    };
    assert!(!forwards("192.0.2.1:443").await);
    assert!(forwards("192.0.2.9:443").await);
    assert!(forwards("198.51.100.1:443").await);
}

#[tokio::test]
async fn a_file_that_changes_reaches_every_proxy() {
    let scratch = std::env::temp_dir().join(format!("outrigger-mesh-{}", std::process::id()));
    fs::create_dir_all(&scratch).unwrap();
    let write = |pods: &[(&str, &str)]| {
        fs::write(
            scratch.join("web.yaml"),
            web("", pods) + &pod("a", "10.1.0.1", ""),
        )
    };
    write(&[]).unwrap();
    let directory = Directory::open(&scratch).unwrap();
    let service = Destination::new(directory.cluster(), Arc::new(Settings::default())).into_service();
    let running = tokio::spawn(directory.run());
    let request = GetDestination {
        path: "web.demo.svc.cluster.local:80".into(),
        ..Default::default()
    };
    let mut stream = DestinationClient::new(service)
        .get(request)
        .await
        .unwrap()
        .into_inner();
    write(&[("a", "10.1.0.1")]).unwrap();
    assert!(added(&mut stream).await.contains_key("10.1.0.1:8080"));
    running.abort();
    fs::remove_dir_all(&scratch).unwrap();
}
