//! Connections whose bytes are only passed on: opaque ones, and TLS of the application by its SNI.

use std::sync::Arc;
use std::time::Duration;

use outrigger_policy::breaker::Outcome;
use outrigger_policy::outbound::{TlsRoute, find_tls};
use tokio::time::Instant;

use crate::balance::endpoint::Picked;
use crate::config;
use crate::error::{Fault, Kind, Side};
use crate::net::copy;
use crate::net::detect::tls::Hello;
use crate::net::detect::{self, Seen};
use crate::net::io::{Io, Meter, Socket};
use crate::outbound::backends::Backend;
use crate::outbound::dialled::Dialled;
use crate::outbound::report::{self, Report};
use crate::outbound::router::Opaque;
use crate::outbound::target::Target;
use crate::telemetry::tcp_route::Flow;

/// Endpoints tried for one connection.
const MAX_ENDPOINTS: usize = 3;

/// Passes a connection's bytes on by an opaque route, as which `flow` is counted. Box it, so that connections of HTTP
/// keep no room for it.
pub(super) async fn opaque(
    mut io: Io,
    route: &Opaque,
    mut flow: Flow,
    config: &config::Outbound,
) -> Result<(), Fault> {
    let (server, picked) = report::checked(&mut flow, dial(route).await)?;
    join(&mut io, server, picked, flow, config).await
}

/// Opens a connection to where a destination's opaque route leads. What comes with it is held until it has ended: the
/// endpoint's load, and the flow that counts it.
pub(crate) async fn open(target: &Target, report: &Report) -> Result<(Io, (Picked, Flow)), Fault> {
    let router = target.router();
    let route = router.opaque()?;
    let mut flow = report.flow(route, Some(target.dialled()));
    let (server, picked) = report::checked(&mut flow, dial(route).await)?;
    Ok((server, (picked, flow)))
}

/// Opens a connection to where an opaque route leads.
pub(super) async fn dial(route: &Opaque) -> Result<(Io, Picked), Fault> {
    Box::pin(connect(route.backend()?, route.fail_fast)).await
}

/// Counts a connection by a route that was dialled before it was taken, if the route still leads anywhere.
pub(super) fn flow(route: &Opaque, report: &Report, dialled: &Dialled) -> Result<Flow, Fault> {
    let mut flow = report.flow(route, Some(dialled));
    report::checked(&mut flow, route.backend().and_then(Backend::balancer))?;
    Ok(flow)
}

/// Passes bytes on between two connections. The endpoint carries them as load until they end.
pub(super) async fn join(
    io: &mut Io,
    mut server: Io,
    _picked: Picked,
    _flow: Flow,
    config: &config::Outbound,
) -> Result<(), Fault> {
    if let Err(error) = copy::both_ways(io, &mut server, config.half_closed).await {
        tracing::debug!(%error, "an opaque connection ended early");
        io.cut();
        server.cut();
    }
    Ok(())
}

/// Passes TLS of the application on, to where its server name says.
pub(super) async fn tls(
    mut socket: Socket,
    meter: Arc<dyn Meter>,
    routes: &[TlsRoute<Opaque>],
    report: &Report,
    config: &config::Outbound,
) -> Result<(), Fault> {
    let no_route = |text: &str| Err(Fault::because(Kind::NoRoute, Side::Client, text.to_owned()));
    let seen = detect::client_hello(&mut socket, config.detect_timeout).await;
    let sni = match seen.map_err(|error| Fault::because(Kind::Reset, Side::Client, error))? {
        Seen::Decided(Hello::Tls { sni: Some(sni) }) => sni,
        Seen::Decided(_) => return no_route("Could not find SNI"),
        Seen::TimedOut => return no_route("SNI detection timed out"),
        Seen::Ended => return Ok(()),
    };
    match find_tls(routes, sni.as_str()) {
        Some(found) => {
            let flow = report.flow(&found.route, None);
            Box::pin(opaque(
                Io::plain(socket).metered(meter),
                &found.route,
                flow,
                config,
            ))
            .await
        }
        None => no_route(&format!("no TLS route takes {sni}")),
    }
}

/// Opens a connection to the least loaded endpoint that takes one.
async fn connect(backend: &Backend, fail_fast: Duration) -> Result<(Io, Picked), Fault> {
    let balancer = backend.balancer()?;
    for tried in 1.. {
        let mut picked = balancer.pick(Instant::now(), fail_fast, &backend.waits).await?;
        match picked.endpoint().pool().dial().connect(None).await {
            Ok(io) => {
                picked.connected(Instant::now());
                return Ok((io, picked));
            }
            Err(fault) if fault.side == Side::Proxy => return Err(fault),
            Err(fault) => {
                balancer.unreachable(picked.endpoint());
                picked.judge(Outcome::Failure);
                if tried == MAX_ENDPOINTS || !balancer.is_ready() {
                    return Err(fault);
                }
            }
        }
    }
    unreachable!("the last endpoint either connects or fails")
}
