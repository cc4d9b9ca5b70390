//! What passes between two pods: each protocol unchanged, and under which identities.

use outrigger_e2e::http::{self, Echo};
use outrigger_e2e::mesh::Mesh;

#[test]
fn http_crosses_the_mesh_under_the_clients_identity() {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(&[8080]).meshed();
    let client = mesh.pod("client").meshed();
    let web = mesh.service("web", 80, &[(&server, 8080)]);
    Echo::serve(&server, 8080);
    let response = http::get(&client, web, "web", "/", &[]);
    assert_eq!(response.status, 200, "{response:?}");
    assert!(
        response
            .body
            .contains(&format!("l5d-client-id: {}", client.identity())),
        "{response:?}"
    );
}
