//! Who this proxy is, and how it proves it.

use std::path::PathBuf;
use std::time::Duration;

use outrigger_policy::name::{DnsName, Identity as Id};

use crate::config::control::{self, ControlAddr, DnsLifetime};
use crate::config::env::Reader;
use crate::config::traffic::{Inbound, Outbound};
use crate::config::value::TrustAnchors;
use crate::config::vars;

/// Who this proxy is, and how it proves it.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The authorities that the mesh trusts.
    pub trust_anchors: TrustAnchors,
    /// The name in this proxy's certificate.
    pub id: Id,
    /// The server name that clients send for this proxy (SNI).
    pub server_name: DnsName,
    /// The directory of `key.p8` and `csr.der`.
    pub dir: PathBuf,
    /// The service account token.
    pub token_file: PathBuf,
    /// The identity service.
    pub service: ControlAddr,
    /// The shortest time between two certificates.
    pub min_refresh: Duration,
    /// The longest time between two certificates; at least `min_refresh`.
    pub max_refresh: Duration,
}

/// Reads what concerns the identity; `None` is an error that has been recorded.
pub(in crate::config) fn read(
    r: &mut Reader<'_>,
    inbound: &Inbound,
    outbound: &Outbound,
    dns: DnsLifetime,
) -> Option<Identity> {
    r.optional(&vars::IDENTITY_DISABLED);
    let trust_anchors = r.required(
        &vars::IDENTITY_TRUST_ANCHORS,
        "without certificates of authorities no peer can be trusted",
    );
    let names = names(r);
    let dir = r.required(&vars::IDENTITY_DIR, "the key and the signing request live there");
    let token_file = r.required(
        &vars::IDENTITY_TOKEN_FILE,
        "the identity service asks for the token",
    );
    let service = control::service(
        r,
        &vars::IDENTITY_SVC_ADDR,
        &vars::IDENTITY_SVC_NAME,
        "there is no identity service to ask (this version has no SPIRE client)",
        (&inbound.connect, &outbound.connect, dns),
    );
    let (min_refresh, max_refresh) = (
        r.read(&vars::IDENTITY_MIN_REFRESH),
        r.read(&vars::IDENTITY_MAX_REFRESH),
    );
    if min_refresh > max_refresh {
        let (min, max) = (
            vars::IDENTITY_MIN_REFRESH.row.name,
            vars::IDENTITY_MAX_REFRESH.row.name,
        );
        r.conflict(format!("{min} must not be longer than {max}"));
    }
    let (id, server_name) = names?;
    Some(Identity {
        trust_anchors: trust_anchors?,
        id,
        server_name,
        dir: dir?,
        token_file: token_file?,
        service: service?,
        min_refresh,
        max_refresh,
    })
}

/// `LOCAL_NAME` is both; otherwise both are set, and are the same unless the identity comes from SPIRE.
fn names(r: &mut Reader<'_>) -> Option<(Id, DnsName)> {
    if let Some(name) = r.optional(&vars::IDENTITY_LOCAL_NAME) {
        // The others are not used then, but a broken value is still worth an error.
        r.optional(&vars::IDENTITY_SERVER_ID);
        r.optional(&vars::IDENTITY_SERVER_NAME);
        return Some((Id::Dns(name.clone()), name));
    }
    if r.is_set(&vars::IDENTITY_LOCAL_NAME.row) {
        return None;
    }
    const REASON: &str = "LINKERD2_PROXY_IDENTITY_LOCAL_NAME is not set";
    let id = r.required(&vars::IDENTITY_SERVER_ID, REASON);
    let server_name = r.required(&vars::IDENTITY_SERVER_NAME, REASON);
    let (id, server_name) = (id?, server_name?);
    if id != Id::Dns(server_name.clone()) {
        r.conflict(format!(
            "linkerd identity requires a TLS Id and server name to be the same: {} is {id}, {} is {server_name}",
            vars::IDENTITY_SERVER_ID.row.name,
            vars::IDENTITY_SERVER_NAME.row.name,
        ));
        return None;
    }
    Some((id, server_name))
}
