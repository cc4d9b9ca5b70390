//! The controller as a proxy meets it: certificates, TLS, refusals and its end.

use std::time::{Duration, SystemTime};

use crate::support::{
    Channel, Credentials, DESTINATION, IDENTITY, Mesh, WEB, certify, csr, get, metric, until,
};
use outrigger_controller::identity::{Ca, TokenKey};
use rcgen::KeyPair;
use tonic::Code;

#[tokio::test]
async fn a_proxy_gets_a_certificate_for_its_own_account() {
    let mesh = Mesh::plaintext().await;
    let answer = mesh
        .certify(mesh.ask(&KeyPair::generate().unwrap()))
        .await
        .unwrap();
    assert!(answer.intermediate_certificates.is_empty());
    let until = SystemTime::try_from(answer.valid_until.unwrap()).unwrap();
    assert!(until > SystemTime::now() + Duration::from_secs(23 * 3600));
    let admin = mesh.running.addresses.admin;
    let issued = metric(admin, "identity_certificates_issued_total ").await;
    assert_eq!(issued.as_deref(), Some("1"));
}

#[tokio::test]
async fn each_refusal_has_its_status_code() {
    let mesh = Mesh::plaintext().await;
    let other = Mesh::plaintext().await;
    let key = KeyPair::generate().unwrap();
    let theirs = WEB.replace("emoji", "other");

    assert_eq!(mesh.code(|ask| ask.identity.clear()).await, Code::InvalidArgument);
    assert_eq!(mesh.code(|ask| ask.token.clear()).await, Code::InvalidArgument);
    assert_eq!(
        mesh.code(|ask| ask.token = b"garbage".to_vec()).await,
        Code::InvalidArgument
    );
    assert_eq!(
        mesh.code(|ask| ask.token = other.token().into()).await,
        Code::FailedPrecondition
    );
    let request = |der: Vec<u8>| {
        move |ask: &mut outrigger_proto::identity::CertifyRequest| {
            ask.certificate_signing_request = der;
        }
    };
    assert_eq!(mesh.code(request(vec![])).await, Code::InvalidArgument);
    assert_eq!(
        mesh.code(request(b"garbage".to_vec())).await,
        Code::InvalidArgument
    );
    assert_eq!(
        mesh.code(request(vec![0; 17 * 1024])).await,
        Code::InvalidArgument
    );
    assert_eq!(
        mesh.code(request(csr(&key, &[WEB, "more"]))).await,
        Code::FailedPrecondition
    );
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    assert_eq!(mesh.code(request(csr(&rsa, &[WEB]))).await, Code::Internal);
    let of_another = |ask: &mut outrigger_proto::identity::CertifyRequest| {
        ask.certificate_signing_request = csr(&key, &[&theirs]);
        ask.identity = theirs.clone();
    };
    assert_eq!(mesh.code(of_another).await, Code::FailedPrecondition);

    let admin = mesh.running.addresses.admin;
    let refused = "identity_certificates_refused_total{reason=\"csr_key\"} ";
    assert_eq!(metric(admin, refused).await.as_deref(), Some("1"));
}

#[tokio::test]
async fn an_expired_authority_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = Ca::make(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400)).unwrap();
    let state = dir.path().join("state");
    std::process::Command::new("mkdir")
        .args(["-m", "700"])
        .arg(&state)
        .status()
        .unwrap();
    let files = [
        ("ca.crt", certificate),
        ("ca.key", key),
        ("token.key", TokenKey::make().unwrap()),
    ];
    for (name, text) in files {
        let path = state.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let mesh = Mesh::start(dir, "127.0.0.1:0").await;
    let refused = mesh
        .certify(mesh.ask(&KeyPair::generate().unwrap()))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("ca.crt"), "{}", refused.message());
}

#[tokio::test]
async fn discovery_is_for_clients_of_this_mesh_only() {
    let (mesh, other) = (Mesh::tls().await, Mesh::plaintext().await);
    let key = KeyPair::generate().unwrap();
    let identity = mesh.running.addresses.identity.port();
    let channel = Channel::tls(&mesh, identity, IDENTITY, None).await.unwrap();
    let mine = certify(channel, mesh.ask(&key)).await.unwrap().leaf_certificate;
    let foreign_key = KeyPair::generate().unwrap();
    let foreign = other
        .certify(other.ask(&foreign_key))
        .await
        .unwrap()
        .leaf_certificate;

    for port in [
        mesh.running.addresses.destination.port(),
        mesh.running.addresses.policy.port(),
    ] {
        assert!(!reaches(&mesh, port, DESTINATION, None).await);
        let with = Some((
            foreign.clone(),
            KeyPair::try_from(foreign_key.serialize_der()).unwrap(),
        ));
        assert!(!reaches(&mesh, port, DESTINATION, with).await);
        let with = Some((mine.clone(), KeyPair::try_from(key.serialize_der()).unwrap()));
        assert!(reaches(&mesh, port, DESTINATION, with).await);
    }
}

#[tokio::test]
async fn a_listener_has_a_certificate_for_its_own_name_only() {
    let mesh = Mesh::tls().await;
    let (identity, policy) = (
        mesh.running.addresses.identity.port(),
        mesh.running.addresses.policy.port(),
    );
    assert!(reaches(&mesh, identity, IDENTITY, None).await);
    assert!(!reaches(&mesh, identity, DESTINATION, None).await);
    assert!(!reaches(&mesh, policy, IDENTITY, None).await);
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mesh = Mesh::tls().await;
    let addresses = mesh.running.addresses;
    for port in [
        addresses.identity,
        addresses.destination,
        addresses.policy,
        addresses.admin,
    ]
    .map(|a| a.port())
    {
        let mut tcp = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        tcp.write_all(&[0x16, 0xff, 0, 0, 0xff].repeat(50)).await.unwrap();
        let mut answer = Vec::new();
        // It may be answered with an alert, a status or a reset: what counts is that it ends.
        let _ended = tcp.read_to_end(&mut answer).await;
    }
    assert!(reaches(&mesh, addresses.identity.port(), IDENTITY, None).await);
    assert_eq!(get(addresses.admin, "/ready").await, "ready\n");
}

#[tokio::test]
async fn what_is_wrong_in_a_manifest_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("manifests")).unwrap();
    let good = "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: demo}, spec: {clusterIP: 10.96.0.1}}";
    std::fs::write(dir.path().join("manifests/good.yaml"), good).unwrap();
    std::fs::write(dir.path().join("manifests/broken.yaml"), "kind: [Service").unwrap();
    let mesh = Mesh::start(dir, "127.0.0.1:0").await;
    let admin = mesh.running.addresses.admin;
    // The task that counts starts with the controller, not before it.
    until(|| async {
        metric(admin, "manifest_resources{kind=\"Service\"} ")
            .await
            .as_deref()
            == Some("1")
    })
    .await;
    let files = metric(admin, "manifest_files_with_errors ").await;
    assert_eq!(files.as_deref(), Some("1"));
    assert_eq!(get(admin, "/ready").await, "ready\n");
}

#[tokio::test]
async fn a_stopped_controller_accepts_no_more() {
    let mesh = Mesh::plaintext().await;
    let addresses = mesh.running.addresses;
    let mut channel = Channel::plaintext(addresses.destination).await;
    assert!(channel.reaches().await);
    mesh.running.stop().await;
    assert!(!channel.reaches().await);
    for address in [
        addresses.admin,
        addresses.identity,
        addresses.destination,
        addresses.policy,
    ] {
        assert!(tokio::net::TcpStream::connect(address).await.is_err());
    }
}

#[tokio::test]
async fn a_taken_address_is_named_with_its_flag() {
    let mesh = Mesh::plaintext().await;
    let taken = format!("--policy-addr={}", mesh.running.addresses.policy);
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state").display().to_string();
    let line = [
        "outrigger",
        "controller",
        "--manifests=.",
        "--state-dir",
        &state,
        "--admin-addr=127.0.0.1:0",
    ];
    let rest = [
        "--identity-addr=127.0.0.1:0",
        "--destination-addr=127.0.0.1:0",
        &taken,
    ];
    let cli = outrigger_controller::cli::Cli::read(line.iter().chain(&rest)).unwrap();
    let outrigger_controller::cli::Command::Controller(options) = cli.command else {
        panic!("not a controller")
    };
    let error = outrigger_controller::app::start(*options).await.unwrap_err();
    assert!(error.to_string().starts_with("--policy-addr"), "{error}");
}

async fn reaches(mesh: &Mesh, port: u16, name: &str, own: Option<Credentials>) -> bool {
    match Channel::tls(mesh, port, name, own).await {
        Ok(mut channel) => channel.reaches().await,
        Err(_) => false,
    }
}
