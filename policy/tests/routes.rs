//! Routes against a slow model of Gateway API precedence, on random tables and requests.

#![allow(clippy::unwrap_used)]

use std::cmp::Reverse;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};
use outrigger_policy::name::ResourceRef;
use outrigger_policy::route::header::{HeaderMatch, QueryMatch, ValueMatch};
use outrigger_policy::route::host::HostMatch;
use outrigger_policy::route::index::Indexed;
use outrigger_policy::route::path::PathMatch;
use outrigger_policy::route::request::RequestMatch;
use outrigger_policy::route::{Head, Route, RouteTable, Rule};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// What decides between rules, in order: kind of host match, its length, path length, headers, parameters, method.
type Key = (u8, usize, usize, usize, usize, bool);

#[derive(Debug)]
struct Request {
    host: String,
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

impl Request {
    fn head(&self) -> Head<'_> {
        Head {
            host: &self.host,
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
        }
    }
}

proptest! {
    #[test]
    fn the_first_of_the_closest_rules_is_found(table in table(), request in request()) {
        let found = table.find(&request.head()).map(|found| *found.then);
        let closest = candidates(&table, &request).into_iter().min_by_key(|(key, id)| (Reverse(*key), *id));
        prop_assert_eq!(found, closest.map(|(_, id)| id));
    }

    #[test]
    fn an_index_changes_nothing(tables in vec(table(), 1..4), request in request()) {
        // Together they have more rules than go without an index.
        let routes = tables.iter().cycle().take(24).flat_map(|table| table.routes.clone()).collect();
        let table = RouteTable { routes };
        let indexed = Indexed::new(table.clone());
        prop_assert_eq!(indexed.find(&request.head()), table.find(&request.head()));
    }

    #[test]
    fn the_order_of_routes_decides_only_between_equals(table in table(), request in request(), turn in 0usize..8) {
        let key_of = |table: &RouteTable<usize>| {
            let id = *table.find(&request.head())?.then;
            candidates(table, &request).into_iter().filter(|(_, i)| *i == id).map(|(key, _)| key).max()
        };
        let mut turned = table.clone();
        turned.routes.reverse();
        let by = turn % turned.routes.len().max(1);
        turned.routes.rotate_left(by);
        prop_assert_eq!(key_of(&table), key_of(&turned));
    }

    #[test]
    fn a_host_is_matched_label_by_label(pattern in name(), wildcard: bool, host in host()) {
        let host = host.trim_end_matches(":80");
        let matcher = host_match(&pattern, wildcard);
        prop_assert_eq!(matcher.specificity(host).is_some(), host_key(&matcher, host).is_some());
    }
}

/// Every rule that applies, with its key, by a model that splits everything up.
fn candidates(table: &RouteTable<usize>, request: &Request) -> Vec<(Key, usize)> {
    let host = request.host.split(':').next().unwrap_or_default();
    let mut all = Vec::new();
    for route in &table.routes {
        let by_host = match &route.hosts[..] {
            [] => Some((0, 0)),
            hosts => hosts.iter().filter_map(|h| host_key(h, host)).max(),
        };
        for rule in &route.rules {
            let matches = match &rule.matches[..] {
                [] => Some((0, 0, 0, false)),
                matches => matches.iter().filter_map(|m| match_key(m, request)).max(),
            };
            if let (Some((kind, length)), Some((path, headers, query, method))) = (by_host, matches) {
                all.push(((kind, length, path, headers, query, method), rule.then));
            }
        }
    }
    all
}

fn host_key(matcher: &HostMatch, host: &str) -> Option<(u8, usize)> {
    let labels = |name: &str| -> Vec<String> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        name.split('.').rev().map(str::to_owned).collect()
    };
    let host = labels(host);
    match matcher {
        HostMatch::Exact(name) => (host == labels(name)).then_some((2, 0)),
        HostMatch::Suffix(suffix) => {
            let below = labels(&suffix[1..]);
            (host.len() > below.len() && host.starts_with(&below)).then_some((1, suffix.len()))
        }
    }
}

fn match_key(matcher: &RequestMatch, request: &Request) -> Option<(usize, usize, usize, bool)> {
    let segments = |path: &str| -> Vec<String> {
        let path = path.trim_end_matches('/');
        path.split('/').map(str::to_owned).collect()
    };
    let path = match &matcher.path {
        None => Some(0),
        Some(PathMatch::Exact(path)) => (**path == *request.path).then_some(path.len()),
        Some(PathMatch::Prefix(prefix)) => segments(&request.path)
            .starts_with(&segments(prefix))
            .then_some(prefix.trim_end_matches('/').len()),
        Some(PathMatch::Regex(_)) => unreachable!("the model has no patterns"),
    };
    let exact =
        |value: &ValueMatch, given: &str| matches!(value, ValueMatch::Exact(v) if **v == *given.as_bytes());
    let headers = matcher.headers.iter().all(|h| {
        let mut values = request.headers.get_all(&h.name).iter();
        values.any(|v| exact(&h.value, v.to_str().unwrap()))
    });
    let pairs: Vec<_> = request.query.iter().flat_map(|q| q.split('&')).collect();
    let query = matcher.query.iter().all(|q| {
        let mut values = pairs
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .filter(|(name, _)| **name == *q.name);
        values.any(|(_, v)| exact(&q.value, v))
    });
    let method = matcher.method.as_ref().is_none_or(|m| *m == request.method);
    let key = (
        path?,
        matcher.headers.len(),
        matcher.query.len(),
        matcher.method.is_some(),
    );
    (headers && query && method).then_some(key)
}

fn table() -> impl Strategy<Value = RouteTable<usize>> {
    let rule = vec(request_match(), 0..3).prop_map(|matches| Rule { matches, then: 0 });
    let hosts = vec(
        (name(), any::<bool>()).prop_map(|(name, wildcard)| host_match(&name, wildcard)),
        0..3,
    );
    let meta = Arc::new(ResourceRef::of_default("route"));
    let route = (hosts, vec(rule, 0..4)).prop_map(move |(hosts, rules)| Route {
        meta: meta.clone(),
        hosts,
        rules,
    });
    vec(route, 0..6).prop_map(|mut routes| {
        let rules = routes.iter_mut().flat_map(|route| &mut route.rules);
        rules.enumerate().for_each(|(id, rule)| rule.then = id);
        RouteTable { routes }
    })
}

fn host_match(name: &str, wildcard: bool) -> HostMatch {
    if wildcard {
        HostMatch::suffix(name)
    } else {
        HostMatch::exact(name)
    }
}

fn request_match() -> impl Strategy<Value = RequestMatch> {
    let path = (path(), any::<bool>()).prop_map(|(path, exact)| match exact {
        true => PathMatch::Exact(path.into()),
        false => PathMatch::Prefix(path.into()),
    });
    let header = (header_name(), value()).prop_map(|(name, value)| HeaderMatch { name, value });
    let query = (select(vec!["p", "q"]), value()).prop_map(|(name, value)| QueryMatch {
        name: name.into(),
        value,
    });
    (
        option::of(path),
        vec(header, 0..2),
        vec(query, 0..2),
        option::of(method()),
    )
        .prop_map(|(path, headers, query, method)| RequestMatch {
            path,
            rpc: None,
            headers,
            query,
            method,
            condition: None,
        })
}

fn request() -> impl Strategy<Value = Request> {
    let query = option::of(select(vec!["", "p=1", "q=2", "p=2&q=1", "p=1&p=2", "p"]));
    let headers = vec((header_name(), select(vec!["1", "2"])), 0..3);
    (host(), method(), path(), query, headers).prop_map(|(host, method, path, query, headers)| Request {
        host,
        method,
        path,
        query: query.map(str::to_owned),
        headers: headers
            .into_iter()
            .map(|(name, value)| (name, value.parse().unwrap()))
            .collect(),
    })
}

fn name() -> impl Strategy<Value = String> {
    vec(select(vec!["a", "b", "ab"]), 1..4).prop_map(|labels| labels.join("."))
}

fn host() -> impl Strategy<Value = String> {
    let end = select(vec!["", ".", ":80"]);
    (name(), end, any::<bool>()).prop_map(|(name, end, upper)| match upper {
        true => name.to_ascii_uppercase() + end,
        false => name + end,
    })
}

fn path() -> impl Strategy<Value = String> {
    vec(select(vec!["/", "/a", "/ab", "/b"]), 1..4).prop_map(|parts| parts.concat())
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    select(vec!["x-a", "x-b"]).prop_map(HeaderName::from_static)
}

fn value() -> impl Strategy<Value = ValueMatch> {
    select(vec!["1", "2"]).prop_map(|value| ValueMatch::Exact(value.as_bytes().into()))
}

fn method() -> impl Strategy<Value = Method> {
    select(vec![Method::GET, Method::POST])
}
