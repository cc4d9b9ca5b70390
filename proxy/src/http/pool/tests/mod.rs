//! Pools against servers in this process.

mod frames;
mod goodbyes;
mod http1;
mod lifetime;
mod streams;

use std::any::Any;

use ::h2::{SendStream, client, server};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request};
use tokio::io::duplex;

use crate::http::body::Body;
use crate::http::h2::backlog::testing::claim;
use crate::http::h2::recv;

/// A body that has not begun, and what its sender sends it with.
async fn unbegun() -> (Body, SendStream<Bytes>, Box<dyn Any + Send>) {
    let (near, far) = duplex(1 << 16);
    let serving = tokio::spawn(async move {
        let mut serving = server::handshake(far).await.unwrap();
        let (request, respond) = serving.accept().await.unwrap().unwrap();
        tokio::spawn(async move { serving.accept().map(drop).await });
        (request, respond)
    });
    let (mut sender, connection) = client::handshake(near).await.unwrap();
    tokio::spawn(connection);
    let (response, stream) = sender.send_request(Request::new(()), false).unwrap();
    let (request, respond) = serving.await.unwrap();
    let body = recv::body(request.into_body(), &HeaderMap::new(), claim);
    (body, stream, Box::new((sender, response, respond)))
}
