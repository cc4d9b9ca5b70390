//! A control plane for tests, on a real socket, that says what the test says and nothing else.

use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tonic::Code;

use crate::config::{
    self, Backoff, Connect, ControlAddr, DnsLifetime, Host, HostPort, Http2Client, Networks, StreamTimeouts,
    Suffixes,
};
use crate::control::channel::Channel;
use crate::control::discovery::Discovery;
use crate::control::metrics::{Client, Metrics};
use crate::live::Live;
use crate::telemetry::Registry;
use crate::tls::testing::Ca;
use crate::tls::{self, Credentials};

pub(crate) const HTTP2: Http2Client = Http2Client {
    flood_scale: 1,
    stream_window: 1 << 20,
    connection_window: 1 << 20,
    max_connections: 1,
    idle_timeout: Duration::from_secs(90),
    max_age: Duration::from_secs(3600),
};

type ServerBody = BoxBody<Bytes, io::Error>;
type Frames = mpsc::Sender<Result<Frame<Bytes>, io::Error>>;

/// A scripted control plane; everything of it ends when it is dropped.
pub(crate) struct Fake {
    pub(crate) addr: SocketAddr,
    calls: mpsc::Receiver<Call>,
    waiting: Vec<Call>,
    _tasks: JoinSet<()>,
}

/// One request that waits for its answer.
pub(crate) struct Call {
    pub(crate) path: String,
    message: Bytes,
    answer: oneshot::Sender<Response<ServerBody>>,
}

/// An answer under way.
pub(crate) struct Answer(Frames);

/// An address of the fake's own: no connection that another test opens is ever given one of its ports.
const LOOPBACK: &str = "127.86.0.1:0";

/// Listens, as soon as an earlier fake on the same port has gone: its task ends a moment after it is dropped.
async fn bind(addr: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(addr).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => tokio::task::yield_now().await,
            bound => return bound.unwrap(),
        }
    }
}

impl Fake {
    /// Plaintext, on a free port.
    pub(crate) async fn start() -> Self {
        Self::at(LOOPBACK.parse().unwrap(), None).await
    }

    /// Plaintext, with so many streams on a connection.
    pub(crate) async fn limited(max_streams: u32) -> Self {
        Self::listen(LOOPBACK.parse().unwrap(), None, max_streams).await
    }

    /// With TLS where there are credentials.
    pub(crate) async fn at(addr: SocketAddr, credentials: Option<Credentials>) -> Self {
        Self::listen(addr, credentials, u32::MAX).await
    }

    async fn listen(addr: SocketAddr, credentials: Option<Credentials>, max_streams: u32) -> Self {
        let listener = bind(addr).await;
        let (calls, taken) = mpsc::channel(64);
        let addr = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, credentials.map(Arc::new), max_streams, calls));
        Self {
            addr,
            calls: taken,
            waiting: Vec::new(),
            _tasks: tasks,
        }
    }

    /// The next request for a method, in whatever order requests come.
    pub(crate) async fn call(&mut self, method: &str) -> Call {
        loop {
            if let Some(found) = self.waiting.iter().position(|call| call.path.ends_with(method)) {
                return self.waiting.remove(found);
            }
            let next = self.calls.recv().await.unwrap();
            self.waiting.push(next);
        }
    }

    /// A channel to it, in plaintext.
    pub(crate) fn channel(&self) -> Channel {
        open(
            &address(self.addr, None),
            Live::fixed(Ca::new("unused").credentials("web.test")),
        )
    }
}

impl Call {
    /// What was asked.
    pub(crate) fn request<M: Message + Default>(&self) -> M {
        M::decode(&self.message[5..]).unwrap()
    }

    /// Answers with a status and nothing else.
    pub(crate) fn refuse(self, code: Code) {
        let mut response = response(Empty::new().map_err(|e| match e {}).boxed());
        *response.headers_mut() = status(code);
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", grpc);
        let _gone = self.answer.send(response);
    }

    /// Begins an answer.
    pub(crate) fn open(self) -> Answer {
        let (frames, taken) = mpsc::channel(64);
        let frames_of = stream::unfold(taken, |mut taken| async {
            taken.recv().await.map(|frame| (frame, taken))
        });
        let _gone = self.answer.send(response(StreamBody::new(frames_of).boxed()));
        Answer(frames)
    }

    /// Answers with one message.
    pub(crate) async fn reply(self, message: &impl Message) {
        let answer = self.open();
        answer.send(message).await;
        answer.end(Code::Ok).await;
    }
}

impl Answer {
    /// Sends a message.
    pub(crate) async fn send(&self, message: &impl Message) {
        self.send_bytes(&message.encode_to_vec()).await;
    }

    /// Sends what may not be a message.
    pub(crate) async fn send_bytes(&self, bytes: &[u8]) {
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(bytes.len()).unwrap());
        framed.put_slice(bytes);
        self.0.send(Ok(Frame::data(framed.freeze()))).await.unwrap();
    }

    /// Ends it with a status.
    pub(crate) async fn end(self, code: Code) {
        let _gone = self.0.send(Ok(Frame::trailers(status(code)))).await;
    }

    /// Ends it with RST_STREAM.
    pub(crate) async fn reset(self) {
        let _gone = self.0.send(Err(ErrorKind::Other.into())).await;
    }

    /// Waits until the client has gone away.
    pub(crate) async fn abandoned(self) {
        self.0.closed().await;
    }
}

/// Discovery from a control plane that follows the test, with 10/8 as the only network.
pub(crate) fn discovery(fake: &Fake, default_inbound: config::DefaultInbound) -> Discovery {
    let service = address(fake.addr, None);
    let control = config::Control {
        destination: service.clone(),
        policy: service,
        discovery: config::Discovery {
            workload: "the-workload".into(),
            context: "the-context".into(),
            profile_networks: Networks(["10.0.0.0/8".parse().unwrap()].into()),
            profile_suffixes: Suffixes::default(),
            default_inbound,
        },
        stream_timeouts: StreamTimeouts::default(),
        http2_client: HTTP2,
    };
    let credentials = Live::fixed(Ca::new("unused").credentials("web.test"));
    Discovery::start(&control, &credentials, &metrics(), &Handle::current()).unwrap()
}

/// An address with quick backoffs; with a name, it is spoken to by mutual TLS.
pub(crate) fn address(addr: SocketAddr, name: Option<&str>) -> ControlAddr {
    let backoff = Backoff {
        min: Duration::from_millis(5),
        max: Duration::from_millis(20),
        jitter: 0.1,
    };
    ControlAddr {
        addr: HostPort {
            host: Host::Ip(addr.ip()),
            port: addr.port(),
        },
        identity: name.map(|name| outrigger_policy::name::DnsName::parse(name).unwrap()),
        connect: Connect {
            timeout: Duration::from_secs(30),
            keepalive: None,
            user_timeout: None,
            backoff,
        },
        dns: DnsLifetime::default(),
    }
}

pub(crate) fn open(addr: &ControlAddr, credentials: Live<Credentials>) -> Channel {
    let metrics = metrics().channel(Client::Destination);
    Channel::open(
        Client::Destination,
        addr,
        &HTTP2,
        credentials,
        metrics,
        &Handle::current(),
    )
    .unwrap()
}

pub(crate) fn metrics() -> Metrics {
    Metrics::register(&mut Registry::new(Duration::from_secs(600)))
}

async fn accept(
    listener: TcpListener,
    credentials: Option<Arc<Credentials>>,
    max_streams: u32,
    calls: mpsc::Sender<Call>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (io, _) = listener.accept().await.unwrap();
        let (credentials, calls) = (credentials.clone(), calls.clone());
        connections.spawn(async move {
            match credentials {
                None => serve(io, max_streams, calls).await,
                Some(credentials) => match tls::server::accept(&credentials, io, false).await {
                    Ok(accepted) => serve(accepted.stream, max_streams, calls).await,
                    Err(_refused) => {}
                },
            }
        });
    }
}

async fn serve<I>(io: I, max_streams: u32, calls: mpsc::Sender<Call>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| handle(request, calls.clone()));
    let _ended = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(max_streams)
        .serve_connection(TokioIo::new(io), service)
        .await;
}

async fn handle(
    request: Request<Incoming>,
    calls: mpsc::Sender<Call>,
) -> Result<Response<ServerBody>, Infallible> {
    let path = request.uri().path().to_owned();
    let message = request.into_body().collect().await.unwrap().to_bytes();
    let (answer, answered) = oneshot::channel();
    let call = Call {
        path,
        message,
        answer,
    };
    let _test_over = calls.send(call).await;
    match answered.await {
        Ok(response) => Ok(response),
        Err(_) => std::future::pending().await,
    }
}

fn response(body: ServerBody) -> Response<ServerBody> {
    let mut response = Response::new(body);
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    response
}

fn status(code: Code) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(code as i32));
    trailers
}
