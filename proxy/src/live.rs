//! `Live<T>`: the latest value of something that the control plane keeps changing.

use std::sync::Arc;

use tokio::sync::watch;

/// The latest value of something that the control plane keeps changing.
///
/// The only way in which state crosses from the control side to the data path: readers hold an `Arc` of what was
/// current when they looked, and never wait for the writer.
#[derive(Debug)]
pub struct Live<T>(watch::Receiver<Arc<T>>);

/// The writing end of a [`Live`].
#[derive(Debug)]
pub struct Publisher<T>(watch::Sender<Arc<T>>);

/// The writer is gone; the last value stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended;

impl<T> Live<T> {
    /// A value and the end that replaces it.
    pub fn new(value: T) -> (Publisher<T>, Self) {
        let (tx, rx) = watch::channel(Arc::new(value));
        (Publisher(tx), Self(rx))
    }

    /// A value that never changes.
    pub fn fixed(value: T) -> Self {
        Self::new(value).1
    }

    /// What is current now.
    pub fn get(&self) -> Arc<T> {
        self.0.borrow().clone()
    }

    /// What is current now; [`changed`](Self::changed) then waits for something newer.
    pub fn get_and_mark_seen(&mut self) -> Arc<T> {
        self.0.borrow_and_update().clone()
    }

    /// Waits until there is a value that this handle has not been shown.
    pub async fn changed(&mut self) -> Result<Arc<T>, Ended> {
        self.0.changed().await.map_err(|_| Ended)?;
        Ok(self.get_and_mark_seen())
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Publisher<T> {
    /// Replaces the value.
    pub fn set(&self, value: T) {
        self.0.send_replace(Arc::new(value));
    }

    /// What is current now.
    pub fn get(&self) -> Arc<T> {
        self.0.borrow().clone()
    }

    /// Another reader.
    pub fn subscribe(&self) -> Live<T> {
        Live(self.0.subscribe())
    }

    /// Waits until nobody reads any more.
    pub async fn unused(&self) {
        self.0.closed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_is_woken_by_a_new_value() {
        let (publisher, mut live) = Live::new(1);
        publisher.set(2);
        assert_eq!(*live.changed().await.unwrap(), 2);
    }

    #[tokio::test]
    async fn the_last_value_outlives_its_writer() {
        let (publisher, mut live) = Live::new(1);
        drop(publisher);
        assert_eq!(live.changed().await.unwrap_err(), Ended);
        assert_eq!(*live.get(), 1);
    }
}
