//! Faults as answers: HTTP, or gRPC where the request was gRPC (spec §8.6).

use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, LOCATION};
use http::{HeaderValue, Response, StatusCode, Version};

use outrigger_policy::route::filter::{InjectedFailure, InjectedStatus};

use crate::error::{self, Fault};
use crate::http::body::Body;
use crate::http::headers::{self, PROXY_CONNECTION, PROXY_ERROR};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What an answer depends on besides the fault.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The version on the client's connection.
    pub version: Version,
    /// Whether the request is gRPC over HTTP/2.
    pub grpc: bool,
    /// Whether the client may be told why (`l5d-proxy-error`, `grpc-message`).
    pub informational: bool,
}

/// The answer to a fault. `context` says where it happened, and stands before the reason.
pub fn to_fault(fault: &Fault, context: &str, asked: Asked) -> Response<Body> {
    let answer = fault.kind.answer();
    let place = fault.place.as_ref().map_or("", |place| place.as_str());
    let text = asked
        .informational
        .then(|| headers::error_value(&format!("{context}{place}{}", error::chain(fault))));
    let mut response = Response::new(Body::Empty);
    *response.version_mut() = asked.version;
    let fields = response.headers_mut();
    if asked.grpc {
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        fields.insert(GRPC_STATUS, HeaderValue::from(u16::from(answer.grpc)));
        if let Some(text) = &text {
            fields.insert(GRPC_MESSAGE, percent_encoded(text));
        }
    } else {
        fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    if let Some(text) = text {
        fields.insert(PROXY_ERROR, text);
        if answer.close {
            fields.insert(PROXY_CONNECTION, HeaderValue::from_static("close"));
        }
    }
    if answer.close && asked.version < Version::HTTP_2 {
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    *response.status_mut() = if asked.grpc { StatusCode::OK } else { answer.status };
    response
}

/// The answer of a filter that injects a failure.
pub fn injected(failure: &InjectedFailure, asked: Asked) -> Response<Body> {
    let (status, grpc) = match failure.status {
        InjectedStatus::Http(status) if !asked.grpc => (status, None),
        // gRPC over HTTP/2, "Responses": FAILED_PRECONDITION says that it is no use to try again.
        InjectedStatus::Http(_) => (StatusCode::OK, Some(9)),
        InjectedStatus::Grpc(code) => (StatusCode::OK, Some(code.0)),
    };
    answer(status, grpc, &failure.message, asked)
}

/// The answer of a filter that redirects (RFC 9110 §15.4); to gRPC, which knows no redirects, NOT_FOUND.
pub fn redirect(status: StatusCode, location: HeaderValue, asked: Asked) -> Response<Body> {
    let mut response = if asked.grpc {
        answer(StatusCode::OK, Some(5), "redirected", asked)
    } else {
        answer(status, None, "redirected", asked)
    };
    response.headers_mut().insert(LOCATION, location);
    response
}

fn answer(status: StatusCode, grpc: Option<u16>, text: &str, asked: Asked) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    *response.version_mut() = asked.version;
    let fields = response.headers_mut();
    let text = asked.informational.then(|| headers::error_value(text));
    match grpc {
        Some(code) => {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            fields.insert(GRPC_STATUS, HeaderValue::from(code));
            if let Some(text) = &text {
                fields.insert(GRPC_MESSAGE, percent_encoded(text));
            }
        }
        None => drop(fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"))),
    }
    if let Some(text) = text {
        fields.insert(PROXY_ERROR, text);
    }
    response
}

/// `grpc-message` is percent-encoded: printable ASCII but `%` stays (gRPC over HTTP/2, "Responses").
fn percent_encoded(text: &HeaderValue) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for &byte in text.as_bytes() {
        match byte {
            b'%' => encoded.push_str("%25"),
            b' '..=b'~' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    headers::error_value(&encoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Kind, Side};

    fn answer(kind: Kind, version: Version, grpc: bool, informational: bool) -> Response<Body> {
        to_fault(
            &Fault::new(kind, Side::Server),
            "here: ",
            Asked {
                version,
                grpc,
                informational,
            },
        )
    }

    #[test]
    fn an_http1_client_is_told_why_and_that_the_connection_closes() {
        let response = answer(Kind::Connect, Version::HTTP_11, false, true);
        assert_eq!(response.status(), 502);
        assert_eq!(response.headers()[PROXY_ERROR], "here: connection failed");
        assert_eq!(response.headers()[CONNECTION], "close");
    }

    #[test]
    fn an_unmeshed_client_is_told_nothing() {
        let response = answer(Kind::Unauthorized, Version::HTTP_11, false, false);
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers().len(), 1);
    }

    #[test]
    fn a_grpc_client_gets_a_trailers_only_answer() {
        let response = answer(Kind::FailFast, Version::HTTP_2, true, true);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[GRPC_STATUS], "4");
        assert!(!response.headers().contains_key(CONNECTION));
    }
}
