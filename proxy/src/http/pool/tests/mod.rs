//! Pools against servers in this process.

mod frames;
mod goodbyes;
mod http1;
mod lifetime;
mod streams;

use std::any::Any;

use ::h2::{SendStream, client};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request};
use outrigger_http2::server;
use tokio::io::duplex;

use crate::http::body::Body;
use crate::http::h2::backlog::testing::claim;
use crate::http::h2::recv;

/// A body that has not begun, and what its sender sends it with.
async fn unbegun() -> (Body, SendStream<Bytes>, Box<dyn Any + Send>) {
    let (near, far) = duplex(1 << 16);
    let serving = tokio::spawn(async move {
        let mut serving = server::handshake(far, &server::Config::default()).await.unwrap();
        let accepted = serving.accept().await.unwrap().unwrap();
        tokio::spawn(async move { serving.accept().map(drop).await });
        accepted
    });
    let (mut sender, connection) = client::handshake(near).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://app/").body(()).unwrap();
    let (response, stream) = sender.send_request(request, false).unwrap();
    let accepted = serving.await.unwrap();
    let body = recv::body(accepted.recv, &HeaderMap::new(), claim);
    (body, stream, Box::new((sender, response, accepted.send)))
}
