//! Watches: none outlives its client or the process.

use std::pin::Pin;
use std::sync::Arc;

use crate::support::{Channel, until};
use futures_util::Stream;
use outrigger_controller::ending;
use outrigger_controller::serve::{Listener, ServeMetrics};
use outrigger_proto::destination::destination_client::DestinationClient;
use outrigger_proto::destination::destination_server::{Destination, DestinationServer};
use outrigger_proto::destination::{DestinationProfile, GetDestination, Update};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

type Watch<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Watches that never say anything; each holds a clone of the token.
struct Silent(Arc<()>);

#[tonic::async_trait]
impl Destination for Silent {
    type GetStream = Watch<Update>;
    type GetProfileStream = Watch<DestinationProfile>;

    async fn get(&self, _: Request<GetDestination>) -> Result<Response<Self::GetStream>, Status> {
        let token = self.0.clone();
        let silent = futures_util::stream::poll_fn(move |_| {
            let _held = &token;
            std::task::Poll::Pending
        });
        Ok(Response::new(Box::pin(silent)))
    }

    async fn get_profile(
        &self,
        _: Request<GetDestination>,
    ) -> Result<Response<Self::GetProfileStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

struct Host {
    address: std::net::SocketAddr,
    streams: Arc<()>,
    end: ending::End,
    server: tokio::task::JoinHandle<()>,
}

impl Host {
    async fn start() -> Self {
        let streams = Arc::new(());
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Listener {
            name: "destination",
            socket,
            tls: None,
            routes: Routes::new(DestinationServer::new(Silent(streams.clone()))),
            max_streams: 100,
        };
        let (end, ending) = ending::channel();
        let server = tokio::spawn(listener.serve(ending, ServeMetrics::default()));
        Self {
            address,
            streams,
            end,
            server,
        }
    }

    /// Opens a watch, and waits until the server has it.
    async fn watch(&self) -> (DestinationClient<Channel>, tonic::Streaming<Update>) {
        let channel = Channel::plaintext(self.address).await;
        let mut client =
            DestinationClient::with_origin(channel, http::Uri::from_static("http://destination"));
        let stream = client.get(GetDestination::default()).await.unwrap().into_inner();
        (client, stream)
    }

    /// Watches that the server has, besides the two tokens of its own and the test.
    fn open(&self) -> usize {
        Arc::strong_count(&self.streams).saturating_sub(2)
    }
}

#[tokio::test]
async fn a_watch_ends_with_its_client() {
    let host = Host::start().await;
    let watch = host.watch().await;
    assert_eq!(host.open(), 1);
    drop(watch);
    until(|| async { host.open() == 0 }).await;
}

#[tokio::test]
async fn a_watch_that_is_cancelled_leaves_the_others() {
    let host = Host::start().await;
    let (mut client, first) = host.watch().await;
    let second = client.get(GetDestination::default()).await.unwrap();
    assert_eq!(host.open(), 2);
    drop(first);
    until(|| async { host.open() == 1 }).await;
    drop(second);
}

#[tokio::test]
async fn a_watch_ends_with_the_process() {
    let host = Host::start().await;
    let (_client, mut stream) = host.watch().await;
    host.end.begin();
    host.server.await.unwrap();
    assert!(stream.message().await.is_err());
    until(|| async { Arc::strong_count(&host.streams) == 1 }).await;
}
