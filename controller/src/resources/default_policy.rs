//! Default inbound policies: what a port accepts when no Server selects it.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// What a port accepts when no Server selects it (`config.linkerd.io/default-inbound-policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum DefaultPolicy {
    /// Everybody.
    AllUnauthenticated,
    /// Every identity of the mesh.
    AllAuthenticated,
    /// Everybody in the cluster's networks.
    ClusterUnauthenticated,
    /// Every identity of the mesh in the cluster's networks.
    ClusterAuthenticated,
    /// Nobody.
    Deny,
    /// Everybody, under a name that tells that a rule is missing.
    Audit,
}

impl DefaultPolicy {
    const NAMES: [(Self, &str); 6] = [
        (Self::AllUnauthenticated, "all-unauthenticated"),
        (Self::AllAuthenticated, "all-authenticated"),
        (Self::ClusterUnauthenticated, "cluster-unauthenticated"),
        (Self::ClusterAuthenticated, "cluster-authenticated"),
        (Self::Deny, "deny"),
        (Self::Audit, "audit"),
    ];

    /// The policy that asks for an identity besides.
    pub fn authenticated(self) -> Self {
        match self {
            Self::AllUnauthenticated | Self::AllAuthenticated | Self::Audit => Self::AllAuthenticated,
            Self::ClusterUnauthenticated | Self::ClusterAuthenticated => Self::ClusterAuthenticated,
            Self::Deny => Self::Deny,
        }
    }

    /// The name, as in annotations, flags and metric labels.
    pub fn as_str(self) -> &'static str {
        let named = Self::NAMES.iter().find(|(policy, _)| *policy == self);
        named.map_or("deny", |(_, name)| name)
    }
}

impl fmt::Display for DefaultPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DefaultPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::NAMES.iter().find(|(_, name)| *name == text.trim());
        named.map(|(policy, _)| *policy).ok_or_else(|| {
            let names: Vec<_> = Self::NAMES.iter().map(|(_, name)| *name).collect();
            format!("{text:?} is no default policy; use one of {}", names.join(", "))
        })
    }
}

impl TryFrom<String> for DefaultPolicy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
