//! Request matchers: the conjunction of path, headers, query parameters and method, for HTTP and for gRPC.

use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::route::condition::Condition;
use crate::route::header::{HeaderMatch, QueryMatch};
use crate::route::path::PathMatch;

/// What a route may look at in a request.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The authority of the target or `Host`; may be empty, may have a port.
    pub host: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The path, raw.
    pub path: &'a str,
    /// The query without its `?`, raw.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// Everything that must hold of a request (`HttpRouteMatch`, or a `GrpcRouteMatch` lowered to it).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RequestMatch {
    /// The path; `None` matches every path.
    pub path: Option<PathMatch>,
    /// gRPC service and method (`/service/method`); then the request must be a POST.
    pub rpc: Option<RpcMatch>,
    /// All of these headers.
    pub headers: Vec<HeaderMatch>,
    /// All of these query parameters.
    pub query: Vec<QueryMatch>,
    /// The method.
    pub method: Option<Method>,
    /// The condition of a ServiceProfile route. It makes a match no closer, so that of several the first listed wins.
    pub condition: Option<Condition>,
}

/// A gRPC method; an absent or empty part matches all.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RpcMatch {
    /// Full service name, `package.Service`.
    pub service: Option<Arc<str>>,
    /// Method name.
    pub method: Option<Arc<str>>,
}

/// How closely a matcher describes a request; the greater wins. The fields stand in the order in which they decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestSpecificity {
    path: usize,
    rpc: (usize, usize),
    headers: usize,
    query: usize,
    method: bool,
}

impl RequestMatch {
    /// How closely this describes the request; `None` when it does not apply.
    pub fn specificity(&self, head: &Head<'_>) -> Option<RequestSpecificity> {
        if self.method.as_ref().is_some_and(|method| method != head.method) {
            return None;
        }
        let path = self.path.as_ref().map_or(Some(0), |p| p.specificity(head.path))?;
        let rpc = self
            .rpc
            .as_ref()
            .map_or(Some((0, 0)), |rpc| rpc.specificity(head))?;
        let query = head.query.unwrap_or_default();
        let all = self.headers.iter().all(|h| h.matches(head.headers))
            && self.query.iter().all(|q| q.matches(query))
            && self.condition.as_ref().is_none_or(|c| c.holds(head));
        all.then_some(RequestSpecificity {
            path,
            rpc,
            headers: self.headers.len(),
            query: self.query.len(),
            method: self.method.is_some(),
        })
    }

    /// The length of the path prefix that this matches; `None` when it matches paths in another way.
    pub fn prefix(&self) -> Option<usize> {
        match &self.path {
            None => (self.rpc.is_none() && self.condition.is_none()).then_some(0),
            Some(path) => path.prefix(),
        }
    }
}

impl RpcMatch {
    /// Lengths of the service and method matched; `None` when the request is another call, or none.
    fn specificity(&self, head: &Head<'_>) -> Option<(usize, usize)> {
        let (service, rest) = head.path.strip_prefix('/')?.split_once('/')?;
        let method = rest.split_once('/').map_or(rest, |(method, _)| method);
        let call = head.method == Method::POST && !service.is_empty() && !method.is_empty();
        let lengths = (part(&self.service, service)?, part(&self.method, method)?);
        call.then_some(lengths)
    }
}

fn part(wanted: &Option<Arc<str>>, given: &str) -> Option<usize> {
    match wanted.as_deref() {
        None | Some("") => Some(0),
        Some(wanted) => (wanted == given).then_some(wanted.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::header::ValueMatch;

    static NO_HEADERS: std::sync::LazyLock<HeaderMap> = std::sync::LazyLock::new(HeaderMap::new);

    fn post(path: &str) -> Head<'_> {
        Head {
            host: "",
            method: &Method::POST,
            path,
            query: None,
            headers: &NO_HEADERS,
        }
    }

    fn rpc(service: &str, method: &str) -> RequestMatch {
        RequestMatch {
            rpc: Some(RpcMatch {
                service: Some(service.into()),
                method: Some(method.into()),
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_grpc_match_needs_a_post_to_service_and_method() {
        let call = rpc("emoji.v1.Emoji", "Find");
        assert!(call.specificity(&post("/emoji.v1.Emoji/Find")).is_some());
        for path in [
            "/emoji.v1.Emoji",
            "/emoji.v1.Emoji/",
            "/emoji.v1.Emoji/Find2",
            "emoji.v1.Emoji/Find",
            "",
        ] {
            assert_eq!(call.specificity(&post(path)), None, "{path}");
        }
        let get = Head {
            method: &Method::GET,
            ..post("/emoji.v1.Emoji/Find")
        };
        assert_eq!(call.specificity(&get), None);
    }

    #[test]
    fn an_empty_part_of_a_grpc_match_is_any() {
        let head = post("/s/m");
        assert!(rpc("", "").specificity(&head) < rpc("", "m").specificity(&head));
        assert!(rpc("", "m").specificity(&head) < rpc("s", "").specificity(&head));
        assert!(rpc("s", "").specificity(&head) < rpc("s", "m").specificity(&head));
    }

    #[test]
    fn path_then_headers_then_query_then_method_decide() {
        let specificity = |path, headers, query, method| RequestSpecificity {
            path,
            rpc: (0, 0),
            headers,
            query,
            method,
        };
        assert!(specificity(2, 0, 0, false) > specificity(1, 9, 9, true));
        assert!(specificity(1, 2, 0, false) > specificity(1, 1, 9, true));
        assert!(specificity(1, 1, 1, false) > specificity(1, 1, 0, true));
        assert!(specificity(1, 1, 1, true) > specificity(1, 1, 1, false));
    }

    #[test]
    fn all_of_the_parts_must_match() {
        let mut all = RequestMatch {
            method: Some(Method::POST),
            query: vec![QueryMatch {
                name: "a".into(),
                value: ValueMatch::Exact((*b"1").into()),
            }],
            ..Default::default()
        };
        let head = Head {
            query: Some("a=1"),
            ..post("/")
        };
        assert!(all.specificity(&head).is_some());
        assert_eq!(all.specificity(&post("/")), None);
        all.method = Some(Method::GET);
        assert_eq!(all.specificity(&head), None);
    }
}
