//! Clients of the mesh: requests on one connection, or bytes.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A client with one connection.
pub(crate) trait Client {
    /// What it speaks.
    const NAME: &'static str;

    /// A connection on which one thing was said, and answered.
    fn used_once(addr: SocketAddr) -> impl Future<Output = Self>;
}

/// A client that sends requests.
pub(crate) enum Requests {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

/// A client that sends bytes.
pub(crate) struct Bytestream {
    _tcp: TcpStream,
}

impl Client for Requests {
    const NAME: &'static str = "HTTP/1";

    async fn used_once(addr: SocketAddr) -> Self {
        let mut client = Self::connect(addr, Version::HTTP_11).await;
        client.send(1, "/").await;
        client
    }
}

impl Client for Bytestream {
    const NAME: &'static str = "opaque";

    async fn used_once(addr: SocketAddr) -> Self {
        let mut tcp = connect(addr).await;
        tcp.write_all(b"?").await.unwrap();
        assert_eq!(tcp.read_u8().await.unwrap(), b'?');
        Self { _tcp: tcp }
    }
}

impl Requests {
    pub(crate) async fn connect(addr: SocketAddr, version: Version) -> Self {
        let io = TokioIo::new(connect(addr).await);
        if version == Version::HTTP_2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            drop(tokio::spawn(connection));
            Self::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.unwrap();
            drop(tokio::spawn(connection));
            Self::Http1(sender)
        }
    }

    /// Sends so many requests for a path, one after another, and reads the answers to their ends.
    pub(crate) async fn send(&mut self, requests: u32, path: &str) {
        for _ in 0..requests {
            let response = self.ask(Method::GET, path).await;
            assert_eq!(response.status(), StatusCode::OK, "{response:?}");
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        }
    }

    /// Sends one request.
    pub(crate) async fn ask(&mut self, method: Method, path: &str) -> Response<Incoming> {
        let response = match self {
            Self::Http1(sender) => {
                sender.ready().await.unwrap();
                sender.send_request(request(Version::HTTP_11, method, path)).await
            }
            Self::Http2(sender) => {
                sender.ready().await.unwrap();
                sender.send_request(request(Version::HTTP_2, method, path)).await
            }
        };
        response.unwrap()
    }
}

fn request(version: Version, method: Method, path: &str) -> Request<Empty<Bytes>> {
    let name = "server.demo.svc.cluster.local";
    let request = Request::builder()
        .method(method)
        .header("user-agent", "budgets")
        .header("accept", "*/*");
    let request = if version == Version::HTTP_2 {
        request.uri(format!("http://{name}{path}"))
    } else {
        request.uri(path).header("host", name)
    };
    request.body(Empty::new()).unwrap()
}

async fn connect(addr: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(addr).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp
}
