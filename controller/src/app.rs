//! Builds the controller, in the order in which things need each other, and ends it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::service::Routes;

use crate::admin::{Admin, Readiness};
use crate::cli::Controller;
use crate::ending::{self, End};
use crate::identity::account::InvalidLabel;
use crate::identity::{State, StateError};
use crate::index::cluster::Cluster;
use crate::serve::destination::Destination;
use crate::serve::identity::{Certifier, IdentityMetrics};
use crate::serve::policy::Policies;
use crate::serve::{Listener, ServeMetrics};
use crate::source::directory::Directory;
use crate::source::metrics::ManifestMetrics;
use crate::tls::{self, ClientCertificate, Leaf, ServerError};

const STATE: &str = "the state directory";
const MANIFESTS: &str = "the manifests";
const LISTENERS: &str = "the listeners";
const END: &str = "the end of this process";

/// Streams that a proxy may have open at once: three for each destination that it knows.
const MAX_WATCHES: u32 = 10_000;

/// Certify calls that a proxy may have open at once: it makes one at a time.
const MAX_CERTIFY: u32 = 16;

/// A controller that serves, until it is stopped or dropped.
#[derive(Debug)]
pub struct Running {
    /// Where the APIs listen, with the port that a `:0` became.
    pub addresses: Addresses,
    readiness: Readiness,
    end: End,
    servers: JoinSet<()>,
    /// The admin server and the renewals: they go last.
    background: JoinSet<()>,
}

/// Where a controller listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Probes and metrics.
    pub admin: SocketAddr,
    /// `io.linkerd.proxy.identity`.
    pub identity: SocketAddr,
    /// `io.linkerd.proxy.destination`.
    pub destination: SocketAddr,
    /// `io.linkerd.proxy.inbound` and `io.linkerd.proxy.outbound`.
    pub policy: SocketAddr,
}

/// Why a controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An option does not hold; [`crate::cli::Cli::read`] would have refused it.
    #[error("{0}")]
    Option(String),
    /// The state directory is not usable.
    #[error(transparent)]
    State(#[from] StateError),
    /// The manifests are not there.
    #[error("--manifests {}: {source}; name an existing directory or file", path.display())]
    Manifests {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An address is taken or not this machine's.
    #[error("--{flag} {address}: {source}; is another controller running?")]
    Bind {
        /// Which one.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] ServerError),
    /// A name of the control plane is not one.
    #[error(transparent)]
    Name(#[from] InvalidLabel),
    /// The runtime gave up.
    #[error("a task failed while starting")]
    Task(#[from] tokio::task::JoinError),
}

/// The listening sockets, bound before anything is served.
struct Sockets {
    identity: TcpListener,
    destination: TcpListener,
    policy: TcpListener,
}

/// Starts a controller. When this returns, all of its listeners accept.
pub async fn start(options: Controller) -> Result<Running, StartError> {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let readiness = Readiness::waiting_for([STATE, MANIFESTS, LISTENERS]);
    let mut background = JoinSet::new();
    let admin = bind("admin-addr", options.admin_addr).await?;
    let admin_address = address(&admin, options.admin_addr);
    background.spawn(Admin::new(readiness.clone(), registry).serve(admin));

    let state = open_state(&options, &metrics).await?;
    readiness.done(STATE);
    let directory = open_manifests(&options).await?;
    let cluster = directory.cluster();
    background.spawn(metrics.manifests.clone().follow(cluster.clone()));
    background.spawn(directory.run());
    readiness.done(MANIFESTS);

    let sockets = Sockets::bind(&options).await?;
    let addresses = sockets.addresses(admin_address, &options);
    let apis = Apis::new(&options, state.clone(), cluster, &metrics)?;
    let (end, ending) = ending::channel();
    let mut servers = JoinSet::new();
    for listener in listeners(&options, &state, sockets, apis, &mut background)? {
        servers.spawn(listener.serve(ending.clone(), metrics.serve.clone()));
    }
    readiness.done(LISTENERS);
    tracing::info!(?addresses, "serving");
    Ok(Running {
        addresses,
        readiness,
        end,
        servers,
        background,
    })
}

impl Running {
    /// Stops accepting, ends every stream, and returns when all are gone.
    pub async fn stop(mut self) {
        self.readiness.wait_for(END);
        self.end.begin();
        while let Some(ended) = self.servers.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a server failed");
            }
        }
        self.background.shutdown().await;
    }
}

async fn open_state(options: &Controller, metrics: &Metrics) -> Result<Arc<State>, StartError> {
    let dir = options.state_dir.clone();
    let state = tokio::task::spawn_blocking(move || State::open(&dir)).await??;
    let expiry = state.ca.expiry().duration_since(UNIX_EPOCH).unwrap_or_default();
    metrics
        .ca_expiry
        .set(i64::try_from(expiry.as_secs()).unwrap_or(i64::MAX));
    Ok(Arc::new(state))
}

async fn open_manifests(options: &Controller) -> Result<Directory, StartError> {
    let path = options.manifests.clone();
    let opened = tokio::task::spawn_blocking({
        let path = path.clone();
        move || Directory::open(&path)
    });
    opened
        .await?
        .map_err(|source| StartError::Manifests { path, source })
}

/// The services of each listener.
struct Apis {
    identity: Routes,
    destination: Routes,
    policy: Routes,
}

impl Apis {
    fn new(
        options: &Controller,
        state: Arc<State>,
        cluster: watch::Receiver<Arc<Cluster>>,
        metrics: &Metrics,
    ) -> Result<Self, StartError> {
        let settings = Arc::new(options.settings().map_err(StartError::Option)?);
        let trust = options.trust().map_err(StartError::Option)?;
        let lifetime = options.identity_issuance_lifetime;
        let certifier = Certifier::new(state, trust, lifetime, metrics.identity.clone());
        let policies = Policies::new(cluster.clone(), settings.clone());
        Ok(Self {
            identity: Routes::new(certifier.into_service()),
            destination: Routes::new(Destination::new(cluster, settings).into_service()),
            policy: Routes::new(policies.clone().into_inbound_service())
                .add_service(policies.into_outbound_service()),
        })
    }
}

fn listeners(
    options: &Controller,
    state: &Arc<State>,
    sockets: Sockets,
    apis: Apis,
    background: &mut JoinSet<()>,
) -> Result<[Listener; 3], StartError> {
    let trust = options.trust().map_err(StartError::Option)?;
    let mut leaf = |service| -> Result<Leaf, StartError> {
        let name = trust.control_plane(service)?;
        let lifetime = options.identity_issuance_lifetime;
        let (leaf, renewal) = Leaf::issue(state.ca.clone(), &name, lifetime);
        background.spawn(renewal.run());
        Ok(leaf)
    };
    let identity = leaf("linkerd-identity")?;
    let destination = leaf("linkerd-destination")?;
    let tls = |address: SocketAddr, leaf: &Leaf, clients| {
        // Nobody but this machine reaches a loopback address, and proxies take it to mean plaintext.
        (!address.ip().is_loopback())
            .then(|| tls::server(&state.ca, leaf.clone(), clients))
            .transpose()
    };
    Ok([
        Listener {
            name: "identity",
            tls: tls(options.identity_addr, &identity, ClientCertificate::Optional)?,
            socket: sockets.identity,
            routes: apis.identity,
            max_streams: MAX_CERTIFY,
        },
        Listener {
            name: "destination",
            tls: tls(
                options.destination_addr,
                &destination,
                ClientCertificate::Required,
            )?,
            socket: sockets.destination,
            routes: apis.destination,
            max_streams: MAX_WATCHES,
        },
        Listener {
            name: "policy",
            tls: tls(options.policy_addr, &destination, ClientCertificate::Required)?,
            socket: sockets.policy,
            routes: apis.policy,
            max_streams: MAX_WATCHES,
        },
    ])
}

impl Sockets {
    async fn bind(options: &Controller) -> Result<Self, StartError> {
        Ok(Self {
            identity: bind("identity-addr", options.identity_addr).await?,
            destination: bind("destination-addr", options.destination_addr).await?,
            policy: bind("policy-addr", options.policy_addr).await?,
        })
    }

    fn addresses(&self, admin: SocketAddr, options: &Controller) -> Addresses {
        Addresses {
            admin,
            identity: address(&self.identity, options.identity_addr),
            destination: address(&self.destination, options.destination_addr),
            policy: address(&self.policy, options.policy_addr),
        }
    }
}

/// What is counted, by who counts it.
struct Metrics {
    serve: ServeMetrics,
    identity: IdentityMetrics,
    manifests: ManifestMetrics,
    ca_expiry: Gauge,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("controller_build", "What is running", build);
        let ca_expiry = Gauge::default();
        registry.register(
            "ca_expiry_timestamp_seconds",
            "When the CA expires, in seconds since 1970",
            ca_expiry.clone(),
        );
        Self {
            serve: ServeMetrics::register(registry),
            identity: IdentityMetrics::register(registry),
            manifests: ManifestMetrics::register(registry),
            ca_expiry,
        }
    }
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError::Bind {
            flag,
            address,
            source,
        })
}

fn address(socket: &TcpListener, asked: SocketAddr) -> SocketAddr {
    socket.local_addr().unwrap_or(asked)
}
