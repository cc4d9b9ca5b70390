//! Heads and trailers: what header blocks say, checked (RFC 9113 §8), and how they are written.

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, uri};

use crate::error::Error;
use crate::hpack::{Encoder, Field, Pseudo};

/// What an extended CONNECT asks to speak (`:protocol`, RFC 8441 §4): an extension of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol(Bytes);

impl Protocol {
    /// A protocol of this name.
    pub const fn from_static(name: &'static str) -> Self {
        Self(Bytes::from_static(name.as_bytes()))
    }

    /// Its name, a token.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// What is wrong with a message; only its stream suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// RFC 9113 §8.1.1.
    Malformed,
    /// Its fields are more than we take.
    TooLarge,
}

/// A header block as it is decoded.
#[derive(Debug)]
pub(crate) struct Incoming {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
    status: Option<StatusCode>,
    protocol: Option<Bytes>,
    fields: HeaderMap,
    content_length: Option<u64>,
    /// Bytes that may still come (RFC 9113 §10.5.1), and those that came beyond.
    room: usize,
    beyond: usize,
    fault: Option<Fault>,
}

impl Incoming {
    /// A block of at most `limit` bytes, with about so many fields.
    pub(crate) fn new(limit: usize, fields: usize) -> Self {
        Self {
            method: None,
            scheme: None,
            authority: None,
            path: None,
            status: None,
            protocol: None,
            fields: HeaderMap::with_capacity(fields),
            content_length: None,
            room: limit,
            beyond: 0,
            fault: None,
        }
    }

    /// Takes the next field in.
    pub(crate) fn take(&mut self, field: Field, size: usize) {
        let Some(room) = self.room.checked_sub(size) else {
            self.room = 0;
            self.beyond = self.beyond.saturating_add(size);
            self.fault = Some(Fault::TooLarge);
            return;
        };
        self.room = room;
        match field {
            Field::Header(name, value) => self.field(name, value),
            Field::Method(method) => self.once(method, |this| &mut this.method),
            Field::Scheme(scheme) => self.once(scheme, |this| &mut this.scheme),
            Field::Authority(authority) => self.once(authority, |this| &mut this.authority),
            Field::Path(path) => self.once(path, |this| &mut this.path),
            Field::Status(status) => self.once(status, |this| &mut this.status),
            Field::Protocol(protocol) => self.once(protocol, |this| &mut this.protocol),
            Field::Malformed => self.malformed(),
        }
    }

    fn field(&mut self, name: HeaderName, value: HeaderValue) {
        if name == CONTENT_LENGTH {
            let length = digits(value.as_bytes());
            if length.is_none() || self.content_length.is_some_and(|before| Some(before) != length) {
                return self.malformed();
            }
            self.content_length = length;
        }
        // It fails where there are more than any message has: the limit of bytes ends it before that.
        if self.fields.try_append(name, value).is_err() {
            self.fault = Some(Fault::TooLarge);
        }
    }

    /// A pseudo-field comes once, before all other fields (RFC 9113 §8.3).
    fn once<T>(&mut self, value: T, place: fn(&mut Self) -> &mut Option<T>) {
        if !self.fields.is_empty() || place(self).replace(value).is_some() {
            self.malformed();
        }
    }

    fn malformed(&mut self) {
        self.fault.get_or_insert(Fault::Malformed);
    }

    /// The value of `content-length`.
    pub(crate) fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Bytes that came beyond what is allowed.
    pub(crate) fn beyond(&self) -> usize {
        self.beyond
    }

    /// How many fields there are.
    pub(crate) fn len(&self) -> usize {
        self.fields.len()
    }

    /// A request (RFC 9113 §8.3.1).
    pub(crate) fn request(self) -> Result<Request<()>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let method = self.method.ok_or(Fault::Malformed)?;
        let tunnel = method == Method::CONNECT && self.protocol.is_none();
        let misplaced = self.status.is_some() || (self.protocol.is_some() && method != Method::CONNECT);
        let complete = match (&self.scheme, &self.path) {
            (None, None) => tunnel && self.authority.is_some(),
            (Some(_), Some(_)) => !tunnel,
            _ => false,
        };
        if misplaced || !complete {
            return Err(Fault::Malformed);
        }
        let mut parts = uri::Parts::default();
        // A URI has no place for a scheme without an authority.
        parts.scheme = self.scheme.filter(|_| self.authority.is_some());
        parts.authority = self.authority;
        parts.path_and_query = self.path;
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Fault::Malformed)?;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.fields;
        if let Some(protocol) = self.protocol {
            request.extensions_mut().insert(Protocol(protocol));
        }
        Ok(request)
    }

    /// The head of an answer, or of what comes before it (RFC 9113 §8.3.2).
    pub(crate) fn response(self) -> Result<Response<()>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let status = self.status.ok_or(Fault::Malformed)?;
        let for_requests = self.method.is_some()
            || self.scheme.is_some()
            || self.authority.is_some()
            || self.path.is_some()
            || self.protocol.is_some();
        if for_requests {
            return Err(Fault::Malformed);
        }
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.version_mut() = Version::HTTP_2;
        *response.headers_mut() = self.fields;
        Ok(response)
    }

    /// What comes behind all content, which has no pseudo-fields (RFC 9113 §8.1).
    pub(crate) fn trailers(self) -> Result<HeaderMap, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let pseudo = self.method.is_some()
            || self.scheme.is_some()
            || self.authority.is_some()
            || self.path.is_some()
            || self.status.is_some()
            || self.protocol.is_some();
        if pseudo {
            Err(Fault::Malformed)
        } else {
            Ok(self.fields)
        }
    }
}

/// A number that is digits and nothing else (RFC 9110 §8.6).
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Whether a request makes sense in HTTP/2.
///
/// # Errors
/// It does not.
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), Error> {
    let uri = request.uri();
    if is_tunnel(request) {
        return match uri.authority() {
            Some(_) => Ok(()),
            None => Err(Error::misuse("a CONNECT request without an authority")),
        };
    }
    match uri.scheme() {
        Some(_) => Ok(()),
        None => Err(Error::misuse("a request without a scheme")),
    }
}

/// Whether it is a CONNECT as HTTP/1.1 knows it, which has neither scheme nor path (RFC 9113 §8.5).
fn is_tunnel<B>(request: &Request<B>) -> bool {
    request.method() == Method::CONNECT && request.extensions().get::<Protocol>().is_none()
}

/// Writes a request's head, which makes sense.
pub(crate) fn put_request<B>(request: &Request<B>, encoder: &mut Encoder, out: &mut BytesMut) {
    let protocol = request.extensions().get::<Protocol>();
    let (method, uri) = (request.method(), request.uri());
    let tunnel = is_tunnel(request);
    let scheme = uri.scheme_str();
    encoder.begin(out);
    encoder.pseudo(Pseudo::Method, method.as_str().as_bytes(), out);
    if let Some(scheme) = scheme.filter(|_| !tunnel) {
        encoder.pseudo(Pseudo::Scheme, scheme.as_bytes(), out);
    }
    if let Some(authority) = uri.authority() {
        encoder.pseudo(Pseudo::Authority, authority.as_str().as_bytes(), out);
    }
    if !tunnel {
        encoder.pseudo(Pseudo::Path, target(method, uri).as_bytes(), out);
    }
    if let Some(protocol) = protocol {
        encoder.pseudo(Pseudo::Protocol, &protocol.0, out);
    }
    put_fields(request.headers(), encoder, out);
}

/// `:path`, which is never empty (RFC 9113 §8.3.1).
fn target<'a>(method: &Method, uri: &'a Uri) -> &'a str {
    match uri.path_and_query().map(PathAndQuery::as_str) {
        Some(path) if !path.is_empty() => path,
        _ if method == Method::OPTIONS => "*",
        _ => "/",
    }
}

/// Writes an answer's head.
pub(crate) fn put_response<B>(response: &Response<B>, encoder: &mut Encoder, out: &mut BytesMut) {
    encoder.begin(out);
    encoder.pseudo(Pseudo::Status, response.status().as_str().as_bytes(), out);
    put_fields(response.headers(), encoder, out);
}

/// Writes trailers.
pub(crate) fn put_trailers(trailers: &HeaderMap, encoder: &mut Encoder, out: &mut BytesMut) {
    encoder.begin(out);
    put_fields(trailers, encoder, out);
}

fn put_fields(fields: &HeaderMap, encoder: &mut Encoder, out: &mut BytesMut) {
    for (name, value) in fields {
        encoder.field(name, value, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &'static str, value: &'static str) -> Field {
        Field::Header(HeaderName::from_static(name), HeaderValue::from_static(value))
    }

    fn incoming(fields: impl IntoIterator<Item = Field>) -> Incoming {
        let mut incoming = Incoming::new(1_000, 0);
        for field in fields {
            incoming.take(field, 40);
        }
        incoming
    }

    fn method() -> Field {
        Field::Method(Method::GET)
    }

    fn scheme() -> Field {
        Field::Scheme(Scheme::HTTP)
    }

    fn path() -> Field {
        Field::Path(PathAndQuery::from_static("/x?y"))
    }

    fn authority() -> Field {
        Field::Authority(Authority::from_static("app:80"))
    }

    fn status(code: u16) -> Field {
        Field::Status(StatusCode::from_u16(code).unwrap())
    }

    #[test]
    fn a_request_has_its_pseudo_fields_once_and_first() {
        let request = incoming([method(), scheme(), authority(), path(), header("a", "b")]).request();
        let request = request.unwrap();
        assert_eq!(request.uri(), "http://app:80/x?y");
        assert_eq!(request.headers()["a"], "b");
        let without_authority = incoming([method(), scheme(), path()]).request().unwrap();
        assert_eq!(without_authority.uri(), "/x?y");
        for wrong in [
            vec![scheme(), path()],
            vec![method(), path()],
            vec![method(), scheme()],
            vec![method(), scheme(), path(), path()],
            vec![method(), scheme(), header("a", "b"), path()],
            vec![method(), scheme(), path(), status(200)],
            vec![method(), scheme(), path(), Field::Protocol("websocket".into())],
            vec![method(), scheme(), path(), Field::Malformed],
            vec![method(), scheme(), path(), header("content-length", "+1")],
            vec![method(), scheme(), path(), header("content-length", "")],
            vec![
                method(),
                scheme(),
                path(),
                header("content-length", "1"),
                header("content-length", "2"),
            ],
        ] {
            assert_eq!(
                incoming(wrong.clone()).request().unwrap_err(),
                Fault::Malformed,
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn a_tunnel_has_an_authority_and_no_path() {
        let connect = || Field::Method(Method::CONNECT);
        assert_eq!(
            incoming([connect(), authority()]).request().unwrap().uri(),
            "app:80"
        );
        assert!(incoming([connect()]).request().is_err());
        assert!(
            incoming([connect(), authority(), scheme(), path()])
                .request()
                .is_err()
        );
        let websocket = Field::Protocol("websocket".into());
        let request = incoming([connect(), websocket, scheme(), authority(), path()])
            .request()
            .unwrap();
        assert_eq!(
            request.extensions().get(),
            Some(&Protocol::from_static("websocket"))
        );
    }

    #[test]
    fn an_answer_has_a_status_and_nothing_else_of_a_request() {
        assert_eq!(incoming([status(204)]).response().unwrap().status(), 204);
        assert!(incoming([]).response().is_err());
        assert!(incoming([status(200), path()]).response().is_err());
        assert!(incoming([status(200)]).trailers().is_err());
        assert_eq!(incoming([header("a", "b")]).trailers().unwrap()["a"], "b");
    }

    #[test]
    fn what_is_too_large_is_said_to_be_so_and_not_kept() {
        let mut large = incoming([method(), scheme(), path()]);
        for _ in 0..100 {
            large.take(header("a", "b"), 40);
        }
        assert_eq!(large.len(), 22);
        assert_eq!(large.request().unwrap_err(), Fault::TooLarge);
    }

    #[test]
    fn a_content_length_is_a_number() {
        assert_eq!(digits(b"18446744073709551615"), Some(u64::MAX));
        for wrong in [&b"18446744073709551616"[..], b"-1", b"1 ", b"0x1", b""] {
            assert_eq!(digits(wrong), None);
        }
    }
}
