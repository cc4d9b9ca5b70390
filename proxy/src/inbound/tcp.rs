//! Connections whose bytes are only passed on to the application.

use std::sync::Arc;

use outrigger_policy::authz::{Authorization, Deny, Permit, authorize};
use outrigger_policy::inbound::{InboundPolicy, InboundProtocol};

use crate::error::{Fault, Kind, Side};
use crate::inbound::arrival::Arrival;
use crate::inbound::shared::Inbound;
use crate::live::Live;
use crate::net::copy;
use crate::net::io::Io;

/// Passes bytes on for as long as the policy permits it.
pub(super) async fn forward(inbound: &Arc<Inbound>, arrival: Arrival, mut io: Io) -> Result<(), Fault> {
    let mut policy = (*arrival.policy).clone();
    let current = policy.get_and_mark_seen();
    match permit(&current, &arrival) {
        Ok(permit) => inbound.report.tcp_allowed(&arrival, &current, permit.by),
        Err(Deny) => {
            inbound.report.tcp_denied(&arrival, &current);
            return Err(denied(&current));
        }
    }
    let mut app = inbound.local.pool(arrival.dst)?.dial().connect(None).await?;
    tokio::select! {
        copied = copy::both_ways(&mut io, &mut app) => {
            if let Err(error) = copied {
                tracing::debug!(%error, "a connection to the application ended early");
            }
            Ok(())
        }
        revoked = revoked(&mut policy, &arrival) => {
            inbound.report.tcp_terminated(&arrival, &revoked);
            Err(denied(&revoked))
        }
    }
}

/// Waits for a policy that no longer permits the connection.
async fn revoked(policy: &mut Live<InboundPolicy>, arrival: &Arrival) -> Arc<InboundPolicy> {
    while let Ok(current) = policy.changed().await {
        if permit(&current, arrival).is_err() {
            return current;
        }
    }
    // Nobody will change it any more: the last one stays in force.
    std::future::pending().await
}

fn permit<'a>(policy: &'a InboundPolicy, arrival: &Arrival) -> Result<Permit<'a>, Deny> {
    let authorizations: &[Authorization] = match &policy.protocol {
        InboundProtocol::Opaque | InboundProtocol::Tls | InboundProtocol::Detect { .. } => {
            &policy.authorizations
        }
        // What is not HTTP has no business on a port that speaks it.
        InboundProtocol::Http1(_)
        | InboundProtocol::Http2(_)
        | InboundProtocol::Grpc(_)
        | InboundProtocol::Invalid(_) => &[],
    };
    authorize(authorizations, arrival.client.ip(), &arrival.tls)
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
