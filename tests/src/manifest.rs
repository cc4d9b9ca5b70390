//! Kubernetes manifests, as the control plane reads them.

use crate::pod;
use std::net::{IpAddr, Ipv4Addr};

/// A pod, with its service account.
#[derive(Debug)]
pub struct Pod<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its service account.
    pub account: &'a str,
    /// Its addresses.
    pub ips: [IpAddr; 2],
    /// Its container's ports.
    pub ports: &'a [u16],
    /// Its annotations.
    pub annotations: &'a [(String, String)],
    /// Whether it has a proxy.
    pub meshed: bool,
}

impl Pod<'_> {
    /// The manifest.
    pub fn text(&self) -> String {
        let Self {
            name,
            namespace,
            account,
            ips: [ip, ip6],
            ..
        } = self;
        let label = if self.meshed {
            "linkerd.io/control-plane-ns: linkerd"
        } else {
            ""
        };
        let ports: Vec<_> = self
            .ports
            .iter()
            .map(|port| format!("{{ {}containerPort: {port} }}", port_name(*port)))
            .collect();
        let annotations: Vec<_> = self
            .annotations
            .iter()
            .map(|(key, value)| format!("{key}: \"{value}\""))
            .collect();
        let (ports, annotations) = (ports.join(", "), annotations.join(", "));
        format!(
            "apiVersion: v1
kind: ServiceAccount
metadata: {{ name: {account}, namespace: {namespace} }}
---
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {namespace}
  labels: {{ app: {name}, {label} }}
  annotations: {{ {annotations} }}
spec:
  serviceAccountName: {account}
  containers:
    - {{ name: app, image: app, ports: [{ports}] }}
status:
  phase: Running
  podIP: {ip}
  podIPs: [{{ ip: \"{ip}\" }}, {{ ip: \"{ip6}\" }}]
"
        )
    }
}

/// Ports have the names that `examples/mesh` gives them.
fn port_name(port: u16) -> &'static str {
    match port {
        8080 => "name: http, ",
        3306 => "name: mysql, ",
        _ => "",
    }
}

/// The name of a service in DNS.
pub fn name(service: &str, namespace: &str) -> String {
    format!("{service}.{namespace}.svc.cluster.local")
}

/// A service in namespace `demo`.
pub fn service(name: &str, ip: Ipv4Addr, port: u16, to: u16) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{ name: {name}, namespace: demo }}
spec:
  clusterIP: {ip}
  ports: [{{ name: main, port: {port}, targetPort: {to} }}]
"
    )
}

/// The endpoints of a service in namespace `demo`.
pub fn slice(name: &str, port: u16, pods: &[&pod::Pod]) -> String {
    let endpoint = |pod: &&pod::Pod| {
        format!(
            "  - addresses: [{}]
    conditions: {{ ready: true }}
    targetRef: {{ kind: Pod, namespace: demo, name: {} }}
",
            pod.ip(),
            pod.name()
        )
    };
    let endpoints: String = pods.iter().map(endpoint).collect();
    let endpoints = if endpoints.is_empty() {
        " []".to_owned()
    } else {
        format!("\n{endpoints}")
    };
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: demo
  labels: {{ kubernetes.io/service-name: {name} }}
addressType: IPv4
ports: [{{ name: main, port: {port} }}]
endpoints:{endpoints}
"
    )
}

/// The endpoints of a service in namespace `demo` that mirrors one behind a gateway, as the service mirror writes them.
pub fn mirror(name: &str, gateway: &pod::Pod, identity: &str, of: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  namespace: demo
  labels: {{ kubernetes.io/service-name: {name} }}
  annotations:
    mirror.linkerd.io/remote-gateway-identity: {identity}
    mirror.linkerd.io/remote-svc-fq-name: {of}
addressType: IPv4
ports: [{{ name: main, port: 4143 }}]
endpoints:
  - addresses: [{}]
",
        gateway.ip()
    )
}
