//! Sends a request to an endpoint, and to another one when nothing of it was written.

use http::header::HOST;
use http::{Request, Response, Version};
use outrigger_policy::endpoint::ProtocolHint;

use crate::balance::Balancer;
use crate::balance::endpoint::Endpoint;
use crate::drain::Drain;
use crate::error::{Fault, Kind, Side};
use crate::exchange::Exchange;
use crate::http::body::Body;
use crate::http::headers::{self, DST_CANONICAL, PROXY_CONNECTION, PROXY_ERROR, REQUIRE_ID};
use crate::http::orig_proto;
use crate::http::pool::Failed;
use crate::http::upgrade::{self, Wanted};

/// Endpoints tried for one request, each only if the one before took nothing of it.
const MAX_ENDPOINTS: usize = 3;

/// Sends a request, which leaves an empty one behind, and gives back the answer as the application is to see it.
pub(super) async fn send(
    balancer: &Balancer,
    request: &mut Request<Body>,
    exchange: &mut Exchange,
    drain: &Drain,
) -> Result<Response<Body>, Fault> {
    let asked = request.version();
    let tunnel = upgrade::prepare(request);
    let required = request.headers_mut().remove(REQUIRE_ID);
    for tried in 1.. {
        let picked = balancer.pick().await?;
        let endpoint = picked.endpoint().clone();
        exchange.dispatch(endpoint.handles());
        exchange.at(picked);
        check_identity(&endpoint, required.as_ref())?;
        address(request, &endpoint, tunnel.is_some())?;
        match endpoint.pool().send(request).await {
            Ok(response) => return Ok(received(response, asked, tunnel, drain)),
            Err(Failed { fault, unsent }) => {
                if matches!(
                    fault.kind,
                    Kind::Connect | Kind::ConnectTimeout | Kind::Tls | Kind::PeerIdentity
                ) {
                    endpoint.unreachable();
                }
                if !unsent || tried == MAX_ENDPOINTS || !balancer.is_ready() {
                    return Err(fault);
                }
                orig_proto::downgrade(request);
            }
        }
    }
    unreachable!("the last endpoint either answers or fails")
}

/// `l5d-require-id`: the application insists on an identity.
fn check_identity(endpoint: &Endpoint, required: Option<&http::HeaderValue>) -> Result<(), Fault> {
    let Some(required) = required else { return Ok(()) };
    let found = endpoint
        .description()
        .tls
        .as_ref()
        .map(|tls| tls.identity.as_str());
    if found.is_some_and(|found| found.as_bytes().eq_ignore_ascii_case(required.as_bytes())) {
        return Ok(());
    }
    let text = format!("required id {required:?}; found {found:?}");
    Err(Fault::because(Kind::PeerIdentity, Side::Server, text))
}

/// Gives the request the form that the endpoint's side expects.
fn address(request: &mut Request<Body>, endpoint: &Endpoint, tunnel: bool) -> Result<(), Fault> {
    let description = endpoint.description();
    if let Some(authority) = &description.authority_override {
        let uri = headers::with_authority(request.uri(), authority).ok_or_else(|| {
            Fault::because(
                Kind::Discovery,
                Side::Control,
                "the endpoint's authority is not valid",
            )
        })?;
        *request.uri_mut() = uri;
        request.headers_mut().remove(HOST);
        request.headers_mut().remove(DST_CANONICAL);
    }
    if request.version() != Version::HTTP_2
        && !tunnel
        && description.hint == ProtocolHint::Http2
        && !endpoint.is_local()
    {
        orig_proto::upgrade(request)?;
    }
    Ok(())
}

/// The answer as the application is to see it: without what concerns one connection, or the peer proxy only.
fn received(
    mut response: Response<Body>,
    asked: Version,
    tunnel: Option<Wanted>,
    drain: &Drain,
) -> Response<Body> {
    if asked == Version::HTTP_2 {
        *response.version_mut() = Version::HTTP_2;
    } else {
        orig_proto::restore(&mut response, asked);
    }
    match tunnel {
        Some(tunnel) => tunnel.answered(&mut response, drain.clone()),
        None => headers::strip_hop_by_hop(response.headers_mut()),
    }
    let fields = response.headers_mut();
    if let Some(error) = fields.remove(PROXY_ERROR) {
        tracing::info!(?error, "Remote proxy error");
    }
    fields.remove(PROXY_CONNECTION);
    response
}
