//! What the controller's tests are told with: a controller on free ports, and clients as proxies have them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_controller::app::{self, Running};
use outrigger_controller::cli::{Cli, Command};
use outrigger_controller::identity::{ServiceAccount, State};
use outrigger_proto::identity::identity_client::IdentityClient;
use outrigger_proto::identity::{CertifyRequest, CertifyResponse};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::{Code, Status};

/// The service account that the tests are.
pub(crate) const WEB: &str = "web.emoji.serviceaccount.identity.linkerd.cluster.local";
pub(crate) const IDENTITY: &str = "linkerd-identity.linkerd.serviceaccount.identity.linkerd.cluster.local";
pub(crate) const DESTINATION: &str =
    "linkerd-destination.linkerd.serviceaccount.identity.linkerd.cluster.local";

/// A controller with a state directory and manifests of its own.
pub(crate) struct Mesh {
    pub(crate) running: Running,
    pub(crate) state: State,
    _dir: tempfile::TempDir,
}

impl Mesh {
    /// APIs on loopback: plaintext.
    pub(crate) async fn plaintext() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start(dir, "127.0.0.1:0").await
    }

    /// APIs on every address: TLS.
    pub(crate) async fn tls() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::start(dir, "0.0.0.0:0").await
    }

    pub(crate) async fn start(dir: tempfile::TempDir, api: &str) -> Self {
        let (manifests, state) = (dir.path().join("manifests"), dir.path().join("state"));
        std::fs::create_dir_all(&manifests).unwrap();
        let paths = [
            Path::new("--manifests"),
            &manifests,
            Path::new("--state-dir"),
            &state,
        ];
        let mut arguments = vec![
            "outrigger".into(),
            "controller".into(),
            "--admin-addr=127.0.0.1:0".into(),
        ];
        arguments.extend(paths.map(|path| path.as_os_str().to_owned()));
        for flag in ["identity-addr", "destination-addr", "policy-addr"] {
            arguments.push(format!("--{flag}={api}").into());
        }
        let Command::Controller(options) = Cli::read(arguments).unwrap().command else {
            unreachable!("the second word says so")
        };
        Self {
            running: app::start(*options).await.unwrap(),
            state: State::open(&state).unwrap(),
            _dir: dir,
        }
    }

    /// A token of the account `web` in `emoji`.
    pub(crate) fn token(&self) -> String {
        let account = ServiceAccount::new("emoji", "web").unwrap();
        let hour = Duration::from_secs(3600);
        self.state.tokens.mint(&account, hour, SystemTime::now()).unwrap()
    }

    /// What `web` rightly asks for.
    pub(crate) fn ask(&self, key: &KeyPair) -> CertifyRequest {
        CertifyRequest {
            identity: WEB.into(),
            token: self.token().into(),
            certificate_signing_request: csr(key, &[WEB]),
        }
    }

    pub(crate) async fn certify(&self, ask: CertifyRequest) -> Result<CertifyResponse, Status> {
        let channel = Channel::plaintext(self.running.addresses.identity).await;
        certify(channel, ask).await
    }

    pub(crate) async fn code(&self, change: impl FnOnce(&mut CertifyRequest)) -> Code {
        let mut ask = self.ask(&KeyPair::generate().unwrap());
        change(&mut ask);
        self.certify(ask).await.unwrap_err().code()
    }
}

pub(crate) async fn certify(channel: Channel, ask: CertifyRequest) -> Result<CertifyResponse, Status> {
    let origin = http::Uri::from_static("http://identity");
    let answer = IdentityClient::with_origin(channel, origin).certify(ask).await;
    answer.map(tonic::Response::into_inner)
}

pub(crate) fn csr(key: &KeyPair, names: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::new(names.iter().map(|n| n.to_string()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.serialize_request(key).unwrap().der().to_vec()
}

/// One HTTP/2 connection.
#[derive(Clone)]
pub(crate) struct Channel(SendRequest<Body>);

/// A certificate and its key.
pub(crate) type Credentials = (Vec<u8>, KeyPair);

impl Channel {
    pub(crate) async fn plaintext(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
            .await
            .unwrap()
    }

    /// Connects as a proxy does: by name, trusting `mesh`, with a certificate or without.
    pub(crate) async fn tls(
        mesh: &Mesh,
        port: u16,
        name: &str,
        own: Option<Credentials>,
    ) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(mesh.state.ca.root().clone()).unwrap();
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some((leaf, key)) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
                builder
                    .with_client_auth_cert(vec![CertificateDer::from(leaf)], key)
                    .unwrap()
            }
        };
        let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let io = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        Self::over(io).await.map_err(std::io::Error::other)
    }

    async fn over<I>(io: I) -> hyper::Result<Self>
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Whether the server answers at all, be it that it knows no such method.
    pub(crate) async fn reaches(&mut self) -> bool {
        let request = Request::post("http://any/no.such/Method")
            .body(Body::empty())
            .unwrap();
        self.0.send_request(request).await.is_ok()
    }
}

impl tower::Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// What `/metrics` says of one sample.
pub(crate) async fn metric(admin: SocketAddr, sample: &str) -> Option<String> {
    let text = get(admin, "/metrics").await;
    let value = |line: &str| Some(line.strip_prefix(sample)?.trim().to_owned());
    text.lines().find_map(value)
}

/// The body of a page of the admin server.
pub(crate) async fn get(admin: SocketAddr, path: &str) -> String {
    use http_body_util::BodyExt;
    let tcp = TcpStream::connect(admin).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", "admin")
        .body(Body::empty())
        .unwrap();
    let body = sender.send_request(request).await.unwrap().into_body();
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Asks until it is so; the test's own time limit ends what never comes.
pub(crate) async fn until<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) {
    while !condition().await {
        tokio::task::yield_now().await;
    }
}
