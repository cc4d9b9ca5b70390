//! Keep-alive: PINGs that find out whether a silent peer is still there (RFC 9113 §6.7).

use std::future::pending;

use outrigger_http2::Pings;
use tokio::time::{sleep, timeout};

use crate::config::KeepAlive;
use crate::net::io::Activity;

/// Ends when the peer has left a PING unanswered. One that was heard from meanwhile is there, however busy, and is not
/// asked; nor is one that is not `needed`.
pub async fn unanswered(mut pings: Pings, peer: Activity, settings: KeepAlive, needed: impl Fn() -> bool) {
    loop {
        sleep(settings.interval).await;
        if peer.since() || !needed() {
            continue;
        }
        match timeout(settings.timeout, pings.ping()).await {
            Ok(Ok(())) => {}
            // The connection is ending, and says itself why.
            Ok(Err(_)) => pending().await,
            Err(_elapsed) => return,
        }
    }
}
