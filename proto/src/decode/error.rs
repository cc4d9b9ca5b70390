//! Refusals: a message that breaks the contract, and an element that this version does not enforce.

use std::fmt;

use outrigger_policy::Unsupported;
use outrigger_policy::name::ResourceRef;

/// Why a message can't be used: which field, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    field: String,
    reason: String,
}

impl DecodeError {
    /// The path of the field inside the message: `protocol.http1.routes[2].metadata`.
    pub fn field(&self) -> &str {
        &self.field
    }

    pub(super) fn new(field: &str, reason: impl Into<String>) -> Self {
        Self {
            field: field.to_owned(),
            reason: reason.into(),
        }
    }

    /// The same error, seen from the message that holds the field's message as `outer`.
    pub(super) fn within(mut self, outer: &str) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.reason)
    }
}

impl std::error::Error for DecodeError {}

/// What stands in a field that the contract demands.
pub(super) fn required<'a, T>(field: &str, value: &'a Option<T>) -> Result<&'a T, DecodeError> {
    value.as_ref().ok_or_else(|| DecodeError::new(field, "missing"))
}

/// Decodes the elements of a list; an error names the index.
pub(super) fn each<T, U>(
    field: &str,
    list: &[T],
    mut decode: impl FnMut(&T) -> Result<U, DecodeError>,
) -> Result<Vec<U>, DecodeError> {
    let one = |(index, element)| decode(element).map_err(|e| e.within(&format!("{field}[{index}]")));
    list.iter().enumerate().map(one).collect()
}

/// Refuses a list that is longer than this version takes.
pub(super) fn bounded(field: &str, count: usize, limit: usize) -> Result<(), DecodeError> {
    if count > limit {
        let reason = format!("{count} entries, at most {limit} are accepted in one message");
        return Err(DecodeError::new(field, reason));
    }
    Ok(())
}

/// A duration that is not negative.
pub(super) fn duration(
    field: &str,
    value: &prost_types::Duration,
) -> Result<std::time::Duration, DecodeError> {
    std::time::Duration::try_from(*value).map_err(|_| DecodeError::new(field, "negative or out of range"))
}

/// Whether a duration asks for something: it is there, and not zero.
pub(super) fn is_set(value: &Option<prost_types::Duration>) -> bool {
    value.is_some_and(|d| d.seconds != 0 || d.nanos != 0)
}

/// The refusal of an element that this version does not enforce.
pub(super) fn not_enforced(object: &ResourceRef, field: &str, remedy: &str) -> Unsupported {
    Unsupported::new(format!(
        "{object}: {field} is not enforced by this version; {remedy}"
    ))
}
