//! What policies ask for and this version does not enforce yet is refused where it stands, with the reason.

use std::fs;
use std::net::SocketAddr;

use outrigger_e2e::http::{self, Echo};
use outrigger_e2e::mesh::{Mesh, Meshed, until_status};
use outrigger_e2e::wait;

/// Copies what goes to `/mirrored`, and leaves the rest alone.
const MIRROR: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: mirror, namespace: demo}
spec:
  parentRefs: [{group: core, kind: Service, name: web, port: 80}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /mirrored}}]
      filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web, port: 80}}}]
      backendRefs: [{name: web, port: 80}]
    - matches: [{path: {type: PathPrefix, value: /}}]
      backendRefs: [{name: web, port: 80}]
";

fn web() -> (Mesh, Meshed, Meshed, SocketAddr) {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080]).meshed();
    let client = mesh.pod("client").meshed();
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    Echo::serve(&server, 8080);
    until_status(&client, web, "web", 200);
    (mesh, server, client, web)
}

/// Waits until requests to the path are refused for a reason that names this.
fn until_refused(client: &Meshed, web: SocketAddr, path: &str, named: &str) {
    wait::until(named, || {
        let response = http::get(client, web, "web", path, &["connection: close"]);
        let refused = response.status == 500 && response.header("l5d-proxy-error").contains(named);
        refused.then_some(())
    });
}

fn remove(mesh: &Mesh, file: &str) {
    mesh.reread(|| fs::remove_file(mesh.manifest(file)).unwrap());
}

#[test]
fn a_mirror_refuses_its_rule_and_no_other_until_it_is_gone() {
    let (mesh, _server, client, web) = web();
    mesh.write("mirror.yaml", MIRROR);
    until_refused(&client, web, "/mirrored", "a mirror is not enforced");
    assert_eq!(
        http::get(&client, web, "web", "/plain", &["connection: close"]).status,
        200
    );
    remove(&mesh, "mirror.yaml");
    wait::until("the route to be gone", || {
        let response = http::get(&client, web, "web", "/mirrored", &["connection: close"]);
        (response.status == 200).then_some(())
    });
}
