//! Many connections at the same time: each says something, is answered, and stays open.

use crate::pod::Pod;
use crate::wait;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What each connection says, and how its answer ends.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// What is said.
    pub say: &'static [u8],
    /// The end of the answer.
    pub hear: &'static [u8],
}

/// Bytes of no known protocol, for an application that sends back what it gets.
pub const BYTES: Words = Words {
    say: b"\x01anybody there?",
    hear: b"\x01anybody there?",
};

/// An HTTP/1.1 request, for [`crate::http::Echo`], which ends its answer with the request's last field by name.
pub const REQUEST: Words = Words {
    say: b"GET / HTTP/1.1\r\nhost: web\r\nz: the end\r\n\r\n",
    hear: b"z: the end\n",
};

/// Connections that are open and have been answered once.
#[derive(Debug)]
pub struct Crowd {
    streams: Vec<TcpStream>,
    /// Why others are not among them.
    pub failures: Vec<String>,
    _runtime: Runtime,
}

impl Crowd {
    /// Opens connections from a pod, `at_once` of them under way at a time.
    pub fn open(pod: &Pod, addr: SocketAddr, words: Words, count: usize, at_once: usize) -> Self {
        // A thread that the pod's starts is in the pod as well.
        let opening = pod.run(move || thread::spawn(move || open(addr, words, count, at_once)));
        opening.join().unwrap()
    }

    /// How many are open and were answered.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }
}

fn open(addr: SocketAddr, words: Words, count: usize, at_once: usize) -> Crowd {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (mut streams, mut failures) = (Vec::with_capacity(count), Vec::new());
    runtime.block_on(async {
        let turns = Arc::new(Semaphore::new(at_once));
        let mut all = JoinSet::new();
        for _ in 0..count {
            let turns = turns.clone();
            all.spawn(async move {
                let _turn = turns.acquire_owned().await.unwrap();
                let late = || Err(io::ErrorKind::TimedOut.into());
                timeout(wait::BOUND, talk(addr, words))
                    .await
                    .unwrap_or_else(|_elapsed| late())
            });
        }
        for one in all.join_all().await {
            match one {
                Ok(stream) => streams.push(stream),
                Err(error) => failures.push(error.to_string()),
            }
        }
    });
    Crowd {
        streams,
        failures,
        _runtime: runtime,
    }
}

async fn talk(addr: SocketAddr, words: Words) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(words.say).await?;
    let mut heard = Vec::with_capacity(words.hear.len());
    while !heard.ends_with(words.hear) {
        if stream.read_buf(&mut heard).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(stream)
}

/// An application that sends back what it gets, to as many as come.
#[derive(Debug)]
pub struct Mirror {
    open: Arc<AtomicUsize>,
    _ended: oneshot::Sender<()>,
}

impl Mirror {
    /// Serves on this port of the pod until the handle is dropped.
    pub fn serve(pod: &Pod, port: u16) -> Self {
        let open = Arc::new(AtomicUsize::new(0));
        let (ended, until_ended) = oneshot::channel();
        let (listening, is_listening) = std::sync::mpsc::channel();
        let counted = open.clone();
        pod.run(move || {
            thread::spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await.unwrap();
                    listening.send(()).unwrap();
                    tokio::select! {
                        () = mirror(listener, counted) => {}
                        // Dropped, which is what is waited for.
                        _ = until_ended => {}
                    }
                });
            })
        });
        is_listening.recv().unwrap();
        Self { open, _ended: ended }
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

async fn mirror(listener: TcpListener, open: Arc<AtomicUsize>) {
    while let Ok((stream, _)) = listener.accept().await {
        let open = open.clone();
        open.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let (mut reader, mut writer) = stream.into_split();
            // How a connection ends is the client's to tell.
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}
