//! `rarely`: polls a future only when it was itself woken, not whenever its neighbours in a `select!` are.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Waits for something that seldom happens beside something that happens all the time.
///
/// A connection waits for its drain with each request that it serves, and to ask for that each time takes locks.
pub(in crate::http) async fn rarely<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let woken = Arc::new(Woken {
        since_asked: AtomicBool::new(true),
        task: AtomicWaker::new(),
    });
    let waker = Waker::from(woken.clone());
    std::future::poll_fn(|cx| {
        woken.task.register(cx.waker());
        if !woken.since_asked.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        future.as_mut().poll(&mut Context::from_waker(&waker))
    })
    .await
}

#[derive(Debug)]
struct Woken {
    since_asked: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.since_asked.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_future_is_asked_once_at_first_and_once_when_it_was_woken() {
        let (tell, told) = oneshot::channel::<()>();
        let (asked, mut told) = (AtomicUsize::new(0), pin!(told));
        let counted = std::future::poll_fn(|cx| {
            asked.fetch_add(1, Ordering::Relaxed);
            told.as_mut().poll(cx)
        });
        let mut waiting = pin!(rarely(counted));
        for _ in 0..10 {
            assert!(futures_util::FutureExt::now_or_never(waiting.as_mut()).is_none());
        }
        tell.send(()).unwrap();
        waiting.await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
