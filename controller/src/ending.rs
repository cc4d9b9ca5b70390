//! The end of the process, as everything that serves sees it.

use tokio::sync::watch;

/// Tells everything that serves to end.
#[derive(Debug)]
pub struct End(watch::Sender<bool>);

/// Seen by everything that serves.
#[derive(Clone, Debug)]
pub struct Ending(watch::Receiver<bool>);

/// The two ends of one signal.
pub fn channel() -> (End, Ending) {
    let (sender, receiver) = watch::channel(false);
    (End(sender), Ending(receiver))
}

impl End {
    /// Everything ends now. Dropping has the same effect.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

impl Ending {
    /// Waits until the end begins.
    pub async fn begun(&mut self) {
        // An error means that the other side is gone, which is the end too.
        let _begun = self.0.wait_for(|begun| *begun).await;
    }
}
