//! References between policies: those that lead nowhere, and those that contradict each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::index::cluster::Cluster;
use crate::index::policies::{ByNamespace, Resource};
use crate::resources::authorization::AuthorizationPolicy;
use crate::resources::report::{ObjectId, Report, Severity};
use crate::resources::route::{BackendRef, Backends, LINKERD, ParentRef, Route};
use crate::resources::values::namespace_or;

/// What is wrong between objects that are each well-formed.
pub fn check(cluster: &Cluster) -> Vec<Report> {
    let mut found = Found {
        cluster,
        reports: Vec::new(),
    };
    found.servers();
    found.authorizations();
    found.rate_limits();
    let policies = &cluster.policies;
    found.routes(&policies.http_routes);
    found.routes(&policies.grpc_routes);
    found.routes(&policies.tls_routes);
    found.routes(&policies.tcp_routes);
    found.conflicts(&policies.http_routes, &[parents_of(&policies.grpc_routes)]);
    let http = [
        parents_of(&policies.grpc_routes),
        parents_of(&policies.http_routes),
    ];
    found.conflicts(&policies.tls_routes, &http);
    let [grpc, http] = http;
    found.conflicts(
        &policies.tcp_routes,
        &[grpc, http, parents_of(&policies.tls_routes)],
    );
    found.profiles();
    found.splits();
    found.reports
}

/// The Services and EgressNetworks that have routes of one kind, with the ports that these name; none stands for all.
type Parents = BTreeMap<(Arc<str>, String), BTreeSet<Option<u16>>>;

fn parents_of<R>(routes: &ByNamespace<Route<R>>) -> Parents {
    let mut all = Parents::new();
    for route in routes.all() {
        for parent in route.spec.parent_refs.iter().flatten() {
            if is_destination(parent) {
                let namespace = namespace_or(parent.namespace.as_deref(), &route.id.namespace);
                let ports = all.entry((namespace, parent.name.clone())).or_default();
                ports.insert(parent.port);
            }
        }
    }
    all
}

/// Servers have routes of one kind only.
fn is_destination(parent: &ParentRef) -> bool {
    parent.is("", "Service") || parent.is(LINKERD, "EgressNetwork")
}

struct Found<'a> {
    cluster: &'a Cluster,
    reports: Vec<Report>,
}

impl Found<'_> {
    fn say<S>(&mut self, about: &Resource<S>, severity: Severity, reason: String) {
        self.reports
            .push(Report::about(&about.origin, &about.id, severity, reason));
    }

    /// A port has one Server: the others that select it have no say there.
    fn servers(&mut self) {
        let selection = &self.cluster.selection;
        for overruled in &selection.overruled {
            let reason = format!(
                "it selects port {} of {}, which {} has already (the older one counts, then the first by name); it has \
                 no effect there: change podSelector or port of one",
                overruled.port, overruled.pod, overruled.by
            );
            self.say(&overruled.server, Severity::Error, reason);
        }
        for server in &selection.idle {
            let reason = "it selects no pod that is defined, and nothing changes".to_owned();
            self.say(server, Severity::Warning, reason);
        }
    }

    fn authorizations(&mut self) {
        let policies = &self.cluster.policies;
        for authorization in policies.server_authorizations.all() {
            let servers = policies.servers.of(&authorization.id.namespace);
            let choice = &authorization.spec.server;
            let found = servers.iter().any(|server| match &choice.selector {
                Some(selector) => selector.selects(&server.labels),
                None => choice.name.as_deref() == Some(&*server.id.name),
            });
            if !found {
                let reason =
                    "no Server that it names is defined in its namespace, and nobody is let in by it";
                self.say(authorization, Severity::Warning, reason.to_owned());
            }
        }
        for policy in policies.authorization_policies.all() {
            self.target(policy);
            self.required(policy);
        }
    }

    fn target(&mut self, policy: &Resource<AuthorizationPolicy>) {
        let (policies, target) = (&self.cluster.policies, &policy.spec.target_ref);
        let own = &policy.id.namespace;
        let elsewhere = target.namespace.as_deref().is_some_and(|ns| *ns != **own);
        let exists = if target.is("", "Namespace") {
            *target.name == **own
        } else if target.is(LINKERD, "Server") {
            policies.servers.named(own, &target.name).is_some()
        } else {
            has(&policies.http_routes, own, &target.name) || has(&policies.grpc_routes, own, &target.name)
        };
        if elsewhere || !exists {
            let reason = format!(
                "targetRef: {target} is not defined in namespace {own}, and nobody is let in by it: a policy targets \
                 what is in its own namespace"
            );
            self.say(policy, Severity::Error, reason);
        }
    }

    fn required(&mut self, policy: &Resource<AuthorizationPolicy>) {
        let policies = &self.cluster.policies;
        for required in &policy.spec.required_authentication_refs {
            let namespace = namespace_or(required.namespace.as_deref(), &policy.id.namespace);
            let exists = if required.is(LINKERD, "MeshTLSAuthentication") {
                policies.mesh_tls.named(&namespace, &required.name).is_some()
            } else if required.is(LINKERD, "NetworkAuthentication") {
                policies.networks.named(&namespace, &required.name).is_some()
            } else {
                true
            };
            if !exists {
                let reason = format!(
                    "requiredAuthenticationRefs: {required} is not defined, or can't be used, and nobody is let in by it"
                );
                self.say(policy, Severity::Error, reason);
            }
        }
    }

    /// A Server has one limit: the oldest.
    fn rate_limits(&mut self) {
        let policies = &self.cluster.policies;
        let mut limited = BTreeMap::new();
        for limit in policies.rate_limits.all() {
            let name = &limit.spec.target_ref.name;
            let namespace = &limit.id.namespace;
            if policies.servers.named(namespace, name).is_none() {
                let reason =
                    format!("targetRef: Server {name} is not defined in its namespace, and nothing changes");
                self.say(limit, Severity::Error, reason);
            } else if let Some(first) = limited.get(&(namespace, name)) {
                let reason = format!("Server {name} is limited by {first} already, which counts: remove one");
                self.say(limit, Severity::Error, reason);
            } else {
                limited.insert((namespace, name), &limit.id);
            }
        }
    }

    fn routes<R: Backends>(&mut self, routes: &ByNamespace<Route<R>>) {
        for route in routes.all() {
            let parents = route.spec.parent_refs.iter().flatten();
            for parent in parents {
                if let Some(reason) = self.missing_parent(parent, &route.id) {
                    self.say(route, Severity::Warning, reason);
                }
            }
            let of_server = |parent: &ParentRef| parent.is(LINKERD, "Server");
            let inbound = route.spec.parent_refs.iter().flatten().any(of_server);
            let rules = route.spec.rules.iter().flatten();
            if inbound && rules.clone().any(|rule| !rule.backends().is_empty()) {
                let reason = "backendRefs do nothing for the Server that the route is attached to";
                self.say(route, Severity::Warning, reason.to_owned());
            }
            let missing: BTreeSet<_> = rules
                .flat_map(|rule| rule.backends())
                .filter_map(|backend| self.missing_backend(backend, &route.id))
                .collect();
            for reason in missing {
                self.say(route, Severity::Error, reason);
            }
        }
    }

    /// Of the kinds of routes of a parent the most specific counts: gRPC, then HTTP, then TLS, then TCP.
    fn conflicts<R>(&mut self, routes: &ByNamespace<Route<R>>, stronger: &[Parents]) {
        for route in routes.all() {
            let conflict = route.spec.parent_refs.iter().flatten().find(|parent| {
                let namespace = namespace_or(parent.namespace.as_deref(), &route.id.namespace);
                let name = (namespace, parent.name.clone());
                is_destination(parent)
                    && stronger.iter().any(|parents| {
                        let ports = parents.get(&name);
                        ports.is_some_and(|ports| {
                            parent.port.is_none() || ports.contains(&None) || ports.contains(&parent.port)
                        })
                    })
            });
            if let Some(parent) = conflict {
                let reason = format!(
                    "parentRefs: {parent} has routes of a more specific kind (gRPC before HTTP, HTTP before TLS, TLS \
                     before TCP), and this one is not followed there: remove one"
                );
                self.say(route, Severity::Error, reason);
            }
        }
    }

    /// A ServiceProfile is found by its name: `<service>.<namespace>.svc.<domain>`.
    fn profiles(&mut self) {
        for profile in self.cluster.policies.profiles.all() {
            let mut labels = profile.id.name.split('.');
            let (service, namespace, svc) = (labels.next(), labels.next(), labels.next());
            let exists = match (service, namespace, svc) {
                (Some(service), Some(namespace), Some("svc")) => {
                    self.cluster.service(namespace, service).is_some()
                }
                _ => false,
            };
            if !exists {
                let reason = "no Service of that name is defined, and nothing changes: a profile is called \
                              <service>.<namespace>.svc.<domain>";
                self.say(profile, Severity::Warning, reason.to_owned());
            }
            if profile.spec.opaque_ports.is_some() {
                let reason =
                    "opaquePorts is not followed: write config.linkerd.io/opaque-ports on the Service";
                self.say(profile, Severity::Warning, reason.to_owned());
            }
        }
    }

    fn splits(&mut self) {
        let mut taken: BTreeMap<(&str, &str), &ObjectId> = BTreeMap::new();
        for split in self.cluster.policies.splits.all() {
            let apex = split.spec.service.split('.').next().unwrap_or_default();
            if let Some(first) = taken.get(&(&*split.id.namespace, apex)) {
                let reason = format!("Service {apex} is split by {first} already, which counts: remove one");
                self.say(split, Severity::Error, reason);
                continue;
            }
            taken.insert((&split.id.namespace, apex), &split.id);
            let backends = split.spec.backends.iter().map(|backend| backend.service.as_str());
            for name in std::iter::once(apex).chain(backends) {
                if self.cluster.service(&split.id.namespace, name).is_none() {
                    let reason = format!("Service {}/{name} is not defined", split.id.namespace);
                    self.say(split, Severity::Error, reason);
                }
            }
        }
    }

    fn missing_parent(&self, parent: &ParentRef, route: &ObjectId) -> Option<String> {
        let namespace = namespace_or(parent.namespace.as_deref(), &route.namespace);
        let policies = &self.cluster.policies;
        let exists = if parent.is("", "Service") {
            let service = self.cluster.service(&namespace, &parent.name);
            service.is_some_and(|service| parent.port.is_none_or(|port| service.port(port).is_some()))
        } else if parent.is(LINKERD, "Server") {
            namespace == route.namespace && policies.servers.named(&namespace, &parent.name).is_some()
        } else if parent.is(LINKERD, "EgressNetwork") {
            policies.egress_networks.named(&namespace, &parent.name).is_some()
        } else {
            // Gateways are served by others.
            true
        };
        (!exists)
            .then(|| format!("parentRefs: {parent} (or its port) is not defined, and nothing changes there"))
    }

    fn missing_backend(&self, backend: &BackendRef, route: &ObjectId) -> Option<String> {
        let namespace = namespace_or(backend.namespace.as_deref(), &route.namespace);
        let name = &backend.name;
        let exists = if backend.is("", "Service") {
            let service = self.cluster.service(&namespace, name);
            service.is_some_and(|s| !s.external && backend.port.is_some_and(|port| s.port(port).is_some()))
        } else {
            backend.is(LINKERD, "EgressNetwork")
                && self
                    .cluster
                    .policies
                    .egress_networks
                    .named(&namespace, name)
                    .is_some()
        };
        (!exists).then(|| {
            format!(
                "backendRefs: {namespace}/{name} is no Service with that port (or no EgressNetwork) that is defined; \
                 requests that go there are answered with 500"
            )
        })
    }
}

fn has<R>(routes: &ByNamespace<Route<R>>, namespace: &str, name: &str) -> bool {
    routes.named(namespace, name).is_some()
}
