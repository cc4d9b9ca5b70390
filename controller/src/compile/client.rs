//! Clients: who asks, as far as proxies tell.

use std::sync::Arc;

use serde::Deserialize;

/// Who asks, as far as it tells.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Client {
    /// Its namespace.
    pub namespace: Option<Arc<str>>,
    /// Its pod.
    pub pod: Option<Arc<str>>,
    /// Its node.
    pub node: Option<Arc<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    ns: Option<String>,
    pod: Option<String>,
    node_name: Option<String>,
}

impl Client {
    /// Reads a context token (`{"ns": …, "nodeName": …, "pod": …}`, or `ns:<namespace>`); one that can't be read tells
    /// nothing.
    pub fn of_context_token(token: &str) -> Self {
        if let Some(namespace) = token.strip_prefix("ns:") {
            return Self {
                namespace: Some(namespace.into()),
                ..Self::default()
            };
        }
        Self::of_json(token).unwrap_or_default()
    }

    /// Reads a workload (`{"ns": …, "pod": …}`, or `<namespace>:<pod>`).
    pub fn of_workload(workload: &str) -> Option<Self> {
        Self::of_json(workload).or_else(|| {
            let (namespace, pod) = workload.split_once(':').filter(|_| !workload.starts_with('{'))?;
            Some(Self {
                namespace: Some(namespace.into()),
                pod: Some(pod.into()),
                node: None,
            })
        })
    }

    fn of_json(text: &str) -> Option<Self> {
        let Token { ns, pod, node_name } = serde_json::from_str(text).ok()?;
        let [namespace, pod, node] = [ns, pod, node_name].map(|text| text.map(Arc::from));
        Some(Self { namespace, pod, node })
    }
}
