//! Routes indexed by path: what a request costs does not grow with routes that are for other paths.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use crate::name::ResourceRef;
use crate::route::host::{self, HostSpecificity};
use crate::route::path::PathMatch;
use crate::route::request::{Head, RequestSpecificity};
use crate::route::{Found, RouteTable, Rule};

/// Up to so many rules, going through all of them is quicker.
const FEW: usize = 16;

/// A table with an index over the paths of its rules; it finds what the table finds.
#[derive(Clone, Debug, PartialEq)]
pub struct Indexed<R> {
    table: RouteTable<R>,
    index: Index,
}

/// An index over the paths of a table's rules; empty where they are few. It belongs to the table it was made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Index(Option<Paths>);

#[derive(Clone, Debug, Default, PartialEq)]
struct Paths {
    /// Rules by exact path, and by prefix without its trailing slashes.
    by_path: HashMap<Arc<str>, Vec<Position>>,
    /// Rules that any path may take.
    others: Vec<Position>,
    /// Slashes in the path with the most of them.
    slashes: usize,
}

/// Route and rule, in the order in which they are listed.
type Position = (usize, usize);

/// What decides between two rules that apply: the first listed of equals.
type Rank = (HostSpecificity, RequestSpecificity, Reverse<Position>);

impl<R> Indexed<R> {
    /// Indexes a table.
    pub fn new(table: RouteTable<R>) -> Self {
        Self {
            index: Index::new(&table),
            table,
        }
    }

    /// What [`RouteTable::find`] finds; see [`Index::find`].
    pub fn find(&self, head: &Head<'_>) -> Option<Found<'_, R>> {
        self.index.find(&self.table, head)
    }

    /// Every rule with its route, in order.
    pub fn rules(&self) -> impl Iterator<Item = (&Arc<ResourceRef>, &R)> {
        self.table.rules()
    }
}

impl Index {
    /// Of this table.
    pub fn new<R>(table: &RouteTable<R>) -> Self {
        let many = table.rules().nth(FEW).is_some();
        Self(many.then(|| Paths::of(table)))
    }

    /// What [`RouteTable::find`] finds. The cost grows with the segments of the paths in the table, with the rules for
    /// the request's own path, and with those for any path.
    pub fn find<'a, R>(&self, table: &'a RouteTable<R>, head: &Head<'_>) -> Option<Found<'a, R>> {
        let Some(paths) = &self.0 else {
            return table.find(head);
        };
        let host = host::of_authority(head.host);
        let mut best: Option<(Rank, Found<'_, R>)> = None;
        for position @ (route, rule) in paths.candidates(head.path) {
            let route = &table.routes[route];
            let rule: &Rule<R> = &route.rules[rule];
            let Some((by_request, matched)) = rule.closest(head) else {
                continue;
            };
            let Some(by_host) = host::most_specific(&route.hosts, host) else {
                continue;
            };
            let rank = (by_host, by_request, Reverse(position));
            if best.as_ref().is_none_or(|(best, _)| rank > *best) {
                let found = Found {
                    meta: &route.meta,
                    then: &rule.then,
                    matched,
                };
                best = Some((rank, found));
            }
        }
        best.map(|(_, found)| found)
    }
}

impl Paths {
    fn of<R>(table: &RouteTable<R>) -> Self {
        let mut index = Self::default();
        for (i, route) in table.routes.iter().enumerate() {
            for (j, rule) in route.rules.iter().enumerate() {
                index.add((i, j), rule);
            }
        }
        index
    }

    /// A rule stands under each of its paths; one that has a match for any path stands under none.
    fn add<R>(&mut self, position: Position, rule: &Rule<R>) {
        let path = |path: &Option<PathMatch>| match path {
            Some(PathMatch::Exact(path)) => Some(path.clone()),
            Some(PathMatch::Prefix(prefix)) => Some(prefix.trim_end_matches('/').into()),
            Some(PathMatch::Regex(_)) | None => None,
        };
        let paths: Option<Vec<Arc<str>>> = rule.matches.iter().map(|one| path(&one.path)).collect();
        match paths.filter(|paths| !paths.is_empty()) {
            None => self.others.push(position),
            Some(paths) => {
                for path in paths {
                    self.slashes = self.slashes.max(slashes(&path).count());
                    let positions = self.by_path.entry(path).or_default();
                    if positions.last() != Some(&position) {
                        positions.push(position);
                    }
                }
            }
        }
    }

    /// The rules that may take a path, some twice: those for every path, for the path itself, for what is before each of
    /// its slashes, and for none in particular.
    /// Slashes beyond those of the longest path in the table are not looked at.
    fn candidates(&self, path: &str) -> impl Iterator<Item = Position> {
        let prefixes = slashes(path).take(self.slashes + 1).map(|end| &path[..end]);
        let listed = ["", path]
            .into_iter()
            .chain(prefixes)
            .filter_map(|path| self.by_path.get(path));
        listed.flatten().chain(&self.others).copied()
    }
}

fn slashes(path: &str) -> impl Iterator<Item = usize> {
    path.bytes()
        .enumerate()
        .filter(|(_, byte)| *byte == b'/')
        .map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Route;
    use crate::route::request::RequestMatch;
    use http::{HeaderMap, Method};

    fn table(paths: &[PathMatch]) -> RouteTable<usize> {
        let rule = |(then, path): (usize, &PathMatch)| Rule {
            matches: vec![RequestMatch {
                path: Some(path.clone()),
                ..RequestMatch::default()
            }],
            then,
        };
        RouteTable {
            routes: vec![Route {
                meta: Arc::new(ResourceRef::of_default("test")),
                hosts: vec![],
                rules: paths.iter().enumerate().map(rule).collect(),
            }],
        }
    }

    #[test]
    fn an_indexed_table_finds_what_the_table_finds() {
        let prefix = |path: &str| PathMatch::Prefix(path.into());
        let exact = |path: &str| PathMatch::Exact(path.into());
        let mut paths: Vec<_> = (0..20).map(|i| prefix(&format!("/other/{i}"))).collect();
        let own = ["/", "/a", "/a/", "/a/b/", "/a//b", "", "*", "/x/y/z"];
        paths.extend(own.map(prefix));
        paths.extend(own.map(exact));
        paths.push(PathMatch::regex("/a/[0-9]+").unwrap());
        let table = table(&paths);
        let indexed = Indexed::new(table.clone());
        assert!(indexed.index.0.is_some());
        let headers = HeaderMap::new();
        for path in own.into_iter().chain([
            "/a/7",
            "/a/b/c/",
            "/ab",
            "/x/y",
            "//",
            "/other/3/4/5/6/7",
            "/é/b",
            "x",
        ]) {
            let head = Head {
                host: "",
                method: &Method::GET,
                path,
                query: None,
                headers: &headers,
            };
            assert_eq!(indexed.find(&head), table.find(&head), "{path}");
        }
    }

    #[test]
    fn a_path_of_slashes_is_looked_up_no_more_often_than_the_table_is_deep() {
        let index = Paths::of(&table(&[
            PathMatch::Prefix("/a/b".into()),
            PathMatch::Exact("/c".into()),
        ]));
        assert_eq!(index.slashes, 2);
        let path = "/".repeat(10_000);
        assert_eq!(slashes(&path).take(index.slashes + 1).count(), 3);
        assert_eq!(index.candidates(&path).count(), 0);
    }

    #[test]
    fn few_rules_have_no_index() {
        assert!(Index::new(&table(&[PathMatch::Exact("/".into())])).0.is_none());
    }
}
