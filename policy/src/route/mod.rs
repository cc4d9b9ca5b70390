//! Routes: which rule a request takes, the most specific match winning (Gateway API HTTPRouteRule precedence).

pub mod condition;
pub mod distribute;
pub mod filter;
pub mod header;
pub mod host;
pub mod index;
pub mod path;
pub mod pattern;
pub mod request;

use std::sync::Arc;

use self::host::HostMatch;
pub use self::request::Head;
use self::request::{RequestMatch, RequestSpecificity};
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

/// The rule that a request takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found<'a, R> {
    /// The route it belongs to.
    pub meta: &'a Arc<ResourceRef>,
    /// What happens to the request.
    pub then: &'a R,
    /// The closest of the rule's matches; `None` where the rule takes every request.
    pub matched: Option<&'a RequestMatch>,
}

impl<R> Found<'_, R> {
    /// The length of the path prefix that matched, in bytes; `None` where the path was matched in another way.
    pub fn prefix(&self) -> Option<usize> {
        self.matched.map_or(Some(0), RequestMatch::prefix)
    }
}

impl<R> RouteTable<R> {
    /// The rule that describes the request most closely: first by host, then by path, headers, query parameters and
    /// method; the first listed of equals. `None` when nothing matches.
    ///
    /// Allocates nothing, unless a pattern meets a percent-encoded query parameter.
    pub fn find(&self, head: &Head<'_>) -> Option<Found<'_, R>> {
        if let [Route { meta, hosts, rules }] = &self.routes[..]
            && let [rule] = &rules[..]
            && hosts.is_empty()
            && rule.matches.is_empty()
        {
            return Some(Found {
                meta,
                then: &rule.then,
                matched: None,
            });
        }
        let host = host::of_authority(head.host);
        let mut best = None;
        for route in &self.routes {
            let Some(by_host) = host::most_specific(&route.hosts, host) else {
                continue;
            };
            if best.as_ref().is_some_and(|((best, _), _)| *best > by_host) {
                continue;
            }
            for rule in &route.rules {
                let Some((by_request, matched)) = rule.closest(head) else {
                    continue;
                };
                let specificity = (by_host, by_request);
                if best.as_ref().is_none_or(|(best, _)| specificity > *best) {
                    let found = Found {
                        meta: &route.meta,
                        then: &rule.then,
                        matched,
                    };
                    best = Some((specificity, found));
                }
            }
        }
        best.map(|(_, found)| found)
    }

    /// The same matchers in the same order, each rule's consequence replaced.
    pub fn map<S>(&self, mut f: impl FnMut(&Arc<ResourceRef>, &R) -> S) -> RouteTable<S> {
        let mut map_rule = |meta: &Arc<ResourceRef>, rule: &Rule<R>| Rule {
            matches: rule.matches.clone(),
            then: f(meta, &rule.then),
        };
        let routes = self.routes.iter().map(|route| Route {
            meta: route.meta.clone(),
            hosts: route.hosts.clone(),
            rules: route
                .rules
                .iter()
                .map(|rule| map_rule(&route.meta, rule))
                .collect(),
        });
        RouteTable {
            routes: routes.collect(),
        }
    }

    /// Every rule with its route, in order.
    pub fn rules(&self) -> impl Iterator<Item = (&Arc<ResourceRef>, &R)> {
        self.routes
            .iter()
            .flat_map(|route| route.rules.iter().map(|rule| (&route.meta, &rule.then)))
    }

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

impl<R> Rule<R> {
    /// The closest of the rule's matches, the first of equals; `None` when it has some and none applies.
    fn closest(&self, head: &Head<'_>) -> Option<(RequestSpecificity, Option<&RequestMatch>)> {
        if self.matches.is_empty() {
            return Some((RequestSpecificity::default(), None));
        }
        let mut closest = None;
        for one in &self.matches {
            if let Some(specificity) = one.specificity(head)
                && closest.is_none_or(|(best, _)| specificity > best)
            {
                closest = Some((specificity, Some(one)));
            }
        }
        closest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::path::PathMatch;
    use http::{HeaderMap, Method};

    fn route(hosts: &[&str], paths: &[(&str, &'static str)]) -> Route<&'static str> {
        Route {
            meta: Arc::new(ResourceRef::of_default("test")),
            hosts: hosts.iter().map(|name| host_match(name)).collect(),
            rules: paths.iter().map(|(path, then)| rule(path, then)).collect(),
        }
    }

    fn host_match(name: &str) -> HostMatch {
        match name.strip_prefix('*') {
            Some(suffix) => HostMatch::suffix(suffix),
            None => HostMatch::exact(name),
        }
    }

    fn rule(path: &str, then: &'static str) -> Rule<&'static str> {
        let path = Some(PathMatch::Prefix(path.into()));
        let matches = vec![RequestMatch {
            path,
            ..Default::default()
        }];
        Rule { matches, then }
    }

    fn find(table: &RouteTable<&'static str>, host: &str, path: &str) -> Option<&'static str> {
        let headers = HeaderMap::new();
        let head = Head {
            host,
            method: &Method::GET,
            path,
            query: None,
            headers: &headers,
        };
        table.find(&head).map(|found| *found.then)
    }

    #[test]
    fn the_host_decides_before_the_path() {
        let routes = vec![
            route(&[], &[("/long/path", "any host")]),
            route(&["*.example.com"], &[("/long", "suffix")]),
            route(&["web.example.com"], &[("/", "exact")]),
        ];
        let table = RouteTable { routes };
        assert_eq!(find(&table, "web.example.com:8080", "/long/path"), Some("exact"));
        assert_eq!(find(&table, "api.example.com", "/long/path"), Some("suffix"));
        assert_eq!(find(&table, "", "/long/path"), Some("any host"));
        assert_eq!(find(&table, "other", "/"), None);
    }

    #[test]
    fn a_route_whose_rules_do_not_match_is_passed_over() {
        let routes = vec![
            route(&["web"], &[("/a", "by host")]),
            route(&[], &[("/", "rest")]),
        ];
        assert_eq!(find(&RouteTable { routes }, "web", "/b"), Some("rest"));
    }

    #[test]
    fn the_longer_path_wins_and_the_first_of_equals() {
        let rules = [
            ("/", "root"),
            ("/a/b", "longer"),
            ("/a/b/", "the same"),
            ("/a", "shorter"),
        ];
        let table = RouteTable {
            routes: vec![route(&[], &rules)],
        };
        assert_eq!(find(&table, "", "/a/b/c"), Some("longer"));
        assert_eq!(find(&table, "", "/a/bc"), Some("shorter"));
        assert_eq!(find(&table, "", "/"), Some("root"));
    }

    #[test]
    fn map_keeps_matchers_and_order() {
        let table = RouteTable {
            routes: vec![route(&["web"], &[("/", "a"), ("/b", "bb")])],
        };
        let lengths = table.map(|_, then| then.len());
        assert_eq!(lengths.rules().map(|(_, n)| *n).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(lengths.map(|_, n| ["a", "bb"][n - 1]), table);
    }

    #[test]
    fn an_empty_table_finds_nothing() {
        assert_eq!(find(&RouteTable { routes: vec![] }, "web", "/"), None);
    }

    #[test]
    fn the_prefix_that_matched_is_known() {
        let table = |path: Option<PathMatch>| {
            let one = RequestMatch {
                path,
                ..RequestMatch::default()
            };
            RouteTable {
                routes: vec![Route {
                    rules: vec![Rule {
                        matches: vec![one],
                        then: (),
                    }],
                    meta: Arc::new(ResourceRef::of_default("test")),
                    hosts: vec![],
                }],
            }
        };
        let headers = HeaderMap::new();
        let head = Head {
            host: "",
            method: &Method::GET,
            path: "/a/b",
            query: None,
            headers: &headers,
        };
        let prefix = |path| table(path).find(&head).unwrap().prefix();
        assert_eq!(prefix(Some(PathMatch::Prefix("/a/".into()))), Some(2));
        assert_eq!(prefix(Some(PathMatch::Exact("/a/b".into()))), None);
        assert_eq!(prefix(None), Some(0));
        let all = RouteTable::catch_all(Arc::new(ResourceRef::of_default("test")), ());
        assert_eq!(all.find(&head).unwrap().prefix(), Some(0));
    }
}
