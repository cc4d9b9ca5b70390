//! Header rules: hop-by-hop fields, and the names of Linkerd's own.

use http::header::{CONNECTION, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Parts, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Uri};

use crate::config::HeadLimits;
use crate::error::{Fault, Kind, Side};

/// Who the client proved to be; set or removed by the inbound proxy, never trusted from a client.
pub const CLIENT_ID: HeaderName = HeaderName::from_static("l5d-client-id");
/// The version that an HTTP/1 request had before it was carried over HTTP/2.
pub const ORIG_PROTO: HeaderName = HeaderName::from_static("l5d-orig-proto");
/// Why the proxy refused or failed a request.
pub const PROXY_ERROR: HeaderName = HeaderName::from_static("l5d-proxy-error");
/// `close`: the proxy asks for the connection to be closed.
pub const PROXY_CONNECTION: HeaderName = HeaderName::from_static("l5d-proxy-connection");
/// The identity that the application requires of the server.
pub const REQUIRE_ID: HeaderName = HeaderName::from_static("l5d-require-id");
/// The canonical name of a profile's destination.
pub const DST_CANONICAL: HeaderName = HeaderName::from_static("l5d-dst-canonical");

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const NON_STANDARD_PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes the fields that concern one connection only (RFC 9110 §7.6.1): `connection` with every field that it
/// names, `keep-alive`, `proxy-connection`, `upgrade` and what goes with it. `te` and `transfer-encoding` stay, they
/// frame the message.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have none: to look through the names there are costs less than to look each of these up.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    let names_none = |value: &HeaderValue| value == "close" || value == "keep-alive";
    if headers.contains_key(CONNECTION) {
        if !headers.get_all(CONNECTION).iter().all(names_none) {
            strip_named(headers);
        }
        headers.remove(CONNECTION);
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(NON_STANDARD_PROXY_CONNECTION);
    headers.remove(UPGRADE);
    headers.remove(HTTP2_SETTINGS);
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == CONNECTION
        || *name == UPGRADE
        || *name == KEEP_ALIVE
        || *name == NON_STANDARD_PROXY_CONNECTION
        || *name == HTTP2_SETTINGS
}

/// Whether a message has fields of Linkerd's own. Most have none: one look spares a look-up of each.
pub fn has_linkerds(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("l5d-"))
}

/// Removes the fields that `connection` names, but for those that frame the message, or that proxies tell each other.
fn strip_named(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .filter(|name| *name != TE && *name != TRANSFER_ENCODING && *name != HOST)
        .filter(|name| !name.as_str().starts_with("l5d-"))
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// The authority a request is for: that of its target, else `Host`; empty if neither is there.
pub fn authority<B>(request: &Request<B>) -> &str {
    match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => request
            .headers()
            .get(HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or(""),
    }
}

/// Gives a request target the `http` scheme and this authority, as HTTP/2 needs it (RFC 9113 §8.3.1).
pub fn with_authority(uri: &Uri, authority: &str) -> Option<Uri> {
    let root = || PathAndQuery::from_static("/");
    let mut parts = Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority.parse().ok()?);
    // Shares the bytes of the old one.
    parts.path_and_query = Some(uri.path_and_query().cloned().unwrap_or_else(root));
    Uri::from_parts(parts).ok()
}

/// Whether a message is gRPC (`content-type: application/grpc*`).
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Refuses a request whose head has more bytes or fields than is allowed. Each field counts, and so each crumb of a cookie
/// that HTTP/2 carries in pieces (RFC 9113 §8.2.3).
pub fn check_limits<B>(request: &Request<B>, limits: &HeadLimits) -> Result<(), Fault> {
    let (uri, fields) = (request.uri(), request.headers());
    let target = uri.path_and_query().map_or(0, |path| path.as_str().len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let sizes = fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    let bytes = request.method().as_str().len() + target + authority + sizes.sum::<usize>();
    if bytes > limits.max_bytes || fields.len() > limits.max_fields {
        return Err(Fault::new(Kind::HeadersTooLarge, Side::Client));
    }
    Ok(())
}

/// The longest reason that is told, bytes: parts of it may come from a peer or the control plane.
const MAX_REASON: usize = 1024;

/// A header value from text, shortened; control characters make it `unexpected error`.
pub fn error_value(text: &str) -> HeaderValue {
    let end = text.floor_char_boundary(MAX_REASON);
    HeaderValue::from_str(&text[..end]).unwrap_or(HeaderValue::from_static("unexpected error"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(fields: &[(&str, &str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<String> = headers.keys().map(ToString::to_string).collect();
        left.sort();
        left
    }

    #[test]
    fn what_connection_names_goes_with_it() {
        let left = stripped(&[
            ("connection", "x-a, keep-alive"),
            ("connection", "X-B"),
            ("x-a", "1"),
            ("x-b", "2"),
            ("x-c", "3"),
        ]);
        assert_eq!(left, ["x-c"]);
    }

    #[test]
    fn framing_fields_stay_even_when_connection_names_them() {
        let left = stripped(&[
            ("connection", "te, transfer-encoding, host"),
            ("te", "trailers"),
            ("host", "a"),
        ]);
        assert_eq!(left, ["host", "te"]);
    }

    #[test]
    fn an_origin_form_target_gets_scheme_and_authority() {
        let uri = with_authority(&"/a?b=c".parse().unwrap(), "web:80").unwrap();
        assert_eq!(uri.to_string(), "http://web:80/a?b=c");
        assert!(with_authority(&"/".parse().unwrap(), "not valid").is_none());
    }
}
