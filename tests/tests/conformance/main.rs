//! Suites that other people wrote, run through a pair of proxies and without them. As root, after `make suites`.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod bodies;
mod echo;
mod grpc;
mod h2spec;
mod websocket;

use outrigger_e2e::mesh::{Mesh, Meshed};

/// A mesh with a meshed server on these ports and a meshed client.
fn pair(ports: &[u16]) -> (Mesh, Meshed, Meshed) {
    let mesh = Mesh::start();
    let server = mesh.pod("server").ports(ports).meshed();
    let client = mesh.pod("client").meshed();
    (mesh, server, client)
}
