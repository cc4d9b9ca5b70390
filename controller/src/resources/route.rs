//! Routes as the Gateway API writes them: HTTPRoute, GRPCRoute, TLSRoute, TCPRoute.

use std::fmt;

use http::Method;
use http::header::{HeaderName, HeaderValue};
use outrigger_policy::name::DnsName;
use outrigger_policy::route::header::{HeaderMatch, QueryMatch, ValueMatch};
use outrigger_policy::route::host::HostMatch;
use outrigger_policy::route::path::PathMatch;
use serde::Deserialize;

use crate::resources::values::{GatewayDuration, ObjectRef, RedirectStatus};

/// What an HTTPRoute, GRPCRoute, TLSRoute or TCPRoute says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, bound = "R: Deserialize<'de>")]
pub struct Route<R> {
    /// What it is attached to.
    pub parent_refs: Option<Vec<ParentRef>>,
    /// The hosts it applies to; all where none is given.
    pub hostnames: Option<Vec<Hostname>>,
    /// Its rules; where there are none, everything goes to the parent.
    pub rules: Option<Vec<R>>,
}

/// What a route is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ParentRef {
    /// API group; that of Gateways where none is given.
    pub group: Option<String>,
    /// Kind; Gateway where none is given.
    pub kind: Option<String>,
    /// Namespace; the route's own where none is given.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// A section of the parent (Gateways only).
    pub section_name: Option<String>,
    /// One port of it; all where none is given.
    pub port: Option<u16>,
}

/// A rule of an HTTPRoute.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRule {
    /// Its name.
    pub name: Option<String>,
    /// Any one of these; everything where none is given.
    pub matches: Option<Vec<HttpMatch>>,
    /// What is done to requests and responses.
    pub filters: Option<Vec<HttpFilter>>,
    /// Where requests go.
    pub backend_refs: Option<Vec<BackendRef>>,
    /// How long they may take.
    pub timeouts: Option<Timeouts>,
}

/// A rule of a GRPCRoute.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcRule {
    /// Its name.
    pub name: Option<String>,
    /// Any one of these; everything where none is given.
    pub matches: Option<Vec<GrpcMatch>>,
    /// What is done to requests and responses.
    pub filters: Option<Vec<HttpFilter>>,
    /// Where requests go.
    pub backend_refs: Option<Vec<BackendRef>>,
}

/// A rule of a TLSRoute or TCPRoute.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamRule {
    /// Its name.
    pub name: Option<String>,
    /// Where connections go.
    pub backend_refs: Option<Vec<BackendRef>>,
}

/// A rule that leads somewhere.
pub trait Backends {
    /// Where.
    fn backends(&self) -> &[BackendRef];
}

/// What must hold of an HTTP request.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpMatch {
    /// Of its path.
    pub path: Option<Path>,
    /// Of its headers: all of these, of equal names the first.
    pub headers: Option<Vec<Header>>,
    /// Of its query parameters: all of these, of equal names the first.
    pub query_params: Option<Vec<QueryParam>>,
    /// Its method.
    pub method: Option<Token>,
}

/// What must hold of a gRPC call.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcMatch {
    /// Of its service and method.
    pub method: Option<GrpcMethod>,
    /// Of its headers: all of these, of equal names the first.
    pub headers: Option<Vec<Header>>,
}

/// A gRPC service and method.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcMethod {
    /// How they are compared.
    #[serde(rename = "type", default)]
    pub kind: ExactOrRegex,
    /// The service; any where none is given.
    pub service: Option<String>,
    /// The method; any where none is given.
    pub method: Option<String>,
}

/// How values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
pub enum ExactOrRegex {
    /// Equal.
    #[default]
    Exact,
    /// By a regular expression for the whole value.
    RegularExpression,
}

/// A condition on the path.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "WrittenPath")]
pub struct Path(pub PathMatch);

/// A condition on a header.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "WrittenValue")]
pub struct Header(pub HeaderMatch);

/// A condition on a query parameter.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "WrittenValue")]
pub struct QueryParam(pub QueryMatch);

/// A method.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Token(pub Method);

/// A host, or `*.` and what hosts end in.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Hostname(pub HostMatch);

/// A filter. Which of the fields must be there, the type says.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpFilter {
    /// What it does.
    #[serde(rename = "type")]
    pub kind: String,
    /// `RequestHeaderModifier`.
    pub request_header_modifier: Option<HeaderModifier>,
    /// `ResponseHeaderModifier`.
    pub response_header_modifier: Option<HeaderModifier>,
    /// `RequestRedirect`.
    pub request_redirect: Option<RequestRedirect>,
    /// `URLRewrite`.
    pub url_rewrite: Option<UrlRewrite>,
    /// `RequestMirror`.
    pub request_mirror: Option<RequestMirror>,
    /// `ExtensionRef`.
    pub extension_ref: Option<ObjectRef>,
}

/// Edits of headers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderModifier {
    /// In place of what is there.
    pub set: Option<Vec<HeaderEdit>>,
    /// Beside what is there.
    pub add: Option<Vec<HeaderEdit>>,
    /// Taken away.
    pub remove: Option<Vec<RemovedHeader>>,
}

/// A header to be written.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "WrittenHeader")]
pub struct HeaderEdit(pub HeaderName, pub HeaderValue);

/// A header to be taken away.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct RemovedHeader(pub HeaderName);

/// A redirect.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestRedirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// The host.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathModifier>,
    /// The port.
    pub port: Option<u16>,
    /// The status; 302 where none is given.
    pub status_code: Option<RedirectStatus>,
}

/// A rewrite on the way to the backend.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UrlRewrite {
    /// The host.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathModifier>,
}

/// How a path is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum PathModifier {
    /// The whole path.
    ReplaceFullPath {
        /// By this.
        #[serde(rename = "replaceFullPath")]
        replacement: String,
    },
    /// The prefix that matched.
    ReplacePrefixMatch {
        /// By this.
        #[serde(rename = "replacePrefixMatch")]
        replacement: String,
    },
}

/// Copies of requests.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestMirror {
    /// Where they go.
    pub backend_ref: BackendRef,
    /// The share of requests, in hundredths.
    pub percent: Option<u32>,
    /// The share of requests.
    pub fraction: Option<Fraction>,
}

/// A share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fraction {
    /// So many.
    pub numerator: u32,
    /// Of so many; 100 where nothing is said.
    pub denominator: Option<u32>,
}

/// Where a rule leads.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendRef {
    /// API group; Kubernetes' own where none is given.
    pub group: Option<String>,
    /// Kind; Service where none is given.
    pub kind: Option<String>,
    /// Namespace; the route's own where none is given.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// The port; Services need one.
    pub port: Option<u16>,
    /// Its part of the requests; 1 where nothing is said.
    pub weight: Option<u32>,
    /// What is done on the way there only.
    pub filters: Option<Vec<HttpFilter>>,
}

/// How long requests may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Timeouts {
    /// In all.
    pub request: Option<GatewayDuration>,
    /// Each attempt.
    pub backend_request: Option<GatewayDuration>,
}

/// The group of Gateways, which parents have where none is given.
pub const GATEWAY: &str = "gateway.networking.k8s.io";

/// The group of Linkerd's policies.
pub const LINKERD: &str = "policy.linkerd.io";

/// Most rules of a route, and most matches of a rule: as the Gateway API has them, with room.
const MOST: usize = 1_000;

impl Route<HttpRule> {
    /// What the types of its fields can't say.
    pub fn check(&self) -> Result<(), String> {
        let rules = self.rules.iter().flatten();
        for rule in rules {
            let named = rule.backend_refs.iter().flatten();
            check_filters(rule.filters.iter().flatten())?;
            check_backends(named)?;
            check_count(rule.matches.as_ref().map_or(0, Vec::len))?;
        }
        check_count(self.rules.as_ref().map_or(0, Vec::len))
    }
}

impl Route<GrpcRule> {
    /// What the types of its fields can't say.
    pub fn check(&self) -> Result<(), String> {
        for rule in self.rules.iter().flatten() {
            check_filters(rule.filters.iter().flatten())?;
            check_backends(rule.backend_refs.iter().flatten())?;
            check_count(rule.matches.as_ref().map_or(0, Vec::len))?;
        }
        check_count(self.rules.as_ref().map_or(0, Vec::len))
    }
}

impl Route<StreamRule> {
    /// What the types of its fields can't say.
    pub fn check_one_rule(&self) -> Result<(), String> {
        match self.rules.as_deref() {
            Some([rule]) => check_backends(rule.backend_refs.iter().flatten()),
            _ => Err("it needs exactly one rule".into()),
        }
    }
}

fn check_count(count: usize) -> Result<(), String> {
    match count > MOST {
        true => Err(format!(
            "more than {MOST} rules, or matches of one rule: write several routes"
        )),
        false => Ok(()),
    }
}

fn check_backends<'a>(mut backends: impl Iterator<Item = &'a BackendRef>) -> Result<(), String> {
    backends.try_for_each(|backend| {
        let weight = backend.weight.unwrap_or(1);
        if weight > 1_000_000 {
            return Err(format!(
                "the weight {weight} of {} is above 1000000",
                backend.name
            ));
        }
        check_filters(backend.filters.iter().flatten())
    })
}

/// Each filter has the field that its type says, and no other; mirrors alone may be there twice (Gateway API,
/// HTTPRouteRule).
fn check_filters<'a>(mut filters: impl Iterator<Item = &'a HttpFilter>) -> Result<(), String> {
    let mut seen: Vec<&str> = Vec::new();
    filters.try_for_each(|filter| {
        let kind = filter.kind.as_str();
        let excluded = match kind {
            "RequestMirror" | "ExtensionRef" => None,
            "RequestRedirect" => Some("URLRewrite"),
            "URLRewrite" => Some("RequestRedirect"),
            other => Some(other),
        };
        if let Some(other) = excluded.filter(|other| seen.contains(other) || seen.contains(&kind)) {
            return Err(format!(
                "a filter of type {kind} can't be together with one of type {other}: remove one"
            ));
        }
        seen.push(kind);
        let fields = [
            ("RequestHeaderModifier", filter.request_header_modifier.is_some()),
            (
                "ResponseHeaderModifier",
                filter.response_header_modifier.is_some(),
            ),
            ("RequestRedirect", filter.request_redirect.is_some()),
            ("URLRewrite", filter.url_rewrite.is_some()),
            ("RequestMirror", filter.request_mirror.is_some()),
            ("ExtensionRef", filter.extension_ref.is_some()),
        ];
        let own = fields
            .iter()
            .all(|(kind, given)| *given == (*kind == filter.kind));
        match own && fields.iter().any(|(_, given)| *given) {
            true => Ok(()),
            false => Err(format!(
                "a filter of type {:?} needs the field of that type, and no other",
                filter.kind
            )),
        }
    })
}

impl Backends for HttpRule {
    fn backends(&self) -> &[BackendRef] {
        self.backend_refs.as_deref().unwrap_or_default()
    }
}

impl Backends for GrpcRule {
    fn backends(&self) -> &[BackendRef] {
        self.backend_refs.as_deref().unwrap_or_default()
    }
}

impl Backends for StreamRule {
    fn backends(&self) -> &[BackendRef] {
        self.backend_refs.as_deref().unwrap_or_default()
    }
}

impl ParentRef {
    /// Whether a parent of this group and kind is meant.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        let own = match self.group.as_deref() {
            None => GATEWAY,
            Some("core") => "",
            Some(group) => group,
        };
        own == group && self.kind.as_deref().unwrap_or("Gateway") == kind
    }
}

impl fmt::Display for ParentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind.as_deref().unwrap_or("Gateway"))?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

impl BackendRef {
    /// Whether a backend of this group and kind is meant.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        let own = match self.group.as_deref().unwrap_or_default() {
            "core" => "",
            group => group,
        };
        own == group && self.kind.as_deref().unwrap_or("Service") == kind
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPath {
    #[serde(rename = "type")]
    kind: Option<PathKind>,
    value: Option<String>,
}

#[derive(Deserialize)]
enum PathKind {
    Exact,
    PathPrefix,
    RegularExpression,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenValue {
    #[serde(rename = "type", default)]
    kind: ExactOrRegex,
    name: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHeader {
    name: String,
    value: String,
}

impl WrittenValue {
    fn value(&self) -> Result<ValueMatch, String> {
        match self.kind {
            ExactOrRegex::Exact => Ok(ValueMatch::Exact(self.value.as_bytes().into())),
            ExactOrRegex::RegularExpression => {
                ValueMatch::regex(&self.value).map_err(|error| error.to_string())
            }
        }
    }
}

impl TryFrom<WrittenPath> for Path {
    type Error = String;

    fn try_from(written: WrittenPath) -> Result<Self, String> {
        let value = written.value.as_deref().unwrap_or("/");
        let kind = written.kind.unwrap_or(PathKind::PathPrefix);
        if !value.starts_with('/') && !matches!(kind, PathKind::RegularExpression) {
            return Err(format!("the path {value:?} must begin with /"));
        }
        Ok(Self(match kind {
            PathKind::Exact => PathMatch::Exact(value.into()),
            PathKind::PathPrefix => PathMatch::Prefix(value.into()),
            PathKind::RegularExpression => PathMatch::regex(value).map_err(|error| error.to_string())?,
        }))
    }
}

impl TryFrom<WrittenValue> for Header {
    type Error = String;

    fn try_from(written: WrittenValue) -> Result<Self, String> {
        Ok(Self(HeaderMatch {
            name: header_name(&written.name)?,
            value: written.value()?,
        }))
    }
}

impl TryFrom<WrittenValue> for QueryParam {
    type Error = String;

    fn try_from(written: WrittenValue) -> Result<Self, String> {
        Ok(Self(QueryMatch {
            name: written.name.as_str().into(),
            value: written.value()?,
        }))
    }
}

impl TryFrom<WrittenHeader> for HeaderEdit {
    type Error = String;

    fn try_from(written: WrittenHeader) -> Result<Self, String> {
        let value = HeaderValue::from_str(&written.value)
            .map_err(|_| format!("{:?} can't be the value of a header", written.value))?;
        Ok(Self(header_name(&written.name)?, value))
    }
}

impl TryFrom<String> for RemovedHeader {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        header_name(&name).map(Self)
    }
}

impl TryFrom<String> for Token {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Method::from_bytes(text.as_bytes())
            .map(Self)
            .map_err(|_| format!("{text:?} is no HTTP method"))
    }
}

impl TryFrom<String> for Hostname {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (name, is_suffix) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text.as_str(), false),
        };
        let name = DnsName::parse(name)
            .map_err(|_| format!("{text:?} is no host name (web.example.com, *.example.com)"))?;
        Ok(Self(match is_suffix {
            true => HostMatch::suffix(name.as_str()),
            false => HostMatch::exact(name.as_str()),
        }))
    }
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| format!("{text:?} is no header's name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'de, T: Deserialize<'de>>(json: &'de str) -> Result<T, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn a_path_without_a_type_is_a_prefix_and_without_a_value_the_root() {
        let path = |json| read::<Path>(json).map(|path| path.0);
        assert_eq!(path("{}"), Ok(PathMatch::Prefix("/".into())));
        assert_eq!(
            path(r#"{"type": "Exact", "value": "/a"}"#),
            Ok(PathMatch::Exact("/a".into()))
        );
        assert!(
            path(r#"{"value": "a"}"#).is_err()
                && path(r#"{"type": "RegularExpression", "value": "("}"#).is_err()
        );
    }

    #[test]
    fn what_is_no_name_no_host_and_no_status_is_refused() {
        assert!(read::<Header>(r#"{"name": "a b", "value": "1"}"#).is_err());
        assert!(read::<HeaderEdit>(r#"{"name": "a", "value": "1\n"}"#).is_err());
        assert!(read::<Hostname>(r#""*""#).is_err() && read::<Hostname>(r#""10.0.0.1""#).is_err());
        assert!(read::<RedirectStatus>("200").is_err());
        assert_eq!(
            read::<Hostname>(r#""*.Web""#),
            Ok(Hostname(HostMatch::suffix("web")))
        );
    }

    #[test]
    fn a_field_that_nobody_knows_is_refused_by_name() {
        let error = read::<Route<HttpRule>>(r#"{"rules": [{"sessionPersistence": {}}]}"#).unwrap_err();
        assert!(error.contains("sessionPersistence"), "{error}");
    }

    #[test]
    fn parents_are_gateways_where_nothing_is_said() {
        let parent: ParentRef = read(r#"{"name": "web"}"#).unwrap();
        assert!(parent.is(GATEWAY, "Gateway") && !parent.is("", "Service"));
        let parent: ParentRef = read(r#"{"name": "web", "group": "core", "kind": "Service"}"#).unwrap();
        assert!(parent.is("", "Service"));
    }
}
