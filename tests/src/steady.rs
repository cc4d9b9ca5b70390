//! Requests at a steady rate on connections that stay open, HTTP/1.1 or HTTP/2, and how every connection ended.

use crate::pod::Pod;
use crate::wait;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper::header::{CONNECTION, HOST};
use hyper::http::request;
use hyper::{Request, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Connections of one load.
pub const CONNECTIONS: u32 = 8;

/// A client that asks at a steady rate until it is stopped.
///
/// Its connections stay open until the server says that one is to end (`connection: close`, GOAWAY): that is obeyed, and
/// is no failure. A connection that ends without a word is one.
#[derive(Debug)]
pub struct Steady {
    stop: watch::Sender<bool>,
    counts: Arc<Counts>,
    clients: thread::JoinHandle<Vec<String>>,
    begun: Instant,
}

#[derive(Debug, Default)]
struct Counts {
    answered: AtomicUsize,
    told: AtomicUsize,
}

/// How a load has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Connections that were told to end.
    pub told: usize,
    /// What has failed.
    pub failures: Vec<String>,
}

impl Steady {
    /// Asks this address from a pod, so many times a second in all, for `http://web/`.
    pub fn start(pod: &Pod, addr: SocketAddr, version: Version, rate: u32) -> Self {
        let (stop, stopped) = watch::channel(false);
        let counts = Arc::<Counts>::default();
        let counted = counts.clone();
        let pause = Duration::from_secs(1) * CONNECTIONS / rate;
        // A thread that the pod's starts is in the pod as well.
        let clients = pod.run(move || {
            thread::spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let client = |_| ask(addr, version, pause, counted.clone(), stopped.clone());
                    let clients: JoinSet<_> = (0..CONNECTIONS).map(client).collect();
                    clients
                        .join_all()
                        .await
                        .into_iter()
                        .filter_map(Result::err)
                        .collect()
                })
            })
        });
        Self {
            stop,
            counts,
            clients,
            begun: Instant::now(),
        }
    }

    /// Waits until this many more requests have been answered.
    pub fn wait_for(&self, count: usize) {
        let before = self.answered();
        wait::until("requests under load", || {
            (self.answered() >= before + count || self.clients.is_finished()).then_some(())
        });
    }

    /// Requests that were answered so far.
    pub fn answered(&self) -> usize {
        self.counts.answered.load(Ordering::Relaxed)
    }

    /// Ends the load, and prints how fast it was.
    pub fn stop(self) -> Outcome {
        self.stop.send_replace(true);
        let (answered, time) = (self.answered(), self.begun.elapsed());
        let failures = self.clients.join().unwrap();
        let rate = answered as f64 / time.as_secs_f64();
        println!("{answered} requests answered in {time:.1?}, {rate:.0} a second");
        Outcome {
            told: self.counts.told.load(Ordering::Relaxed),
            failures,
        }
    }
}

/// One connection, until it is told to end or the load is stopped.
async fn ask(
    addr: SocketAddr,
    version: Version,
    pause: Duration,
    counts: Arc<Counts>,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), String> {
    let (mut client, mut connection) = Client::open(addr, version)
        .await
        .map_err(|error| format!("no connection: {error}"))?;
    let mut ticks = interval(pause);
    // What a slow machine does not carry is left out, not made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let told = loop {
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
            ended = &mut connection => match ended.unwrap() {
                // HTTP/1 can say it only in an answer.
                Ok(()) if version == Version::HTTP_2 => break Ok(()),
                ended => break Err(format!("a connection ended without a word: {ended:?}")),
            },
            _ = ticks.tick() => {}
        }
        match client.ask().await {
            Ok(last) => {
                counts.answered.fetch_add(1, Ordering::Relaxed);
                if last {
                    break Ok(());
                }
            }
            Err(error) if is_goodbye(&*error) && connection.await.unwrap().is_ok() => break Ok(()),
            Err(error) => break Err(format!("{error:?}")),
        }
    };
    counts
        .told
        .fetch_add(usize::from(told.is_ok()), Ordering::Relaxed);
    told
}

/// Whether the server has not processed a request since it had said goodbye before (RFC 9113 §6.8).
fn is_goodbye(error: &(dyn Error + 'static)) -> bool {
    let unsent = error
        .downcast_ref::<hyper::Error>()
        .is_some_and(|error| error.is_canceled() || error.is_closed());
    unsent || format!("{error:?}").contains("GoAway(b\"\", NO_ERROR, Remote)")
}

/// A client's end of a connection.
enum Client {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

type Ended = JoinHandle<hyper::Result<()>>;

impl Client {
    async fn open(addr: SocketAddr, version: Version) -> Result<(Self, Ended), Box<dyn Error + Send + Sync>> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        Ok(if version == Version::HTTP_2 {
            let (client, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            (Self::Two(client), tokio::spawn(connection))
        } else {
            let (client, connection) = http1::handshake(io).await?;
            (Self::One(client), tokio::spawn(connection))
        })
    }

    /// One request and its whole answer: whether that was the connection's last.
    async fn ask(&mut self) -> Result<bool, Box<dyn Error + Send + Sync>> {
        let asked = async {
            let response = match self {
                Self::One(client) => {
                    client.ready().await?;
                    client
                        .send_request(request(Request::get("/").header(HOST, "web")))
                        .await?
                }
                Self::Two(client) => {
                    client.ready().await?;
                    client.send_request(request(Request::get("http://web/"))).await?
                }
            };
            let status = response.status();
            let last = response
                .headers()
                .get(CONNECTION)
                .is_some_and(|value| value == "close");
            let body = response.into_body().collect().await?.to_bytes();
            if status != StatusCode::OK {
                return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
            }
            Ok(last)
        };
        timeout(wait::BOUND, asked).await?
    }
}

fn request(request: request::Builder) -> Request<Empty<Bytes>> {
    request.body(Empty::new()).unwrap()
}
