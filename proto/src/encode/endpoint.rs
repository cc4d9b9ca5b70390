//! Endpoints and updates of them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use outrigger_policy::endpoint::{Endpoint, EndpointTls, Http2Params, ProtocolHint};
use outrigger_policy::name::Identity;

use super::meta::duration;
use crate::destination::http2_client_params::{FlowControl, Internals, KeepAlive};
use crate::destination::protocol_hint::{H2, Opaque, OpaqueTransport, Protocol};
use crate::destination::tls_identity::{DnsLikeIdentity, Strategy, UriLikeIdentity};
use crate::destination::{
    AddrSet, AuthorityOverride, Http2ClientParams, NoEndpoints, TlsIdentity, Update, WeightedAddr,
    WeightedAddrSet, update,
};
use crate::net::{IPv6, IpAddress, TcpAddress, ip_address};

/// An `add`. Labels that an endpoint shares with the set are written once.
pub fn update_add(endpoints: &[Endpoint], set_labels: HashMap<String, String>) -> Update {
    let addr = |endpoint: &Endpoint| {
        let mut addr = weighted_addr(endpoint);
        addr.metric_labels
            .retain(|key, value| set_labels.get(key) != Some(value));
        addr
    };
    let addrs = endpoints.iter().map(addr).collect();
    Update {
        update: Some(update::Update::Add(WeightedAddrSet {
            addrs,
            metric_labels: set_labels,
        })),
    }
}

/// A `remove`.
pub fn update_remove(addrs: &[SocketAddr]) -> Update {
    let addrs = addrs.iter().copied().map(tcp_address).collect();
    Update {
        update: Some(update::Update::Remove(AddrSet { addrs })),
    }
}

/// All endpoints are gone; `exists` says whether the destination is still there.
pub fn update_none(exists: bool) -> Update {
    Update {
        update: Some(update::Update::NoEndpoints(NoEndpoints { exists })),
    }
}

/// An endpoint with all its labels.
pub fn weighted_addr(endpoint: &Endpoint) -> WeightedAddr {
    WeightedAddr {
        addr: Some(tcp_address(endpoint.addr)),
        weight: endpoint.weight,
        metric_labels: endpoint
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        tls_identity: endpoint.tls.as_ref().map(tls_identity),
        protocol_hint: protocol_hint(endpoint),
        authority_override: endpoint
            .authority_override
            .as_ref()
            .map(|authority| AuthorityOverride {
                authority_override: authority.to_string(),
            }),
        http2: http2(&endpoint.http2),
        resource_ref: None,
    }
}

/// An address.
pub fn tcp_address(addr: SocketAddr) -> TcpAddress {
    TcpAddress {
        ip: Some(ip(addr.ip())),
        port: addr.port().into(),
    }
}

pub(super) fn ip(addr: IpAddr) -> IpAddress {
    let ip = match addr {
        IpAddr::V4(v4) => ip_address::Ip::Ipv4(v4.to_bits()),
        IpAddr::V6(v6) => ip_address::Ip::Ipv6(IPv6 {
            first: (v6.to_bits() >> 64) as u64,
            last: v6.to_bits() as u64,
        }),
    };
    IpAddress { ip: Some(ip) }
}

fn tls_identity(tls: &EndpointTls) -> TlsIdentity {
    let strategy = match &tls.identity {
        Identity::Dns(name) => Strategy::DnsLikeIdentity(DnsLikeIdentity {
            name: name.to_string(),
        }),
        Identity::Uri(uri) => Strategy::UriLikeIdentity(UriLikeIdentity { uri: uri.to_string() }),
    };
    TlsIdentity {
        strategy: Some(strategy),
        server_name: Some(DnsLikeIdentity {
            name: tls.server_name.to_string(),
        }),
    }
}

fn protocol_hint(endpoint: &Endpoint) -> Option<crate::destination::ProtocolHint> {
    let hint = crate::destination::ProtocolHint {
        protocol: match endpoint.hint {
            ProtocolHint::Unknown => None,
            ProtocolHint::Http2 => Some(Protocol::H2(H2 {})),
            ProtocolHint::Opaque => Some(Protocol::Opaque(Opaque {})),
        },
        opaque_transport: endpoint.transport_port.map(|port| OpaqueTransport {
            inbound_port: u16::from(port).into(),
        }),
    };
    (hint.protocol.is_some() || hint.opaque_transport.is_some()).then_some(hint)
}

fn http2(params: &Http2Params) -> Option<Http2ClientParams> {
    if *params == Http2Params::default() {
        return None;
    }
    let size = |value: Option<usize>| value.map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX));
    Some(Http2ClientParams {
        flow_control: Some(FlowControl {
            initial_connection_window_size: params.connection_window.unwrap_or(0),
            initial_stream_window_size: params.stream_window.unwrap_or(0),
            adaptive_flow_control: params.adaptive_window,
        }),
        keep_alive: Some(KeepAlive {
            interval: params.keep_alive.map(|(interval, _)| duration(interval)),
            timeout: params.keep_alive.map(|(_, timeout)| duration(timeout)),
            while_idle: params.keep_alive_while_idle,
        }),
        internals: Some(Internals {
            max_concurrent_reset_streams: size(params.max_concurrent_reset_streams),
            max_frame_size: params.max_frame_size.unwrap_or(0),
            max_send_buf_size: size(params.max_send_buf_size),
        }),
    })
}
