//! Endpoints and what is at an address: `Destination`.

use std::fs;
use std::sync::Arc;

use outrigger_controller::compile::settings::Settings;
use outrigger_controller::serve::destination::Destination;
use outrigger_controller::source::directory::Directory;
use outrigger_policy::endpoint::{Endpoint, ProtocolHint};
use outrigger_proto::destination::GetDestination;
use outrigger_proto::destination::destination_client::DestinationClient;
use tonic::Code;

use crate::support::{Mesh, added, cluster, pod, removed, web};

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
async fn endpoints_of_a_mirrored_service_are_its_gateway_and_say_whom_requests_are_for() {
    let annotated = |identity: &str| {
        let annotations = format!(
            "namespace: demo, annotations: {{mirror.linkerd.io/remote-gateway-identity: {identity}, \
             mirror.linkerd.io/remote-svc-fq-name: web.demo.svc.east.local}}, labels"
        );
        web("", &[("none", "192.0.2.1")])
            .replace("namespace: demo, labels", &annotations)
            .replace(", targetRef: {kind: Pod, name: none}", "")
    };
    let mesh = Mesh::of(&annotated("gateway.mc.east.local"));
    let endpoints = added(&mut mesh.get("web.demo.svc.cluster.local").await.unwrap()).await;
    let endpoint = &endpoints["192.0.2.1:8080"];
    assert_eq!(
        endpoint.authority_override.as_deref(),
        Some("web.demo.svc.east.local:80")
    );
    assert_eq!(
        endpoint.tls.as_ref().unwrap().identity.as_str(),
        "gateway.mc.east.local"
    );
    assert_eq!(
        (endpoint.hint, endpoint.transport_port),
        (ProtocolHint::Http2, None)
    );
    let reports = cluster(&annotated("not/a/name")).reports;
    assert!(format!("{reports:?}").contains("is no DNS name"), "{reports:?}");
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

#[tokio::test]
async fn a_proxy_is_reached_where_its_container_says() {
    let sidecar = "initContainers: [{name: linkerd-proxy, env: [{name: LINKERD2_PROXY_INBOUND_LISTEN_ADDR, value: \
                   '0.0.0.0:5143'}, {name: LINKERD2_PROXY_ADMIN_LISTEN_ADDR, value: '[::]:5191'}, {name: \
                   LINKERD2_PROXY_CONTROL_LISTEN_ADDR, value: '0.0.0.0:5190'}]}]\n  containers:";
    let said = pod("a", "10.1.0.1", "").replace("containers:", sidecar);
    let mesh = Mesh::of(&said);
    let transport_port = async |addr| mesh.profile(addr).await.unwrap().endpoint.unwrap().transport_port;
    assert_eq!(transport_port("10.1.0.1:8080").await.unwrap().get(), 5143);
    assert_eq!(
        transport_port("10.1.0.1:5191").await,
        None,
        "the admin port takes no transport header"
    );
    let unsaid = said.replace("0.0.0.0:5143", "somewhere") + &web("", &[("a", "10.1.0.1")]);
    mesh.change(&unsaid);
    assert!(mesh.cluster.borrow().reports[0].reason.contains("LISTEN_ADDR"));
    assert_eq!(
        mesh.profile("10.1.0.1:8080").await.unwrap_err().code(),
        Code::FailedPrecondition
    );
}

#[tokio::test]
async fn a_local_service_has_the_endpoints_of_the_clients_node() {
    let pods = pod("a", "10.1.0.1", "") + &pod("b", "10.1.0.2", "");
    let web = web("", &[("a", "10.1.0.1"), ("b", "10.1.0.2")])
        .replace("clusterIP", "internalTrafficPolicy: Local, clusterIP")
        .replace("[10.1.0.1],", "[10.1.0.1], nodeName: node-1,")
        .replace("[10.1.0.2],", "[10.1.0.2], nodeName: node-2,");
    let mesh = Mesh::of(&(pods + &web));
    let endpoints = added(&mut mesh.get("web.demo.svc.cluster.local").await.unwrap()).await;
    assert_eq!(endpoints.into_keys().collect::<Vec<_>>(), ["10.1.0.1:8080"]);
}

#[tokio::test]
async fn one_pod_of_a_set_has_a_name() {
    let pods = pod("web-0", "10.1.0.1", "") + &pod("web-1", "10.1.0.2", "");
    let mesh = Mesh::of(&(pods + &web("", &[("web-0", "10.1.0.1"), ("web-1", "10.1.0.2")])));
    let name = "web-1.web.demo.svc.cluster.local:80";
    let endpoints = added(&mut mesh.get(name).await.unwrap()).await;
    assert_eq!(endpoints.into_keys().collect::<Vec<_>>(), ["10.1.0.2:8080"]);
    assert_eq!(
        &*mesh.profile(name).await.unwrap().endpoint.unwrap().labels["pod"],
        "web-1"
    );
    let gone = mesh
        .profile("web-9.web.demo.svc.cluster.local:80")
        .await
        .unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn a_pod_with_two_addresses_counts_once() {
    let web = web("", &[("a", "10.1.0.1"), ("b", "10.1.0.2")]);
    let v6 = "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: web-6, namespace: demo, \
              labels: {kubernetes.io/service-name: web}}\naddressType: IPv6\nports: [{name: http, port: \
              8080}]\nendpoints:\n- {addresses: ['fd00::1'], targetRef: {kind: Pod, name: a}}\n- {addresses: \
              ['fd00::3'], targetRef: {kind: Pod, name: c}}\n";
    let pods = pod("a", "10.1.0.1", "") + &pod("b", "10.1.0.2", "") + &pod("c", "fd00::3", "");
    let mesh = Mesh::of(&(pods + &web + v6));
    let endpoints = added(&mut mesh.get("web.demo.svc.cluster.local").await.unwrap()).await;
    assert_eq!(
        endpoints.into_keys().collect::<Vec<_>>(),
        ["10.1.0.1:8080", "10.1.0.2:8080", "[fd00::3]:8080"]
    );
}

#[tokio::test]
async fn a_pod_is_found_behind_a_port_of_its_host() {
    let hosted = pod("a", "10.1.0.1", "")
        .replace("containerPort: 8080", "containerPort: 8080, hostPort: 80")
        .replace("podIP: 10.1.0.1", "podIP: 10.1.0.1, hostIP: 10.200.0.1");
    let profile = Mesh::of(&hosted).profile("10.200.0.1:80").await.unwrap();
    assert_eq!(&*profile.endpoint.unwrap().labels["pod"], "a");
}

#[tokio::test]
async fn endpoints_that_are_not_ready_and_pods_that_have_ended_are_left_out() {
    let ended = pod("ended", "10.1.0.2", "").replace("podIP", "phase: Succeeded, podIP");
    let web = web(
        "",
        &[("slow", "10.1.0.1"), ("ended", "10.1.0.2"), ("well", "10.1.0.3")],
    )
    .replace("[10.1.0.1],", "[10.1.0.1], conditions: {ready: false},");
    let mesh = Mesh::of(&(pod("slow", "10.1.0.1", "") + &ended + &pod("well", "10.1.0.3", "") + &web));
    let endpoints = added(&mut mesh.get("web.demo.svc.cluster.local").await.unwrap()).await;
    assert_eq!(endpoints.into_keys().collect::<Vec<_>>(), ["10.1.0.3:8080"]);
    assert_eq!(
        mesh.profile("10.1.0.2:80").await.unwrap().endpoint.unwrap().tls,
        None
    );
}

#[tokio::test]
async fn a_thousand_streams_follow_one_change() {
    let a = pod("a", "10.1.0.1", "");
    let mesh = Mesh::of(&format!("{a}{}", web("", &[])));
    let mut streams = Vec::new();
    for _ in 0..1000 {
        streams.push(mesh.get("web.demo.svc.cluster.local:80").await.unwrap());
    }
    mesh.change(&format!("{a}{}", web("", &[("a", "10.1.0.1")])));
    for stream in &mut streams {
        assert_eq!(added(stream).await.len(), 1);
    }
}

#[tokio::test]
async fn when_nobody_follows_the_manifests_any_more_what_was_said_stays() {
    let Mesh { cluster, routes } = Mesh::example();
    drop(cluster);
    let request = GetDestination {
        path: "web.demo.svc.cluster.local:80".into(),
        ..Default::default()
    };
    let mut stream = DestinationClient::new(routes)
        .get(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(added(&mut stream).await.len(), 1);
    tokio::select! {
        biased;
        ended = stream.message() => panic!("the stream ended: {ended:?}"),
        () = tokio::task::yield_now() => {}
    }
}
