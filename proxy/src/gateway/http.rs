//! A request for somebody else: let it in by the policy of our own port, mark it, send it out.

use std::ops::ControlFlow::{self, Break, Continue};
use std::sync::Arc;

use http::header::{FORWARDED, HOST};
use http::{HeaderValue, Request, Response, Version};
use outrigger_policy::name::NameAddr;
use tokio::sync::OnceCell;

use crate::error::{BoxError, Fault, Kind, Side};
use crate::exchange::Exchange;
use crate::gateway::forwarded;
use crate::gateway::shared::{Gateway, looped};
use crate::http::body::{Body, Tracked};
use crate::http::headers;
use crate::http::interim::Interims;
use crate::http::respond::Asked;
use crate::inbound;
use crate::inbound::arrival::Arrival;
use crate::outbound;

/// A connection of a peer proxy whose requests are for somebody else.
#[derive(Debug)]
pub(super) struct Connection {
    gateway: Arc<Gateway>,
    /// The side that it comes from.
    pub(super) client: Arc<inbound::http::Connection>,
    to: NameAddr,
    /// The side that it goes to, known since the first request that was let in.
    server: OnceCell<Arc<outbound::http::Connection>>,
}

impl Connection {
    pub(super) fn new(gateway: Arc<Gateway>, arrival: Arrival, to: NameAddr) -> Arc<Self> {
        let client = inbound::http::Connection::new(gateway.inbound.clone(), arrival);
        Arc::new(Self {
            gateway,
            client,
            to,
            server: OnceCell::new(),
        })
    }

    async fn server(&self) -> Result<&Arc<outbound::http::Connection>, Fault> {
        let find = async || {
            let (outbound, closing) = (self.gateway.outbound.clone(), self.client.closing.clone());
            let target = self.gateway.target(&self.to).await?;
            Ok(outbound::http::Connection::new(outbound, target, closing))
        };
        self.server.get_or_try_init(find).await
    }
}

/// Where a request goes on.
struct Onward {
    server: Arc<outbound::http::Connection>,
    /// It is HTTP/1 that HTTP/2 carried.
    carried: bool,
}

/// Carries one request from a peer proxy to the service that it is for, and the answer back. It is counted on its way in
/// by the authorization that let it in, and on its way out like the application's own.
pub(super) async fn request(
    connection: Arc<Connection>,
    mut request: Request<Body>,
    interims: Interims,
) -> Result<Response<Tracked<Exchange>>, BoxError> {
    let client = &connection.client;
    let (asked, native) = (client.asked(&request), request.version());
    // Held until the answer; from there on the outbound limit counts it, to the end of the body.
    let permit = client.limit().enter();
    let passed = match &permit {
        Ok(_permit) => pass(&connection, &mut request, asked).await,
        Err(_) => Err(Fault::new(Kind::Overloaded, Side::Proxy)),
    };
    match passed {
        Ok(Continue(Onward { server, carried })) => {
            let mut response = outbound::http::request(server, request, interims).await?;
            if carried {
                // The outbound side took it for HTTP/1.
                headers::strip_hop_by_hop(response.headers_mut());
            }
            inbound::http::leave(&mut response, native, carried);
            Ok(response)
        }
        Ok(Break(response)) => Ok(Exchange::refused().track(response)),
        Err(fault) => client.refuse(Exchange::refused(), fault, asked),
    }
}

/// Lets a request in, and makes it one for the service; or a filter of its route answers it.
async fn pass(
    connection: &Connection,
    request: &mut Request<Body>,
    asked: Asked,
) -> Result<ControlFlow<Response<Body>, Onward>, Fault> {
    let client = &connection.client;
    let carried = inbound::http::receive(client, request)?.carried;
    // What goes on is counted on its way out.
    if let Some(answer) = client.admit(request, asked, |_handles, _body| {})? {
        return Ok(Break(answer));
    }
    connection.gateway.check_client(client.identity())?;
    let credentials = connection.gateway.inbound.credentials.get();
    let own = credentials.identity().as_str();
    if forwarded::by(request.headers(), own) {
        return Err(looped());
    }
    let server = connection.server().await?.clone();
    let host = authority(&connection.to);
    let id = client.identity().map_or("", |id| id.as_str());
    let here = forwarded::element(own, id, &host);
    request.headers_mut().append(FORWARDED, header(&here)?);
    if request.version() < Version::HTTP_2 {
        address(request, &host)?;
    }
    Ok(Continue(Onward { server, carried }))
}

/// Makes an HTTP/1 request one for this host. Where a `CONNECT` leads is its client's to say.
fn address(request: &mut Request<Body>, host: &str) -> Result<(), Fault> {
    let uri = request.uri();
    if uri.authority().is_some() {
        if uri.scheme().is_none() {
            return Ok(());
        }
        let addressed = headers::with_authority(uri, host);
        *request.uri_mut() = addressed.ok_or_else(|| Fault::new(Kind::Internal, Side::Proxy))?;
    }
    request.headers_mut().insert(HOST, header(host)?);
    Ok(())
}

/// The name as requests have it: without the port that HTTP has anyway.
fn authority(to: &NameAddr) -> String {
    match to.port.get() {
        80 => to.name.to_string(),
        _ => to.to_string(),
    }
}

fn header(text: &str) -> Result<HeaderValue, Fault> {
    HeaderValue::from_str(text).map_err(|error| Fault::because(Kind::Internal, Side::Proxy, error))
}
