//! The application behind the proxies: HTTP/1 and HTTP/2 on one port, bytes on another: echoed, swallowed or made.

#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::net::Ipv4Addr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_benches::BoxError;
use outrigger_benches::args::{Args, Protocol};
use outrigger_benches::systems::{MAKE, MORE_PORTS, SWALLOW};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

static LARGE: [u8; 64 << 10] = [b'x'; 64 << 10];

/// `app serve --http IP:port --echo IP:port --more N`: HTTP on so many more ports
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let args = Args::from_command_line()?;
    let http = TcpListener::bind(args.address("--http")?).await?;
    let echo = TcpListener::bind(args.address("--echo")?).await?;
    for port in (MORE_PORTS..).take(args.number("--more")?) {
        let more = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        tokio::spawn(async move {
            while let Ok((io, _)) = more.accept().await {
                tokio::spawn(serve(io));
            }
        });
    }
    loop {
        tokio::select! {
            accepted = http.accept() => tokio::spawn(serve(accepted?.0)),
            accepted = echo.accept() => tokio::spawn(carry(accepted?.0)),
        };
    }
}

async fn serve(io: TcpStream) -> Result<(), BoxError> {
    io.set_nodelay(true)?;
    let protocol = outrigger_benches::peek(&io).await?;
    let io = TokioIo::new(io);
    match protocol {
        Protocol::Http2 => {
            let connection = http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(1_000)
                .serve_connection(io, service_fn(answer));
            Ok(connection.await?)
        }
        _ => Ok(http1::Builder::new()
            .serve_connection(io, service_fn(answer))
            .await?),
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body: &'static [u8] = match request.uri().path() {
        "/64k" => &LARGE,
        _ => b"hello from the application\n",
    };
    Ok(Response::new(Full::new(Bytes::from_static(body))))
}

/// What the first byte asks for.
async fn carry(mut io: TcpStream) -> Result<(), BoxError> {
    io.set_nodelay(true)?;
    let mut buffer = vec![0; 64 << 10];
    let mut read = io.read(&mut buffer).await?;
    let wish = buffer[0];
    while read > 0 {
        match wish {
            SWALLOW => {}
            MAKE => loop {
                io.write_all(&LARGE).await?;
            },
            _ => io.write_all(&buffer[..read]).await?,
        }
        read = io.read(&mut buffer).await?;
    }
    Ok(())
}
