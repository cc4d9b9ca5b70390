//! Sends a request to an endpoint, and to another one when nothing of it was written.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri, Version};
use outrigger_policy::endpoint::ProtocolHint;
use tokio::time::Instant;

use crate::balance::Balancer;
use crate::balance::endpoint::Endpoint;
use crate::drain::Drain;
use crate::error::{Fault, Kind, Side};
use crate::exchange::Exchange;
use crate::http::body::Body;
use crate::http::headers::{self, DST_CANONICAL, ORIG_PROTO, PROXY_CONNECTION, PROXY_ERROR, REQUIRE_ID};
use crate::http::orig_proto;
use crate::http::pool::Failed;
use crate::http::upgrade::{self, Wanted};

/// Endpoints tried for one request, each only if the one before took nothing of it.
const MAX_ENDPOINTS: usize = 3;

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct To<'a> {
    /// The endpoints.
    pub(super) balancer: &'a Balancer,
    /// How long it waits for an endpoint.
    pub(super) fail_fast: Duration,
    /// What the application dialled: the host of a request that names none.
    pub(super) dialled: SocketAddr,
}

/// What is needed to make a request again what the application sent: each attempt starts from there.
#[derive(Debug)]
struct Origin {
    version: Version,
    /// The target was in absolute form.
    absolute: bool,
    /// Target and `Host`, of a request that was made one for another authority.
    overridden: Option<(Uri, Option<HeaderValue>)>,
    /// The application asks for a tunnel, which HTTP/2 can't carry.
    tunnel: bool,
    dialled: SocketAddr,
}

/// Sends a request, which leaves an empty one behind, and gives back the answer as the application is to see it.
pub(super) async fn send(
    to: To<'_>,
    request: &mut Request<Body>,
    exchange: &mut Exchange,
    drain: &Drain,
) -> Result<Response<Body>, Fault> {
    let tunnel = upgrade::prepare(request);
    let required = if headers::has_linkerds(request.headers()) {
        request.headers_mut().remove(REQUIRE_ID)
    } else {
        None
    };
    let mut origin = Origin::of(request, tunnel.is_some(), to.dialled);
    let mut now = exchange.started();
    for tried in 1.. {
        let picked = to.balancer.pick(now, to.fail_fast).await?;
        let endpoint = picked.endpoint().clone();
        exchange.dispatch(endpoint.handles());
        exchange.at(picked);
        check_identity(&endpoint, required.as_ref())?;
        let carried = origin.address(request, &endpoint)?;
        match endpoint.pool().send(request).await {
            Ok(response) => return received(response, &origin, carried, tunnel, drain),
            Err(Failed { fault, unsent }) => {
                if matches!(
                    fault.kind,
                    Kind::Connect | Kind::ConnectTimeout | Kind::Tls | Kind::PeerIdentity
                ) {
                    endpoint.unreachable();
                }
                if !unsent || tried == MAX_ENDPOINTS || !to.balancer.is_ready() {
                    return Err(fault);
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

impl Origin {
    fn of(request: &Request<Body>, tunnel: bool, dialled: SocketAddr) -> Self {
        let absolute = request.uri().authority().is_some();
        Self {
            version: request.version(),
            absolute,
            overridden: None,
            tunnel,
            dialled,
        }
    }

    /// Makes the request again what it was.
    fn restore(&mut self, request: &mut Request<Body>) {
        *request.version_mut() = self.version;
        request.headers_mut().remove(ORIG_PROTO);
        if let Some((uri, host)) = self.overridden.take() {
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
            self.overridden = Some((request.uri().clone(), request.headers().get(HOST).cloned()));
            request.headers_mut().remove(DST_CANONICAL);
            override_authority(request, authority, carried || self.version == Version::HTTP_2)?;
        }
        if carried {
            orig_proto::upgrade(request, self.absolute, || self.dialled.to_string())?;
        }
        Ok(carried)
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
    origin: &Origin,
    carried: bool,
    tunnel: Option<Wanted>,
    drain: &Drain,
) -> Result<Response<Body>, Fault> {
    if carried {
        orig_proto::restore(&mut response, origin.version);
    } else {
        response.headers_mut().remove(ORIG_PROTO);
        *response.version_mut() = origin.version;
    }
    upgrade::settle(tunnel, &mut response, drain)?;
    let fields = response.headers_mut();
    if headers::has_linkerds(fields) {
        if let Some(error) = fields.remove(PROXY_ERROR) {
            tracing::info!(?error, "Remote proxy error");
        }
        fields.remove(PROXY_CONNECTION);
    }
    Ok(response)
}
