//! What ports accept: `InboundServerPolicies`.

use outrigger_policy::authz::{ClientTls, authorize};
use outrigger_policy::inbound::InboundProtocol;
use outrigger_policy::route::Head;
use tonic::Code;

use crate::support::{Mesh, pod};

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
async fn pods_without_the_label_of_this_control_plane_have_no_policies() {
    let foreign = pod("a", "10.1.0.1", "").replace("control-plane-ns: linkerd", "control-plane-ns: other");
    let mesh = Mesh::of(&foreign);
    assert_eq!(
        mesh.inbound("demo:a", 8080).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn a_list_of_ports_that_cannot_be_read_asks_for_an_identity_everywhere() {
    let annotations = "config.linkerd.io/proxy-require-identity-inbound-ports: web";
    let mesh = Mesh::of(&pod("a", "10.1.0.1", annotations));
    assert_eq!(
        &*mesh.inbound("demo:a", 1).await.unwrap().meta.name,
        "all-authenticated"
    );
    assert_eq!(mesh.cluster.borrow().reports.len(), 1);
}
