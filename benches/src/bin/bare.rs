//! The floor: a pair of proxies that only forward. What the ecosystem's parts cost before anything is added to them.
//!
//! `bare client` takes plaintext and speaks mutual TLS 1.3; `bare server` terminates it and speaks plaintext to the
//! application. No discovery, no routes, no metrics, no limits.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::{http1 as client1, http2 as client2};
use hyper::server::conn::{http1 as server1, http2 as server2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_benches::BoxError;
use outrigger_benches::args::{Args, Protocol};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Windows that a 64 KiB body does not exhaust.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Between chunks of a stream: one TLS record.
const COPY_BUFFER: usize = 16 << 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let args = Args::from_command_line()?;
    let proxy = Arc::new(Proxy::new(&args)?);
    let listener = TcpListener::bind(args.address("--listen")?).await?;
    loop {
        let (io, _) = listener.accept().await?;
        io.set_nodelay(true)?;
        let proxy = proxy.clone();
        // What fails is one connection; its peer sees it end.
        tokio::spawn(async move { proxy.connection(io).await });
    }
}

/// One of the pair.
struct Proxy {
    /// TLS is terminated: this is the server's side.
    acceptor: Option<TlsAcceptor>,
    /// What arrives; `None` on the client's side, where it is looked at.
    incoming: Option<Protocol>,
    upstream: Arc<Upstream>,
}

impl Proxy {
    fn new(args: &Args) -> Result<Self, BoxError> {
        let certs = args.value("--certs")?;
        let between = args.protocol("--between")?;
        let to = args.address("--to")?;
        Ok(match args.command()? {
            "client" => Self {
                acceptor: None,
                incoming: (between == Protocol::Tcp).then_some(between),
                upstream: Upstream::new(to, between, Some(connector(Path::new(certs))?)),
            },
            "server" => Self {
                acceptor: Some(acceptor(Path::new(certs))?),
                incoming: Some(between),
                upstream: Upstream::new(to, args.protocol("--app")?, None),
            },
            other => return Err(format!("expected client or server, not {other}").into()),
        })
    }

    async fn connection(&self, io: TcpStream) -> Result<(), BoxError> {
        let protocol = match self.incoming {
            Some(protocol) => protocol,
            None => outrigger_benches::peek(&io).await?,
        };
        match &self.acceptor {
            Some(acceptor) => serve(acceptor.accept(io).await?, protocol, &self.upstream).await,
            None => serve(io, protocol, &self.upstream).await,
        }
    }
}

/// Carries what arrives on one connection to the other side.
async fn serve<I>(io: I, protocol: Protocol, upstream: &Arc<Upstream>) -> Result<(), BoxError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service =
        service_fn(|request| async { Ok::<_, std::convert::Infallible>(upstream.answer(request).await) });
    match protocol {
        Protocol::Http1 => {
            let connection = server1::Builder::new()
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(io), service);
            Ok(connection.await?)
        }
        Protocol::Http2 => {
            let connection = server2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_concurrent_streams(1_000)
                .serve_connection(TokioIo::new(io), owned(upstream.clone()));
            Ok(connection.await?)
        }
        Protocol::Tcp => upstream.copy(io).await,
    }
}

/// HTTP/2 spawns its streams: they own what they use.
fn owned(
    upstream: Arc<Upstream>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Outgoing>,
    Error = std::convert::Infallible,
    Future = impl Future<Output = Result<Response<Outgoing>, std::convert::Infallible>> + Send + 'static,
> {
    service_fn(move |request| {
        let upstream = upstream.clone();
        async move { Ok(upstream.answer(request).await) }
    })
}

/// The other side: where it is, and the connections to it.
struct Upstream {
    to: SocketAddr,
    protocol: Protocol,
    tls: Option<TlsConnector>,
    authority: Authority,
    /// Idle HTTP/1 connections; the one used last is taken first.
    idle: Mutex<VecDeque<client1::SendRequest<Incoming>>>,
    /// The HTTP/2 connection that all requests share. Held while one is made, so that only one is.
    shared: tokio::sync::Mutex<Option<client2::SendRequest<Incoming>>>,
}

impl Upstream {
    fn new(to: SocketAddr, protocol: Protocol, tls: Option<TlsConnector>) -> Arc<Self> {
        let authority = Authority::try_from(to.to_string()).expect("a socket address is an authority");
        Arc::new(Self {
            to,
            protocol,
            tls,
            authority,
            idle: Mutex::default(),
            shared: tokio::sync::Mutex::default(),
        })
    }

    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Response<Outgoing> {
        let result = match self.protocol {
            Protocol::Http2 => self.send_http2(request).await,
            Protocol::Http1 | Protocol::Tcp => self.send_http1(request).await,
        };
        result.unwrap_or_else(|_| {
            let mut response = Response::new(Outgoing::default());
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        })
    }

    async fn send_http1(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<Outgoing>, BoxError> {
        self.for_http1(&mut request)?;
        let mut sender = loop {
            let idle = self
                .idle
                .lock()
                .expect("nothing panics while it is held")
                .pop_back();
            let Some(mut sender) = idle else {
                break self.connect_http1().await?;
            };
            if sender.ready().await.is_ok() {
                break sender;
            }
        };
        let response = sender.send_request(request).await?;
        let lease = Lease(Some(sender), self.clone());
        Ok(response.map(|body| Outgoing(Some(body), Some(lease))))
    }

    async fn send_http2(&self, mut request: Request<Incoming>) -> Result<Response<Outgoing>, BoxError> {
        self.for_http2(&mut request)?;
        let mut sender = {
            let mut shared = self.shared.lock().await;
            match &*shared {
                Some(sender) if !sender.is_closed() => sender.clone(),
                _ => shared.insert(self.connect_http2().await?).clone(),
            }
        };
        let response = sender.send_request(request).await?;
        Ok(response.map(|body| Outgoing(Some(body), None)))
    }

    /// The form of a request in HTTP/1.1: the host in a header, and the path alone.
    fn for_http1(&self, request: &mut Request<Incoming>) -> Result<(), BoxError> {
        if request.version() == Version::HTTP_2 {
            let host = request.uri().authority().unwrap_or(&self.authority).as_str();
            let host = HeaderValue::from_str(host)?;
            request.headers_mut().insert(HOST, host);
            let path = request.uri().path_and_query().cloned();
            *request.uri_mut() = path.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
        }
        request.headers_mut().remove(CONNECTION);
        *request.version_mut() = Version::HTTP_11;
        Ok(())
    }

    /// The form of a request in HTTP/2: everything in the URI.
    fn for_http2(&self, request: &mut Request<Incoming>) -> Result<(), BoxError> {
        if request.version() != Version::HTTP_2 {
            let host = request.headers_mut().remove(HOST);
            let mut parts = std::mem::take(request.uri_mut()).into_parts();
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = Some(match host {
                Some(host) => Authority::try_from(host.as_bytes())?,
                None => self.authority.clone(),
            });
            *request.uri_mut() = Uri::from_parts(parts)?;
            request.headers_mut().remove(CONNECTION);
        }
        *request.version_mut() = Version::HTTP_2;
        Ok(())
    }

    async fn connect_http1(&self) -> Result<client1::SendRequest<Incoming>, BoxError> {
        let io = self.connect().await?;
        match &self.tls {
            Some(tls) => handshake_http1(tls.connect(name(), io).await?).await,
            None => handshake_http1(io).await,
        }
    }

    async fn connect_http2(&self) -> Result<client2::SendRequest<Incoming>, BoxError> {
        let io = self.connect().await?;
        match &self.tls {
            Some(tls) => handshake_http2(tls.connect(name(), io).await?).await,
            None => handshake_http2(io).await,
        }
    }

    async fn connect(&self) -> Result<TcpStream, BoxError> {
        let io = TcpStream::connect(self.to).await?;
        io.set_nodelay(true)?;
        Ok(io)
    }

    /// Bytes, both ways, until both sides have finished.
    async fn copy<I: AsyncRead + AsyncWrite + Unpin>(&self, mut io: I) -> Result<(), BoxError> {
        use tokio::io::copy_bidirectional_with_sizes as copy;
        let mut other = self.connect().await?;
        match &self.tls {
            Some(tls) => {
                let mut other = tls.connect(name(), other).await?;
                copy(&mut io, &mut other, COPY_BUFFER, COPY_BUFFER).await?;
            }
            None => {
                copy(&mut io, &mut other, COPY_BUFFER, COPY_BUFFER).await?;
            }
        }
        Ok(())
    }
}

async fn handshake_http1<I>(io: I) -> Result<client1::SendRequest<Incoming>, BoxError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = client1::handshake(TokioIo::new(io)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn handshake_http2<I>(io: I) -> Result<client2::SendRequest<Incoming>, BoxError>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = client2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(io))
        .await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// A response body. When it is dropped, its connection is idle again.
#[derive(Default)]
struct Outgoing(
    Option<Incoming>,
    #[expect(dead_code, reason = "acts when dropped")] Option<Lease>,
);

/// A borrowed HTTP/1 connection, given back when dropped.
struct Lease(Option<client1::SendRequest<Incoming>>, Arc<Upstream>);

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take().filter(|sender| !sender.is_closed()) {
            self.1
                .idle
                .lock()
                .expect("nothing panics while it is held")
                .push_back(sender);
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

fn name() -> ServerName<'static> {
    ServerName::try_from(outrigger_benches::certs::SERVER).expect("the name is a DNS name")
}

/// Mutual TLS 1.3, without resumption: every connection is a full handshake, as between workloads.
fn connector(certs: &Path) -> Result<TlsConnector, BoxError> {
    let (chain, key) = own(certs, "client")?;
    let mut config = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(anchors(certs)?)
        .with_client_auth_cert(chain, key)?;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn acceptor(certs: &Path) -> Result<TlsAcceptor, BoxError> {
    let (chain, key) = own(certs, "server")?;
    let clients = rustls::server::WebPkiClientVerifier::builder(Arc::new(anchors(certs)?)).build()?;
    let mut config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn anchors(certs: &Path) -> Result<RootCertStore, BoxError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certs.join("ca.pem"))?)?;
    Ok(roots)
}

fn own(certs: &Path, side: &str) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), BoxError> {
    let chain = CertificateDer::from_pem_file(certs.join(format!("{side}.pem")))?;
    let key = PrivateKeyDer::from_pem_file(certs.join(format!("{side}.key")))?;
    Ok((vec![chain], key))
}
