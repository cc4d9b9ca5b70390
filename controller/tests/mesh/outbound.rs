//! How destinations are used: `OutboundPolicies`.

use outrigger_policy::inbound::InboundProtocol;
use outrigger_policy::outbound::{Dispatch, OpaqueAction, OutboundProtocol};
use outrigger_policy::profile::Profile;
use outrigger_proto::destination::Update;
use tonic::{Code, Status, Streaming};

use crate::support::{Mesh, pod, web};

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
async fn a_service_that_is_not_defined_yet_has_the_policy_that_it_will_have() {
    let mesh = Mesh::of("");
    let early = mesh.outbound("web.demo.svc.cluster.local:80").await.unwrap();
    mesh.change(&web("", &[]));
    assert_eq!(mesh.outbound("web.demo.svc:80").await.unwrap(), early);
}

#[tokio::test]
async fn names_longer_than_names_are_refused_and_not_repeated() {
    let long = "x".repeat(10_000);
    let refused = Mesh::of("").outbound(&long).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().len() < 100);
}

#[tokio::test]
async fn an_ipv4_address_may_come_as_ipv6() {
    let mesh = Mesh::of(&web("", &[]));
    let policy = mesh.outbound("[::ffff:10.96.0.1]:80").await.unwrap();
    assert_eq!(&*policy.authority, "web.demo.svc.cluster.local:80");
    assert_eq!(
        mesh.profile("192.0.2.1:0").await.unwrap_err().code(),
        Code::InvalidArgument
    );
}
