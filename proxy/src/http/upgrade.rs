//! HTTP/1.1 connections that become something else: `Upgrade` (RFC 9110 §7.8) and `CONNECT` (§9.3.6). Over HTTP/2 a tunnel
//! is a stream with bodies both ways (RFC 8441), and asks for nothing here.

use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use tokio::sync::oneshot;

use crate::drain::Drain;
use crate::error::{Fault, Kind, Side};
use crate::http::body::Body;
use crate::http::headers;
use crate::http::http1::client::Switched;
use crate::http::http1::field;
use crate::http::http1::server::Handover;
use crate::net::copy;
use crate::net::io::Io;

/// How tunnels end.
#[derive(Clone, Debug)]
pub struct Tunnels {
    /// A drain waits for them.
    pub drain: Drain,
    /// How long one may be silent when one side has ended; `None`: for ever.
    pub half_closed: Option<Duration>,
}

/// A request that asks for its connection to become a tunnel.
#[derive(Debug)]
pub struct Wanted {
    client: Option<oneshot::Receiver<Io>>,
    connect: bool,
}

/// Makes a request fit to be sent on, and takes its connection if it asks for a tunnel.
pub fn prepare(request: &mut Request<Body>) -> Option<Wanted> {
    if clean(request) { Some(take(request)) } else { None }
}

/// Makes a request fit to be sent on: without what concerns the client's connection, but for the wish to turn it into
/// a tunnel. `true`: it has one, and can't be carried over HTTP/2.
///
/// `h2c` is not passed on: the request is served as the HTTP/1.1 that it is (RFC 9113 §3.1 made it obsolete).
pub fn clean(request: &mut Request<Body>) -> bool {
    let protocol = protocol(request.version(), request.headers());
    headers::strip_hop_by_hop(request.headers_mut());
    if let Some(protocol) = protocol {
        ask(request.headers_mut(), protocol);
        return true;
    }
    is_connect(request)
}

/// Takes the connection of a request that asks for a tunnel.
pub fn take(request: &mut Request<Body>) -> Wanted {
    Wanted {
        client: request
            .extensions_mut()
            .remove::<Handover>()
            .and_then(|handover| handover.take()),
        connect: is_connect(request),
    }
}

fn is_connect(request: &Request<Body>) -> bool {
    request.method() == Method::CONNECT && request.version() == Version::HTTP_11
}

/// Makes an answer fit to be sent on, and starts the tunnel if both sides want it.
pub fn settle(wanted: Option<Wanted>, response: &mut Response<Body>, tunnels: &Tunnels) -> Result<(), Fault> {
    match wanted {
        Some(wanted) => wanted.answered(response, tunnels.clone()),
        None if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let text = "the server changed protocols, which nobody had asked for";
            return Err(Fault::because(Kind::Reset, Side::Server, text));
        }
        None => headers::strip_hop_by_hop(response.headers_mut()),
    }
    Ok(())
}

impl Wanted {
    /// Makes the answer fit to be sent on; if the server agrees, the two connections are one tunnel from here on.
    fn answered(self, response: &mut Response<Body>, tunnels: Tunnels) {
        let agreed = response.status() == StatusCode::SWITCHING_PROTOCOLS
            || (self.connect && response.status().is_success());
        let protocol = response.headers_mut().remove(UPGRADE);
        headers::strip_hop_by_hop(response.headers_mut());
        if !agreed {
            return;
        }
        if let Some(protocol) = protocol {
            ask(response.headers_mut(), protocol);
        }
        let server = response.extensions_mut().remove::<Switched>();
        tokio::spawn(tunnel(self.client, server, tunnels));
    }
}

/// Passes bytes on, as a drain waits for it to end. What breaks one side cuts both, as with every opaque connection.
async fn tunnel(client: Option<oneshot::Receiver<Io>>, server: Option<Switched>, tunnels: Tunnels) {
    let server = server.and_then(|server| server.take());
    let (Some(client), Some(mut server)) = (client, server) else {
        tracing::error!("a tunnel is not over connections of ours, and was closed");
        return;
    };
    let Ok(mut client) = client.await else {
        tracing::debug!("a connection was to become a tunnel, and ended");
        return;
    };
    if let Err(error) = copy::both_ways(&mut client, &mut server, tunnels.half_closed).await {
        tracing::debug!(%error, "a tunnel ended early");
        client.cut();
        server.cut();
    }
}

/// The protocol that an HTTP/1.1 request wants to change to.
fn protocol(version: Version, fields: &HeaderMap) -> Option<HeaderValue> {
    if version != Version::HTTP_11 {
        return None;
    }
    let protocol = fields.get(UPGRADE)?;
    let named = |value| field::options(value).any(|name| name.eq_ignore_ascii_case(b"upgrade"));
    let wanted = fields.get_all(CONNECTION).iter().any(named);
    (wanted && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| protocol.clone())
}

fn ask(fields: &mut HeaderMap, protocol: HeaderValue) {
    fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    fields.insert(UPGRADE, protocol);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&'static str, &'static str)]) -> Request<Body> {
        let mut request = Request::new(Body::Empty);
        for (name, value) in fields {
            request
                .headers_mut()
                .append(*name, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn a_websocket_handshake_stays_one() {
        let mut request = request(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        assert!(prepare(&mut request).is_some());
        assert_eq!(request.headers()[UPGRADE], "websocket");
        assert_eq!(request.headers()[CONNECTION], "upgrade");
    }

    #[test]
    fn h2c_is_served_as_the_http1_that_it_is() {
        let fields = [
            ("connection", "upgrade, http2-settings"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAM"),
        ];
        let mut request = request(&fields);
        assert!(prepare(&mut request).is_none());
        assert!(request.headers().is_empty());
    }

    #[test]
    fn an_upgrade_that_connection_does_not_name_is_none() {
        let mut request = request(&[("upgrade", "websocket")]);
        assert!(prepare(&mut request).is_none());
        assert!(request.headers().is_empty());
    }

    #[test]
    fn a_connect_wants_a_tunnel() {
        let mut request = request(&[]);
        *request.method_mut() = Method::CONNECT;
        assert!(prepare(&mut request).is_some());
    }
}
