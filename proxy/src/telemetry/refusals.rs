//! The latest refusals of inbound traffic, for `/refusals`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use outrigger_policy::name::{Identity, ResourceRef};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Refusals that are remembered; the oldest goes first.
pub const MAX_REFUSALS: usize = 128;
/// Bytes of a remedy that are kept: it may quote what the control plane said.
const MAX_REMEDY: usize = 1_024;

/// The latest refusals. Cheap to clone; only refusing takes its lock.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<VecDeque<Refusal>>>);

/// A request or connection that a policy did not let in.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// When.
    pub time: SystemTime,
    /// Who asked.
    pub client: SocketAddr,
    /// The identity that the client proved.
    pub identity: Option<Identity>,
    /// What it asked for: the address that it connected to.
    pub dst: SocketAddr,
    /// The Server or default that the port is under.
    pub server: Arc<ResourceRef>,
    /// The route, of a request that had one.
    pub route: Option<Arc<ResourceRef>>,
    /// The stable reason code.
    pub reason: &'static str,
    /// What would have to change for it to be let in.
    pub remedy: String,
}

impl Refusals {
    /// Remembers a refusal.
    pub fn push(&self, mut refusal: Refusal) {
        refusal
            .remedy
            .truncate(refusal.remedy.floor_char_boundary(MAX_REMEDY));
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() >= MAX_REFUSALS {
            latest.pop_front();
        }
        latest.push_back(refusal);
    }

    /// All that are remembered as a JSON array, the latest first.
    pub fn json(&self) -> String {
        let latest: Vec<Refusal> = {
            let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            latest.iter().rev().cloned().collect()
        };
        Value::Array(latest.iter().map(Refusal::json).collect()).to_string()
    }
}

impl Refusal {
    fn json(&self) -> Value {
        // A clock that stands where years have five digits has no text of this kind.
        let time = OffsetDateTime::from(self.time).format(&Rfc3339).ok();
        json!({
            "time": time,
            "client": self.client.to_string(),
            "identity": self.identity.as_ref().map(Identity::as_str),
            "dst": self.dst.to_string(),
            "port": self.dst.port(),
            "server": self.server.to_string(),
            "route": self.route.as_ref().map(|route| route.to_string()),
            "reason": self.reason,
            "remedy": self.remedy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(port: u16, remedy: String) -> Refusal {
        Refusal {
            time: SystemTime::UNIX_EPOCH,
            client: "10.0.0.1:5000".parse().unwrap(),
            identity: None,
            dst: ([10, 0, 0, 2], port).into(),
            server: Arc::new(ResourceRef::of_default("deny")),
            route: None,
            reason: "unauthorized",
            remedy,
        }
    }

    #[test]
    fn the_latest_stand_first_and_the_oldest_go() {
        let refusals = Refusals::default();
        for port in 1..=200 {
            refusals.push(refusal(port, "ß".repeat(MAX_REMEDY)));
        }
        let shown: Value = serde_json::from_str(&refusals.json()).unwrap();
        let shown = shown.as_array().unwrap();
        assert_eq!((shown.len(), &shown[0]["port"]), (MAX_REFUSALS, &json!(200)));
        assert_eq!(shown[0]["time"], "1970-01-01T00:00:00Z");
        assert_eq!(shown[127]["port"], 73);
        assert!(shown[0]["remedy"].as_str().unwrap().len() <= MAX_REMEDY);
    }
}
