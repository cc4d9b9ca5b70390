//! The control plane: where it is, and what it is told of this proxy.

use std::sync::Arc;
use std::time::Duration;

use outrigger_policy::name::DnsName;

use crate::config::env::Reader;
use crate::config::http::{self, Http2Client};
use crate::config::row::OptionalVar;
use crate::config::socket::Connect;
use crate::config::traffic::{Inbound, Outbound};
use crate::config::value::{DefaultPolicy, HostPort, Networks, OptionalDuration, PortSet, Suffixes};
use crate::config::vars;

/// Where knowledge comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// The destination service.
    pub destination: ControlAddr,
    /// The policy controller.
    pub policy: ControlAddr,
    /// What is asked of them.
    pub discovery: Discovery,
    /// Limits of streams to a controller that is not on this host.
    pub stream_timeouts: StreamTimeouts,
    /// HTTP/2 to the control plane.
    pub http2_client: Http2Client,
}

/// A service of the control plane.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlAddr {
    /// Where it is.
    pub addr: HostPort,
    /// Its TLS identity, which is its server name too. `None` on this host: plaintext.
    pub identity: Option<DnsName>,
    /// How it is connected to.
    pub connect: Connect,
    /// How long its addresses are used for.
    pub dns: DnsLifetime,
}

/// The bounds of the time that an answer from DNS is used for. Min ≤ max.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DnsLifetime {
    /// The least.
    pub min: Option<Duration>,
    /// The longest.
    pub max: Option<Duration>,
}

/// What the control plane is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Discovery {
    /// What the policy controller is told of this proxy.
    pub workload: Arc<str>,
    /// What the destination service is told of this proxy.
    pub context: Arc<str>,
    /// Addresses that may have a service profile.
    pub profile_networks: Networks,
    /// Names that may have one.
    pub profile_suffixes: Suffixes,
    /// What holds for a port until the control plane has spoken.
    pub default_inbound: DefaultInbound,
}

/// What holds for an inbound port until the control plane has spoken.
#[derive(Clone, Debug, PartialEq)]
pub struct DefaultInbound {
    /// Who may connect.
    pub policy: DefaultPolicy,
    /// The networks that cluster policies admit; not empty if the policy is one.
    pub cluster_networks: Networks,
    /// Ports whose protocol is not detected.
    pub opaque_ports: PortSet,
    /// How long to wait for the first bytes on the others.
    pub detect_timeout: Duration,
}

/// Limits of control streams. Initial ≤ idle ≤ lifetime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamTimeouts {
    /// To the first message.
    pub initial: Option<Duration>,
    /// Between messages.
    pub idle: Option<Duration>,
    /// From first to last.
    pub lifetime: Option<Duration>,
}

/// Reads what concerns the control plane; `None` is an error that has been recorded.
pub(in crate::config) fn read(
    r: &mut Reader<'_>,
    inbound: &Inbound,
    outbound: &Outbound,
    dns: DnsLifetime,
) -> Option<Control> {
    let connects = (&inbound.connect, &outbound.connect, dns);
    let destination = service(
        r,
        &vars::DESTINATION_SVC_ADDR,
        &vars::DESTINATION_SVC_NAME,
        "there is no destination service to ask",
        connects,
    );
    let policy = service(
        r,
        &vars::POLICY_SVC_ADDR,
        &vars::POLICY_SVC_NAME,
        "there is no policy controller to ask",
        connects,
    );
    let discovery = discovery(r, inbound.detect_timeout);
    let stream_timeouts = stream_timeouts(r);
    let http2_client = http::client(r);
    Some(Control {
        destination: destination?,
        policy: policy?,
        discovery: discovery?,
        stream_timeouts,
        http2_client,
    })
}

/// A service needs a name unless it is on this host, where it is spoken to in plaintext.
pub(in crate::config) fn service(
    r: &mut Reader<'_>,
    addr: &OptionalVar<HostPort>,
    name: &OptionalVar<DnsName>,
    reason: &'static str,
    (loopback, remote, dns): (&Connect, &Connect, DnsLifetime),
) -> Option<ControlAddr> {
    let identity = r.optional(name);
    let location = r.required(addr, reason)?;
    if location.is_loopback() {
        return Some(ControlAddr {
            addr: location,
            identity: None,
            connect: loopback.clone(),
            dns,
        });
    }
    if !r.is_set(&name.row) {
        let (addr, name) = (addr.row.name, name.row.name);
        r.conflict(format!(
            "{addr} and {name} must be specified together: without the name, {location} can't be authenticated"
        ));
    }
    Some(ControlAddr {
        addr: location,
        identity: Some(identity?),
        connect: remote.clone(),
        dns,
    })
}

fn discovery(r: &mut Reader<'_>, detect_timeout: Duration) -> Option<Discovery> {
    let workload = r.required(
        &vars::POLICY_WORKLOAD,
        "the policy controller has to be told who asks",
    );
    let context = r.read(&vars::DESTINATION_CONTEXT);
    let profile_networks = r.read(&vars::DESTINATION_PROFILE_NETWORKS);
    let profile_suffixes = r.read(&vars::DESTINATION_PROFILE_SUFFIXES);
    let default_inbound = default_inbound(r, detect_timeout);
    Some(Discovery {
        workload: workload?,
        context,
        profile_networks,
        profile_suffixes,
        default_inbound,
    })
}

fn default_inbound(r: &mut Reader<'_>, detect_timeout: Duration) -> DefaultInbound {
    let policy = r.read(&vars::INBOUND_DEFAULT_POLICY);
    let cluster_networks = r.read(&vars::POLICY_CLUSTER_NETWORKS);
    if policy.needs_networks() && cluster_networks.0.is_empty() {
        let (default, networks) = (
            vars::INBOUND_DEFAULT_POLICY.row.name,
            vars::POLICY_CLUSTER_NETWORKS.row.name,
        );
        r.conflict(format!(
            "{default} admits the cluster networks, but {networks} names none"
        ));
    }
    if !r.is_set(&vars::INBOUND_DEFAULT_POLICY.row) {
        let name = vars::INBOUND_DEFAULT_POLICY.row.name;
        r.warn(format!(
            "{name} is not set: until the policy controller has spoken, all-unauthenticated holds"
        ));
    }
    DefaultInbound {
        policy,
        cluster_networks,
        opaque_ports: r.read(&vars::INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION),
        detect_timeout,
    }
}

/// Reads the bounds of the time that answers from DNS are used for: the same for every service.
pub(in crate::config) fn dns_lifetime(r: &mut Reader<'_>) -> DnsLifetime {
    let lifetime = DnsLifetime {
        min: r.optional(&vars::DNS_MIN_TTL),
        max: r.optional(&vars::DNS_MAX_TTL),
    };
    if lifetime.min > lifetime.max.or(lifetime.min) {
        let (min, max) = (vars::DNS_MIN_TTL.row.name, vars::DNS_MAX_TTL.row.name);
        r.conflict(format!("{min} must not be longer than {max}"));
    }
    lifetime
}

fn stream_timeouts(r: &mut Reader<'_>) -> StreamTimeouts {
    let mut read = |var| r.optional(var).and_then(|OptionalDuration(duration)| duration);
    let timeouts = StreamTimeouts {
        initial: read(&vars::CONTROL_STREAM_INITIAL_TIMEOUT),
        idle: read(&vars::CONTROL_STREAM_IDLE_TIMEOUT),
        lifetime: read(&vars::CONTROL_STREAM_LIFETIME),
    };
    let set: Vec<_> = [timeouts.initial, timeouts.idle, timeouts.lifetime]
        .into_iter()
        .flatten()
        .collect();
    if !set.is_sorted() {
        let (initial, idle, lifetime) = (
            vars::CONTROL_STREAM_INITIAL_TIMEOUT.row.name,
            vars::CONTROL_STREAM_IDLE_TIMEOUT.row.name,
            vars::CONTROL_STREAM_LIFETIME.row.name,
        );
        r.conflict(format!(
            "{initial} must not be longer than {idle}, nor {idle} longer than {lifetime}"
        ));
    }
    timeouts
}
