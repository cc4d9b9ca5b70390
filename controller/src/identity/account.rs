//! Service accounts, and the identities that stand for them in the mesh.

use std::fmt;
use std::sync::Arc;

use outrigger_policy::name::DnsName;

/// The two names that every identity of this mesh ends in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    controller_namespace: Arc<str>,
    domain: Arc<str>,
}

/// A Kubernetes service account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServiceAccount {
    namespace: Arc<str>,
    name: Arc<str>,
}

/// The text is not a DNS-1123 label: 1 to 63 lower-case letters, digits or `-`, not at either end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a DNS label: use 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"
)]
pub struct InvalidLabel(pub String);

impl Trust {
    /// The mesh whose control plane runs in `controller_namespace` (a DNS label) and trusts `domain` (a DNS name).
    pub fn new(controller_namespace: &str, domain: &str) -> Result<Self, InvalidLabel> {
        let domain = DnsName::parse(domain).map_err(|_| InvalidLabel(domain.into()))?;
        Ok(Self {
            controller_namespace: label(controller_namespace)?,
            domain: domain.as_str().into(),
        })
    }

    /// The identity that a service account has in this mesh.
    pub fn identity_of(&self, account: &ServiceAccount) -> String {
        let ServiceAccount { namespace, name } = account;
        let Self {
            controller_namespace,
            domain,
        } = self;
        format!("{name}.{namespace}.serviceaccount.identity.{controller_namespace}.{domain}")
    }

    /// The identity of one of the control plane's own services: `linkerd-identity`, `linkerd-destination`.
    pub fn control_plane(&self, service: &str) -> Result<String, InvalidLabel> {
        ServiceAccount::new(&self.controller_namespace, service).map(|account| self.identity_of(&account))
    }
}

impl ServiceAccount {
    /// The account `name` in `namespace`. Both are DNS labels: a name with dots cannot have an identity.
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidLabel> {
        Ok(Self {
            namespace: label(namespace)?,
            name: label(name)?,
        })
    }

    /// Reads the user name of a service account, `system:serviceaccount:<namespace>:<name>`.
    pub fn from_user_name(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("system:serviceaccount:")?;
        let (namespace, name) = rest.split_once(':')?;
        Self::new(namespace, name).ok()
    }
}

impl fmt::Display for ServiceAccount {
    /// The user name, as it stands in the subject of a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

fn label(text: &str) -> Result<Arc<str>, InvalidLabel> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let ok = (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if ok {
        Ok(text.into())
    } else {
        Err(InvalidLabel(text.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_names_account_namespace_and_mesh() {
        let trust = Trust::new("linkerd", "cluster.local").unwrap();
        let account = ServiceAccount::from_user_name("system:serviceaccount:emoji:web").unwrap();
        assert_eq!(
            trust.identity_of(&account),
            "web.emoji.serviceaccount.identity.linkerd.cluster.local"
        );
        assert_eq!(account.to_string(), "system:serviceaccount:emoji:web");
    }

    #[test]
    fn a_user_name_that_could_reach_into_another_namespace_is_refused() {
        for bad in [
            "",
            "web.emoji",
            "system:node:a:b",
            "system:serviceaccount:emoji",
            "system:serviceaccount:emoji:",
            "system:serviceaccount:emoji:web.other",
            "system:serviceaccount:emoji:web:more",
            "system:serviceaccount:Emoji:web",
            "system:serviceaccount:emoji:-web",
        ] {
            assert_eq!(ServiceAccount::from_user_name(bad), None, "{bad:?}");
        }
    }
}
