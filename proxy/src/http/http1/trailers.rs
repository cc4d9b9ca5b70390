//! Trailers (RFC 9110 §6.5), whether or not a `Trailer` field has announced them.

use bytes::BufMut;
use http::HeaderMap;
use http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, COOKIE, DATE, EXPECT, EXPIRES, HOST, HeaderName, LOCATION, MAX_FORWARDS, PRAGMA,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, RETRY_AFTER, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, VARY, WARNING, WWW_AUTHENTICATE,
};

use crate::http::http1::field;

/// Writes what of them may stand in a trailer section.
pub fn write(to: &mut impl BufMut, trailers: &HeaderMap) {
    for (name, value) in trailers.iter().filter(|(name, _)| is_allowed(name)) {
        field::write(to, name, value);
    }
}

/// Not what frames, routes, authenticates or describes a message, or controls what is done with it (RFC 9110 §6.5.1): a
/// recipient may add trailers to the head. Nor what proxies tell each other and applications.
fn is_allowed(name: &HeaderName) -> bool {
    let text = name.as_str();
    let forbidden = FORBIDDEN.contains(name)
        || matches!(text, "keep-alive" | "proxy-connection" | "http2-settings")
        || text.starts_with("if-")
        || text.starts_with("l5d-");
    !forbidden
}

const FORBIDDEN: [HeaderName; 28] = [
    // framing, and one connection
    CONNECTION,
    CONTENT_LENGTH,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    // routing
    HOST,
    // requests' modifiers
    CACHE_CONTROL,
    EXPECT,
    MAX_FORWARDS,
    PRAGMA,
    RANGE,
    // authentication
    AUTHORIZATION,
    COOKIE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    SET_COOKIE,
    WWW_AUTHENTICATE,
    // content
    CONTENT_ENCODING,
    CONTENT_RANGE,
    CONTENT_TYPE,
    // what is done with an answer
    AGE,
    DATE,
    EXPIRES,
    LOCATION,
    RETRY_AFTER,
    VARY,
    WARNING,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_recipient_could_take_for_part_of_the_head_stays_out() {
        let fields = [
            ("x-sum", "1"),
            ("x-sum", "2"),
            ("host", "evil"),
            ("content-length", "5"),
            ("authorization", "Basic eA=="),
            ("if-match", "*"),
            ("l5d-client-id", "root"),
            ("etag", "\"a\""),
        ];
        let fields = fields.map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let mut trailers = HeaderMap::new();
        for (name, value) in fields {
            trailers.append(name, value);
        }
        let mut lines = Vec::new();
        write(&mut lines, &trailers);
        let lines = String::from_utf8(lines).unwrap();
        assert_eq!(lines, "x-sum: 1\r\nx-sum: 2\r\netag: \"a\"\r\n");
    }
}
