//! `Closing`: asks one connection to end, as a drain asks all of them.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::drain::Drain;

/// Asks one connection to finish what it has and close.
#[derive(Clone, Debug, Default)]
pub struct Closing(Arc<Notify>);

impl Closing {
    /// Asks.
    pub fn ask(&self) {
        self.0.notify_one();
    }

    /// Waits until the connection is to end, by itself or with all others.
    pub(in crate::http) async fn or_drain(&self, drain: &mut Drain) {
        tokio::select! {
            () = drain.started() => {}
            () = self.0.notified() => {}
        }
    }
}
