//! Connections whose bytes are only passed on to the application.

use std::sync::Arc;

use outrigger_policy::authz::{Deny, Permit};
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol};
use outrigger_policy::port::PortPolicy;

use crate::error::{Fault, Kind, Side};
use crate::inbound::arrival::Arrival;
use crate::inbound::port::may_dial_early;
use crate::inbound::shared::Inbound;
use crate::live::Live;
use crate::net::copy;
use crate::net::io::Io;

/// Passes bytes on to the application for as long as the policy permits it.
pub(super) async fn forward(inbound: &Arc<Inbound>, arrival: Arrival, io: Io) -> Result<(), Fault> {
    // Nobody is dialled for a client that may not connect.
    check(inbound, &arrival)?;
    let app = dial(inbound, &arrival).await?;
    // Boxed, so that connections of HTTP keep no room for it.
    Box::pin(join(inbound, arrival, io, app)).await
}

/// Refuses a client that may not connect.
pub(crate) fn check(inbound: &Inbound, arrival: &Arrival) -> Result<(), Fault> {
    match permit(&arrival.port.policy.get(), arrival) {
        Ok(_permit) => Ok(()),
        Err(Deny) => Err(refused(inbound, arrival)),
    }
}

/// Passes bytes on between two connections for as long as the policy permits it.
pub(crate) async fn join(
    inbound: &Arc<Inbound>,
    arrival: Arrival,
    mut io: Io,
    mut app: Io,
) -> Result<(), Fault> {
    let mut policy = arrival.port.policy.clone();
    let current = policy.get_and_mark_seen();
    match permit(&current, &arrival) {
        Ok(permit) => {
            inbound.report.tcp_allowed(&arrival, &current, permit.by);
            if permit.is_audit() {
                let (client, dst) = (arrival.client, arrival.dst);
                tracing::info!(client.addr = %client, %dst, tls = ?arrival.tls, "Connection allowed: the policy only audits");
            }
        }
        Err(Deny) => return Err(refused(inbound, &arrival)),
    }
    tokio::select! {
        copied = copy::both_ways(&mut io, &mut app, inbound.config.half_closed) => {
            if let Err(error) = copied {
                tracing::debug!(%error, "a connection to the application ended early");
                io.cut();
                app.cut();
            }
            Ok(())
        }
        revoked = revoked(&mut policy, &arrival) => {
            io.cut();
            app.cut();
            inbound.report.tcp_terminated(&arrival, &revoked);
            let (fault, remedy) = (denied(&revoked), arrival.remedy(revoked.for_bytes(), &revoked));
            inbound.report.refused(&arrival, &revoked, None, &fault, remedy);
            Err(fault)
        }
    }
}

/// Opens a connection to the application before the client has spoken, where its policy leaves nothing to decide by
/// what it will say.
pub(super) async fn dial_early(
    inbound: &Inbound,
    arrival: &Arrival,
    policy: &InboundPolicy,
) -> Result<(Io, ()), Fault> {
    if !may_dial_early(policy) || permit(policy, arrival).is_err() {
        return Err(denied(policy));
    }
    Ok((dial(inbound, arrival).await?, ()))
}

async fn dial(inbound: &Inbound, arrival: &Arrival) -> Result<Io, Fault> {
    Box::pin(inbound.local.pool(arrival.dst)?.dial().connect(None)).await
}

fn refused(inbound: &Inbound, arrival: &Arrival) -> Fault {
    let policy = arrival.port.policy.get();
    inbound.report.tcp_denied(arrival, &policy);
    let (fault, remedy) = (denied(&policy), arrival.remedy(policy.for_bytes(), &policy));
    inbound.report.refused(arrival, &policy, None, &fault, remedy);
    fault
}

/// Waits for a policy that no longer permits the connection.
async fn revoked(policy: &mut Live<PortPolicy>, arrival: &Arrival) -> Arc<PortPolicy> {
    while let Ok(current) = policy.changed().await {
        if permit(&current, arrival).is_err() {
            return current;
        }
    }
    // Nobody will change it any more: the last one stays in force.
    std::future::pending().await
}

fn permit<'a>(policy: &'a InboundPolicy, arrival: &Arrival) -> Result<Permit<'a>, Deny> {
    policy.connection(arrival.client.ip(), &arrival.tls)
}

fn denied(policy: &InboundPolicy) -> Fault {
    let meta = &policy.meta;
    let text = match &policy.protocol {
        InboundProtocol::Invalid(why) => {
            format!("unauthorized connection on {}/{}: {why}", meta.kind, meta.name)
        }
        _ => format!("unauthorized connection on {}/{}", meta.kind, meta.name),
    };
    Fault::because(Kind::Unauthorized, Side::Client, text)
}
