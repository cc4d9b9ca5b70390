//! What is attached to a destination: routes of its producer and of the client, profiles, splits.

use std::sync::Arc;

use crate::compile::client::Client;
use crate::compile::settings::Settings;
use crate::index::policies::{ByNamespace, Policies, Resource};
use crate::resources::profile::{ServiceProfile, TrafficSplit};
use crate::resources::report::ObjectId;
use crate::resources::route::{LINKERD, Route};

/// A Service's port, or an EgressNetwork's, to which routes are attached.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    /// The API group; empty for Services.
    pub group: &'a str,
    /// The object.
    pub id: &'a ObjectId,
    /// The port.
    pub port: u16,
}

impl<'a> Parent<'a> {
    /// A Service.
    pub fn service(id: &'a ObjectId, port: u16) -> Self {
        Self { group: "", id, port }
    }

    /// An EgressNetwork.
    pub fn egress(id: &'a ObjectId, port: u16) -> Self {
        Self {
            group: LINKERD,
            id,
            port,
        }
    }

    /// The routes of one kind that hold for a client, the oldest first: those of the parent's namespace, and those that
    /// the client's namespace wrote for its own clients.
    pub fn routes<R>(
        &self,
        routes: &'a ByNamespace<Route<R>>,
        client: &Client,
    ) -> Vec<&'a Arc<Resource<Route<R>>>> {
        let own = &*self.id.namespace;
        let consumer = client.namespace.as_deref().filter(|namespace| *namespace != own);
        let written = [Some(own), consumer].into_iter().flatten();
        let mut attached: Vec<_> = written
            .flat_map(|namespace| routes.of(namespace))
            .filter(|route| self.is_parent_of(route))
            .collect();
        attached.sort_by(|a, b| a.age().cmp(&b.age()));
        attached
    }

    fn is_parent_of<R>(&self, route: &Resource<Route<R>>) -> bool {
        route.spec.parent_refs.iter().flatten().any(|parent| {
            let namespace = parent.namespace.as_deref().unwrap_or(&route.id.namespace);
            parent.is(self.group, &self.id.kind)
                && *parent.name == *self.id.name
                && *namespace == *self.id.namespace
                && parent.port.is_none_or(|port| port == self.port)
        })
    }
}

/// The ServiceProfile of a Service: the client's namespace's, else its own namespace's.
pub fn profile<'a>(
    policies: &'a Policies,
    settings: &Settings,
    service: &ObjectId,
    client: &Client,
) -> Option<&'a Arc<Resource<ServiceProfile>>> {
    let domain = &settings.cluster_domain;
    let name = format!("{}.{}.svc.{domain}", service.name, service.namespace);
    let consumer = client.namespace.as_deref();
    let written = consumer.into_iter().chain([&*service.namespace]);
    written
        .filter_map(|namespace| policies.profiles.named(namespace, &name))
        .next()
}

/// The oldest TrafficSplit of a Service.
pub fn split<'a>(
    policies: &'a Policies,
    settings: &Settings,
    service: &ObjectId,
) -> Option<&'a Arc<Resource<TrafficSplit>>> {
    let domain = &settings.cluster_domain;
    let name = format!("{}.{}.svc.{domain}", service.name, service.namespace);
    let splits = policies.splits.of(&service.namespace).iter();
    splits.into_iter().find(|split| {
        let apex = split.spec.service.trim_end_matches('.');
        apex == &*service.name || apex == name
    })
}
