//! Certificates for the systems compared: one authority, a client and a server, all ECDSA P-256 as in the mesh.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

use crate::BoxError;

/// The server's name.
pub const SERVER: &str = "server.bench.serviceaccount.identity.linkerd.cluster.local";
/// The client's name.
pub const CLIENT: &str = "client.bench.serviceaccount.identity.linkerd.cluster.local";

/// Writes `ca.pem`, `{client,server}.pem`, `.key` and `.both` (key and certificate, as HAProxy takes them).
pub fn write(dir: &Path) -> Result<(), BoxError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "bench");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(dir.join("ca.pem"), ca.pem())?;
    for (side, name) in [("client", CLIENT), ("server", SERVER)] {
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let (certificate, key) = (params.signed_by(&key, &ca)?.pem(), key.serialize_pem());
        fs::write(dir.join(format!("{side}.both")), format!("{key}{certificate}"))?;
        fs::write(dir.join(format!("{side}.pem")), certificate)?;
        fs::write(dir.join(format!("{side}.key")), key)?;
    }
    Ok(())
}
