//! Refusals: questions that have no answer, and why.

/// A question that has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The question itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// What it asks for is not there.
    #[error("{0}")]
    NotFound(String),
    /// The manifests contradict each other, or leave out what the answer needs.
    #[error("{0}")]
    Ambiguous(String),
}
