//! Endpoints: addresses, identities, hints.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use outrigger_policy::endpoint::{Endpoint, EndpointTls, Http2Params, ProtocolHint};
use outrigger_policy::name::{DnsName, Identity};

use super::error::{DecodeError, bounded, duration, each, is_set, required};
use crate::destination::{
    AddrSet, Http2ClientParams, TlsIdentity, WeightedAddr, WeightedAddrSet, protocol_hint, tls_identity,
};
use crate::net::{IpAddress, TcpAddress, ip_address};

/// Endpoints accepted in one message.
pub const MAX_ENDPOINTS: usize = 10_000;

/// Labels accepted on one endpoint, those of its set included; their text may have 8 KiB in all.
pub const MAX_LABELS: usize = 64;

const MAX_LABEL_BYTES: usize = 8 * 1024;

/// RFC 9113 §6.9.1: the largest flow-control window.
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// RFC 9113 §4.2: the frame sizes that a peer may allow.
const FRAME_SIZES: std::ops::RangeInclusive<u32> = 1 << 14..=(1 << 24) - 1;

/// The endpoints of an `add`, each with the labels of the set.
pub fn weighted_addr_set(set: &WeightedAddrSet) -> Result<Vec<Endpoint>, DecodeError> {
    bounded("addrs", set.addrs.len(), MAX_ENDPOINTS)?;
    each("addrs", &set.addrs, |addr| {
        weighted_addr(addr, &set.metric_labels)
    })
}

/// The addresses of a `remove`.
pub fn addr_set(set: &AddrSet) -> Result<Vec<SocketAddr>, DecodeError> {
    bounded("addrs", set.addrs.len(), MAX_ENDPOINTS)?;
    each("addrs", &set.addrs, tcp_address)
}

/// An endpoint, with the labels of the set it came in; its own labels win.
///
/// A URI identity without a server name gives no TLS, as the contract's other readers have it.
pub fn weighted_addr(
    addr: &WeightedAddr,
    set_labels: &HashMap<String, String>,
) -> Result<Endpoint, DecodeError> {
    let hint = addr.protocol_hint.as_ref();
    let inbound_port = hint
        .and_then(|h| h.opaque_transport)
        .map_or(0, |t| t.inbound_port);
    let inbound_port = u16::try_from(inbound_port)
        .map_err(|_| DecodeError::new("protocol_hint.opaque_transport.inbound_port", "above 65535"))?;
    Ok(Endpoint {
        addr: tcp_address(required("addr", &addr.addr)?).map_err(|e| e.within("addr"))?,
        weight: addr.weight,
        tls: match &addr.tls_identity {
            Some(identity) => tls(identity).map_err(|e| e.within("tls_identity"))?,
            None => None,
        },
        hint: match hint.and_then(|h| h.protocol) {
            Some(protocol_hint::Protocol::H2(_)) => ProtocolHint::Http2,
            Some(protocol_hint::Protocol::Opaque(_)) => ProtocolHint::Opaque,
            None => ProtocolHint::Unknown,
        },
        transport_port: NonZeroU16::new(inbound_port),
        authority_override: authority_override(addr)?,
        http2: match &addr.http2 {
            Some(params) => http2(params).map_err(|e| e.within("http2"))?,
            None => Http2Params::default(),
        },
        labels: labels(set_labels, &addr.metric_labels)?,
    })
}

/// An address with a port other than zero.
pub fn tcp_address(addr: &TcpAddress) -> Result<SocketAddr, DecodeError> {
    let ip = ip(required("ip", &addr.ip)?).map_err(|e| e.within("ip"))?;
    match u16::try_from(addr.port) {
        Ok(port @ 1..) => Ok(SocketAddr::new(ip, port)),
        _ => Err(DecodeError::new(
            "port",
            format!("{} is not between 1 and 65535", addr.port),
        )),
    }
}

/// An address of either family.
pub(super) fn ip(addr: &IpAddress) -> Result<IpAddr, DecodeError> {
    match required("ip", &addr.ip)? {
        ip_address::Ip::Ipv4(bits) => Ok(Ipv4Addr::from_bits(*bits).into()),
        ip_address::Ip::Ipv6(v6) => {
            Ok(Ipv6Addr::from_bits(u128::from(v6.first) << 64 | u128::from(v6.last)).into())
        }
    }
}

fn tls(identity: &TlsIdentity) -> Result<Option<EndpointTls>, DecodeError> {
    let dns = |field: &str, text: &str| {
        DnsName::parse(text).map_err(|e| DecodeError::new(field, format!("{text:?} is {e}")))
    };
    let server_name = identity.server_name.as_ref();
    let server_name = server_name
        .map(|n| dns("server_name.name", &n.name))
        .transpose()?;
    match required("strategy", &identity.strategy)? {
        tls_identity::Strategy::DnsLikeIdentity(id) => {
            let name = dns("dns_like_identity.name", &id.name)?;
            Ok(Some(EndpointTls {
                server_name: server_name.unwrap_or_else(|| name.clone()),
                identity: Identity::Dns(name),
            }))
        }
        tls_identity::Strategy::UriLikeIdentity(id) => match Identity::parse(&id.uri) {
            Ok(identity @ Identity::Uri(_)) => Ok(server_name.map(|server_name| EndpointTls {
                identity,
                server_name,
            })),
            _ => Err(DecodeError::new(
                "uri_like_identity.uri",
                format!("{:?} is not an absolute URI", id.uri),
            )),
        },
    }
}

fn authority_override(addr: &WeightedAddr) -> Result<Option<Arc<str>>, DecodeError> {
    let Some(authority) = addr.authority_override.as_ref() else {
        return Ok(None);
    };
    let text = authority.authority_override.as_str();
    if text.is_empty() {
        return Ok(None);
    }
    let bad = || DecodeError::new("authority_override", format!("{text:?} is not `name[:port]`"));
    let parsed = text.parse::<http::uri::Authority>().map_err(|_| bad())?;
    if parsed.host().is_empty() || text.contains('@') {
        return Err(bad());
    }
    Ok(Some(text.into()))
}

/// Values that an HTTP/2 client would have to reject are refused here, where the field still has a name.
fn http2(params: &Http2ClientParams) -> Result<Http2Params, DecodeError> {
    let flow = params.flow_control.unwrap_or_default();
    let keep_alive = params.keep_alive.unwrap_or_default();
    let internals = params.internals.unwrap_or_default();
    let (connection, stream) = (
        flow.initial_connection_window_size,
        flow.initial_stream_window_size,
    );
    if connection.max(stream) > MAX_WINDOW {
        return Err(DecodeError::new("flow_control", "a window above 2^31-1"));
    }
    if internals.max_frame_size != 0 && !FRAME_SIZES.contains(&internals.max_frame_size) {
        return Err(DecodeError::new(
            "internals.max_frame_size",
            "not between 2^14 and 2^24-1",
        ));
    }
    // One window alone is not used: the contract's other readers demand both.
    let fixed = connection > 0 && stream > 0;
    let unless_zero = |value: u32| (value != 0).then_some(value);
    let pings = match (&keep_alive.interval, &keep_alive.timeout) {
        (Some(interval), Some(timeout)) if is_set(&keep_alive.interval) && is_set(&keep_alive.timeout) => {
            Some((
                duration("keep_alive.interval", interval)?,
                duration("keep_alive.timeout", timeout)?,
            ))
        }
        _ => None,
    };
    Ok(Http2Params {
        stream_window: fixed.then_some(stream),
        connection_window: fixed.then_some(connection),
        adaptive_window: flow.adaptive_flow_control,
        keep_alive: pings,
        keep_alive_while_idle: keep_alive.while_idle,
        max_concurrent_reset_streams: unless_zero(internals.max_concurrent_reset_streams).map(|n| n as usize),
        max_frame_size: unless_zero(internals.max_frame_size),
        max_send_buf_size: unless_zero(internals.max_send_buf_size).map(|n| n as usize),
    })
}

/// Bounded, because the labels of a set are repeated for each of its endpoints.
pub(super) fn labels(
    set: &HashMap<String, String>,
    own: &HashMap<String, String>,
) -> Result<Arc<BTreeMap<String, String>>, DecodeError> {
    bounded("metric_labels", set.len() + own.len(), 2 * MAX_LABELS)?;
    let all: BTreeMap<_, _> = set.iter().chain(own).collect();
    bounded("metric_labels", all.len(), MAX_LABELS)?;
    let bytes: usize = all.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_LABEL_BYTES {
        return Err(DecodeError::new(
            "metric_labels",
            format!("{bytes} bytes, at most {MAX_LABEL_BYTES} are accepted"),
        ));
    }
    Ok(Arc::new(
        all.into_iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    ))
}
