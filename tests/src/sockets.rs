//! The TCP connections of a pod, as its kernel sees them.

use crate::pod::Pod;
use crate::wait;

/// States in which one side has ended and the other has not, or the end was not acknowledged (RFC 9293 §3.3.2).
const HALF_ENDED: &[&str] = &["FIN-WAIT-1", "FIN-WAIT-2", "CLOSE-WAIT", "LAST-ACK", "CLOSING"];

/// The connections of a pod that are neither open nor over, as `ss` shows them.
pub fn half_ended(pod: &Pod) -> Vec<String> {
    let all = pod.sh("ss -Htan");
    let is_half_ended = |line: &&str| HALF_ENDED.iter().any(|state| line.starts_with(state));
    all.lines().filter(is_half_ended).map(str::to_owned).collect()
}

/// Waits until every connection of these pods is open or over.
///
/// # Panics
/// With those that are not.
pub fn until_none_is_half_ended(pods: &[&Pod]) {
    for pod in pods {
        let mut left = Vec::new();
        let none = wait::within(wait::BOUND, || {
            left = half_ended(pod);
            left.is_empty().then_some(())
        });
        assert!(none.is_some(), "left in pod {}:\n{}", pod.name(), left.join("\n"));
    }
}
