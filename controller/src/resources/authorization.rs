//! Who may call whom: ServerAuthorization, AuthorizationPolicy, and what they refer to.

use outrigger_policy::authz::Suffix;
use outrigger_policy::name::{DnsName, Identity};
use serde::Deserialize;

use crate::resources::route::{GATEWAY, LINKERD};
use crate::resources::values::{NetworkRange, ObjectRef, Selector};

/// Who may connect to Servers (`policy.linkerd.io` ServerAuthorization).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerAuthorization {
    /// Which Servers.
    pub server: ServerChoice,
    /// Who.
    pub client: Client,
}

/// Servers, by name or by their labels.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerChoice {
    /// One, by name.
    pub name: Option<String>,
    /// All with these labels.
    pub selector: Option<Selector>,
}

/// Clients, by network and by what they prove.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Where they are; the cluster's networks if nothing is said.
    pub networks: Option<Vec<NetworkRange>>,
    /// They need not prove anything.
    #[serde(default)]
    pub unauthenticated: bool,
    /// What they must prove.
    #[serde(rename = "meshTLS")]
    pub mesh_tls: Option<MeshTls>,
}

/// What clients of the mesh must prove.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshTls {
    /// Nothing: they only have to come through mesh TLS.
    #[serde(rename = "unauthenticatedTLS", default)]
    pub unauthenticated_tls: bool,
    /// One of these identities.
    pub identities: Option<Vec<IdentityMatch>>,
    /// The identity of one of these service accounts.
    pub service_accounts: Option<Vec<AccountRef>>,
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountRef {
    /// Its name.
    pub name: String,
    /// Its namespace; the referring object's own where none is given.
    pub namespace: Option<String>,
}

/// Who may use a Server, a route or the Servers of a namespace (`policy.linkerd.io` AuthorizationPolicy).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationPolicy {
    /// What it is attached to.
    pub target_ref: ObjectRef,
    /// All that has to be proved.
    pub required_authentication_refs: Vec<ObjectRef>,
}

/// Identities (`policy.linkerd.io` MeshTLSAuthentication).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MeshTlsAuthentication {
    /// By name.
    pub identities: Option<Vec<IdentityMatch>>,
    /// Those of ServiceAccounts and of all ServiceAccounts of Namespaces.
    pub identity_refs: Option<Vec<ObjectRef>>,
}

/// Networks (`policy.linkerd.io` NetworkAuthentication).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkAuthentication {
    /// Where clients are.
    pub networks: Vec<NetworkRange>,
}

/// An identity, `*.` and what identities end in, or `*` for all.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum IdentityMatch {
    /// This one.
    Exact(Identity),
    /// All below a name; the empty suffix takes every identity.
    Suffix(Suffix),
}

impl ServerAuthorization {
    /// What the types of its fields can't say.
    pub fn check(&self) -> Result<(), String> {
        if self.server.name.is_some() == self.server.selector.is_some() {
            return Err("server needs either name or selector".into());
        }
        let Some(tls) = &self.client.mesh_tls else {
            return match self.client.unauthenticated {
                true => Ok(()),
                false => Err("client needs either unauthenticated or meshTLS".into()),
            };
        };
        let names =
            tls.identities.as_ref().map_or(0, Vec::len) + tls.service_accounts.as_ref().map_or(0, Vec::len);
        match (self.client.unauthenticated, tls.unauthenticated_tls, names) {
            (true, ..) => Err("client has both unauthenticated and meshTLS: remove one".into()),
            (false, true, 1..) => {
                Err("meshTLS has both unauthenticatedTLS and identities: remove one".into())
            }
            (false, false, 0) => Err("meshTLS names nobody: give identities or serviceAccounts".into()),
            _ => Ok(()),
        }
    }
}

impl AuthorizationPolicy {
    /// What the types of its fields can't say.
    pub fn check(&self) -> Result<(), String> {
        let target = &self.target_ref;
        let targets = [
            (LINKERD, "Server"),
            (LINKERD, "HTTPRoute"),
            (GATEWAY, "HTTPRoute"),
            (GATEWAY, "GRPCRoute"),
            ("", "Namespace"),
        ];
        if !targets.iter().any(|(group, kind)| target.is(group, kind)) {
            return Err(format!(
                "targetRef: {target} is no Server, HTTPRoute, GRPCRoute or Namespace"
            ));
        }
        let (mut identities, mut networks) = (0, 0);
        for required in &self.required_authentication_refs {
            if required.is(LINKERD, "MeshTLSAuthentication") || required.is("", "ServiceAccount") {
                identities += 1;
            } else if required.is(LINKERD, "NetworkAuthentication") {
                networks += 1;
            } else {
                return Err(format!(
                    "requiredAuthenticationRefs: {required} is no MeshTLSAuthentication, NetworkAuthentication or \
                     ServiceAccount"
                ));
            }
        }
        match identities > 1 || networks > 1 {
            true => Err("requiredAuthenticationRefs: at most one of identities and one of networks".into()),
            false => Ok(()),
        }
    }
}

impl MeshTlsAuthentication {
    /// What the types of its fields can't say.
    pub fn check(&self) -> Result<(), String> {
        let others = self.identity_refs.iter().flatten();
        for other in others.clone() {
            if !other.is("", "ServiceAccount") && !other.is("", "Namespace") {
                return Err(format!("identityRefs: {other} is no ServiceAccount or Namespace"));
            }
        }
        match self.identities.iter().flatten().next().is_none() && others.count() == 0 {
            true => Err("it names nobody: give identities or identityRefs".into()),
            false => Ok(()),
        }
    }
}

impl NetworkAuthentication {
    /// What the types of its fields can't say.
    pub fn check(&self) -> Result<(), String> {
        match self.networks.is_empty() {
            true => Err("it holds no networks: give some".into()),
            false => Ok(()),
        }
    }
}

impl TryFrom<String> for IdentityMatch {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let refused = || {
            format!(
                "{text:?} is no identity: write web.demo.serviceaccount.identity.linkerd.cluster.local, a SPIFFE ID, \
                 *.<suffix> or *"
            )
        };
        if text == "*" {
            return Ok(Self::Suffix(Suffix("".into())));
        }
        match text.strip_prefix("*.") {
            Some(suffix) => {
                let name = DnsName::parse(suffix).map_err(|_| refused())?;
                Ok(Self::Suffix(Suffix(format!(".{name}").into())))
            }
            None => Identity::parse(&text).map(Self::Exact).map_err(|_| refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_exact_suffixes_or_all() {
        let read = |text: &str| IdentityMatch::try_from(text.to_owned());
        assert_eq!(read("*"), Ok(IdentityMatch::Suffix(Suffix("".into()))));
        assert_eq!(
            read("*.Demo.local"),
            Ok(IdentityMatch::Suffix(Suffix(".demo.local".into())))
        );
        assert!(matches!(
            read("web.demo"),
            Ok(IdentityMatch::Exact(Identity::Dns(_)))
        ));
        assert!(matches!(
            read("spiffe://root/web"),
            Ok(IdentityMatch::Exact(Identity::Uri(_)))
        ));
        for bad in ["", "*.", "**", "*web", "web.*", "a b"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
