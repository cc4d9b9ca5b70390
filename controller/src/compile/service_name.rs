//! Names of Services, as clients write them: `name.namespace.svc.domain:port`.

use std::sync::Arc;

use outrigger_policy::name::DnsName;

use crate::compile::refusal::Refusal;
use crate::compile::settings::Settings;

/// A port of a Service, or of one pod behind it, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// The host name of one pod (StatefulSets).
    pub instance: Option<Arc<str>>,
    /// The Service.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// The port, 80 if none was given.
    pub port: u16,
}

/// Longest name that is read, bytes: a DNS name and a port.
const MAX_BYTES: usize = 253 + 1 + 6;

impl ServiceName {
    /// Reads a name; the cluster's domain may be left out, as the policy API allows.
    pub fn parse(text: &str, settings: &Settings) -> Result<Self, Refusal> {
        let domain = &settings.cluster_domain;
        if text.len() > MAX_BYTES {
            // Not repeated: statuses travel in headers.
            return Err(Refusal::Invalid(format!(
                "a name of {} bytes is none",
                text.len()
            )));
        }
        let invalid = |what: &str| {
            Refusal::Invalid(format!(
                "{text:?} {what}: use <service>.<namespace>.svc.{domain}:<port>"
            ))
        };
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)),
            None => (text, Some(80)),
        };
        let port = port.ok_or_else(|| invalid("has a bad port"))?;
        let host = DnsName::parse(host).map_err(|_| invalid("is no DNS name"))?;
        let within = format!(".{}", domain.to_lowercase());
        let service = host.as_str().strip_suffix(&within).unwrap_or(host.as_str());
        let labels = service
            .strip_suffix(".svc")
            .ok_or_else(|| invalid("is no Service's name"))?;
        let labels: Vec<_> = labels.split('.').collect();
        let (instance, name, namespace) = match labels[..] {
            [name, namespace] => (None, name, namespace),
            [instance, name, namespace] => (Some(instance.into()), name, namespace),
            _ => return Err(invalid("is no Service's name")),
        };
        Ok(Self {
            instance,
            name: name.into(),
            namespace: namespace.into(),
            port,
        })
    }

    /// The full name of a Service, without a port.
    pub fn full(namespace: &str, name: &str, settings: &Settings) -> String {
        format!("{name}.{namespace}.svc.{}", settings.cluster_domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_carry_a_port_an_instance_and_a_domain() {
        let settings = Settings::default();
        let parse = |text| ServiceName::parse(text, &settings).unwrap();
        assert_eq!(parse("web.demo.svc.cluster.local").port, 80);
        assert_eq!(
            parse("Web.demo.svc:8080"),
            parse("web.demo.svc.cluster.local.:8080")
        );
        assert_eq!(
            parse("db-0.db.demo.svc.cluster.local:1").instance.as_deref(),
            Some("db-0")
        );
    }

    #[test]
    fn other_names_are_refused_with_advice() {
        let settings = Settings::default();
        for text in [
            "example.com:80",
            "web.demo.svc.cluster.local:x",
            "10.0.0.1:80",
            "svc.cluster.local",
            "",
            "a:0",
        ] {
            let refusal = ServiceName::parse(text, &settings).unwrap_err();
            assert!(refusal.to_string().contains("use <service>"), "{text}");
        }
    }
}
