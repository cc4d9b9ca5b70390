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

/// Longest name that is believed, bytes (RFC 1123 subdomains, as Kubernetes has them).
const MAX_NAME: usize = 253;

/// The text that the injector gives to proxies.
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
        let client = match token.strip_prefix("ns:") {
            Some(namespace) => Self::new(Some(namespace), None, None),
            None => Self::of_json(token),
        };
        client.unwrap_or_default()
    }

    /// Reads a workload (`{"ns": …, "pod": …}`, or `<namespace>:<pod>`).
    pub fn of_workload(workload: &str) -> Option<Self> {
        if workload.starts_with('{') {
            return Self::of_json(workload);
        }
        let (namespace, pod) = workload.split_once(':')?;
        Self::new(Some(namespace), Some(pod), None)
    }

    fn of_json(text: &str) -> Option<Self> {
        let Token { ns, pod, node_name } = serde_json::from_str(text).ok()?;
        Self::new(ns.as_deref(), pod.as_deref(), node_name.as_deref())
    }

    fn new(namespace: Option<&str>, pod: Option<&str>, node: Option<&str>) -> Option<Self> {
        let names = [namespace, pod, node];
        if names.iter().flatten().any(|name| name.len() > MAX_NAME) {
            return None;
        }
        let [namespace, pod, node] = names.map(|name| name.map(Arc::from));
        Some(Self { namespace, pod, node })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_token_and_workload_are_read() {
        let token = r#"{"ns":"demo","nodeName":"n1","pod":"web-0","more":1}"#;
        let client = Client::of_context_token(token);
        assert_eq!(
            (client.namespace.as_deref(), client.node.as_deref()),
            (Some("demo"), Some("n1"))
        );
        assert_eq!(Client::of_workload(token).unwrap(), client);
        assert_eq!(Client::of_context_token("ns:demo").namespace, client.namespace);
        assert_eq!(Client::of_workload("demo:web-0").unwrap().pod, client.pod);
    }

    #[test]
    fn a_text_that_is_neither_tells_nothing() {
        for text in ["", "{", "[]", "demo", &format!("ns:{}", "x".repeat(254))] {
            assert_eq!(Client::of_context_token(text), Client::default(), "{text}");
        }
        assert_eq!(Client::of_workload("{\"ns\": 1}"), None);
    }
}
