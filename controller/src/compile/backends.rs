//! Backends: where the rules of a destination lead.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use outrigger_policy::Unsupported;
use outrigger_policy::breaker::BreakerPolicy;
use outrigger_policy::classify::GrpcStatus;
use outrigger_policy::endpoint::Endpoint;
use outrigger_policy::name::ResourceRef;
use outrigger_policy::outbound::{Backend, Dispatch, Distribution, LoadParams, PenaltyParams};
use outrigger_policy::route::filter::{Filter, InjectedFailure, InjectedStatus, Ratio};

use crate::compile::filters::{self, Place};
use crate::compile::service_name::ServiceName;
use crate::compile::settings::Settings;
use crate::index::cluster::Cluster;
use crate::resources::route::{BackendRef, LINKERD};
use crate::resources::traffic::Traffic;
use crate::resources::values::namespace_or;

/// What the routes of one destination have in common.
#[derive(Debug)]
pub struct Destination<'a> {
    /// What is known.
    pub cluster: &'a Cluster,
    /// What is the same for all.
    pub settings: &'a Settings,
    /// The Service or EgressNetwork.
    pub meta: Arc<ResourceRef>,
    /// The address, where it is an EgressNetwork's.
    pub address: Option<SocketAddr>,
    /// What its annotations say.
    pub traffic: &'a Traffic,
}

/// What goes to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// HTTP requests.
    Http,
    /// gRPC calls.
    Grpc,
    /// Bytes.
    Bytes,
}

impl Destination<'_> {
    /// Where everything goes that no rule sends elsewhere: the destination itself.
    pub fn itself(&self, carries: Carries) -> Arc<Backend> {
        let dispatch = match self.address {
            Some(addr) => Dispatch::Forward(Endpoint::bare(addr)),
            None => self.balance(&self.meta, carries),
        };
        Arc::new(Backend::new(self.meta.clone(), dispatch))
    }

    /// The distribution of a rule of a route in `namespace`.
    pub fn distribution(
        &self,
        refs: &[BackendRef],
        namespace: &Arc<str>,
        carries: Carries,
    ) -> Result<Distribution, String> {
        if refs.is_empty() {
            return Ok(Distribution::FirstAvailable(vec![self.itself(carries)]));
        }
        let weighted = refs.iter().map(|written| {
            let mut backend = self.backend(written, namespace, carries);
            backend.filters.extend(self.filters(written, carries)?);
            Ok((Arc::new(backend), written.weight.unwrap_or(1)))
        });
        weighted
            .collect::<Result<_, String>>()
            .map(Distribution::RandomAvailable)
    }

    /// The backend of a mirror.
    pub fn mirrored(
        &self,
        written: &BackendRef,
        namespace: &Arc<str>,
        carries: Carries,
    ) -> Result<Arc<Backend>, String> {
        let backend = self.backend(written, namespace, carries);
        match backend.dispatch {
            Dispatch::Missing(reason) => Err(format!("requestMirror: {reason}")),
            _ => Ok(Arc::new(backend)),
        }
    }

    fn filters(&self, written: &BackendRef, carries: Carries) -> Result<Vec<Filter>, String> {
        match carries {
            Carries::Http => filters::lower(written.filters.as_deref(), Place::BackendHttp),
            Carries::Grpc => filters::lower(written.filters.as_deref(), Place::BackendGrpc),
            Carries::Bytes if written.filters.as_ref().is_some_and(|f| !f.is_empty()) => {
                Err("backends of TLS and TCP routes have no filters: remove them".into())
            }
            Carries::Bytes => Ok(Vec::new()),
        }
    }

    fn backend(&self, written: &BackendRef, namespace: &Arc<str>, carries: Carries) -> Backend {
        let namespace = namespace_or(written.namespace.as_deref(), namespace);
        let meta = ResourceRef {
            group: if written.is("", "Service") {
                "core".into()
            } else {
                LINKERD.into()
            },
            kind: written.kind.as_deref().unwrap_or("Service").into(),
            namespace: namespace.clone(),
            name: written.name.as_str().into(),
            section: "".into(),
            port: written.port,
        };
        match self.dispatch(written, &meta, carries) {
            Ok(dispatch) => Backend::new(Arc::new(meta), dispatch),
            Err(reason) => invalid(meta, reason, carries),
        }
    }

    fn dispatch(
        &self,
        written: &BackendRef,
        meta: &ResourceRef,
        carries: Carries,
    ) -> Result<Dispatch, String> {
        let (namespace, name) = (&meta.namespace, &meta.name);
        if written.is(LINKERD, "EgressNetwork") {
            let defined = self
                .cluster
                .policies
                .egress_networks
                .named(namespace, name)
                .is_some();
            let addr = self.address.filter(|_| defined && *self.meta.name == **name);
            let reason =
                || format!("EgressNetwork {namespace}/{name} is not the one that the route is attached to");
            return addr
                .map(|addr| Dispatch::Forward(Endpoint::bare(addr)))
                .ok_or_else(reason);
        }
        if !written.is("", "Service") {
            return Err(format!(
                "{} {namespace}/{name} is no Service and no EgressNetwork",
                meta.kind
            ));
        }
        let service = self.cluster.service(namespace, name);
        let service = service.ok_or_else(|| format!("Service {namespace}/{name} is not defined"))?;
        if service.external {
            return Err(format!("{} stands for a name outside the cluster", service.id));
        }
        match written.port.and_then(|port| service.port(port)) {
            Some(_) => Ok(self.balance(meta, carries)),
            None => Err(format!(
                "{} does not have the port that the route names",
                service.id
            )),
        }
    }

    fn balance(&self, meta: &ResourceRef, carries: Carries) -> Dispatch {
        let name = ServiceName::full(&meta.namespace, &meta.name, self.settings);
        let penalty: Option<PenaltyParams> = self.traffic.penalty.filter(|_| carries != Carries::Bytes);
        let breaker: Option<BreakerPolicy> = self.traffic.breaker;
        Dispatch::Balance {
            path: format!("{name}:{}", meta.port.unwrap_or(80)).into(),
            load: LoadParams {
                penalty,
                ..LoadParams::default()
            },
            breaker,
        }
    }
}

/// A backend that can't be used answers its share of the requests with 500 (Gateway API, HTTPRouteRule).
fn invalid(meta: ResourceRef, reason: String, carries: Carries) -> Backend {
    let status = match carries {
        Carries::Http => Some(InjectedStatus::Http(StatusCode::INTERNAL_SERVER_ERROR)),
        Carries::Grpc => Some(InjectedStatus::Grpc(GrpcStatus(13))),
        Carries::Bytes => None,
    };
    let filters = status.map(|status| {
        Filter::Fail(InjectedFailure {
            status,
            message: reason.as_str().into(),
            ratio: Ratio::ALWAYS,
        })
    });
    Backend {
        filters: filters.into_iter().collect(),
        ..Backend::new(Arc::new(meta), Dispatch::Missing(Unsupported::new(reason)))
    }
}
