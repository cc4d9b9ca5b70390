//! Bodies of 100 MB, both ways at once: every byte arrives, and neither proxy keeps many of them.

use crate::{echo, pair};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_e2e::mesh::Meshed;
use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread;
use tokio::net::TcpStream;
use tokio::runtime;

const LENGTH: usize = 100_000_000;
/// How much more anonymous memory a proxy may have while it carries such a body.
const GROWTH: u64 = 8 * 1024 * 1024;

#[test]
fn a_large_body_passes_both_ways_at_once_over_http1() {
    passes_both_ways_at_once(Version::HTTP_11);
}

#[test]
fn a_large_body_passes_both_ways_at_once_over_http2() {
    passes_both_ways_at_once(Version::HTTP_2);
}

fn passes_both_ways_at_once(version: Version) {
    let (mesh, server, client) = pair(&[8080]);
    let addr = mesh.service("echo", 80, &[(&server, 8080)]);
    echo::serve(&server, 8080);
    exchange(&client, addr, version, 1_000);
    let pods = [&client, &server];
    let before = pods.map(anonymous);
    let under_way = AtomicBool::new(true);
    let most = thread::scope(|scope| {
        let sampling = scope.spawn(|| {
            let mut most = before;
            while under_way.load(Ordering::Relaxed) {
                for (most, pod) in most.iter_mut().zip(pods) {
                    *most = anonymous(pod).max(*most);
                }
            }
            most
        });
        exchange(&client, addr, version, LENGTH);
        under_way.store(false, Ordering::Relaxed);
        sampling.join().unwrap()
    });
    let growth: Vec<_> = most
        .iter()
        .zip(before)
        .map(|(most, before)| most - before)
        .collect();
    println!("{version:?}: anonymous memory {before:?} B, growth {growth:?} B");
    assert!(
        growth.iter().all(|growth| *growth < GROWTH),
        "{growth:?} of {before:?}"
    );
}

/// Sends a body from the pod and reads it back while it is sent.
fn exchange(client: &Meshed, addr: SocketAddr, version: Version, length: usize) {
    let tcp = client.connect(addr).unwrap();
    tcp.set_nonblocking(true).unwrap();
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let io = TokioIo::new(TcpStream::from_std(tcp).unwrap());
        let text = Text { at: 0, length };
        let mut response = send(io, version, text.clone()).await;
        assert_eq!(response.status(), StatusCode::OK);
        let mut at = 0;
        while let Some(frame) = response.frame().await {
            let data = frame.unwrap().into_data().expect("there are no trailers");
            assert!(data == text.part(at, data.len()), "other bytes after {at}");
            at += data.len();
        }
        assert_eq!(at, length);
    });
}

async fn send(io: TokioIo<TcpStream>, version: Version, text: Text) -> Response<Incoming> {
    let request = Request::post("http://echo/").version(version);
    if version == Version::HTTP_2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        drop(tokio::spawn(connection));
        sender.send_request(request.body(text).unwrap()).await.unwrap()
    } else {
        let (mut sender, connection) = http1::handshake(io).await.unwrap();
        drop(tokio::spawn(connection));
        let request = request.header("host", "echo");
        sender.send_request(request.body(text).unwrap()).await.unwrap()
    }
}

/// The anonymous memory of a pod's proxy, in bytes.
fn anonymous(pod: &Meshed) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", pod.proxy().pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kibibytes.expect("Linux says so").parse::<u64>().unwrap() * 1024
}

/// A body whose bytes repeat only after a number of them that no buffer has for its size.
#[derive(Clone)]
struct Text {
    at: usize,
    length: usize,
}

impl Text {
    const PERIOD: usize = 1_000_003;
    const PART: usize = 64 * 1024;

    /// The bytes from here on, at most a frame's worth.
    fn part(&self, at: usize, length: usize) -> Bytes {
        static BYTES: std::sync::OnceLock<Bytes> = std::sync::OnceLock::new();
        let bytes = BYTES.get_or_init(|| {
            let mut state = 1_u32;
            let random = std::iter::repeat_with(|| {
                // Numerical Recipes' linear congruential generator; its high bits are the random ones.
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            });
            let period: Vec<_> = random.take(Self::PERIOD).collect();
            [&*period, &*period].concat().into()
        });
        let start = at % Self::PERIOD;
        bytes.slice(start..start + length.min(self.length - at))
    }
}

impl Body for Text {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.part(self.at, Self::PART);
        self.at += part.len();
        Poll::Ready((!part.is_empty()).then(|| Ok(Frame::data(part))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.length - self.at) as u64)
    }
}
