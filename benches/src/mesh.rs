//! Ours as shipped: a control plane, proxy-init's redirection, a proxy beside the client and one beside the application.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use outrigger_e2e::mesh::{self, Meshed};
use outrigger_e2e::wait;

use crate::BoxError;
use crate::namespaces::Inside;
use crate::process::{self, Running};
use crate::systems::{self, HTTP_PORT, Site};

/// A client and an application in the mesh.
#[derive(Debug)]
pub struct Mesh {
    service: SocketAddr,
    client: Meshed,
    server: Meshed,
    _application: Running,
    _mesh: mesh::Mesh,
}

impl Mesh {
    /// Starts it, with a service in front of this port of the application.
    pub fn start(site: &Site, port: u16) -> Result<Self, BoxError> {
        // The testkit panics where a test would fail.
        catch_unwind(AssertUnwindSafe(|| Self::new(site, port)))
            .map_err(|_| "the mesh did not start: the panic above says why")?
    }

    fn new(site: &Site, port: u16) -> Result<Self, BoxError> {
        let mesh = mesh::Mesh::start();
        let server = mesh.pod("server").ports(&[HTTP_PORT]).under(&site.tool).meshed();
        let client = mesh.pod("client").under(&site.tool).meshed();
        let application = systems::start_application(site, &Inside::Thread(server.tid()), 0)?;
        Ok(Self {
            service: mesh.service("app", port, &[(&server, port)]),
            client,
            server,
            _application: application,
            _mesh: mesh,
        })
    }

    /// Where the client connects: the service's address.
    pub fn service(&self) -> SocketAddr {
        self.service
    }

    /// Where the client is.
    pub fn client(&self) -> Inside {
        Inside::Thread(self.client.tid())
    }

    /// Where the application is.
    pub fn server(&self) -> Inside {
        Inside::Thread(self.server.tid())
    }

    /// The proxies' processes.
    pub fn proxies(&self) -> Vec<u32> {
        [&self.client, &self.server].map(|pod| pod.proxy().pid()).into()
    }
}

/// How long proxies may take to end, told once and told again.
const END: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(5)];

impl Drop for Mesh {
    /// A proxy that counts what it does writes that down at its end. The second signal ends a drain.
    fn drop(&mut self) {
        let proxies = [&self.client, &self.server].map(Meshed::proxy);
        for patience in END {
            for proxy in &proxies {
                proxy.terminate();
            }
            let ended = || {
                let running = proxies.iter().any(|proxy| process::is_running(proxy.pid()));
                (!running).then_some(())
            };
            if wait::within(patience, ended).is_some() {
                return;
            }
        }
    }
}
