//! On to an endpoint of a backend, and to another one when nothing of the request was written.

use std::time::Duration;

use http::header::{HOST, TE};
use http::{HeaderValue, Request, Response, Uri, Version};
use outrigger_policy::endpoint::ProtocolHint;
use outrigger_policy::name::ResourceRef;
use tokio::time::Instant;

use crate::balance::endpoint::Endpoint;
use crate::error::{Fault, Kind, Side};
use crate::exchange::Exchange;
use crate::http::body::Body;
use crate::http::headers::{self, DST_CANONICAL, ORIG_PROTO, PROXY_CONNECTION, PROXY_ERROR, REQUIRE_ID};
use crate::http::interim::Interims;
use crate::http::orig_proto;
use crate::http::pool::Failed;
use crate::http::upgrade::{self, Tunnels, Wanted};
use crate::outbound::backends::Backend;
use crate::outbound::dialled::Dialled;

/// Endpoints tried for one attempt, each only if the one before took nothing of it.
const MAX_ENDPOINTS: usize = 3;

/// The way of a request from its route on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leg<'a> {
    /// The route that it took.
    pub(super) route: &'a ResourceRef,
    /// Where it goes.
    pub(super) backend: &'a Backend,
    /// How long it waits for an endpoint.
    pub(super) fail_fast: Duration,
    /// What leads to the destination: the host of a request that names none.
    pub(super) dialled: &'a Dialled,
    /// Where interim answers go.
    pub(super) interims: &'a Interims,
}

/// What is taken from a request before it is sent for the first time.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// The application asks for a tunnel, which can be made once.
    tunnel: Option<Wanted>,
    is_tunnel: bool,
    /// The identity that the application insists on.
    required: Option<HeaderValue>,
    /// It has been on its way to a backend.
    begun: bool,
}

/// What is needed to make a request again what the application sent: each endpoint starts from there.
#[derive(Debug)]
struct Origin<'a> {
    version: Version,
    /// The target was in absolute form.
    absolute: bool,
    /// Of a request that was made one for another authority. Boxed, since that is rare.
    overridden: Option<Box<Overridden>>,
    /// The application asks for a tunnel, which HTTP/2 can't carry.
    tunnel: bool,
    /// `te` of a request that HTTP/2 carries, which lets nothing but `trailers` through (RFC 9113 §8.2.2).
    te: Vec<HeaderValue>,
    dialled: &'a Dialled,
}

/// What a request said of its authority.
#[derive(Debug)]
struct Overridden {
    uri: Uri,
    host: Option<HeaderValue>,
}

impl Prepared {
    /// Takes it, and makes the request fit to be sent on.
    pub(super) fn of(request: &mut Request<Body>) -> Self {
        let tunnel = upgrade::prepare(request);
        let required = if headers::has_linkerds(request.headers()) {
            request.headers_mut().remove(REQUIRE_ID)
        } else {
            None
        };
        Self {
            is_tunnel: tunnel.is_some(),
            tunnel,
            required,
            begun: false,
        }
    }

    /// Whether the request goes to a backend for the first time; it does so only once.
    pub(super) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.begun, true)
    }

    /// Whether the request asks for a tunnel.
    pub(super) fn is_tunnel(&self) -> bool {
        self.is_tunnel
    }
}

/// Sends a request to an endpoint of a backend, and to another one when nothing of it was written. It leaves an empty
/// request behind.
pub(super) async fn send(
    leg: &Leg<'_>,
    prepared: &mut Prepared,
    request: &mut Request<Body>,
    exchange: &mut Exchange,
    tunnels: &Tunnels,
) -> Result<Response<Body>, Fault> {
    let &Leg { route, backend, .. } = leg;
    let balancer = backend.balancer()?;
    let mut origin = Origin::of(request, prepared.is_tunnel, leg.dialled);
    let mut now = exchange.started();
    for tried in 1.. {
        let picked = balancer.pick(now, leg.fail_fast, &leg.backend.waits).await?;
        let endpoint = picked.endpoint().clone();
        exchange.send(picked, backend.handles.as_ref(), now);
        check_identity(&endpoint, prepared.required.as_ref())?;
        let carried = origin.address(request, &endpoint)?;
        match endpoint.pool().send(request, leg.interims).await {
            Ok(response) => return received(response, &origin, carried, prepared.tunnel.take(), tunnels),
            Err(Failed { fault, unsent }) => {
                if matches!(
                    fault.kind,
                    Kind::Connect | Kind::ConnectTimeout | Kind::Tls | Kind::PeerIdentity
                ) {
                    balancer.unreachable(&endpoint);
                }
                if !unsent || tried == MAX_ENDPOINTS || !balancer.is_ready() {
                    let addr = endpoint.description().addr;
                    return Err(
                        fault.at(|| format!("route {route}: backend {}: endpoint {addr}: ", backend.meta))
                    );
                }
                origin.restore(request);
                now = Instant::now();
            }
        }
    }
    unreachable!("the last endpoint either answers or fails")
}

/// `l5d-require-id`: the application insists on an identity, which the endpoint has to prove.
fn check_identity(endpoint: &Endpoint, required: Option<&HeaderValue>) -> Result<(), Fault> {
    let Some(required) = required else { return Ok(()) };
    let peer = endpoint.pool().dial().peer.as_ref();
    let found = peer.map(|peer| peer.tls.identity.as_str());
    if found.is_some_and(|found| found.as_bytes().eq_ignore_ascii_case(required.as_bytes())) {
        return Ok(());
    }
    let text = format!("required id {required:?}; found {found:?}");
    Err(Fault::because(Kind::PeerIdentity, Side::Server, text))
}

impl<'a> Origin<'a> {
    fn of(request: &Request<Body>, tunnel: bool, dialled: &'a Dialled) -> Self {
        let absolute = request.uri().authority().is_some();
        Self {
            version: request.version(),
            absolute,
            overridden: None,
            tunnel,
            te: Vec::new(),
            dialled,
        }
    }

    /// Makes the request again what it was.
    fn restore(&mut self, request: &mut Request<Body>) {
        *request.version_mut() = self.version;
        request.headers_mut().remove(ORIG_PROTO);
        if !self.te.is_empty() {
            request.headers_mut().remove(TE);
            for codings in self.te.drain(..) {
                request.headers_mut().append(TE, codings);
            }
        }
        if let Some(overridden) = self.overridden.take() {
            let Overridden { uri, host } = *overridden;
            *request.uri_mut() = uri;
            if let Some(host) = host {
                request.headers_mut().insert(HOST, host);
            }
        } else if !self.absolute {
            *request.uri_mut() = orig_proto::origin_form(request.uri());
        }
    }

    /// Gives the request the form that the endpoint's side expects. `true`: HTTP/1 that HTTP/2 carries.
    fn address(&mut self, request: &mut Request<Body>, endpoint: &Endpoint) -> Result<bool, Fault> {
        let description = endpoint.description();
        let carried = self.version != Version::HTTP_2
            && !self.tunnel
            && description.hint == ProtocolHint::Http2
            && !endpoint.is_local();
        if let Some(authority) = &description.authority_override {
            self.overridden = Some(Box::new(Overridden {
                uri: request.uri().clone(),
                host: request.headers().get(HOST).cloned(),
            }));
            request.headers_mut().remove(DST_CANONICAL);
            override_authority(request, authority, carried || self.version == Version::HTTP_2)?;
        }
        if carried {
            self.carry(request)?;
        }
        Ok(carried)
    }

    /// Makes HTTP/1 ready to be carried by HTTP/2.
    fn carry(&mut self, request: &mut Request<Body>) -> Result<(), Fault> {
        self.te = request.headers().get_all(TE).iter().cloned().collect();
        orig_proto::upgrade(request, self.absolute, || self.dialled.to_string())
    }
}

/// Makes a request one for another authority: HTTP/2 says it in the target, HTTP/1 in `Host`.
///
/// That of a plain `CONNECT` is where its tunnel leads, and nobody else's to say.
fn override_authority(request: &mut Request<Body>, authority: &str, http2: bool) -> Result<(), Fault> {
    if request.uri().scheme().is_none() && request.uri().authority().is_some() {
        return Ok(());
    }
    let invalid = || {
        let text = "the endpoint's authority is not valid";
        Fault::because(Kind::Discovery, Side::Control, text)
    };
    if http2 {
        *request.uri_mut() = headers::with_authority(request.uri(), authority).ok_or_else(invalid)?;
        request.headers_mut().remove(HOST);
    } else {
        let host = HeaderValue::from_str(authority).map_err(|_| invalid())?;
        request.headers_mut().insert(HOST, host);
        *request.uri_mut() = orig_proto::origin_form(request.uri());
    }
    Ok(())
}

/// The answer as the application is to see it: without what concerns one connection, or the peer proxy only.
fn received(
    mut response: Response<Body>,
    origin: &Origin<'_>,
    carried: bool,
    tunnel: Option<Wanted>,
    tunnels: &Tunnels,
) -> Result<Response<Body>, Fault> {
    if carried {
        orig_proto::restore(&mut response, origin.version);
    } else {
        response.headers_mut().remove(ORIG_PROTO);
        *response.version_mut() = origin.version;
    }
    upgrade::settle(tunnel, &mut response, tunnels)?;
    let fields = response.headers_mut();
    if headers::has_linkerds(fields) {
        if let Some(error) = fields.remove(PROXY_ERROR) {
            tracing::info!(?error, "Remote proxy error");
        }
        fields.remove(PROXY_CONNECTION);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::endpoint::{Params, testing};
    use crate::http::h2::head;
    use outrigger_policy::endpoint::Endpoint as Description;
    use outrigger_policy::outbound::LoadParams;
    use std::sync::Arc;

    fn endpoint(hint: ProtocolHint, authority: Option<&str>) -> Arc<Endpoint> {
        let params = Params {
            load: LoadParams::default(),
            breaker: None,
        };
        let description = Description {
            hint,
            authority_override: authority.map(Into::into),
            ..Description::bare("192.0.2.1:80".parse().unwrap())
        };
        testing::described(description, params, &Arc::default())
    }

    #[tokio::test]
    async fn a_request_for_another_authority_says_so_where_its_version_does_and_is_itself_again_for_the_next()
    {
        let request = Request::get("/path")
            .header("host", "web")
            .header(DST_CANONICAL, "web:80");
        let mut request = request.body(Body::Empty).unwrap();
        let dialled = Dialled::Addr("192.0.2.9:80".parse().unwrap());
        let mut origin = Origin::of(&request, false, &dialled);
        let west = Some("web.west:81");

        let carried = origin
            .address(&mut request, &endpoint(ProtocolHint::Unknown, west))
            .unwrap();
        assert!(!carried && !request.headers().contains_key(DST_CANONICAL));
        assert_eq!(
            (request.uri().to_string(), &request.headers()[HOST]),
            ("/path".into(), &"web.west:81".parse().unwrap())
        );
        origin.restore(&mut request);

        let carried = origin
            .address(&mut request, &endpoint(ProtocolHint::Http2, west))
            .unwrap();
        assert!(carried && request.version() == Version::HTTP_2);
        assert_eq!(request.uri().authority().unwrap(), "web.west:81");
        origin.restore(&mut request);

        let carried = origin
            .address(&mut request, &endpoint(ProtocolHint::Unknown, None))
            .unwrap();
        assert!(!carried && request.version() == Version::HTTP_11);
        assert_eq!(
            (request.uri().to_string(), &request.headers()[HOST]),
            ("/path".into(), &"web".parse().unwrap())
        );
    }

    #[test]
    fn what_http2_does_not_carry_is_there_again_for_the_next_endpoint() {
        let dialled = Dialled::Addr("10.0.0.1:80".parse().unwrap());
        let mut request = Request::get("/").header(HOST, "app").body(Body::Empty).unwrap();
        for codings in ["gzip", "trailers;q=0.5"] {
            request
                .headers_mut()
                .append(TE, HeaderValue::from_static(codings));
        }
        let before = request.headers().clone();
        let mut origin = Origin::of(&request, false, &dialled);
        origin.carry(&mut request).unwrap();
        head::fit(request.headers_mut());
        assert_eq!(request.headers()[TE], "trailers");
        origin.restore(&mut request);
        assert_eq!(request.headers(), &before);
        assert_eq!((request.version(), request.uri().path()), (Version::HTTP_11, "/"));
    }
}
