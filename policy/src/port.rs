//! `PortPolicy`: an inbound policy that can be asked, with routes indexed and what was used of its rate limits.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use crate::Unsupported;
use crate::authz::{ClientTls, Permit, authorize};
use crate::inbound::{InboundPolicy, InboundProtocol, InboundRule};
use crate::name::ResourceRef;
use crate::rate_limit::RateLimiter;
use crate::route::index::Index;
use crate::route::path::{self, PathMatch};
use crate::route::request::{Head, RequestMatch};
use crate::route::{Found, Route, RouteTable, Rule};

/// What the control plane said about a port, ready to be asked for each request.
///
/// Routing, authorization and limits read one and the same value, so that no request is decided by two versions.
#[derive(Debug)]
pub struct PortPolicy {
    policy: InboundPolicy,
    /// The one route of a port for bytes: HTTP is bytes too, on a connection that was taken for it before the policy said
    /// otherwise, or by the proxy that opened it.
    bytes: Option<RouteTable<InboundRule>>,
    /// Of its routes, where it has some.
    index: Option<Index>,
    limiter: Option<RateLimiter>,
}

/// A request that may enter.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted<'a> {
    /// The rule that it takes.
    pub found: Found<'a, InboundRule>,
    /// What lets it in.
    pub permit: Permit<'a>,
}

/// Why a request may not enter.
#[derive(Clone, Debug, PartialEq)]
pub enum Refusal<'a> {
    /// The server can't be enforced: nothing enters.
    Invalid,
    /// No route matches it.
    NoRoute,
    /// No authorization of the rule admits the client.
    Unauthorized(Found<'a, InboundRule>),
    /// The application could read its path as one that leads past an authorization, for this reason.
    AmbiguousPath(Found<'a, InboundRule>, &'static str),
    /// The rule can't be enforced.
    Unenforced(Found<'a, InboundRule>, Unsupported),
}

impl PortPolicy {
    /// A policy; nothing was used of its limits.
    pub fn new(policy: InboundPolicy) -> Self {
        let limiter = policy.rate_limit.as_deref().cloned().map(RateLimiter::new);
        Self::with(policy, limiter)
    }

    /// The next version: what was used of limits that stay, stays used.
    pub fn updated(&self, policy: InboundPolicy) -> Self {
        let limits = policy.rate_limit.as_deref().cloned();
        let limiter = limits.map(|limits| match &self.limiter {
            Some(limiter) => limiter.updated(limits),
            None => RateLimiter::new(limits),
        });
        Self::with(policy, limiter)
    }

    fn with(policy: InboundPolicy, limiter: Option<RateLimiter>) -> Self {
        Self {
            bytes: matches!(policy.protocol, InboundProtocol::Opaque | InboundProtocol::Tls).then(|| {
                let meta = Arc::new(ResourceRef::of_default("default"));
                RouteTable::catch_all(meta, InboundRule::new(policy.authorizations.clone()))
            }),
            index: policy.protocol.routes().map(Index::new),
            policy,
            limiter,
        }
    }

    /// Decides about a request, as of now: its route, then who may take it, then whether its path can be read in one way
    /// only, where `strict_paths` asks for that. Its filters and the port's limits come after.
    pub fn request(
        &self,
        head: &Head<'_>,
        client: IpAddr,
        tls: &ClientTls,
        strict_paths: bool,
    ) -> Result<Admitted<'_>, Refusal<'_>> {
        let found = match (self.protocol.routes(), &self.index, &self.bytes) {
            (Some(table), Some(index), _) => index.find(table, head),
            (_, _, Some(bytes)) => bytes.find(head),
            _ => return Err(Refusal::Invalid),
        };
        let found = found.ok_or(Refusal::NoRoute)?;
        let Ok(permit) = authorize(&found.then.authorizations, client, tls) else {
            return Err(Refusal::Unauthorized(found));
        };
        if strict_paths
            && let Some(what) = path::ambiguity(head.path)
            && !self.admits_any_path(client, tls)
        {
            return Err(Refusal::AmbiguousPath(found, what));
        }
        match found.then.unenforced(found.meta) {
            Some(why) => Err(Refusal::Unenforced(found, why)),
            None => Ok(Admitted { found, permit }),
        }
    }

    /// The limit of requests, if there is one.
    pub fn limiter(&self) -> Option<&RateLimiter> {
        self.limiter.as_ref()
    }

    /// Whether it makes no difference to this client how a path is read: it may take every route, or no route asks for
    /// a path. Else a path that the application reads in another way could lead past an authorization.
    ///
    /// Costs as much as all authorizations together; meant for paths that can be read in two ways.
    pub fn admits_any_path(&self, client: IpAddr, tls: &ClientTls) -> bool {
        // Bytes have no routes, and so none that asks for a path.
        let Some(table) = self.policy.protocol.routes() else {
            return true;
        };
        let mut rules = table.routes.iter().flat_map(|route| &route.rules);
        if !rules.any(|rule| rule.matches.iter().any(asks_for_path)) {
            return true;
        }
        let mut admitted = None;
        let admits_all = table.rules().all(|(_, rule)| {
            // Rules of one route share a list, and so do most routes.
            let list = rule.authorizations.as_ptr();
            let admits = admitted == Some(list) || authorize(&rule.authorizations, client, tls).is_ok();
            admitted = Some(list);
            admits
        });
        admits_all && table.routes.iter().any(takes_everything)
    }
}

impl Deref for PortPolicy {
    type Target = InboundPolicy;

    fn deref(&self) -> &InboundPolicy {
        &self.policy
    }
}

fn asks_for_path(one: &RequestMatch) -> bool {
    one.path.is_some() || one.rpc.is_some()
}

fn takes_everything(route: &Route<InboundRule>) -> bool {
    let root = |path: &PathMatch| path.prefix() == Some(0);
    let any = |one: &RequestMatch| {
        let path = one.path.as_ref().is_none_or(root);
        path && RequestMatch {
            path: None,
            ..one.clone()
        } == RequestMatch::default()
    };
    let all = |rule: &Rule<InboundRule>| rule.matches.is_empty() || rule.matches.iter().any(any);
    route.hosts.is_empty() && route.rules.iter().any(all)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::authz::{Authentication, Authorization, Network};
    use crate::rate_limit::RateLimitPolicy;

    fn meta(name: &str) -> Arc<ResourceRef> {
        Arc::new(ResourceRef::of_default(name))
    }

    fn from(net: &str) -> Arc<[Authorization]> {
        let net = net.parse().unwrap();
        Arc::new([Authorization {
            meta: meta("net"),
            networks: vec![Network { net, except: vec![] }],
            authentication: Authentication::Unauthenticated,
        }])
    }

    fn route(prefix: Option<&str>, net: &str) -> Route<InboundRule> {
        let matches = prefix.map(|prefix| RequestMatch {
            path: Some(PathMatch::Prefix(prefix.into())),
            ..Default::default()
        });
        let rule = Rule {
            matches: matches.into_iter().collect(),
            then: InboundRule::new(from(net)),
        };
        Route {
            meta: meta("route"),
            hosts: vec![],
            rules: vec![rule],
        }
    }

    fn policy(routes: Vec<Route<InboundRule>>, total: Option<u32>) -> InboundPolicy {
        let limit = |total| RateLimitPolicy {
            meta: meta("limit"),
            total: std::num::NonZeroU32::new(total),
            identity: None,
            overrides: vec![],
        };
        InboundPolicy {
            meta: meta("server"),
            protocol: InboundProtocol::Http1(RouteTable { routes }),
            authorizations: from("10.0.0.0/8"),
            rate_limit: total.map(|total| Arc::new(limit(total))),
        }
    }

    fn admits(routes: Vec<Route<InboundRule>>) -> bool {
        let client = "10.0.0.1".parse().unwrap();
        PortPolicy::new(policy(routes, None)).admits_any_path(client, &ClientTls::None)
    }

    #[test]
    fn paths_matter_only_where_a_client_may_not_take_every_route() {
        let (mine, other) = ("10.0.0.0/8", "192.0.2.0/24");
        assert!(admits(vec![route(None, mine)]));
        assert!(admits(vec![route(Some("/a"), mine), route(Some("/"), mine)]));
        assert!(!admits(vec![route(Some("/a"), other), route(None, mine)]));
        assert!(!admits(vec![route(None, mine), route(Some("/a"), other)]));
        assert!(!admits(vec![route(Some("/a"), mine)]), "all else has no route");
    }

    #[test]
    fn an_update_that_leaves_the_limit_alone_leaves_what_was_used_of_it() {
        let now = Duration::from_secs(1);
        let admitted = |policy: &PortPolicy| policy.limiter().unwrap().admit(None, now).is_ok();
        let before = PortPolicy::new(policy(vec![], Some(1)));
        assert!(admitted(&before));
        let after = before.updated(policy(vec![route(None, "10.0.0.0/8")], Some(1)));
        assert!(!admitted(&after));
        assert!(after.updated(policy(vec![], None)).limiter().is_none());
    }
}
