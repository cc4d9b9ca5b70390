//! Bytes for somebody else.

use std::sync::Arc;

use crate::error::Fault;
use crate::gateway::shared::Gateway;
use crate::inbound;
use crate::inbound::arrival::Passage;
use crate::outbound;

/// Passes bytes on to the service that they are for, for as long as the policy of our own port permits it.
///
/// Bytes say nothing of where they have been: of loops only that through ourselves is seen.
pub(super) async fn pass(gateway: &Arc<Gateway>, passage: Passage) -> Result<(), Fault> {
    let Passage { arrival, io, to, .. } = passage;
    // Nobody is looked up or dialled for a client that may not connect.
    inbound::tcp::check(&gateway.inbound, &arrival)?;
    gateway.check_client(arrival.identity())?;
    let target = gateway.target(&to).await?;
    let (server, _held) = outbound::tcp::open(&target, &gateway.outbound.report).await?;
    Box::pin(inbound::tcp::join(&gateway.inbound, arrival, io, server)).await
}
