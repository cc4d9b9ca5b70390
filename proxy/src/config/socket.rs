//! How sockets are accepted and connected, for both directions.

use std::time::Duration;

use crate::config::env::Reader;
use crate::config::row::{OptionalVar, Var};
use crate::config::value::Jitter;
use crate::config::vars;

/// Options of accepted sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// Idle time before the first keep-alive probe. `SO_KEEPALIVE` is on even if unset.
    pub keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT`.
    pub user_timeout: Option<Duration>,
    /// Length of the queue of `listen(2)`.
    pub backlog: Option<u32>,
}

/// How connections are opened.
#[derive(Clone, Debug, PartialEq)]
pub struct Connect {
    /// How long until a connection is usable: TCP, TLS and a transport header together.
    pub timeout: Duration,
    /// Idle time before the first keep-alive probe. `SO_KEEPALIVE` is on even if unset.
    pub keepalive: Option<Duration>,
    /// `TCP_USER_TIMEOUT`.
    pub user_timeout: Option<Duration>,
    /// How long to wait between attempts.
    pub backoff: Backoff,
}

/// Waits that double from `min` to `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The first wait.
    pub min: Duration,
    /// The longest wait.
    pub max: Duration,
    /// How much of a wait is added at random at most: 0.1 is a tenth.
    pub jitter: f64,
}

/// Options of sockets accepted from the mesh, and of the admin port.
pub(in crate::config) fn inbound_accept(r: &mut Reader<'_>) -> Accept {
    Accept {
        keepalive: r.optional(&vars::INBOUND_ACCEPT_KEEPALIVE),
        user_timeout: r.optional(&vars::INBOUND_ACCEPT_USER_TIMEOUT),
        backlog: backlog(r, &vars::INBOUND_TCP_LISTEN_BACKLOG),
    }
}

/// Options of sockets accepted from the application.
pub(in crate::config) fn outbound_accept(r: &mut Reader<'_>) -> Accept {
    Accept {
        keepalive: r.optional(&vars::OUTBOUND_ACCEPT_KEEPALIVE),
        user_timeout: r.optional(&vars::OUTBOUND_ACCEPT_USER_TIMEOUT),
        backlog: backlog(r, &vars::OUTBOUND_TCP_LISTEN_BACKLOG),
    }
}

/// `listen(2)` takes an `int`; the kernel cuts it down to `net.core.somaxconn` anyway.
fn backlog(r: &mut Reader<'_>, var: &OptionalVar<u32>) -> Option<u32> {
    r.optional(var).map(|backlog| backlog.min(i32::MAX as u32))
}

/// How connections to the application are opened.
pub(in crate::config) fn inbound_connect(r: &mut Reader<'_>) -> Connect {
    Connect {
        timeout: r.read(&vars::INBOUND_CONNECT_TIMEOUT),
        keepalive: r.optional(&vars::INBOUND_CONNECT_KEEPALIVE),
        user_timeout: r.optional(&vars::INBOUND_CONNECT_USER_TIMEOUT),
        backoff: backoff(
            r,
            &vars::INBOUND_CONNECT_EXP_BACKOFF_MIN,
            &vars::INBOUND_CONNECT_EXP_BACKOFF_MAX,
            &vars::INBOUND_CONNECT_EXP_BACKOFF_JITTER,
        ),
    }
}

/// How connections to other pods are opened.
pub(in crate::config) fn outbound_connect(r: &mut Reader<'_>) -> Connect {
    Connect {
        timeout: r.read(&vars::OUTBOUND_CONNECT_TIMEOUT),
        keepalive: r.optional(&vars::OUTBOUND_CONNECT_KEEPALIVE),
        user_timeout: r.optional(&vars::OUTBOUND_CONNECT_USER_TIMEOUT),
        backoff: backoff(
            r,
            &vars::OUTBOUND_CONNECT_EXP_BACKOFF_MIN,
            &vars::OUTBOUND_CONNECT_EXP_BACKOFF_MAX,
            &vars::OUTBOUND_CONNECT_EXP_BACKOFF_JITTER,
        ),
    }
}

fn backoff(r: &mut Reader<'_>, min: &Var<Duration>, max: &Var<Duration>, jitter: &Var<Jitter>) -> Backoff {
    let set = (r.is_set(&min.row), r.is_set(&max.row));
    let (from, to, Jitter(share)) = (r.read(min), r.read(max), r.read(jitter));
    let (min_name, max_name) = (min.row.name, max.row.name);
    match set {
        (true, false) | (false, true) => {
            r.conflict(format!(
                "{min_name} and {max_name} must be set together, or not at all"
            ));
        }
        _ if from > to => r.conflict(format!("{min_name} must not be longer than {max_name}")),
        _ if to.is_zero() => r.conflict(format!("{max_name} must be longer than 0")),
        _ => {}
    }
    let jitter_follows = set == (true, true) && !r.is_set(&jitter.row);
    Backoff {
        min: from,
        max: to,
        jitter: if jitter_follows { 0.0 } else { share },
    }
}
