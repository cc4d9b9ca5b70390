//! Authorizations: who may connect to a Server, who may use a route of it, and who may do what nothing is said about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use outrigger_policy::authz::{Authentication, Authorization, Network, Suffix};
use outrigger_policy::name::{Identity, ResourceRef};

use crate::compile::settings::{self, Settings};
use crate::index::policies::{Policies, Resource};
use crate::resources::authorization::{AuthorizationPolicy, IdentityMatch, MeshTls, ServerAuthorization};
use crate::resources::default_policy::DefaultPolicy;
use crate::resources::report::ObjectId;
use crate::resources::route::LINKERD;
use crate::resources::server::Server;
use crate::resources::values::{NetworkRange, ObjectRef, namespace_or};

/// Who may connect to a Server: whom ServerAuthorizations name, then whom AuthorizationPolicies on it and on its
/// namespace do, then whom its access policy lets in.
pub fn of_server(policies: &Policies, settings: &Settings, server: &Resource<Server>) -> Vec<Authorization> {
    let namespace = &server.id.namespace;
    let named = policies.server_authorizations.of(namespace).iter();
    let by_server_authorization = named
        .filter(|authorization| applies(authorization, server))
        .filter_map(|authorization| server_authorization(settings, authorization));
    let attached = policies.authorization_policies.of(namespace).iter();
    let by_policy = attached
        .filter(|policy| is_target(&policy.spec.target_ref, &server.id) || is_namespace(policy))
        .filter_map(|policy| policy_authorization(policies, settings, policy));
    let access = server.spec.access_policy.unwrap_or(DefaultPolicy::Deny);
    by_server_authorization
        .chain(by_policy)
        .chain(by_default(access, settings))
        .collect()
}

/// Who may use a route besides.
pub fn of_route(policies: &Policies, settings: &Settings, route: &ObjectId) -> Vec<Authorization> {
    let attached = policies.authorization_policies.of(&route.namespace).iter();
    attached
        .filter(|policy| is_target(&policy.spec.target_ref, route))
        .filter_map(|policy| policy_authorization(policies, settings, policy))
        .collect()
}

/// Whom a default policy lets in.
pub fn by_default(policy: DefaultPolicy, settings: &Settings) -> Option<Authorization> {
    let anybody = Authentication::Unauthenticated;
    let any_identity = Authentication::TlsAuthenticated {
        identities: Vec::new(),
        suffixes: vec![Suffix("".into())],
    };
    let cluster = settings.cluster_networks.clone();
    let (networks, authentication) = match policy {
        DefaultPolicy::Deny => return None,
        DefaultPolicy::AllUnauthenticated | DefaultPolicy::Audit => (settings::everywhere(), anybody),
        DefaultPolicy::AllAuthenticated => (settings::everywhere(), any_identity),
        DefaultPolicy::ClusterUnauthenticated => (cluster, anybody),
        DefaultPolicy::ClusterAuthenticated => (cluster, any_identity),
    };
    let meta = ResourceRef::of_default(policy.as_str());
    authorization(meta, whole(networks), authentication)
}

/// The workload may always talk to itself; proxies add this to what they are told.
pub fn localhost() -> Authorization {
    let hosts = [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::from(Ipv6Addr::LOCALHOST),
    ];
    Authorization {
        meta: Arc::new(ResourceRef::of_default("localhost")),
        networks: whole(hosts.map(IpNet::from).into()),
        authentication: Authentication::Unauthenticated,
    }
}

/// From where kubelets may probe; nobody where no networks are set.
pub fn probe(settings: &Settings) -> Option<Authorization> {
    let networks = whole(settings.probe_networks.clone());
    authorization(
        ResourceRef::of_default("probe"),
        networks,
        Authentication::Unauthenticated,
    )
}

fn applies(authorization: &Resource<ServerAuthorization>, server: &Resource<Server>) -> bool {
    let choice = &authorization.spec.server;
    match &choice.selector {
        Some(selector) => selector.selects(&server.labels),
        None => choice.name.as_deref() == Some(&*server.id.name),
    }
}

fn server_authorization(
    settings: &Settings,
    resource: &Resource<ServerAuthorization>,
) -> Option<Authorization> {
    let client = &resource.spec.client;
    let networks = match client.networks.as_deref() {
        None | Some([]) => whole(settings.cluster_networks.clone()),
        Some(ranges) => networks(ranges),
    };
    let authentication = match &client.mesh_tls {
        None => Authentication::Unauthenticated,
        Some(tls) if tls.unauthenticated_tls => Authentication::TlsUnauthenticated,
        Some(tls) => mesh_tls(settings, tls, &resource.id.namespace),
    };
    authorization(object_ref(&resource.id), networks, authentication)
}

fn mesh_tls(settings: &Settings, tls: &MeshTls, own_namespace: &Arc<str>) -> Authentication {
    let accounts = tls.service_accounts.iter().flatten().filter_map(|account| {
        let namespace = namespace_or(account.namespace.as_deref(), own_namespace);
        account_identity(settings, &namespace, &account.name)
    });
    authenticated(tls.identities.iter().flatten().cloned().chain(accounts))
}

/// What an AuthorizationPolicy lets in; nobody while something that it refers to is missing.
fn policy_authorization(
    policies: &Policies,
    settings: &Settings,
    policy: &Resource<AuthorizationPolicy>,
) -> Option<Authorization> {
    let mut from = whole(settings::everywhere());
    let mut authentication = Authentication::Unauthenticated;
    for required in &policy.spec.required_authentication_refs {
        let namespace = namespace_or(required.namespace.as_deref(), &policy.id.namespace);
        if required.is("", "ServiceAccount") {
            authentication = authenticated(account_identity(settings, &namespace, &required.name));
        } else if required.is(LINKERD, "NetworkAuthentication") {
            let named = policies.networks.named(&namespace, &required.name)?;
            from = networks(&named.spec.networks);
        } else {
            let named = policies.mesh_tls.named(&namespace, &required.name)?;
            let others = named.spec.identity_refs.iter().flatten();
            let others = others.filter_map(|other| identity_of(settings, other, &namespace));
            authentication = authenticated(named.spec.identities.iter().flatten().cloned().chain(others));
        }
    }
    authorization(object_ref(&policy.id), from, authentication)
}

/// The identities that a reference to a ServiceAccount or a Namespace means.
fn identity_of(settings: &Settings, other: &ObjectRef, own_namespace: &Arc<str>) -> Option<IdentityMatch> {
    if other.is("", "Namespace") {
        // The name of a service account takes the first label: what follows it is the suffix.
        let any = settings.identity(&other.name, "any").ok()?;
        let suffix = any.as_str().strip_prefix("any")?;
        return Some(IdentityMatch::Suffix(Suffix(suffix.into())));
    }
    let namespace = namespace_or(other.namespace.as_deref(), own_namespace);
    account_identity(settings, &namespace, &other.name)
}

/// `None`: the names are too long to make an identity, and nobody can have it.
fn account_identity(settings: &Settings, namespace: &str, account: &str) -> Option<IdentityMatch> {
    let name = settings.identity(namespace, account).ok()?;
    Some(IdentityMatch::Exact(Identity::Dns(name)))
}

fn authenticated(list: impl IntoIterator<Item = IdentityMatch>) -> Authentication {
    let (mut identities, mut suffixes) = (Vec::new(), Vec::new());
    for identity in list {
        match identity {
            IdentityMatch::Exact(identity) => identities.push(identity),
            IdentityMatch::Suffix(suffix) => suffixes.push(suffix),
        }
    }
    Authentication::TlsAuthenticated { identities, suffixes }
}

/// `None` without networks: proxies would refuse the whole policy because of it.
fn authorization(
    meta: ResourceRef,
    networks: Vec<Network>,
    authentication: Authentication,
) -> Option<Authorization> {
    (!networks.is_empty()).then(|| Authorization {
        meta: Arc::new(meta),
        networks,
        authentication,
    })
}

fn whole(networks: Vec<IpNet>) -> Vec<Network> {
    let network = |net| Network {
        net,
        except: Vec::new(),
    };
    networks.into_iter().map(network).collect()
}

fn networks(ranges: &[NetworkRange]) -> Vec<Network> {
    let network = |range: &NetworkRange| Network {
        net: range.cidr.0,
        except: range.except.iter().flatten().map(|cidr| cidr.0).collect(),
    };
    ranges.iter().map(network).collect()
}

/// Whether a reference without a namespace means an object of the same namespace.
fn is_target(target: &ObjectRef, object: &ObjectId) -> bool {
    target.is(&object.group, &object.kind) && *target.name == *object.name
}

fn is_namespace(policy: &Resource<AuthorizationPolicy>) -> bool {
    let target = &policy.spec.target_ref;
    target.is("", "Namespace") && *target.name == *policy.id.namespace
}

/// A policy object, as inbound policies refer to it: kinds in lower case, no namespaces.
pub fn object_ref(id: &ObjectId) -> ResourceRef {
    ResourceRef {
        group: id.group.clone(),
        kind: id.kind.to_lowercase().into(),
        ..ResourceRef::of_default(id.name.clone())
    }
}
