//! Requests without a pause, and whether one of them failed.

use crate::pod::Pod;
use crate::{http, wait};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// A client that sends requests without a pause on connections that stay open.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Load {
    /// Four clients in a pod, for the service `web` at this address.
    pub fn start(pod: &Pod, addr: SocketAddr) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |_| {
            let (pod, stop, done) = (pod.clone(), Arc::clone(&stop), Arc::clone(&done));
            thread::spawn(move || {
                let mut stream = pod.connect(addr).unwrap();
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match http::exchange(&mut stream, "web", "/", &[]) {
                        Ok(response) if response.status == 200 => {}
                        Ok(response) => failures.push(format!("{response:?}")),
                        Err(error) => {
                            failures.push(error.to_string());
                            break;
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                failures
            })
        };
        let clients = (0..4).map(client).collect();
        Self { stop, done, clients }
    }

    /// Waits until this many more requests have been answered.
    pub fn wait_for(&self, count: usize) {
        let start = self.done.load(Ordering::Relaxed);
        wait::until("requests under load", || {
            (self.done.load(Ordering::Relaxed) >= start + count).then_some(())
        });
    }

    /// Ends the load and answers what has failed.
    pub fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    }
}
