//! The generator for what `h2load` does not do: fixed rates measured from when a request was due, and bytes.
//!
//! Each command prints one line of JSON. `load hold` keeps its connections until its input ends.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_benches::BoxError;
use outrigger_benches::args::{Args, Protocol};
use outrigger_benches::systems::{MAKE, SWALLOW};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let args = Args::from_command_line()?;
    let to = args.address("--to")?;
    let report = match args.command()? {
        "rate" => rate(to, &args).await?,
        "pingpong" => pingpong(to, args.number("--connections")?, seconds(&args)?).await?,
        "up" => stream(to, SWALLOW, args.number("--connections")?, seconds(&args)?).await?,
        "down" => stream(to, MAKE, args.number("--connections")?, seconds(&args)?).await?,
        "connections" => connections(to, args.number("--at-once")?, seconds(&args)?).await?,
        "requests" => fresh_requests(to, args.number("--at-once")?, seconds(&args)?).await?,
        "hold" => hold(to, args.protocol("--protocol")?, args.number("--connections")?).await?,
        other => return Err(format!("there is no command {other}").into()),
    };
    println!("{report}");
    Ok(())
}

fn seconds(args: &Args) -> Result<Duration, BoxError> {
    Ok(Duration::from_secs_f64(args.value("--seconds")?.parse()?))
}

/// Requests at a fixed rate, whatever the answers do. A latency counts from when its request was due, so that a
/// system that stalls pays for every request that came due meanwhile.
async fn rate(to: SocketAddr, args: &Args) -> Result<Value, BoxError> {
    let connections = args.number("--connections")?;
    let per_connection = args.number("--streams")?;
    let senders =
        Arc::new(Senders::open(to, args.protocol("--protocol")?, connections, per_connection).await?);
    let mut due = clock(args.number("--rate")?, seconds(args)?);
    let taken = Arc::new(Mutex::new(Taken::default()));
    let mut tasks = tokio::task::JoinSet::new();
    while let Some(due) = due.recv().await {
        let (senders, taken) = (senders.clone(), taken.clone());
        tasks.spawn(async move {
            let result = senders.exchange().await;
            taken
                .lock()
                .expect("nothing panics while it is held")
                .record(due, result.is_ok());
        });
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
    let mut taken = taken.lock().expect("nothing panics while it is held");
    Ok(taken.report())
}

/// Says when each request is due. A thread of its own: the runtime's timer counts in milliseconds.
fn clock(rate: usize, length: Duration) -> mpsc::Receiver<Instant> {
    let (tx, rx) = mpsc::channel(1 << 16);
    let interval = Duration::from_secs(1) / u32::try_from(rate).unwrap_or(u32::MAX);
    std::thread::spawn(move || {
        let start = Instant::now();
        let mut due = start;
        while due - start < length {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // Full: 65,536 requests are waiting already. The run is lost, and its latencies say so.
            if tx.blocking_send(due).is_err() {
                return;
            }
            due += interval;
        }
    });
    rx
}

/// Connections, used in turn.
struct Senders {
    free: Mutex<VecDeque<Sender>>,
    permits: Semaphore,
    authority: String,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Senders {
    async fn open(
        to: SocketAddr,
        protocol: Protocol,
        connections: usize,
        streams: usize,
    ) -> Result<Self, BoxError> {
        let mut free = VecDeque::new();
        if protocol == Protocol::Http2 {
            let mut opened = Vec::new();
            for _ in 0..connections {
                opened.push(open_http2(to).await?);
            }
            // Neighbours in the queue are on different connections.
            for _ in 0..streams {
                free.extend(opened.iter().cloned().map(Sender::Http2));
            }
        } else {
            for _ in 0..connections {
                free.push_back(Sender::Http1(open_http1(to).await?));
            }
        }
        let permits = Semaphore::new(free.len());
        let authority = to.to_string();
        Ok(Self {
            free: Mutex::new(free),
            permits,
            authority,
        })
    }

    /// One request, on the connection that has been idle longest.
    async fn exchange(&self) -> Result<(), BoxError> {
        let _permit = self.permits.acquire().await?;
        let take = || {
            self.free
                .lock()
                .expect("nothing panics while it is held")
                .pop_front()
        };
        let mut sender = take().ok_or("more permits than connections")?;
        let result = sender.exchange(&self.authority).await;
        self.free
            .lock()
            .expect("nothing panics while it is held")
            .push_back(sender);
        result
    }
}

impl Sender {
    async fn exchange(&mut self, authority: &str) -> Result<(), BoxError> {
        let response = match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                let request = Request::get("/").header("host", authority);
                sender.send_request(request.body(Empty::new())?).await?
            }
            Self::Http2(sender) => {
                let request = Request::get(format!("http://{authority}/"));
                sender.send_request(request.body(Empty::new())?).await?
            }
        };
        let ok = response.status().is_success();
        response.into_body().collect().await?;
        if ok {
            Ok(())
        } else {
            Err("the answer is a failure".into())
        }
    }
}

async fn open_http1(to: SocketAddr) -> Result<http1::SendRequest<Empty<Bytes>>, BoxError> {
    let (sender, connection) = http1::handshake(TokioIo::new(open(to).await?)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn open_http2(to: SocketAddr) -> Result<http2::SendRequest<Empty<Bytes>>, BoxError> {
    let io = TokioIo::new(open(to).await?);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn open(to: SocketAddr) -> Result<TcpStream, BoxError> {
    let io = TcpStream::connect(to).await?;
    io.set_nodelay(true)?;
    Ok(io)
}

/// 64 bytes there and back, on connections that stay.
async fn pingpong(to: SocketAddr, connections: usize, length: Duration) -> Result<Value, BoxError> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(async move {
            let mut io = open(to).await?;
            let mut taken = Taken::default();
            let start = Instant::now();
            while start.elapsed() < length {
                let sent = Instant::now();
                round_trip(&mut io, &[7; 64]).await?;
                taken.record(sent, true);
            }
            Ok(taken)
        });
    }
    summed(tasks).await
}

/// Bytes in one direction, as fast as they go; what is counted are MiB that were sent or taken.
async fn stream(to: SocketAddr, wish: u8, connections: usize, length: Duration) -> Result<Value, BoxError> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(async move {
            let (mut io, mut buffer) = (open(to).await?, vec![wish; 64 << 10]);
            io.write_all(&[wish]).await?;
            let (start, mut bytes) = (Instant::now(), 0);
            while start.elapsed() < length {
                bytes += match wish {
                    SWALLOW => io.write(&buffer).await?,
                    _ => io.read(&mut buffer).await?,
                };
            }
            Ok::<_, BoxError>(bytes)
        });
    }
    let mut bytes = 0;
    while let Some(carried) = tasks.join_next().await {
        bytes += carried??;
    }
    Ok(json!({ "done": bytes >> 20, "failed": 0 }))
}

/// Connect, a byte each way, close: as fast as it goes.
async fn connections(to: SocketAddr, at_once: usize, length: Duration) -> Result<Value, BoxError> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..at_once {
        tasks.spawn(async move {
            let mut taken = Taken::default();
            let start = Instant::now();
            while start.elapsed() < length {
                let begun = Instant::now();
                let result = async { round_trip(&mut open(to).await?, &[7]).await };
                taken.record(begun, result.await.is_ok());
            }
            Ok(taken)
        });
    }
    summed(tasks).await
}

/// A connection per HTTP/1.1 request: as fast as it goes.
async fn fresh_requests(to: SocketAddr, at_once: usize, length: Duration) -> Result<Value, BoxError> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..at_once {
        tasks.spawn(async move {
            let (mut taken, authority) = (Taken::default(), to.to_string());
            let start = Instant::now();
            while start.elapsed() < length {
                let begun = Instant::now();
                let result = async { Sender::Http1(open_http1(to).await?).exchange(&authority).await };
                taken.record(begun, result.await.is_ok());
            }
            Ok(taken)
        });
    }
    summed(tasks).await
}

async fn round_trip(io: &mut TcpStream, bytes: &[u8]) -> Result<(), BoxError> {
    let mut back = [0; 64];
    io.write_all(bytes).await?;
    io.read_exact(&mut back[..bytes.len()]).await?;
    Ok(())
}

async fn summed(mut tasks: tokio::task::JoinSet<Result<Taken, BoxError>>) -> Result<Value, BoxError> {
    let mut all = Taken::default();
    while let Some(taken) = tasks.join_next().await {
        let taken = taken??;
        all.micros.extend(taken.micros);
        all.failed += taken.failed;
    }
    Ok(all.report())
}

/// Connections that have carried something and are idle now.
async fn hold(to: SocketAddr, protocol: Protocol, connections: usize) -> Result<Value, BoxError> {
    let (mut senders, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..connections {
        if protocol == Protocol::Tcp {
            let mut io = open(to).await?;
            round_trip(&mut io, &[7]).await?;
            streams.push(io);
        } else {
            let mut sender = Sender::Http1(open_http1(to).await?);
            sender.exchange(&to.to_string()).await?;
            senders.push(sender);
        }
    }
    println!("{}", json!({ "held": senders.len() + streams.len() }));
    tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await?;
    Ok(json!({ "ended": true }))
}

/// How long each exchange took.
#[derive(Default)]
struct Taken {
    micros: Vec<u32>,
    failed: u64,
}

impl Taken {
    fn record(&mut self, from: Instant, ok: bool) {
        if ok {
            self.micros
                .push(u32::try_from(from.elapsed().as_micros()).unwrap_or(u32::MAX));
        } else {
            self.failed += 1;
        }
    }

    fn report(&mut self) -> Value {
        self.micros.sort_unstable();
        let count = self.micros.len();
        let at = |share: f64| {
            let index = (count as f64 * share) as usize;
            self.micros.get(index.min(count.saturating_sub(1))).copied()
        };
        json!({ "done": count, "failed": self.failed, "p50": at(0.5), "p99": at(0.99), "p999": at(0.999) })
    }
}
