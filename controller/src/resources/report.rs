//! Reports: what is wrong with a manifest, where it stands, and what follows.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Which Kubernetes object is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// API group; empty for the core group.
    pub group: Arc<str>,
    /// Kind, as in the manifest.
    pub kind: Arc<str>,
    /// Namespace; empty for cluster-wide kinds.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

/// Where an object is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The file.
    pub file: Arc<Path>,
    /// Its line, from 1; 0 when the file as a whole is meant.
    pub line: u64,
}

/// How much a report matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something is not served as it is written.
    Error,
    /// Something is served, perhaps not as its author thinks.
    Warning,
}

/// What is wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Report {
    /// Where it stands.
    pub origin: Origin,
    /// The object, where one could be made out.
    pub object: Option<ObjectId>,
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong, what follows from it, and what to do.
    pub reason: String,
}

impl Report {
    /// A report about an object.
    pub fn about(origin: &Origin, object: &ObjectId, severity: Severity, reason: impl Into<String>) -> Self {
        Self {
            origin: origin.clone(),
            object: Some(object.clone()),
            severity,
            reason: reason.into(),
        }
    }

    /// A report about a file.
    pub fn about_file(file: &Arc<Path>, line: u64, reason: impl Into<String>) -> Self {
        let origin = Origin {
            file: file.clone(),
            line,
        };
        Self {
            origin,
            object: None,
            severity: Severity::Error,
            reason: reason.into(),
        }
    }
}

impl fmt::Display for ObjectId {
    /// `Service demo/web`, or `Namespace demo`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    /// `demo.yaml:12: Service demo/web: what is wrong`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        f.write_str(&self.reason)
    }
}
