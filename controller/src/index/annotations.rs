//! Annotations of an object, those that it inherits from its namespace, and what is wrong with them.

use std::collections::BTreeMap;

use crate::resources::ports::PortSet;
use crate::resources::report::{ObjectId, Origin, Report, Severity};

/// What is known about an object besides its own text.
#[derive(Debug)]
pub struct Context<'a> {
    /// Which object.
    pub id: &'a ObjectId,
    /// Where it is written.
    pub origin: &'a Origin,
    /// The annotations of its namespace.
    pub inherited: &'a BTreeMap<String, String>,
    /// Where reports about it go.
    pub reports: &'a mut Vec<Report>,
}

impl Context<'_> {
    /// The value of an inheritable annotation: the object's own, else its namespace's (as the injector writes it).
    pub fn annotation<'b>(&'b self, own: &'b BTreeMap<String, String>, key: &str) -> Option<&'b str> {
        own.get(key)
            .or_else(|| self.inherited.get(key))
            .map(String::as_str)
    }

    /// The ports of an annotation; items that can't be read are reported and left out.
    pub fn ports(
        &mut self,
        own: &BTreeMap<String, String>,
        key: &str,
        named: impl Fn(&str) -> Vec<u16>,
    ) -> Option<PortSet> {
        let text = self.annotation(own, key)?.to_owned();
        let (set, refused) = PortSet::parse(&text, named);
        if !refused.is_empty() {
            self.error(format!("annotation {key}: left out: {}", refused.join("; ")));
        }
        Some(set)
    }

    /// Something is not served as it is written.
    pub fn error(&mut self, reason: impl Into<String>) {
        self.reports
            .push(Report::about(self.origin, self.id, Severity::Error, reason));
    }

    /// Something is served, perhaps not as its author thinks.
    pub fn warn(&mut self, reason: impl Into<String>) {
        self.reports
            .push(Report::about(self.origin, self.id, Severity::Warning, reason));
    }

    /// Addresses; those that can't be read are reported and left out.
    pub fn addresses<'t>(&mut self, texts: impl IntoIterator<Item = &'t str>) -> Vec<std::net::IpAddr> {
        let mut addresses = Vec::new();
        for text in texts.into_iter().filter(|text| !text.is_empty()) {
            match text.parse() {
                Ok(address) if !addresses.contains(&address) => addresses.push(address),
                Ok(_) => {}
                Err(_) => self.error(format!("{text:?} is no IP address and is left out")),
            }
        }
        addresses
    }
}

/// A port as Kubernetes' types carry it. Nothing outside 1 to 65535 is a port.
pub fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}

/// Whether a port's protocol is TCP, which it is when nothing is said.
pub fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}
