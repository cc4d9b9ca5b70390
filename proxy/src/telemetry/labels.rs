//! Label groups with the exact names and order that dashboards query. Cheap to clone: text is shared.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use outrigger_policy::name::{Identity, ResourceRef};

use crate::telemetry::text::{EncodeLabels, LabelWriter};

/// Which way the traffic goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the application beside this proxy.
    Inbound,
    /// From the application beside this proxy.
    Outbound,
}

/// The address that a connection was made to, before it was redirected here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target(pub SocketAddr);

/// How a client arrived: TLS as the accepting side sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TlsAccept {
    /// Mesh TLS, terminated here, with the identity that the client proved, if any.
    Terminated {
        /// The client's identity.
        client_id: Option<Identity>,
    },
    /// TLS of the application, passed through.
    Opaque {
        /// The server name of its ClientHello; empty if it has none.
        sni: Arc<str>,
    },
    /// Without TLS.
    NoIdentity(NoTls),
    /// TLS is switched off.
    Disabled,
}

/// How a server is reached: TLS as the connecting side sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TlsConnect {
    /// Mesh TLS, to this identity.
    Originated {
        /// The identity that the server has to prove.
        server_id: Identity,
    },
    /// Without TLS.
    NoIdentity(NoTls),
    /// TLS is switched off.
    Disabled,
}

/// Why there is no mesh TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NoTls {
    /// The application beside this proxy.
    Loopback,
    /// The port is configured or declared not to be looked at.
    PortSkipped,
    /// The client did not speak it.
    FromRemote,
    /// Discovery names no identity for the endpoint.
    NotProvided,
    /// Ingress mode, and the request names no destination.
    IngressWithoutOverride,
}

/// The Server (or default) that an inbound port is under, and the port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Srv {
    /// The Server object or default.
    pub meta: Arc<ResourceRef>,
    /// The port that was connected to.
    pub port: u16,
}

/// An inbound route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route(pub Arc<ResourceRef>);

/// The authorization that admitted a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authz(pub Arc<ResourceRef>);

/// What discovery says about an endpoint, each name prefixed `dst_`, in key order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Dst(pub Arc<BTreeMap<String, String>>);

/// The object that an application connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Parent(pub Arc<ResourceRef>);

/// An outbound route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutboundRoute(pub Arc<ResourceRef>);

/// A backend of an outbound route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend(pub Arc<ResourceRef>);

/// What looking at the first bytes of a connection found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DetectResult {
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Something else.
    NotHttp,
    /// Too little, for too long.
    ReadTimeout,
    /// Nothing: the server spoke first.
    ServerFirst,
    /// Reading failed.
    Error,
}

impl Direction {
    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

impl NoTls {
    /// The value of the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::PortSkipped => "port_skipped",
            Self::FromRemote => "no_tls_from_remote",
            Self::NotProvided => "not_provided_by_service_discovery",
            Self::IngressWithoutOverride => "ingress_without_override",
        }
    }

    fn encode(self, out: &mut LabelWriter<'_>) {
        out.label("tls", "no_identity");
        out.label("no_tls_reason", self.as_str());
    }
}

impl EncodeLabels for Direction {
    const DOC: &'static str = "direction";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("direction", self.as_str());
    }
}

impl EncodeLabels for Target {
    const DOC: &'static str = "target_addr, target_ip, target_port";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("target_addr", self.0);
        out.label("target_ip", self.0.ip());
        out.label("target_port", self.0.port());
    }
}

impl EncodeLabels for TlsAccept {
    const DOC: &'static str = "tls, client_id | sni | no_tls_reason";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        match self {
            Self::Terminated { client_id } => {
                out.label("tls", "true");
                out.label("client_id", client_id.as_ref().map_or("", Identity::as_str));
            }
            Self::Opaque { sni } => {
                out.label("tls", "opaque");
                out.label("sni", sni);
            }
            Self::NoIdentity(reason) => reason.encode(out),
            Self::Disabled => out.label("tls", "disabled"),
        }
    }
}

impl EncodeLabels for TlsConnect {
    const DOC: &'static str = "tls, server_id | no_tls_reason";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        match self {
            Self::Originated { server_id } => {
                out.label("tls", "true");
                out.label("server_id", server_id);
            }
            Self::NoIdentity(reason) => reason.encode(out),
            Self::Disabled => out.label("tls", "disabled"),
        }
    }
}

impl EncodeLabels for Srv {
    const DOC: &'static str = "srv_group, srv_kind, srv_name, srv_port";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("srv_group", &self.meta.group);
        out.label("srv_kind", &self.meta.kind);
        out.label("srv_name", &self.meta.name);
        out.label("srv_port", self.port);
    }
}

impl EncodeLabels for Route {
    const DOC: &'static str = "route_group, route_kind, route_name";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("route_group", &self.0.group);
        out.label("route_kind", &self.0.kind);
        out.label("route_name", &self.0.name);
    }
}

impl EncodeLabels for Authz {
    const DOC: &'static str = "authz_group, authz_kind, authz_name";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("authz_group", &self.0.group);
        out.label("authz_kind", &self.0.kind);
        out.label("authz_name", &self.0.name);
    }
}

impl EncodeLabels for Dst {
    const DOC: &'static str = "dst_*";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        for (name, value) in &*self.0 {
            out.foreign_label("dst_", name, value);
        }
    }
}

impl EncodeLabels for Parent {
    const DOC: &'static str =
        "parent_group, parent_kind, parent_namespace, parent_name, parent_port, parent_section_name";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        let parent = &self.0;
        out.label("parent_group", &parent.group);
        out.label("parent_kind", &parent.kind);
        out.label("parent_namespace", &parent.namespace);
        out.label("parent_name", &parent.name);
        out.optional_label("parent_port", parent.port);
        out.label("parent_section_name", &parent.section);
    }
}

impl EncodeLabels for OutboundRoute {
    const DOC: &'static str = "route_group, route_kind, route_namespace, route_name";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        let route = &self.0;
        out.label("route_group", &route.group);
        out.label("route_kind", &route.kind);
        out.label("route_namespace", &route.namespace);
        out.label("route_name", &route.name);
    }
}

impl EncodeLabels for Backend {
    const DOC: &'static str =
        "backend_group, backend_kind, backend_namespace, backend_name, backend_port, backend_section_name";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        let backend = &self.0;
        out.label("backend_group", &backend.group);
        out.label("backend_kind", &backend.kind);
        out.label("backend_namespace", &backend.namespace);
        out.label("backend_name", &backend.name);
        out.optional_label("backend_port", backend.port);
        out.label("backend_section_name", &backend.section);
    }
}

impl EncodeLabels for DetectResult {
    const DOC: &'static str = "result";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        let result = match self {
            Self::Http1 => "http/1",
            Self::Http2 => "http/2",
            Self::NotHttp => "not_http",
            Self::ReadTimeout => "read_timeout",
            Self::ServerFirst => "server_first",
            Self::Error => "error",
        };
        out.label("result", result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(labels: &impl EncodeLabels) -> String {
        let mut out = String::new();
        labels.encode(&mut LabelWriter::new(&mut out));
        out
    }

    #[test]
    fn a_target_is_spelled_three_ways() {
        let target = Target("[::1]:80".parse().unwrap());
        assert_eq!(
            text(&target),
            r#"target_addr="[::1]:80",target_ip="::1",target_port="80""#
        );
    }

    #[test]
    fn tls_without_a_client_certificate_has_an_empty_client_id() {
        let tls = TlsAccept::Terminated { client_id: None };
        assert_eq!(text(&tls), r#"tls="true",client_id="""#);
    }

    #[test]
    fn a_connection_without_tls_says_why() {
        let tls = TlsConnect::NoIdentity(NoTls::NotProvided);
        let expected = r#"tls="no_identity",no_tls_reason="not_provided_by_service_discovery""#;
        assert_eq!(text(&tls), expected);
    }

    #[test]
    fn a_default_server_prints_an_empty_group() {
        let meta = Arc::new(ResourceRef::of_default("all-unauthenticated"));
        let expected = r#"srv_group="",srv_kind="default",srv_name="all-unauthenticated",srv_port="8080""#;
        assert_eq!(text(&Srv { meta, port: 8080 }), expected);
    }

    #[test]
    fn an_absent_port_is_an_empty_value() {
        let parent = text(&Parent(Arc::new(ResourceRef::of_default("unknown"))));
        assert!(
            parent.ends_with(r#"parent_name="unknown",parent_port="",parent_section_name="""#),
            "{parent}"
        );
    }
}
