//! A mesh of a test's own, and the questions that a proxy asks of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrigger_controller::compile::settings::Settings;
use outrigger_controller::index::cluster::Cluster;
use outrigger_controller::serve::destination::Destination;
use outrigger_controller::serve::policy::Policies;
use outrigger_controller::source::directory::Directory;
use outrigger_controller::source::manifest;
use outrigger_policy::endpoint::Endpoint;
use outrigger_policy::inbound::InboundPolicy;
use outrigger_policy::outbound::OutboundPolicy;
use outrigger_policy::profile::Profile;
use outrigger_proto::destination::destination_client::DestinationClient;
use outrigger_proto::destination::{GetDestination, Update, update};
use outrigger_proto::inbound::PortSpec;
use outrigger_proto::inbound::inbound_server_policies_client::InboundServerPoliciesClient;
use outrigger_proto::outbound::outbound_policies_client::OutboundPoliciesClient;
use outrigger_proto::outbound::{TrafficSpec, traffic_spec};
use outrigger_proto::{EXTENSIONS, decode, encode};
use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic::service::Routes;
use tonic::{Request, Status, Streaming};

const TOKEN: &str = r#"{"ns": "demo", "nodeName": "node-1", "pod": "client"}"#;

/// A mesh whose manifests a test replaces, and the proxy that asks.
pub(crate) struct Mesh {
    pub(crate) cluster: watch::Sender<Arc<Cluster>>,
    pub(crate) routes: Routes,
}

impl Mesh {
    pub(crate) fn of(manifests: &str) -> Self {
        Self::with(manifests, Settings::default())
    }

    pub(crate) fn with(manifests: &str, settings: Settings) -> Self {
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
    pub(crate) fn example() -> Self {
        let directory = Directory::open(&example()).unwrap();
        let cluster = directory.cluster().borrow().clone();
        assert_eq!(cluster.reports, []);
        Self::serve(watch::channel(cluster).0, Settings::default())
    }

    pub(crate) fn change(&self, manifests: &str) {
        self.cluster.send_replace(Arc::new(cluster(manifests)));
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Streaming<Update>, Status> {
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

    pub(crate) async fn profile(&self, path: &str) -> Result<Profile, Status> {
        let request = GetDestination {
            path: path.into(),
            context_token: TOKEN.into(),
            ..Default::default()
        };
        let mut stream = DestinationClient::new(self.routes.clone())
            .get_profile(request)
            .await?
            .into_inner();
        Ok(decode::profile::profile(stream.message().await?.unwrap()).unwrap())
    }

    /// What a proxy of ours is told.
    pub(crate) async fn outbound(&self, target: &str) -> Result<OutboundPolicy, Status> {
        let mut request = traffic(target);
        request
            .metadata_mut()
            .insert(EXTENSIONS, MetadataValue::from_static("1"));
        self.told(request).await
    }

    /// What Linkerd's proxy is told.
    pub(crate) async fn outbound_of_linkerd(&self, target: &str) -> Result<OutboundPolicy, Status> {
        self.told(traffic(target)).await
    }

    async fn told(&self, request: Request<TrafficSpec>) -> Result<OutboundPolicy, Status> {
        let mut stream = OutboundPoliciesClient::new(self.routes.clone())
            .watch(request)
            .await?
            .into_inner();
        Ok(decode::outbound::policy(stream.message().await?.unwrap()).unwrap())
    }

    pub(crate) async fn inbound(&self, workload: &str, port: u32) -> Result<InboundPolicy, Status> {
        let request = PortSpec {
            workload: workload.into(),
            port,
        };
        let mut client = InboundServerPoliciesClient::new(self.routes.clone());
        let mut stream = client.watch_port(request).await?.into_inner();
        Ok(decode::inbound::server(stream.message().await?.unwrap()).unwrap())
    }
}

fn traffic(target: &str) -> Request<TrafficSpec> {
    let target = match target.parse() {
        Ok(addr) => traffic_spec::Target::Addr(encode::endpoint::tcp_address(addr)),
        Err(_) => traffic_spec::Target::Authority(target.into()),
    };
    Request::new(TrafficSpec {
        source_workload: TOKEN.into(),
        target: Some(target),
    })
}

pub(crate) fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/mesh")
}

/// The files of a folder of `examples`, by name.
pub(crate) fn files(folder: &str) -> impl Iterator<Item = PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.into_iter()
}

pub(crate) fn cluster(manifests: &str) -> Cluster {
    Cluster::build(
        &manifest::read(&Arc::from(Path::new("test.yaml")), manifests).unwrap(),
        Vec::new(),
    )
}

/// A pod of the mesh with lines of its own under `metadata.annotations`.
pub(crate) fn pod(name: &str, ip: &str, annotations: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: demo\n  labels: \
         {{linkerd.io/control-plane-ns: linkerd, app: web}}\n  annotations: {{{annotations}}}\nspec:\n  \
         serviceAccountName: web\n  containers: [{{name: web, ports: [{{name: http, containerPort: 8080}}], livenessProbe: \
         {{httpGet: {{path: '/live?x', port: http}}}}}}]\nstatus: {{podIP: {ip}}}\n"
    )
}

/// Service `web`, 80 to 8080, with the given pods (name, address) behind it.
pub(crate) fn web(annotations: &str, pods: &[(&str, &str)]) -> String {
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

pub(crate) async fn added(stream: &mut Streaming<Update>) -> BTreeMap<String, Endpoint> {
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

pub(crate) async fn removed(stream: &mut Streaming<Update>) -> Vec<String> {
    match stream.message().await.unwrap().unwrap().update.unwrap() {
        update::Update::Remove(set) => decode::endpoint::addr_set(&set)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect(),
        other => panic!("a remove was expected: {other:?}"),
    }
}
