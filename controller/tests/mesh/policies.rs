//! Policies as text, and what is reported about them.

use crate::support::Mesh;

/// A policy object of `demo`: its kind, its name, and its `spec` on one line.
pub(crate) fn object(kind: &str, name: &str, spec: &str) -> String {
    annotated(kind, name, "", spec)
}

/// The same with annotations.
pub(crate) fn annotated(kind: &str, name: &str, annotations: &str, spec: &str) -> String {
    let api = match kind {
        "Server" => "policy.linkerd.io/v1beta3",
        "ServerAuthorization" => "policy.linkerd.io/v1beta1",
        "HTTPRoute" => "policy.linkerd.io/v1beta3",
        "GRPCRoute" => "gateway.networking.k8s.io/v1",
        "TLSRoute" | "TCPRoute" => "gateway.networking.k8s.io/v1alpha2",
        "ServiceProfile" => "linkerd.io/v1alpha2",
        "TrafficSplit" => "split.smi-spec.io/v1alpha2",
        _ => "policy.linkerd.io/v1alpha1",
    };
    format!(
        "---\napiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}, namespace: demo, annotations: \
         {{{annotations}}}}}\nspec: {spec}\n"
    )
}

/// What is reported about the manifests.
pub(crate) fn reports(mesh: &Mesh) -> Vec<String> {
    mesh.cluster
        .borrow()
        .reports
        .iter()
        .map(ToString::to_string)
        .collect()
}
