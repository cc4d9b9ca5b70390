//! What the benches share: arguments, certificates, namespaces, processes, the systems compared, and the report.

#![forbid(unsafe_code)]

pub mod args;
pub mod certs;
pub mod count;
pub mod greeting;
pub mod growth;
pub mod mesh;
pub mod namespaces;
pub mod process;
pub mod report;
pub mod rows;
pub mod systems;

use args::Protocol;
use tokio::net::TcpStream;

/// Any error, boxed: a bench ends at the first.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Whether a connection opens with the preface of HTTP/2 (RFC 9113 §3.4), without taking its bytes.
pub async fn peek(io: &TcpStream) -> std::io::Result<Protocol> {
    let mut first = [0; 3];
    io.peek(&mut first).await?;
    Ok(if &first == b"PRI" {
        Protocol::Http2
    } else {
        Protocol::Http1
    })
}
