//! Configuration: plain parsed values, one struct per room that reads it.
//!
//! [`vars`] is the table of every variable; [`env`](mod@env) reads it and collects what is wrong; the rest turns values into
//! the structs that rooms receive.

pub mod control;
pub mod env;
pub mod http;
pub mod identity;
pub mod row;
pub mod socket;
pub mod traffic;
pub mod value;
pub mod vars;
pub mod workers;

use std::net::SocketAddr;
use std::time::Duration;

pub use control::{Control, ControlAddr, DefaultInbound, Discovery, DnsLifetime, StreamTimeouts};
pub use env::{Error, Errors, Lookup, Warning};
pub use http::{FlowControl, HeadLimits, Http2Client, Http2Server, KeepAlive, Pool};
pub use identity::Identity;
pub use socket::{Accept, Backoff, Connect};
pub use traffic::{Inbound, Outbound};
pub use value::{
    Addresses, DefaultPolicy, Host, HostPort, LogFormat, Networks, PortSet, Suffix, Suffixes, TrustAnchors,
};
pub use workers::Workers;

use env::Reader;

/// Everything that is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Traffic from the application.
    pub outbound: Outbound,
    /// Traffic to the application.
    pub inbound: Inbound,
    /// Probes and metrics.
    pub admin: Admin,
    /// Who this proxy is.
    pub identity: Identity,
    /// Where knowledge comes from.
    pub control: Control,
    /// The process.
    pub process: Process,
}

/// The admin port.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Options of its sockets.
    pub accept: Accept,
    /// Whether `POST /shutdown` ends the proxy.
    pub shutdown_endpoint: bool,
}

/// The process.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// How many threads work.
    pub workers: Workers,
    /// How long a drain may take.
    pub grace_period: Duration,
    /// How long metrics of a target that is no longer used are kept.
    pub metrics_retain_idle: Duration,
    /// What is logged.
    pub log: Log,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Directives of an `EnvFilter`; `off` in any case logs nothing.
    pub filter: std::sync::Arc<str>,
    /// How lines look.
    pub format: LogFormat,
}

impl Config {
    /// Reads the configuration. Every error is reported at once: print them, and end with exit code 64.
    pub fn from_env(lookup: Lookup<'_>) -> Result<(Self, Vec<Warning>), Errors> {
        let mut r = Reader::new(lookup);
        let admin = Admin {
            listen: r.read(&vars::ADMIN_LISTEN_ADDR),
            accept: socket::inbound_accept(&mut r),
            shutdown_endpoint: r.read(&vars::SHUTDOWN_ENDPOINT_ENABLED),
        };
        let inbound = traffic::inbound(&mut r, admin.listen.port());
        let outbound = traffic::outbound(&mut r);
        let dns = control::dns_lifetime(&mut r);
        let control = control::read(&mut r, &inbound, &outbound, dns);
        let identity = identity::read(&mut r, &inbound, &outbound, dns);
        let process = process(&mut r);
        for (_, rows) in vars::SECTIONS {
            r.check_not_built(rows);
        }
        match (r.finish(), identity, control) {
            ((Errors(errors), warnings), Some(identity), Some(control)) if errors.is_empty() => {
                let config = Self {
                    outbound,
                    inbound,
                    admin,
                    identity,
                    control,
                    process,
                };
                Ok((config, warnings))
            }
            ((errors, _), _, _) => Err(errors),
        }
    }
}

fn process(r: &mut Reader<'_>) -> Process {
    Process {
        workers: workers::read(r),
        grace_period: r.read(&vars::SHUTDOWN_GRACE_PERIOD),
        metrics_retain_idle: r.read(&vars::METRICS_RETAIN_IDLE),
        log: log(r),
    }
}

/// What is logged, which has to be known before anything else can be reported. Errors stay for the whole to report.
pub fn log_from_env(lookup: Lookup<'_>) -> Log {
    log(&mut Reader::new(lookup))
}

fn log(r: &mut Reader<'_>) -> Log {
    Log {
        filter: r.read(&vars::LOG),
        format: r.read(&vars::LOG_FORMAT),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Traffic from the application, where nothing is configured.
    pub(crate) fn outbound() -> Outbound {
        traffic::outbound(&mut Reader::new(&|_| None))
    }
}
