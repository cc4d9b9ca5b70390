//! HTTP/1 carried over HTTP/2 between two proxies (`l5d-orig-proto`, spec §3.7 and §4.9).

use http::header::{HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, Uri, Version};

use crate::error::{Fault, Kind, Side};
use crate::http::headers::{self, ORIG_PROTO};

/// Makes an HTTP/1 request ready to be sent over HTTP/2.
///
/// Hop-by-hop fields must be gone. `absolute` is whether the client gave its target in absolute form; `authority`
/// stands in for one that the client did not name.
pub fn upgrade<B>(
    request: &mut Request<B>,
    absolute: bool,
    authority: impl FnOnce() -> String,
) -> Result<(), Fault> {
    let value = match (request.version(), absolute) {
        (Version::HTTP_10, false) => "HTTP/1.0",
        (Version::HTTP_10, true) => "HTTP/1.0; absolute-form",
        (_, false) => "HTTP/1.1",
        (_, true) => "HTTP/1.1; absolute-form",
    };
    if request.uri().authority().is_none() {
        let uri = match headers::authority(request) {
            "" => headers::with_authority(request.uri(), &authority()),
            named => headers::with_authority(request.uri(), named),
        };
        *request.uri_mut() = uri.ok_or_else(|| {
            Fault::because(Kind::BadRequest, Side::Client, "the request names no valid host")
        })?;
    }
    request
        .headers_mut()
        .insert(ORIG_PROTO, HeaderValue::from_static(value));
    request.headers_mut().remove(TRANSFER_ENCODING);
    *request.version_mut() = Version::HTTP_2;
    Ok(())
}

/// Gives the answer to an upgraded request the version that the server used, `asked` if it does not say.
pub fn restore<B>(response: &mut Response<B>, asked: Version) {
    *response.version_mut() = match response.headers_mut().remove(ORIG_PROTO) {
        Some(value) if value == "HTTP/1.0" => Version::HTTP_10,
        Some(_) => Version::HTTP_11,
        None => asked,
    };
}

/// Makes an upgraded request HTTP/1 again. `None`: it was HTTP/2 all along.
///
/// `CONNECT` is never upgraded. One that says so stays HTTP/2: its body would stand where HTTP/1 has none (RFC 9110 §9.3.6),
/// and could be read as another request.
pub fn downgrade<B>(request: &mut Request<B>) -> Option<Version> {
    let value = request.headers_mut().remove(ORIG_PROTO)?;
    if request.method() == Method::CONNECT {
        return None;
    }
    let value = value.to_str().ok()?;
    let (version, absolute) = match value.split_once(';') {
        Some((version, form)) => (version, form.trim() == "absolute-form"),
        None => (value, false),
    };
    let version = if version == "HTTP/1.0" {
        Version::HTTP_10
    } else {
        Version::HTTP_11
    };
    *request.version_mut() = version;
    if !request.headers().contains_key(HOST)
        && let Some(authority) = request.uri().authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
    if !absolute {
        *request.uri_mut() = origin_form(request.uri());
    }
    Some(version)
}

/// Marks the answer to a downgraded request with the version that the application used.
pub fn mark<B>(response: &mut Response<B>) {
    let value = if response.version() == Version::HTTP_10 {
        "HTTP/1.0"
    } else {
        "HTTP/1.1"
    };
    response
        .headers_mut()
        .insert(ORIG_PROTO, HeaderValue::from_static(value));
    response.headers_mut().remove(TRANSFER_ENCODING);
    *response.version_mut() = Version::HTTP_2;
}

/// Path and query only.
pub fn origin_form(uri: &Uri) -> Uri {
    let path = uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_the_way_over_http2_and_back() {
        for (version, target) in [
            (Version::HTTP_11, "/a?b"),
            (Version::HTTP_10, "/"),
            (Version::HTTP_11, "http://h/x"),
        ] {
            let mut request = Request::get(target)
                .version(version)
                .header(HOST, "h")
                .body(())
                .unwrap();
            let absolute = request.uri().authority().is_some();
            upgrade(&mut request, absolute, String::new).unwrap();
            assert_eq!(request.version(), Version::HTTP_2);
            assert_eq!(request.uri().authority().unwrap(), "h");
            assert_eq!(downgrade(&mut request), Some(version));
            assert_eq!(request.uri().to_string(), target);
            assert!(!request.headers().contains_key(ORIG_PROTO));
        }
    }

    #[test]
    fn a_native_http2_request_is_left_alone() {
        let mut request = Request::get("http://h/")
            .version(Version::HTTP_2)
            .body(())
            .unwrap();
        assert_eq!(downgrade(&mut request), None);
    }

    #[test]
    fn a_connect_is_never_believed_to_have_been_http1() {
        let mut request = Request::connect("h:80")
            .version(Version::HTTP_2)
            .header(ORIG_PROTO, "HTTP/1.1")
            .body(())
            .unwrap();
        assert_eq!(downgrade(&mut request), None);
        assert_eq!(request.version(), Version::HTTP_2);
        assert!(!request.headers().contains_key(ORIG_PROTO));
    }

    #[test]
    fn an_answer_gets_back_the_version_of_the_application() {
        let mut response = Response::builder().version(Version::HTTP_10).body(()).unwrap();
        mark(&mut response);
        assert_eq!(response.version(), Version::HTTP_2);
        restore(&mut response, Version::HTTP_11);
        assert_eq!(response.version(), Version::HTTP_10);
    }

    #[test]
    fn a_request_without_a_host_is_for_what_was_dialled() {
        let mut request = Request::get("/").version(Version::HTTP_10).body(()).unwrap();
        upgrade(&mut request, false, || "10.0.0.1:80".to_owned()).unwrap();
        assert_eq!(request.uri().to_string(), "http://10.0.0.1:80/");
    }

    #[test]
    fn a_host_that_is_none_is_the_clients_fault() {
        let mut request = Request::get("/")
            .version(Version::HTTP_11)
            .header(HOST, "a b")
            .body(())
            .unwrap();
        assert_eq!(
            upgrade(&mut request, false, String::new).unwrap_err().kind,
            Kind::BadRequest
        );
    }
}
