//! Routes: which rule a request takes, the most specific match winning (Gateway API HTTPRouteRule precedence).

pub mod header;
pub mod host;
pub mod path;
pub mod request;

use std::sync::Arc;

use self::host::HostMatch;
use self::request::RequestMatch;
use crate::name::ResourceRef;

/// The routes of a destination or a port, in the order the control plane listed them.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteTable<R> {
    /// Routes in order.
    pub routes: Vec<Route<R>>,
}

/// A route: hosts × rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Route<R> {
    /// The route object (metric labels `route_*`).
    pub meta: Arc<ResourceRef>,
    /// Hosts it applies to; empty means all.
    pub hosts: Vec<HostMatch>,
    /// Its rules, in order.
    pub rules: Vec<Rule<R>>,
}

/// A rule: what it matches, and what then happens.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule<R> {
    /// Any one of these; empty means every request.
    pub matches: Vec<RequestMatch>,
    /// What happens to a request that it matches.
    pub then: R,
}

impl<R> RouteTable<R> {
    /// One route that takes everything.
    pub fn catch_all(meta: Arc<ResourceRef>, then: R) -> Self {
        Self {
            routes: vec![Route {
                meta,
                hosts: Vec::new(),
                rules: vec![Rule {
                    matches: Vec::new(),
                    then,
                }],
            }],
        }
    }
}
