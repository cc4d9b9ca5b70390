//! Filters: edits of headers, redirects, rewrites, injected failures and delays.

use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderName};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};

use crate::classify::GrpcStatus;

/// What a rule or a backend does to a request on its way, or to the response on its way back.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Answers a share of the requests with a failure.
    Fail(InjectedFailure),
    /// Edits the request's headers.
    RequestHeaders(HeaderEdits),
    /// Edits the response's headers.
    ResponseHeaders(HeaderEdits),
    /// Sends the client elsewhere.
    Redirect(Redirect),
    /// Changes host or path on the way to the backend.
    Rewrite(Rewrite),
    /// Lets a share of the requests wait.
    Delay(Delay),
}

/// A failure that is answered without asking a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct InjectedFailure {
    /// The answer.
    pub status: InjectedStatus,
    /// Why, for `l5d-proxy-error` and `grpc-message`.
    pub message: Arc<str>,
    /// The share of requests.
    pub ratio: Ratio,
}

/// The status of an injected failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedStatus {
    /// An HTTP status.
    Http(StatusCode),
    /// A gRPC code, answered with 200 and no body.
    Grpc(GrpcStatus),
}

/// A share of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ratio {
    numerator: u32,
    denominator: u32,
}

/// Edits of headers, applied in the order of the fields.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct HeaderEdits {
    /// Added to what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// In place of what is there; the last of equal names wins.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Taken away.
    pub remove: Vec<HeaderName>,
}

/// A redirect; what is `None` stays as the request has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// The scheme.
    pub scheme: Option<Scheme>,
    /// The host, without a port; IPv6 addresses in brackets.
    pub host: Option<Arc<str>>,
    /// The port.
    pub port: Option<u16>,
    /// The path.
    pub path: Option<PathRewrite>,
    /// The status, 3xx.
    pub status: StatusCode,
}

/// A rewrite on the way to the backend; what is `None` stays as the request has it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Rewrite {
    /// The host, with its port if it has one.
    pub host: Option<Authority>,
    /// The path; the query stays.
    pub path: Option<PathRewrite>,
}

/// How a path is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// The whole path. A redirect loses its query, unless this text has one.
    Full(Arc<str>),
    /// The prefix that matched, by whole segments; the query stays.
    Prefix(Arc<str>),
}

/// A wait before a request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// How long.
    pub duration: Duration,
    /// The share of requests.
    pub ratio: Ratio,
}

/// What the filters made of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Filtered<'a> {
    /// It goes on, after this wait.
    Pass(Duration),
    /// It is answered with an injected failure.
    Fail(&'a InjectedFailure),
    /// It is answered with a redirect.
    Redirect {
        /// 3xx.
        status: StatusCode,
        /// `Location`.
        location: HeaderValue,
    },
    /// A filter can't be applied to it: 500, with the reason.
    Inapplicable(&'static str),
}

/// Headers that say how a message is framed or a connection kept. To edit them would let two servers see two
/// different messages (RFC 9112 §11.2), so policies that ask for it are refused.
const FRAMING: [HeaderName; 7] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Applies the filters that concern requests, in order, until one of them answers.
///
/// `authority` is the request's, with its port if it has one; `prefix` the length of the path prefix that matched,
/// if one did.
pub fn request<'a>(
    filters: &'a [Filter],
    head: &mut Parts,
    authority: &str,
    prefix: Option<usize>,
    rng: &mut fastrand::Rng,
) -> Filtered<'a> {
    let mut wait = Duration::ZERO;
    for filter in filters {
        match filter {
            Filter::Fail(failure) if failure.ratio.applies(rng) => return Filtered::Fail(failure),
            Filter::RequestHeaders(edits) => edits.apply(&mut head.headers),
            Filter::Redirect(redirect) => match redirect.location(&head.uri, authority, prefix) {
                Ok(None) => {}
                Ok(Some(location)) => {
                    let status = redirect.status;
                    return Filtered::Redirect { status, location };
                }
                Err(why) => return Filtered::Inapplicable(why),
            },
            Filter::Rewrite(rewrite) => {
                if let Err(why) = rewrite.apply(head, prefix) {
                    return Filtered::Inapplicable(why);
                }
            }
            Filter::Delay(delay) if delay.ratio.applies(rng) => wait = wait.saturating_add(delay.duration),
            Filter::Fail(_) | Filter::Delay(_) | Filter::ResponseHeaders(_) => {}
        }
    }
    Filtered::Pass(wait)
}

/// Applies the filters that concern responses, in order.
pub fn response(filters: &[Filter], headers: &mut HeaderMap) {
    for filter in filters {
        if let Filter::ResponseHeaders(edits) = filter {
            edits.apply(headers);
        }
    }
}

impl Ratio {
    /// Every request.
    pub const ALWAYS: Self = Self {
        numerator: 1,
        denominator: 1,
    };

    /// `numerator` of `denominator`; `None` when the denominator is zero or the share is above one.
    pub fn new(numerator: u32, denominator: u32) -> Option<Self> {
        (denominator > 0 && numerator <= denominator).then_some(Self {
            numerator,
            denominator,
        })
    }

    /// The two numbers.
    pub fn parts(self) -> (u32, u32) {
        (self.numerator, self.denominator)
    }

    /// Draws whether a request is among those meant.
    pub fn applies(self, rng: &mut fastrand::Rng) -> bool {
        self.numerator == self.denominator || rng.u32(..self.denominator) < self.numerator
    }
}

impl HeaderEdits {
    /// Adds, then sets, then removes.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }

    /// The first header named here that must not be edited: it frames messages.
    pub fn framing(&self) -> Option<&HeaderName> {
        let named = self.add.iter().chain(&self.set).map(|(name, _)| name);
        named.chain(&self.remove).find(|name| FRAMING.contains(name))
    }
}

impl Redirect {
    /// `Location` for a request; `None` when it would lead to where the request already is.
    pub fn location(
        &self,
        uri: &Uri,
        authority: &str,
        prefix: Option<usize>,
    ) -> Result<Option<HeaderValue>, &'static str> {
        let asked_scheme = uri.scheme_str().unwrap_or("http");
        let scheme = self.scheme.as_ref().map_or(asked_scheme, Scheme::as_str);
        let asked_path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let path = match &self.path {
            None => asked_path.to_owned(),
            Some(PathRewrite::Full(full)) => full.to_string(),
            Some(rewrite @ PathRewrite::Prefix(_)) => {
                with_query(rewrite.path(uri.path(), prefix)?, uri.query())
            }
        };
        let location = format!("{scheme}://{}{path}", self.authority(authority, scheme));
        if location == format!("{asked_scheme}://{authority}{asked_path}") {
            return Ok(None);
        }
        match (location.parse::<Uri>(), HeaderValue::try_from(location)) {
            (Ok(_), Ok(value)) => Ok(Some(value)),
            _ => Err("the redirect gives no valid URI for this request"),
        }
    }

    /// The port of the request is kept, unless it is the scheme's own; one that is given is left out where it is.
    fn authority(&self, asked: &str, scheme: &str) -> String {
        if self.host.is_none() && self.port.is_none() {
            return asked.to_owned();
        }
        let parsed = asked.parse::<Authority>().ok();
        let asked_host = parsed.as_ref().map_or(asked, Authority::host);
        let host = self.host.as_deref().unwrap_or(asked_host);
        let port = self
            .port
            .or_else(|| parsed.as_ref().and_then(Authority::port_u16));
        match (port, scheme) {
            (None, _) | (Some(80), "http") | (Some(443), "https") => host.to_owned(),
            (Some(port), _) => format!("{host}:{port}"),
        }
    }
}

impl Rewrite {
    /// Changes the request's target, and `Host` where it has one.
    fn apply(&self, head: &mut Parts, prefix: Option<usize>) -> Result<(), &'static str> {
        let failed = "the rewrite gives no valid URI for this request";
        let mut uri = head.uri.clone().into_parts();
        if let Some(path) = &self.path {
            let new = with_query(path.path(head.uri.path(), prefix)?, head.uri.query());
            uri.path_and_query = Some(new.parse().map_err(|_| failed)?);
        }
        if let Some(host) = &self.host {
            if uri.authority.is_some() {
                uri.authority = Some(host.clone());
            }
            if uri.authority.is_none() || head.headers.contains_key(header::HOST) {
                let value = HeaderValue::from_str(host.as_str()).map_err(|_| failed)?;
                head.headers.insert(header::HOST, value);
            }
        }
        head.uri = Uri::from_parts(uri).map_err(|_| failed)?;
        Ok(())
    }
}

impl PathRewrite {
    /// What replaces the path, without its query.
    fn path(&self, path: &str, prefix: Option<usize>) -> Result<String, &'static str> {
        let replacement = match self {
            Self::Full(full) => return Ok(full.to_string()),
            Self::Prefix(replacement) => replacement.trim_end_matches('/'),
        };
        let prefix = prefix.ok_or("a prefix is to be replaced where no path prefix matched")?;
        match path.get(prefix..) {
            Some("") if replacement.is_empty() => Ok("/".to_owned()),
            Some(rest) if rest.is_empty() || rest.starts_with('/') => Ok(format!("{replacement}{rest}")),
            _ => Err("a prefix is to be replaced in a target that is not a path"),
        }
    }
}

fn with_query(path: String, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn head(uri: &str) -> Parts {
        Request::builder().uri(uri).body(()).unwrap().into_parts().0
    }

    fn apply<'a>(filters: &'a [Filter], head: &mut Parts, prefix: Option<usize>) -> Filtered<'a> {
        let rng = &mut fastrand::Rng::with_seed(1);
        request(filters, head, "web.demo:8080", prefix, rng)
    }

    fn name(text: &'static str) -> HeaderName {
        HeaderName::from_static(text)
    }

    fn value(text: &'static str) -> HeaderValue {
        HeaderValue::from_static(text)
    }

    fn redirect() -> Redirect {
        Redirect {
            scheme: None,
            host: None,
            port: None,
            path: None,
            status: StatusCode::MOVED_PERMANENTLY,
        }
    }

    #[test]
    fn headers_are_added_then_set_then_removed() {
        let edits = HeaderEdits {
            add: vec![
                (name("a"), value("2")),
                (name("b"), value("2")),
                (name("c"), value("2")),
            ],
            set: vec![(name("b"), value("3")), (name("c"), value("3"))],
            remove: vec![name("c"), name("absent")],
        };
        let mut headers = HeaderMap::from_iter([(name("a"), value("1")), (name("b"), value("1"))]);
        edits.apply(&mut headers);
        let all = |name| {
            headers
                .get_all(name)
                .iter()
                .map(|v| v.to_str().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (all("a"), all("b"), all("c")),
            (vec!["1", "2"], vec!["3"], vec![])
        );
    }

    #[test]
    fn filters_of_the_other_direction_are_passed_over() {
        let edits = HeaderEdits {
            add: vec![(name("x"), value("1"))],
            ..HeaderEdits::default()
        };
        let filters = [Filter::ResponseHeaders(edits)];
        let mut head = head("/a");
        assert_eq!(apply(&filters, &mut head, None), Filtered::Pass(Duration::ZERO));
        assert!(head.headers.is_empty());
        response(&filters, &mut head.headers);
        assert_eq!(head.headers["x"], "1");
    }

    #[test]
    fn headers_that_frame_messages_are_named() {
        let edits = HeaderEdits {
            remove: vec![name("x-a"), name("transfer-encoding")],
            ..HeaderEdits::default()
        };
        assert_eq!(edits.framing(), Some(&name("transfer-encoding")));
        assert_eq!(HeaderEdits::default().framing(), None);
    }

    #[test]
    fn a_share_of_requests_fails_and_another_waits() {
        let half = Ratio::new(1, 2).unwrap();
        let failure = InjectedFailure {
            status: InjectedStatus::Http(StatusCode::IM_A_TEAPOT),
            message: "tea".into(),
            ratio: half,
        };
        let delay = Delay {
            duration: Duration::from_millis(5),
            ratio: half,
        };
        let filters = [Filter::Fail(failure), Filter::Delay(delay)];
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut failed, mut waited) = (0, 0);
        for _ in 0..10_000 {
            match request(&filters, &mut head("/"), "web", None, &mut rng) {
                Filtered::Fail(failure) => failed += usize::from(&*failure.message == "tea"),
                Filtered::Pass(wait) => waited += usize::from(wait == delay.duration),
                other => panic!("{other:?}"),
            }
        }
        assert!(
            (4800..5200).contains(&failed) && (2300..2700).contains(&waited),
            "{failed} {waited}"
        );
    }

    #[test]
    fn shares_are_from_none_to_all() {
        let mut rng = fastrand::Rng::with_seed(1);
        assert!((0..100).all(|_| Ratio::ALWAYS.applies(&mut rng)));
        let never = Ratio::new(0, 7).unwrap();
        assert!((0..100).all(|_| !never.applies(&mut rng)));
        assert_eq!((Ratio::new(1, 0), Ratio::new(3, 2)), (None, None));
    }

    fn location(redirect: &Redirect, uri: &str, authority: &str, prefix: Option<usize>) -> Option<String> {
        let value = redirect
            .location(&uri.parse().unwrap(), authority, prefix)
            .unwrap();
        value.map(|v| v.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_redirect_keeps_what_it_does_not_name() {
        let https = Redirect {
            scheme: Some(Scheme::HTTPS),
            ..redirect()
        };
        let got = location(&https, "/a?b=1", "web:8080", None);
        assert_eq!(got.as_deref(), Some("https://web:8080/a?b=1"));
        assert_eq!(location(&redirect(), "/a?b=1", "web:8080", None), None);
    }

    #[test]
    fn a_port_is_left_out_where_it_is_the_schemes_own() {
        let host = Redirect {
            host: Some("new.example".into()),
            ..redirect()
        };
        for (authority, expected) in [
            ("web:80", "http://new.example/"),
            ("web:8080", "http://new.example:8080/"),
            ("web", "http://new.example/"),
            ("[::1]:8080", "http://new.example:8080/"),
        ] {
            assert_eq!(
                location(&host, "/", authority, None).as_deref(),
                Some(expected),
                "{authority}"
            );
        }
        let port = |scheme, port| {
            let redirect = Redirect {
                scheme: Some(scheme),
                port: Some(port),
                ..redirect()
            };
            location(&redirect, "/", "web:8080", None).unwrap()
        };
        assert_eq!(port(Scheme::HTTPS, 443), "https://web/");
        assert_eq!(port(Scheme::HTTP, 443), "http://web:443/");
    }

    #[test]
    fn a_prefix_is_replaced_by_whole_segments_and_the_query_stays() {
        for (replacement, uri, expected) in [
            ("/xyz", "/foo/bar?q", "/xyz/bar?q"),
            ("/xyz/", "/foo/bar", "/xyz/bar"),
            ("/xyz", "/foo", "/xyz"),
            ("/xyz", "/foo/", "/xyz/"),
            ("/", "/foo/bar", "/bar"),
            ("", "/foo", "/"),
        ] {
            let rewrite = Rewrite {
                path: Some(PathRewrite::Prefix(replacement.into())),
                host: None,
            };
            let mut head = head(uri);
            rewrite.apply(&mut head, Some(4)).unwrap();
            assert_eq!(head.uri.to_string(), expected, "{replacement} {uri}");
        }
    }

    #[test]
    fn a_prefix_that_did_not_match_is_not_replaced() {
        let path = Some(PathRewrite::Prefix("/x".into()));
        let filters = [Filter::Redirect(Redirect { path, ..redirect() })];
        assert!(matches!(
            apply(&filters, &mut head("/foo"), None),
            Filtered::Inapplicable(_)
        ));
        assert!(matches!(
            apply(&filters, &mut head("*"), Some(0)),
            Filtered::Inapplicable(_)
        ));
        assert!(matches!(
            apply(&filters, &mut head("/"), Some(40)),
            Filtered::Inapplicable(_)
        ));
    }

    #[test]
    fn a_full_path_loses_the_query_of_a_redirect_and_keeps_that_of_a_rewrite() {
        let path = Some(PathRewrite::Full("/new".into()));
        let redirect = Redirect {
            path: path.clone(),
            ..redirect()
        };
        assert_eq!(
            location(&redirect, "/a?q", "web", None).as_deref(),
            Some("http://web/new")
        );
        let mut head = head("/a?q");
        Rewrite { path, host: None }.apply(&mut head, None).unwrap();
        assert_eq!(head.uri, "/new?q");
    }

    #[test]
    fn a_text_that_gives_no_uri_answers_instead_of_passing() {
        let path = Some(PathRewrite::Full("/a b\r\nset-cookie: x".into()));
        let redirect = [Filter::Redirect(Redirect {
            path: path.clone(),
            ..redirect()
        })];
        let rewrite = [Filter::Rewrite(Rewrite { path, host: None })];
        for filters in [redirect, rewrite] {
            assert!(matches!(
                apply(&filters, &mut head("/"), None),
                Filtered::Inapplicable(_)
            ));
        }
    }

    #[test]
    fn a_host_is_rewritten_in_the_target_and_in_its_header() {
        let rewrite = Rewrite {
            host: Some(Authority::from_static("new.example:81")),
            path: None,
        };
        let mut absolute = head("http://web/a");
        rewrite.apply(&mut absolute, None).unwrap();
        assert_eq!(absolute.uri, "http://new.example:81/a");
        assert!(absolute.headers.is_empty());
        let mut origin = head("/a");
        origin.headers.insert("host", value("web"));
        rewrite.apply(&mut origin, None).unwrap();
        assert_eq!(
            (origin.uri.to_string().as_str(), &origin.headers["host"]),
            ("/a", &value("new.example:81"))
        );
    }
}
