//! Real handshakes over a pipe in memory, with certificates of every kind.

use std::sync::Arc;

use outrigger_policy::name::{DnsName, Identity};
use rcgen::date_time_ymd;
use rustls::{NamedGroup, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::testing::{Ca, Leaf, private_key};
use super::{Credentials, Error, Refusal, client, server};

const WEB: &str = "web.default.serviceaccount.identity.linkerd.cluster.local";
const API: &str = "api.default.serviceaccount.identity.linkerd.cluster.local";

type Outcome = (
    Result<client::Connected<DuplexStream>, Error>,
    Result<server::Accepted<DuplexStream>, Error>,
);

/// Shakes hands as the data path does: offering the header or not, directly or not.
async fn shake(
    client: &Credentials,
    server: &Credentials,
    expect: &str,
    offer: bool,
    direct: bool,
) -> Outcome {
    let (near, far) = duplex(64 * 1024);
    let sni = DnsName::parse("web.test").unwrap();
    let expect = Identity::parse(expect).unwrap();
    tokio::join!(
        client::connect(client, near, &sni, &expect, offer),
        server::accept(server, far, direct)
    )
}

/// A server that shows any leaf, however bad, as a careless or hostile peer would.
async fn shake_with_leaf(
    ca: &Ca,
    leaf: &Leaf,
    expect: &str,
) -> Result<client::Connected<DuplexStream>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.certificate.clone()], private_key(&leaf.key))
        .unwrap();
    let (near, far) = duplex(64 * 1024);
    let sni = DnsName::parse("web.test").unwrap();
    let (expect, credentials) = (Identity::parse(expect).unwrap(), ca.credentials(API));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (client, _server) = tokio::join!(
        client::connect(&credentials, near, &sni, &expect, false),
        acceptor.accept(far)
    );
    client
}

#[tokio::test]
async fn both_sides_learn_each_other_and_bytes_pass() {
    let ca = Ca::new("ca");
    let (client, server) = shake(&ca.credentials(API), &ca.credentials(WEB), WEB, false, false).await;
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    assert_eq!(server.client, Some(Identity::parse(API).unwrap()));
    client.stream.write_all(b"hello").await.unwrap();
    client.stream.flush().await.unwrap();
    let mut read = [0; 5];
    server.stream.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"hello");
}

#[tokio::test]
async fn the_post_quantum_group_and_tls_1_3_are_negotiated() {
    let ca = Ca::new("ca");
    let (client, _server) = shake(&ca.credentials(API), &ca.credentials(WEB), WEB, false, false).await;
    let stream = client.unwrap().stream;
    let connection = stream.get_ref().1;
    let group = connection.negotiated_key_exchange_group().map(|g| g.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    assert_eq!(
        connection.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
}

#[tokio::test]
async fn the_header_is_negotiated_only_when_offered_to_a_direct_listener() {
    let ca = Ca::new("ca");
    for (offer, direct) in [(false, false), (false, true), (true, false), (true, true)] {
        let (client, server) = shake(&ca.credentials(API), &ca.credentials(WEB), WEB, offer, direct).await;
        assert_eq!(client.unwrap().header_negotiated, offer && direct);
        assert_eq!(server.unwrap().header_negotiated, offer && direct);
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_anonymous() {
    let ca = Ca::new("ca");
    let anonymous = Credentials::anchors_only(
        &ca.anchors(),
        Identity::parse(API).unwrap(),
        DnsName::parse(API).unwrap(),
    );
    let (client, server) = shake(&anonymous.unwrap(), &ca.credentials(WEB), WEB, false, false).await;
    client.unwrap();
    assert_eq!(server.unwrap().client, None);
}

#[tokio::test]
async fn nothing_is_served_before_the_first_certificate() {
    let ca = Ca::new("ca");
    let none = Credentials::anchors_only(
        &ca.anchors(),
        Identity::parse(WEB).unwrap(),
        DnsName::parse(WEB).unwrap(),
    )
    .unwrap();
    assert!(!none.is_certified());
    let refused = server::accept(&none, duplex(1).0, false).await;
    assert!(matches!(refused, Err(Error::Uncertified)));
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let (client, server) = shake(&ca.credentials(API), &other.credentials(WEB), WEB, false, false).await;
    assert!(matches!(
        client,
        Err(Error::PeerCertificate(Refusal::UnknownIssuer))
    ));
    assert!(matches!(server, Err(Error::Handshake(_))));
}

#[tokio::test]
async fn an_authority_of_the_same_name_with_another_key_is_refused() {
    let (ca, namesake) = (Ca::new("ca"), Ca::new("ca"));
    let credentials = (ca.credentials(API), namesake.credentials(WEB));
    let (client, _server) = shake(&credentials.0, &credentials.1, WEB, false, false).await;
    assert!(matches!(
        client,
        Err(Error::PeerCertificate(Refusal::BadSignature))
    ));
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    // The client trusts the server's authority, its own certificate comes from elsewhere.
    let leaf = other.leaf(&[API], |_| {});
    let both = super::TrustAnchors::from_pem(&format!("{}\n{}", ca.pem(), other.pem())).unwrap();
    let client = leaf.credentials(&both, API).unwrap();
    let (_client, server) = shake(&client, &ca.credentials(WEB), WEB, false, false).await;
    assert!(matches!(
        server,
        Err(Error::PeerCertificate(Refusal::UnknownIssuer))
    ));
}

#[tokio::test]
async fn a_server_that_proves_another_identity_is_told_apart() {
    let ca = Ca::new("ca");
    let (client, _server) = shake(&ca.credentials(API), &ca.credentials(API), WEB, false, false).await;
    let error = client.unwrap_err();
    assert!(matches!(error, Error::WrongIdentity { .. }));
    assert!(error.to_string().contains(API), "{error}");
}

#[tokio::test]
async fn any_of_several_names_will_do_whatever_its_case() {
    let ca = Ca::new("ca");
    let spiffe = "spiffe://cluster.local/ns/default/sa/Web";
    let leaf = ca.leaf(&[API, &WEB.to_uppercase(), spiffe], |_| {});
    for name in [WEB, API, spiffe] {
        shake_with_leaf(&ca, &leaf, name).await.unwrap();
    }
    let other = shake_with_leaf(&ca, &leaf, &spiffe.to_lowercase()).await;
    assert!(matches!(other, Err(Error::WrongIdentity { .. })));
}

#[tokio::test]
async fn a_server_without_names_is_nobody() {
    let ca = Ca::new("ca");
    let client = shake_with_leaf(&ca, &ca.leaf(&[], |_| {}), WEB).await;
    let error = client.unwrap_err();
    assert!(error.to_string().ends_with("it names nobody"), "{error}");
}

#[tokio::test]
async fn the_first_name_of_a_client_is_its_identity() {
    let ca = Ca::new("ca");
    let spiffe = "spiffe://cluster.local/ns/default/sa/api";
    for sans in [[API, spiffe], [spiffe, API]] {
        let client = ca.leaf(&sans, |_| {}).credentials(&ca.anchors(), API).unwrap();
        let (_client, server) = shake(&client, &ca.credentials(WEB), WEB, false, false).await;
        assert_eq!(server.unwrap().client, Some(Identity::parse(sans[0]).unwrap()));
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_with_both_times() {
    let ca = Ca::new("ca");
    let leaf = ca.leaf(&[WEB], |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 2, 3);
    });
    let error = shake_with_leaf(&ca, &leaf, WEB).await.unwrap_err();
    assert!(matches!(error, Error::PeerCertificate(Refusal::Expired { .. })));
    assert!(
        error
            .to_string()
            .contains("expired at 2002-02-03T00:00:00Z, it is 20"),
        "{error}"
    );
}

#[tokio::test]
async fn a_certificate_of_the_future_is_refused_with_both_times() {
    let ca = Ca::new("ca");
    let leaf = ca.leaf(&[WEB], |params| {
        params.not_before = date_time_ymd(2200, 1, 1);
        params.not_after = date_time_ymd(2201, 1, 1);
    });
    let error = shake_with_leaf(&ca, &leaf, WEB).await.unwrap_err();
    assert!(matches!(
        error,
        Error::PeerCertificate(Refusal::NotYetValid { .. })
    ));
    assert!(
        error
            .to_string()
            .contains("not valid before 2200-01-01T00:00:00Z"),
        "{error}"
    );
}

#[tokio::test]
async fn garbage_instead_of_a_handshake_is_an_error() {
    let (mut near, far) = duplex(1024);
    near.write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
        .await
        .unwrap();
    let refused = server::accept(&Ca::new("ca").credentials(WEB), far, false).await;
    assert!(matches!(refused, Err(Error::Handshake(_))));
}

#[tokio::test]
async fn a_client_hello_without_tls_1_3_is_refused() {
    // ClientHello with legacy version 1.2, one TLS 1.2 suite, no supported_versions (RFC 8446 §4.2.1).
    let mut hello = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let (mut near, far) = duplex(1024);
    near.write_all(&hello).await.unwrap();
    let refused = server::accept(&Ca::new("ca").credentials(WEB), far, false).await;
    let error = refused.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("peer is incompatible"), "{error}");
}

#[test]
fn our_own_certificate_has_to_be_ours_and_valid() {
    let (ca, other) = (Ca::new("ca"), Ca::new("other"));
    let leaf = ca.leaf(&[WEB], |_| {});
    assert!(matches!(
        leaf.credentials(&other.anchors(), WEB),
        Err(Error::OwnCertificate(Refusal::UnknownIssuer))
    ));
    assert!(matches!(
        leaf.credentials(&ca.anchors(), API),
        Err(Error::OwnIdentity { .. })
    ));
    let stolen = Leaf {
        key: ca.leaf(&[WEB], |_| {}).key,
        certificate: leaf.certificate,
    };
    assert!(matches!(
        stolen.credentials(&ca.anchors(), WEB),
        Err(Error::Key(_))
    ));
}
