//! The request that is asked about.

use std::str::FromStr;

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use outrigger_policy::route::Head;

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Its path, with its query.
    pub path: String,
    /// Its host; that of the destination where none is given.
    pub host: Option<String>,
    /// Its headers.
    pub headers: HeaderMap,
}

/// A header on the command line: `name: value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header(pub HeaderName, pub HeaderValue);

impl Request {
    /// A request; a header `host` is its host.
    pub fn new(method: Method, path: &str, headers: &[Header]) -> Self {
        let mut all = HeaderMap::new();
        for Header(name, value) in headers {
            all.append(name, value.clone());
        }
        let host = all.remove(http::header::HOST);
        Self {
            method,
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            },
            host: host.and_then(|host| host.to_str().map(str::to_owned).ok()),
            headers: all,
        }
    }

    /// What matchers look at; `host` is the destination's.
    pub fn head<'a>(&'a self, host: &'a str) -> Head<'a> {
        let (path, query) = match self.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.path.as_str(), None),
        };
        Head {
            host: self.host.as_deref().unwrap_or(host),
            method: &self.method,
            path,
            query,
            headers: &self.headers,
        }
    }
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is no header: write 'name: value'");
        let (name, value) = text.split_once(':').ok_or_else(refused)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| refused())?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| refused())?;
        Ok(Self(name, value))
    }
}
