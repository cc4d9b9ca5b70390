//! Conditions of ServiceProfile routes: all, any, not, over path and method.

use http::Method;

use crate::route::pattern::Pattern;
use crate::route::request::Head;

/// What must hold of a request (`destination.RequestMatch`).
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// All of these; none of them: always.
    All(Vec<Self>),
    /// One of these; none of them: never.
    Any(Vec<Self>),
    /// Not this.
    Not(Box<Self>),
    /// The pattern matches the whole path.
    Path(Pattern),
    /// The method.
    Method(Method),
}

impl Condition {
    /// Whether it holds.
    pub fn holds(&self, head: &Head<'_>) -> bool {
        match self {
            Self::All(all) => all.iter().all(|c| c.holds(head)),
            Self::Any(any) => any.iter().any(|c| c.holds(head)),
            Self::Not(not) => !not.holds(head),
            Self::Path(pattern) => pattern.matches(head.path.as_bytes()),
            Self::Method(method) => method == head.method,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_nest() {
        let headers = http::HeaderMap::new();
        let get = |path| Head {
            host: "",
            method: &Method::GET,
            path,
            query: None,
            headers: &headers,
        };
        let path = |text| Condition::Path(Pattern::new(text).unwrap());
        let reading = Condition::All(vec![
            Condition::Method(Method::GET),
            Condition::Not(Box::new(Condition::Any(vec![
                path("^/admin/.*$"),
                path("/login"),
            ]))),
        ]);
        assert!(reading.holds(&get("/books")) && reading.holds(&get("/login/x")));
        assert!(!reading.holds(&get("/login")) && !reading.holds(&get("/admin/x")));
        assert!(Condition::All(vec![]).holds(&get("/")) && !Condition::Any(vec![]).holds(&get("/")));
    }
}
