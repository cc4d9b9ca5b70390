//! What a request is for: one host and one form, or none at all. What two readers could read in two ways is refused.

use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use outrigger_http2::Protocol;

use crate::config::HeadLimits;
use crate::error::{Fault, Kind, Side};
use crate::http::headers;
use crate::http::http1::head::Refusal;

/// Refuses a request whose head is too large, whose target is ambiguous, or has a form that its method does not take; and
/// one that stands for bytes that were refused already.
///
/// * `CONNECT` is not for HTTP/1.0 and names an authority; nothing else names one alone (RFC 9112 §3.2.3, RFC 9113 §8.5).
///   With `:protocol` it has a whole target like other requests (RFC 8441 §4).
/// * There is at most one `Content-Length`, as over HTTP/1 (RFC 9112 §6.3): who reads another of them than HTTP/2 did
///   (RFC 9113 §8.1.1) finds the message's end elsewhere.
/// * No name has a user before it, which is there to deceive (RFC 9110 §4.2.4).
/// * There is at most one `Host` (RFC 9112 §3.2). The authority of an absolute-form target replaces it (§3.2.2); over
///   HTTP/2 the two must agree (RFC 9113 §8.3.1). So policy and application judge the same name.
pub fn check<B>(request: &mut Request<B>, limits: &HeadLimits) -> Result<(), Fault> {
    if let Some(refusal) = request.extensions().get::<Refusal>() {
        return Err(refusal.fault());
    }
    headers::check_limits(request, limits)?;
    let authority_form = request.uri().scheme().is_none() && request.uri().authority().is_some();
    let extended = request.extensions().get::<Protocol>().is_some();
    let connect = request.method() == Method::CONNECT && !extended;
    if connect != authority_form || (connect && request.version() < Version::HTTP_11) {
        return bad("the request's target does not fit its method");
    }
    // Over HTTP/1 it was looked at before.
    if request.version() == Version::HTTP_2
        && request.headers().get_all(CONTENT_LENGTH).iter().nth(1).is_some()
    {
        return bad("the request has more than one Content-Length");
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() {
        return bad("the request has more than one Host");
    }
    if host.is_some_and(|host| !host.as_bytes().iter().all(is_of_host)) {
        return bad("the request's Host is not one host");
    }
    let Some(authority) = request.uri().authority() else {
        return Ok(());
    };
    if authority.as_str().contains('@') {
        return bad("the request's authority has a user before its host");
    }
    let agrees = host.is_none_or(|host| same(host.as_bytes(), authority.as_str().as_bytes()));
    if agrees {
        return Ok(());
    }
    if request.version() == Version::HTTP_2 {
        return bad("the request's Host is not its :authority");
    }
    let host = HeaderValue::from_str(authority.as_str());
    replace_host(request.headers_mut(), host.ok());
    Ok(())
}

/// Whether a byte may stand in `Host` (RFC 3986 §3.2.2): all but the comma, with which some join two lines to one.
fn is_of_host(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%:[]!$&'()*+;=".contains(byte)
}

fn replace_host(fields: &mut HeaderMap, host: Option<HeaderValue>) {
    match host {
        Some(host) => drop(fields.insert(HOST, host)),
        None => drop(fields.remove(HOST)),
    }
}

/// Whether two authorities are the same but for case and the default port.
fn same(a: &[u8], b: &[u8]) -> bool {
    let plain = |name: &[u8]| name.strip_suffix(b":80").unwrap_or(name).to_ascii_lowercase();
    a.eq_ignore_ascii_case(b) || plain(a) == plain(b)
}

fn bad<T>(why: &'static str) -> Result<T, Fault> {
    Err(Fault::because(Kind::BadRequest, Side::Client, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        max_bytes: 65_536,
        max_fields: 100,
        timeout: None,
        half_closed: std::time::Duration::ZERO,
        drain_idle: std::time::Duration::ZERO,
    };

    fn request(method: &str, target: &str, version: Version, hosts: &[&'static str]) -> Request<()> {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .version(version)
            .body(())
            .unwrap();
        for host in hosts {
            request.headers_mut().append(HOST, HeaderValue::from_static(host));
        }
        request
    }

    #[test]
    fn two_hosts_are_refused() {
        assert!(check(&mut request("GET", "/", Version::HTTP_11, &["a", "a"]), &LIMITS).is_err());
        assert!(check(&mut request("GET", "http://a/", Version::HTTP_2, &["b"]), &LIMITS).is_err());
    }

    #[test]
    fn a_host_that_is_none_or_several_is_refused() {
        for host in ["a, b", "a,b", "a b", "user@a", "a/b", "a?b", "a\tb", "\"a\""] {
            assert!(
                check(&mut request("GET", "/", Version::HTTP_11, &[host]), &LIMITS).is_err(),
                "{host}"
            );
        }
        for host in [
            "",
            "a_b.example:8080",
            "[::1]:80",
            "192.0.2.1",
            "xn--a-b.example.",
        ] {
            check(&mut request("GET", "/", Version::HTTP_11, &[host]), &LIMITS).unwrap();
        }
    }

    #[test]
    fn two_lengths_are_refused_even_if_they_are_the_same() {
        let mut request = request("POST", "http://a/", Version::HTTP_2, &[]);
        request
            .headers_mut()
            .append(CONTENT_LENGTH, HeaderValue::from_static("5"));
        check(&mut request, &LIMITS).unwrap();
        request
            .headers_mut()
            .append(CONTENT_LENGTH, HeaderValue::from_static("5"));
        assert!(check(&mut request, &LIMITS).is_err());
    }

    #[test]
    fn a_user_before_a_name_is_refused() {
        assert!(check(&mut request("GET", "http://u@a/", Version::HTTP_2, &[]), &LIMITS).is_err());
        assert!(
            check(
                &mut request("GET", "http://u:p@a/", Version::HTTP_11, &["a"]),
                &LIMITS
            )
            .is_err()
        );
        assert!(check(&mut request("GET", "/", Version::HTTP_11, &["u@a"]), &LIMITS).is_err());
        check(&mut request("GET", "http://a/@?@", Version::HTTP_2, &[]), &LIMITS).unwrap();
    }

    #[test]
    fn the_authority_of_an_absolute_target_replaces_the_host() {
        let mut request = request("GET", "http://public/", Version::HTTP_11, &["internal"]);
        check(&mut request, &LIMITS).unwrap();
        assert_eq!(request.headers()[HOST], "public");
    }

    #[test]
    fn case_and_the_default_port_make_no_other_host() {
        check(
            &mut request("GET", "http://Web:80/", Version::HTTP_2, &["web"]),
            &LIMITS,
        )
        .unwrap();
    }

    #[test]
    fn an_authority_alone_is_for_connect_only() {
        assert!(check(&mut request("GET", "a:80", Version::HTTP_11, &[]), &LIMITS).is_err());
        assert!(check(&mut request("CONNECT", "a:80", Version::HTTP_10, &[]), &LIMITS).is_err());
        check(
            &mut request("CONNECT", "a:80", Version::HTTP_11, &["a:80"]),
            &LIMITS,
        )
        .unwrap();
        check(&mut request("CONNECT", "a:80", Version::HTTP_2, &[]), &LIMITS).unwrap();
    }

    #[test]
    fn a_connect_with_a_path_is_for_a_protocol_only() {
        let mut connect = request("CONNECT", "http://a/chat", Version::HTTP_2, &[]);
        assert!(check(&mut connect, &LIMITS).is_err());
        connect
            .extensions_mut()
            .insert(Protocol::from_static("websocket"));
        check(&mut connect, &LIMITS).unwrap();
    }
}
