//! Authorization against a slow model that compares addresses bit by bit and names label by label.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use outrigger_policy::authz::{Authentication, Authorization, ClientTls, Deny, Network, Suffix, authorize};
use outrigger_policy::name::{Identity, ResourceRef};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

proptest! {
    #[test]
    fn the_first_authorization_that_the_model_admits_is_named(
        list in vec(authorization(), 0..5),
        client in address(),
        tls in client_tls(),
    ) {
        let list: Vec<_> = list.into_iter().enumerate().map(|(i, a)| named(a, i)).collect();
        let model = list.iter().find(|a| {
            let in_networks = a.networks.iter().any(|n| {
                covers(&n.net, client) && !n.except.iter().any(|except| covers(except, client))
            });
            in_networks && proved(&a.authentication, &tls)
        });
        let decided = authorize(&list, client, &tls).map(|permit| permit.by);
        prop_assert_eq!(decided, model.map(|a| &a.meta).ok_or(Deny));
    }
}

fn covers(net: &IpNet, addr: IpAddr) -> bool {
    let bits = |addr: IpAddr| match addr {
        IpAddr::V4(v4) => format!("4{:032b}", v4.to_bits()),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => format!("4{:032b}", v4.to_bits()),
            None => format!("6{:0128b}", v6.to_bits()),
        },
    };
    let prefix = &bits(net.addr())[..=usize::from(net.prefix_len())];
    bits(addr).starts_with(prefix)
}

fn proved(authentication: &Authentication, tls: &ClientTls) -> bool {
    let id = match (authentication, tls) {
        (Authentication::Unauthenticated, _) => return true,
        (_, ClientTls::None) => return false,
        (Authentication::TlsUnauthenticated, ClientTls::Terminated(_)) => return true,
        (_, ClientTls::Terminated(None)) => return false,
        (_, ClientTls::Terminated(Some(id))) => id,
    };
    let Authentication::TlsAuthenticated { identities, suffixes } = authentication else {
        return false;
    };
    let below = |suffix: &Suffix| {
        let wanted: Vec<_> = suffix.0.split('.').skip(1).collect();
        let given: Vec<_> = id.as_str().split('.').collect();
        let dns = matches!(id, Identity::Dns(_));
        wanted.is_empty() || dns && given.len() > wanted.len() && given.ends_with(&wanted)
    };
    identities.iter().any(|i| i.as_str() == id.as_str()) || suffixes.iter().any(below)
}

fn named(mut authorization: Authorization, i: usize) -> Authorization {
    authorization.meta = Arc::new(ResourceRef::of_default(i.to_string()));
    authorization
}

fn authorization() -> impl Strategy<Value = Authorization> {
    let network = (net(), vec(net(), 0..2)).prop_map(|(net, except)| Network { net, except });
    (vec(network, 1..3), authentication()).prop_map(|(networks, authentication)| Authorization {
        meta: Arc::new(ResourceRef::of_default("")),
        networks,
        authentication,
    })
}

fn authentication() -> impl Strategy<Value = Authentication> {
    let suffix = vec(select(vec!["a", "b"]), 0..3).prop_map(|labels| Suffix::new(&labels).unwrap());
    prop_oneof![
        Just(Authentication::Unauthenticated),
        Just(Authentication::TlsUnauthenticated),
        (vec(identity(), 0..2), vec(suffix, 0..2))
            .prop_map(|(identities, suffixes)| Authentication::TlsAuthenticated { identities, suffixes }),
    ]
}

fn identity() -> impl Strategy<Value = Identity> {
    let id = vec(select(vec!["a", "b", "ab"]), 1..4).prop_map(|labels| labels.join("."));
    (id, any::<bool>()).prop_map(|(id, uri)| {
        let text = if uri { format!("spiffe://{id}") } else { id };
        Identity::parse(&text).unwrap()
    })
}

fn client_tls() -> impl Strategy<Value = ClientTls> {
    prop_oneof![
        Just(ClientTls::None),
        option::of(identity()).prop_map(ClientTls::Terminated)
    ]
}

/// Few bits vary, so that networks meet addresses; some addresses are IPv4 mapped into IPv6.
fn address() -> impl Strategy<Value = IpAddr> {
    let low = select(vec![0u32, 1, 2, 3, 0x8000_0000, u32::MAX]);
    (low, 0..3).prop_map(|(low, kind)| match kind {
        0 => Ipv4Addr::from_bits(low).into(),
        1 => Ipv4Addr::from_bits(low).to_ipv6_mapped().into(),
        _ => Ipv6Addr::from_bits(u128::from(low)).into(),
    })
}

fn net() -> impl Strategy<Value = IpNet> {
    (address(), select(vec![0u8, 1, 30, 31, 32, 96, 127, 128])).prop_map(|(addr, length)| {
        let addr = addr.to_canonical();
        let max = if addr.is_ipv4() { 32 } else { 128 };
        IpNet::new(addr, length.min(max)).unwrap()
    })
}
