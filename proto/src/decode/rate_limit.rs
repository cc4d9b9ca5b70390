//! Rate limits of a port.

use std::num::NonZeroU32;
use std::sync::Arc;

use outrigger_policy::name::ResourceRef;
use outrigger_policy::rate_limit::{Override, RateLimitPolicy};

use super::authz::{self, MAX_AUTHORIZATIONS};
use super::error::{DecodeError, bounded, each};
use super::meta;
use crate::inbound::HttpLocalRateLimit;
use crate::inbound::http_local_rate_limit::Limit;

/// The limits of a port, of which zero is none; `None` when nothing is limited.
pub(super) fn rate_limit(
    message: &Option<HttpLocalRateLimit>,
) -> Result<Option<Arc<RateLimitPolicy>>, DecodeError> {
    let Some(message) = message else { return Ok(None) };
    let clients = message.overrides.iter().filter_map(|o| o.clients.as_ref());
    let names = clients.map(|clients| 1 + clients.identities.len()).sum();
    bounded("overrides", message.overrides.len(), MAX_AUTHORIZATIONS)?;
    bounded("overrides.clients", names, MAX_AUTHORIZATIONS)?;
    let policy = RateLimitPolicy {
        meta: match &message.metadata {
            Some(_) => meta::inbound("metadata", &message.metadata)?,
            None => Arc::new(ResourceRef::of_default("rate-limit")),
        },
        total: limit(&message.total),
        identity: limit(&message.identity),
        overrides: each("overrides", &message.overrides, |over| {
            let clients = over
                .clients
                .as_ref()
                .map_or(&[][..], |clients| &clients.identities);
            Ok(Override {
                limit: limit(&over.limit),
                clients: each("clients.identities", clients, authz::identity)?,
            })
        })?,
    };
    Ok(policy.limits().then(|| Arc::new(policy)))
}

fn limit(limit: &Option<Limit>) -> Option<NonZeroU32> {
    limit.and_then(|limit| NonZeroU32::new(limit.requests_per_second))
}
