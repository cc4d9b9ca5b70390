//! `rustls_info`: which cryptography this build speaks.

use std::time::Instant;

use crate::telemetry::Registry;
use crate::telemetry::registry::Collect;
use crate::telemetry::text::{Description, Document, EncodeLabels, Kind, LabelWriter, Name, Series};
use crate::tls::credentials::provider;

/// What Linkerd's proxy says of its own provider, under the same names.
#[derive(Debug)]
struct Info {
    suites: String,
    groups: String,
    rand: String,
    key_provider: String,
    fips: bool,
}

/// Adds the family to `/metrics`. Its value is always 1.
pub fn register(registry: &mut Registry) {
    let provider = provider();
    let suites = provider.cipher_suites.iter();
    let suites: Vec<_> = suites.map(|suite| format!("{:?}", suite.suite())).collect();
    let groups = provider.kx_groups.iter();
    let groups: Vec<_> = groups.map(|group| format!("{:?}", group.name())).collect();
    registry.collector(Info {
        suites: suites.join(","),
        groups: groups.join(","),
        rand: format!("{:?}", provider.secure_random),
        key_provider: format!("{:?}", provider.key_provider),
        fips: provider.fips(),
    });
}

impl Collect for Info {
    fn describe(&self) -> Vec<Description> {
        vec![Description {
            name: Name::open("rustls_info"),
            kind: Kind::Gauge,
            help: "Proxy TLS info",
            labels: Self::DOC,
        }]
    }

    fn collect(&self, _now: Instant, out: &mut Document) {
        let mut labels = String::new();
        self.encode(&mut LabelWriter::new(&mut labels));
        for family in self.describe() {
            family.encode(out);
            Series::new(out, &family.name, &labels).sample(1);
        }
    }
}

impl EncodeLabels for Info {
    const DOC: &'static str = "tls_suites, tls_kx_groups, tls_rand, tls_key_provider, tls_fips";
    fn encode(&self, out: &mut LabelWriter<'_>) {
        out.label("tls_suites", &self.suites);
        out.label("tls_kx_groups", &self.groups);
        out.label("tls_rand", &self.rand);
        out.label("tls_key_provider", &self.key_provider);
        out.label("tls_fips", self.fips);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn the_post_quantum_group_is_named_first() {
        let mut registry = Registry::new(Duration::ZERO);
        register(&mut registry);
        let text = registry.encode(Instant::now());
        assert!(text.contains("tls_kx_groups=\"X25519MLKEM768,X25519,"), "{text}");
    }
}
