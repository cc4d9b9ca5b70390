//! Keep-alive: PINGs that find out whether a silent peer is still there (RFC 9113 §6.7).

use std::future::pending;

use ::h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

use crate::config::KeepAlive;
use crate::net::io::Activity;

/// Ends when the peer has left a PING unanswered. One that was heard from meanwhile is there, and is not asked.
pub async fn unanswered(mut pings: PingPong, peer: Activity, settings: KeepAlive) {
    loop {
        sleep(settings.interval).await;
        if peer.since() {
            continue;
        }
        match timeout(settings.timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_pong)) => {}
            // The connection is ending, and says itself why.
            Ok(Err(_)) => pending().await,
            Err(_elapsed) => return,
        }
    }
}
