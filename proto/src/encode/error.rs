//! What the contract can't express.

use std::fmt;

/// The policy holds something for which the message has no field, so that leaving it out would change its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeError(pub(super) &'static str);

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for EncodeError {}
