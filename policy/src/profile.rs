//! Service profiles, and the policy that a profile and a policy lookup give together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::HeaderName;

use crate::Unsupported;
use crate::budget::BudgetPolicy;
use crate::classify::ResponseClass;
use crate::endpoint::Endpoint;
use crate::name::ResourceRef;
use crate::outbound::{
    Backend, Dispatch, Distribution, LoadParams, OpaqueAction, OpaqueRoute, OutboundPolicy, OutboundProtocol,
    OutboundRule,
};
use crate::retry::{RetryOn, RetryPolicy};
use crate::route::condition::Condition;
use crate::route::filter::{Filter, HeaderEdits};
use crate::route::request::RequestMatch;
use crate::route::{Route, RouteTable, Rule};
use crate::timeouts::Timeouts;

/// The route of a policy that comes from a ServiceProfile.
const PROFILE: &str = "serviceprofile";

/// The service that a request was sent to, for the proxy beside the server.
const DST_CANONICAL: HeaderName = HeaderName::from_static("l5d-dst-canonical");

/// Attempts after the first of one request. The budget decides long before; this ends a single request's attempts.
const MAX_RETRIES: u32 = 100;

/// Request bodies that are kept to be sent again, bytes.
const MAX_REQUEST_BYTES: usize = 64 << 10;

/// What `Destination.GetProfile` said about a destination.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Profile {
    /// The service's name without a port; `None` for a single endpoint or an unknown address.
    pub fully_qualified_name: Option<Arc<str>>,
    /// The destination must not be looked into.
    pub opaque: bool,
    /// The one endpoint behind the address, when it is no service.
    pub endpoint: Option<Endpoint>,
    /// Its routes: the first whose condition holds is taken.
    pub routes: Vec<ProfileRoute>,
    /// Other services that take its traffic.
    pub overrides: Vec<Override>,
    /// What bounds the retries of all its routes together; without it there are none.
    pub budget: Option<BudgetPolicy>,
    /// The profile can't be followed: refused.
    pub unsupported: Option<Unsupported>,
}

/// A route of a ServiceProfile.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileRoute {
    /// Which requests take it.
    pub condition: Condition,
    /// What counts as a failure.
    pub classes: Arc<[ResponseClass]>,
    /// Its labels in metrics.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Whether failures are tried again, as far as the budget goes.
    pub retryable: bool,
    /// From the request's arrival to the response's headers.
    pub timeout: Option<Duration>,
}

/// A service that takes a share of another's traffic (TrafficSplit).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// `name:port`.
    pub authority: Arc<str>,
    /// Its share; zero is none.
    pub weight: u32,
}

/// What `OutboundPolicies.Watch` said about a destination.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// A policy.
    Found(OutboundPolicy),
    /// The controller knows none (NotFound, Unimplemented).
    NotFound,
}

/// Joins profile and policy to the one policy that the data path follows.
///
/// Without a policy the destination is forwarded to: the profile's endpoint (`default:endpoint`), or the
/// address that the application dialled (`default:fallback` without a profile). The routes of a ServiceProfile replace
/// those of the policy for HTTP, its overrides those for HTTP and for opaque traffic; TLS routes stay.
pub fn effective(dialled: SocketAddr, profile: Option<&Profile>, lookup: &Lookup) -> OutboundPolicy {
    let policy = match (lookup, profile) {
        (Lookup::Found(policy), _) => policy.clone(),
        (Lookup::NotFound, Some(profile)) => {
            let endpoint = profile
                .endpoint
                .clone()
                .unwrap_or_else(|| Endpoint::bare(dialled));
            forward("endpoint", endpoint)
        }
        (Lookup::NotFound, None) => forward("fallback", Endpoint::bare(dialled)),
    };
    match profile {
        Some(profile) => under(profile, policy, dialled.port()),
        None => policy,
    }
}

/// Joins profile and policy of a name that a request gives, on this port. Without a policy the request goes to the
/// profile's endpoint (`default:endpoint`), or to its service (`default:profile`). `None`: nobody has that name.
pub fn by_name(port: u16, profile: Option<&Profile>, lookup: &Lookup) -> Option<OutboundPolicy> {
    let policy = match (lookup, profile) {
        (Lookup::Found(policy), _) => policy.clone(),
        (Lookup::NotFound, None) => return None,
        (Lookup::NotFound, Some(profile)) => match (&profile.endpoint, &profile.fully_qualified_name) {
            (Some(endpoint), _) => forward("endpoint", endpoint.clone()),
            (None, Some(name)) => {
                let (meta, authority) = (
                    Arc::new(ResourceRef::of_default("profile")),
                    format!("{name}:{port}").into(),
                );
                let backend = balanced(&meta, &authority);
                OutboundPolicy {
                    authority,
                    ..to_all(meta, backend)
                }
            }
            (None, None) => return None,
        },
    };
    Some(match profile {
        Some(profile) => under(profile, policy, port),
        None => policy,
    })
}

/// A policy with what a profile says of its destination on this port.
fn under(profile: &Profile, mut policy: OutboundPolicy, port: u16) -> OutboundPolicy {
    if let Some(unsupported) = &profile.unsupported {
        policy.protocol = OutboundProtocol::Invalid(unsupported.clone());
        return policy;
    }
    if profile.opaque {
        policy.protocol = opaque(policy.protocol);
    }
    match Lowered::of(profile, port) {
        Some(lowered) => lowered.replace(policy),
        None => policy,
    }
}

/// What a multicluster gateway does with what is meant for a name, on this port: HTTP goes where the profile says, which
/// is the service or a single endpoint; anything else where the policy says. `None`: nobody has that name.
pub fn through_gateway(port: u16, profile: Option<&Profile>, lookup: &Lookup) -> Option<OutboundPolicy> {
    let profile = profile?;
    let mut policy = match (Lowered::whole(profile, port), &profile.endpoint) {
        (Some(service), _) => service.joined(lookup),
        (None, Some(endpoint)) => forward("endpoint", endpoint.clone()),
        (None, None) => return None,
    };
    if let Some(unsupported) = &profile.unsupported {
        policy.protocol = OutboundProtocol::Invalid(unsupported.clone());
    }
    Some(policy)
}

/// The route that a lookup has for bytes.
fn opaque_route(lookup: &Lookup) -> OpaqueRoute {
    let no_route = |action| OpaqueRoute {
        meta: Arc::new(ResourceRef::of_default("none")),
        action,
    };
    let Lookup::Found(policy) = lookup else {
        return no_route(OpaqueAction::NoRoute);
    };
    match &policy.protocol {
        OutboundProtocol::Detect { opaque, .. } | OutboundProtocol::Opaque(opaque) => opaque.clone(),
        OutboundProtocol::Invalid(why) => no_route(OpaqueAction::Invalid(why.clone())),
        OutboundProtocol::Http1(_)
        | OutboundProtocol::Http2(_)
        | OutboundProtocol::Grpc(_)
        | OutboundProtocol::Tls(_) => no_route(OpaqueAction::NoRoute),
    }
}

/// Whether a route is that of a ServiceProfile.
pub fn is_profile(route: &ResourceRef) -> bool {
    route.kind.as_ref() == "default" && route.name.as_ref() == PROFILE
}

/// A policy that forwards to one endpoint, whatever is spoken.
pub fn forward(name: &str, endpoint: Endpoint) -> OutboundPolicy {
    let meta = Arc::new(ResourceRef::of_default(name));
    let backend = Arc::new(Backend::new(meta.clone(), Dispatch::Forward(endpoint)));
    to_all(meta, backend)
}

/// A policy that leads to one backend, whatever is spoken.
fn to_all(meta: Arc<ResourceRef>, backend: Arc<Backend>) -> OutboundPolicy {
    let distribution = Distribution::FirstAvailable(vec![backend]);
    let table = RouteTable::catch_all(meta.clone(), OutboundRule::to(distribution.clone()));
    OutboundPolicy {
        parent: meta.clone(),
        protocol: OutboundProtocol::Detect {
            http1: table.clone(),
            http2: table,
            opaque: OpaqueRoute {
                meta,
                action: OpaqueAction::Forward(distribution),
            },
        },
        authority: "".into(),
        budget: Some(BudgetPolicy::default()),
    }
}

/// What is left of a policy when its destination is opaque: its opaque route.
fn opaque(protocol: OutboundProtocol) -> OutboundProtocol {
    match protocol {
        OutboundProtocol::Detect { opaque, .. } | OutboundProtocol::Opaque(opaque) => {
            OutboundProtocol::Opaque(opaque)
        }
        OutboundProtocol::Invalid(why) => OutboundProtocol::Invalid(why),
        OutboundProtocol::Http1(_)
        | OutboundProtocol::Http2(_)
        | OutboundProtocol::Grpc(_)
        | OutboundProtocol::Tls(_) => OutboundProtocol::Invalid(Unsupported::new(
            "the profile calls the port opaque, the policy gives it HTTP or TLS routes only: \
             remove the opaque-ports annotation or the routes",
        )),
    }
}

/// The routes and overrides of a ServiceProfile in the one form of routes.
struct Lowered {
    meta: Arc<ResourceRef>,
    /// `name:port` of the service.
    authority: Arc<str>,
    budget: Option<BudgetPolicy>,
    http: RouteTable<OutboundRule>,
    /// The overrides, where there are any.
    opaque: Option<Distribution>,
}

impl Lowered {
    /// `None` for a profile that has neither routes nor overrides.
    fn of(profile: &Profile, port: u16) -> Option<Self> {
        if profile.routes.is_empty() && profile.overrides.is_empty() {
            return None;
        }
        Self::whole(profile, port)
    }

    /// `None` for a profile of no service.
    fn whole(profile: &Profile, port: u16) -> Option<Self> {
        let name = profile.fully_qualified_name.as_ref()?;
        let meta = Arc::new(ResourceRef::of_default(PROFILE));
        let authority: Arc<str> = format!("{name}:{port}").into();
        let overrides = overrides(profile, &meta);
        let backends = overrides
            .clone()
            .unwrap_or_else(|| Distribution::FirstAvailable(vec![balanced(&meta, &authority)]));
        let everything = OutboundRule {
            filters: canonical(&authority).into_iter().collect(),
            ..OutboundRule::to(backends)
        };
        let budget = profile.budget;
        let mut rules: Vec<_> = profile
            .routes
            .iter()
            .map(|route| route.rule(&everything, budget.is_some()))
            .collect();
        rules.push(Rule {
            matches: Vec::new(),
            then: everything,
        });
        let route = Route {
            meta: meta.clone(),
            hosts: Vec::new(),
            rules,
        };
        Some(Self {
            meta,
            authority,
            budget,
            http: RouteTable { routes: vec![route] },
            opaque: overrides,
        })
    }

    /// A policy with these routes, and that of a lookup for what is not HTTP.
    fn joined(self, lookup: &Lookup) -> OutboundPolicy {
        let opaque = match self.opaque {
            Some(overrides) => OpaqueRoute {
                meta: self.meta.clone(),
                action: OpaqueAction::Forward(overrides),
            },
            None => opaque_route(lookup),
        };
        let parent = match lookup {
            Lookup::Found(policy) => policy.parent.clone(),
            Lookup::NotFound => self.meta,
        };
        OutboundPolicy {
            parent,
            protocol: OutboundProtocol::Detect {
                http1: self.http.clone(),
                http2: self.http,
                opaque,
            },
            authority: self.authority,
            budget: self.budget,
        }
    }

    /// The policy with these routes in place of its own.
    fn replace(self, mut policy: OutboundPolicy) -> OutboundPolicy {
        let opaque = |route: OpaqueRoute| match &self.opaque {
            Some(overrides) => OpaqueRoute {
                meta: self.meta.clone(),
                action: OpaqueAction::Forward(overrides.clone()),
            },
            None => route,
        };
        let protocol = match policy.protocol {
            OutboundProtocol::Opaque(route) => OutboundProtocol::Opaque(opaque(route)),
            OutboundProtocol::Tls(_) | OutboundProtocol::Invalid(_) => return policy,
            OutboundProtocol::Detect { opaque: route, .. } => OutboundProtocol::Detect {
                http1: self.http.clone(),
                http2: self.http,
                opaque: opaque(route),
            },
            OutboundProtocol::Http1(_) => OutboundProtocol::Http1(self.http),
            OutboundProtocol::Http2(_) | OutboundProtocol::Grpc(_) => OutboundProtocol::Http2(self.http),
        };
        policy.protocol = protocol;
        policy.authority = self.authority;
        policy.budget = self.budget;
        policy
    }
}

impl ProfileRoute {
    fn rule(&self, everything: &OutboundRule, has_budget: bool) -> Rule<OutboundRule> {
        let retry = RetryPolicy {
            on: RetryOn::Failures,
            max_retries: MAX_RETRIES,
            max_request_bytes: MAX_REQUEST_BYTES,
            per_try: None,
            backoff: None,
        };
        Rule {
            matches: vec![RequestMatch {
                condition: Some(self.condition.clone()),
                ..RequestMatch::default()
            }],
            then: OutboundRule {
                timeouts: Timeouts {
                    headers: self.timeout,
                    ..Timeouts::default()
                },
                retry: (self.retryable && has_budget).then_some(retry),
                classes: self.classes.clone(),
                labels: self.labels.clone(),
                ..everything.clone()
            },
        }
    }
}

fn overrides(profile: &Profile, meta: &Arc<ResourceRef>) -> Option<Distribution> {
    let weighted: Vec<_> = profile
        .overrides
        .iter()
        .filter(|o| o.weight > 0)
        .map(|o| (balanced(meta, &o.authority), o.weight))
        .collect();
    (!weighted.is_empty()).then_some(Distribution::RandomAvailable(weighted))
}

fn balanced(meta: &Arc<ResourceRef>, path: &Arc<str>) -> Arc<Backend> {
    let dispatch = Dispatch::Balance {
        path: path.clone(),
        load: LoadParams::default(),
        breaker: None,
    };
    Arc::new(Backend::new(meta.clone(), dispatch))
}

/// Tells the proxy beside the server which service was meant.
fn canonical(authority: &str) -> Option<Filter> {
    let value = HeaderValue::from_str(authority).ok()?;
    Some(Filter::RequestHeaders(HeaderEdits {
        set: vec![(DST_CANONICAL, value)],
        ..HeaderEdits::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Head;
    use crate::route::pattern::Pattern;

    const DIALLED: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 80);

    fn policy(protocol: OutboundProtocol) -> Lookup {
        let found = forward("policy", Endpoint::bare(DIALLED));
        Lookup::Found(OutboundPolicy { protocol, ..found })
    }

    fn opaque_profile() -> Profile {
        Profile {
            opaque: true,
            ..Profile::default()
        }
    }

    #[test]
    fn without_policy_and_profile_the_dialled_address_is_forwarded_to() {
        let fallback = forward("fallback", Endpoint::bare(DIALLED));
        assert_eq!(effective(DIALLED, None, &Lookup::NotFound), fallback);
    }

    #[test]
    fn without_policy_the_endpoint_of_the_profile_is_forwarded_to() {
        let endpoint = Endpoint {
            weight: 1,
            ..Endpoint::bare(DIALLED)
        };
        let profile = Profile {
            endpoint: Some(endpoint.clone()),
            ..Profile::default()
        };
        let effective = |profile| effective(DIALLED, Some(profile), &Lookup::NotFound);
        assert_eq!(effective(&profile), forward("endpoint", endpoint));
        let bare = forward("endpoint", Endpoint::bare(DIALLED));
        assert_eq!(effective(&Profile::default()), bare);
    }

    #[test]
    fn a_policy_goes_before_the_endpoint_of_the_profile() {
        let profile = Profile {
            endpoint: Some(Endpoint::bare(DIALLED)),
            ..Profile::default()
        };
        let found = forward("policy", Endpoint::bare(DIALLED));
        let lookup = Lookup::Found(found.clone());
        assert_eq!(effective(DIALLED, Some(&profile), &lookup), found);
    }

    #[test]
    fn a_name_without_a_policy_leads_where_its_profile_says() {
        let by_name = |profile: Option<&Profile>| by_name(81, profile, &Lookup::NotFound);
        assert_eq!(by_name(None), None);
        assert_eq!(by_name(Some(&Profile::default())), None);
        let endpoint = Profile {
            endpoint: Some(Endpoint::bare(DIALLED)),
            fully_qualified_name: Some("web.ns".into()),
            ..Profile::default()
        };
        assert_eq!(
            by_name(Some(&endpoint)),
            Some(forward("endpoint", Endpoint::bare(DIALLED)))
        );
        let service = Profile {
            endpoint: None,
            ..endpoint
        };
        let policy = by_name(Some(&service)).unwrap();
        assert_eq!(
            (&*policy.parent.name, &*policy.authority),
            ("profile", "web.ns:81")
        );
        let OutboundProtocol::Detect { http2, .. } = &policy.protocol else {
            panic!("{policy:?}")
        };
        let to = balanced(&policy.parent, &"web.ns:81".into());
        let (_, rule) = http2.rules().next().unwrap();
        assert_eq!(rule.backends, Ok(Distribution::FirstAvailable(vec![to])));
    }

    #[test]
    fn a_name_with_a_policy_follows_it_as_an_address_does() {
        let found = policy(OutboundProtocol::Http2(RouteTable { routes: vec![] }));
        for profile in [None, Some(books()), Some(split()), Some(opaque_profile())] {
            let profile = profile.as_ref();
            let by_address = effective(DIALLED, profile, &found);
            assert_eq!(by_name(DIALLED.port(), profile, &found), Some(by_address));
        }
    }

    #[test]
    fn an_opaque_profile_leaves_the_opaque_route() {
        let effective = effective(DIALLED, Some(&opaque_profile()), &Lookup::NotFound);
        assert!(
            matches!(effective.protocol, OutboundProtocol::Opaque(_)),
            "{effective:?}"
        );
    }

    #[test]
    fn an_opaque_profile_with_http_routes_only_is_refused() {
        let http = policy(OutboundProtocol::Http1(RouteTable { routes: vec![] }));
        let effective = effective(DIALLED, Some(&opaque_profile()), &http);
        assert!(
            matches!(effective.protocol, OutboundProtocol::Invalid(_)),
            "{effective:?}"
        );
    }

    #[test]
    fn what_a_profile_asks_in_vain_is_refused_even_where_the_port_is_opaque() {
        let why = Unsupported::new("dst_overrides");
        let profile = Profile {
            unsupported: Some(why.clone()),
            ..opaque_profile()
        };
        let effective = effective(DIALLED, Some(&profile), &Lookup::NotFound);
        assert_eq!(effective.protocol, OutboundProtocol::Invalid(why));
    }

    fn found(table: &RouteTable<OutboundRule>, path: &str) -> OutboundRule {
        let head = Head {
            host: "",
            method: &http::Method::GET,
            path,
            query: None,
            headers: &http::HeaderMap::new(),
        };
        table.find(&head).unwrap().then.clone()
    }

    fn route(path: &str, seconds: u64) -> ProfileRoute {
        ProfileRoute {
            condition: Condition::Path(Pattern::new(path).unwrap()),
            classes: Arc::default(),
            labels: Arc::default(),
            retryable: true,
            timeout: Some(Duration::from_secs(seconds)),
        }
    }

    fn books() -> Profile {
        Profile {
            fully_qualified_name: Some("books.demo".into()),
            routes: vec![route("/b.*", 1), route("/books", 2)],
            budget: Some(BudgetPolicy::default()),
            ..Profile::default()
        }
    }

    fn split() -> Profile {
        let over = |authority: &str, weight| Override {
            authority: authority.into(),
            weight,
        };
        Profile {
            fully_qualified_name: Some("books.demo".into()),
            overrides: vec![
                over("old.demo:80", 90),
                over("new.demo:80", 10),
                over("none.demo:80", 0),
            ],
            ..Profile::default()
        }
    }

    /// Where it leads, with weights.
    fn balanced_to(distribution: &Distribution) -> Vec<(String, u32)> {
        let path = |backend: &Backend| match &backend.dispatch {
            Dispatch::Balance { path, .. } => path.to_string(),
            other => panic!("{other:?}"),
        };
        match distribution {
            Distribution::RandomAvailable(list) => {
                list.iter().map(|(b, weight)| (path(b), *weight)).collect()
            }
            list => list.backends().map(|b| (path(b), 1)).collect(),
        }
    }

    fn http(protocol: &OutboundProtocol) -> &RouteTable<OutboundRule> {
        match protocol {
            OutboundProtocol::Detect { http1, http2, .. } => {
                assert_eq!(http1, http2);
                http1
            }
            OutboundProtocol::Http1(table) | OutboundProtocol::Http2(table) => table,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_route_whose_condition_holds_is_taken_then_the_default() {
        let policy = effective(DIALLED, Some(&books()), &Lookup::NotFound);
        let table = http(&policy.protocol);
        let seconds = |path| {
            found(table, path)
                .timeouts
                .headers
                .map(|timeout| timeout.as_secs())
        };
        assert_eq!([seconds("/books"), seconds("/authors")], [Some(1), None]);
        for path in ["/books", "/authors"] {
            let rule = found(table, path);
            let expected = [("books.demo:80".to_owned(), 1)];
            assert_eq!(balanced_to(&rule.backends.unwrap()), expected);
            let mut request = http::Request::get(path).body(()).unwrap().into_parts().0;
            crate::route::filter::request(
                &rule.filters,
                &mut request,
                "",
                None,
                &mut fastrand::Rng::with_seed(1),
            );
            assert_eq!(request.headers["l5d-dst-canonical"], "books.demo:80");
        }
        assert_eq!(
            (&*policy.authority, policy.budget),
            ("books.demo:80", books().budget)
        );
    }

    #[test]
    fn a_route_retries_only_where_the_profile_has_a_budget() {
        let retries = |profile: &Profile, path| {
            let policy = effective(DIALLED, Some(profile), &Lookup::NotFound);
            let retry = found(http(&policy.protocol), path).retry;
            retry.is_some_and(|retry| retry.on == RetryOn::Failures)
        };
        let without = Profile {
            budget: None,
            ..books()
        };
        assert_eq!(
            [retries(&books(), "/books"), retries(&books(), "/authors")],
            [true, false]
        );
        assert!(!retries(&without, "/books"));
    }

    #[test]
    fn overrides_take_the_traffic_by_weight() {
        let policy = effective(DIALLED, Some(&split()), &Lookup::NotFound);
        let expected = [("old.demo:80".to_owned(), 90), ("new.demo:80".to_owned(), 10)];
        assert_eq!(
            balanced_to(&found(http(&policy.protocol), "/").backends.unwrap()),
            expected
        );
        let OutboundProtocol::Detect { opaque, .. } = &policy.protocol else {
            panic!("{policy:?}");
        };
        assert!(matches!(&opaque.action, OpaqueAction::Forward(to) if balanced_to(to) == expected));
    }

    #[test]
    fn a_profile_goes_before_the_policy_for_what_it_speaks_of() {
        let own = forward("policy", Endpoint::bare(DIALLED));
        let OutboundProtocol::Detect { http1, opaque, .. } = own.protocol.clone() else {
            panic!("{own:?}");
        };
        let joined = |profile: &Profile, protocol: OutboundProtocol| {
            let joined = effective(DIALLED, Some(profile), &policy(protocol));
            joined.protocol
        };
        let changed =
            |profile: &Profile, protocol: OutboundProtocol| joined(profile, protocol.clone()) != protocol;
        for profile in [books(), split()] {
            assert!(changed(&profile, OutboundProtocol::Http1(http1.clone())));
            assert!(changed(&profile, OutboundProtocol::Grpc(http1.clone())));
            assert!(changed(&profile, own.protocol.clone()));
            assert!(!changed(&profile, OutboundProtocol::Tls(vec![])));
        }
        let bytes = OutboundProtocol::Opaque(opaque);
        assert!(!changed(&books(), bytes.clone()) && changed(&split(), bytes));
        let nameless = Profile {
            fully_qualified_name: None,
            ..books()
        };
        assert!(!changed(&nameless, own.protocol));
    }

    #[test]
    fn a_gateway_sends_http_where_the_profile_says_and_bytes_where_the_policy_says() {
        let service = Profile {
            fully_qualified_name: Some("web.ns.svc.cluster.local".into()),
            ..Profile::default()
        };
        let found = forward("policy", Endpoint::bare(DIALLED));
        let OutboundProtocol::Detect { opaque: bytes, .. } = &found.protocol else {
            panic!("forwarding is for all protocols")
        };
        let joined = through_gateway(81, Some(&service), &Lookup::Found(found.clone())).unwrap();
        let OutboundProtocol::Detect { http1, opaque, .. } = &joined.protocol else {
            panic!("{joined:?}")
        };
        assert_eq!(opaque, bytes);
        assert_eq!(&*joined.authority, "web.ns.svc.cluster.local:81");
        let (_, rule) = http1.rules().next().unwrap();
        assert_eq!(
            rule.backends,
            Ok(Distribution::FirstAvailable(vec![balanced(
                &Arc::new(ResourceRef::of_default(PROFILE)),
                &"web.ns.svc.cluster.local:81".into()
            )]))
        );
    }

    #[test]
    fn a_gateway_knows_nobody_without_a_profile_that_leads_somewhere() {
        let lookup = policy(OutboundProtocol::Http2(RouteTable { routes: vec![] }));
        assert_eq!(through_gateway(80, None, &lookup), None);
        assert_eq!(through_gateway(80, Some(&Profile::default()), &lookup), None);
        let endpoint = Profile {
            endpoint: Some(Endpoint::bare(DIALLED)),
            ..Profile::default()
        };
        let forwarded = forward("endpoint", Endpoint::bare(DIALLED));
        assert_eq!(through_gateway(80, Some(&endpoint), &lookup), Some(forwarded));
        let refused = Profile {
            unsupported: Some(Unsupported::new("why")),
            ..endpoint
        };
        let refused = through_gateway(80, Some(&refused), &lookup).unwrap();
        assert_eq!(
            refused.protocol,
            OutboundProtocol::Invalid(Unsupported::new("why"))
        );
    }
}
