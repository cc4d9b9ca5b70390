//! What a client asks for in `accept` and `accept-encoding`, and compressing what it gets.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

use crate::telemetry::Format;

/// A header that is not text.
#[derive(Debug)]
pub(super) struct NotText;

/// The format of `/metrics`: OpenMetrics for who accepts version 1 of it, as Prometheus does, else the classic text.
pub(super) fn metrics_format(headers: &HeaderMap) -> Format {
    let versions = ["", "1.0.0"];
    let accepted = items(headers, ACCEPT).any(|item| {
        let version = item.parameter("version").unwrap_or_default();
        item.accepts("application/openmetrics-text") && versions.contains(&version.trim_matches('"'))
    });
    if accepted {
        Format::OpenMetrics
    } else {
        Format::Classic
    }
}

/// Whether JSON will do. Who says nothing takes anything.
pub(super) fn accepts_json(headers: &HeaderMap) -> Result<bool, NotText> {
    if headers
        .get_all(ACCEPT)
        .iter()
        .any(|value| value.to_str().is_err())
    {
        return Err(NotText);
    }
    let json = ["application/json", "application/*", "*/*"];
    let accepted = items(headers, ACCEPT).any(|item| json.iter().any(|name| item.accepts(name)));
    Ok(accepted || !headers.contains_key(ACCEPT))
}

/// Whether an answer may be compressed.
pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    items(headers, ACCEPT_ENCODING).any(|item| item.accepts("gzip"))
}

/// Compressed for speed: a page of metrics shrinks to a tenth in any case.
pub(super) fn gzip(text: &str) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    Ok(encoder.finish()?.into())
}

/// One item of a list, such as `text/plain;q=0.5` (RFC 9110 §12.4, §12.5).
#[derive(Clone, Copy)]
struct Item<'a>(&'a str);

fn items(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = Item<'_>> {
    let values = headers.get_all(name).into_iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(Item)
}

impl<'a> Item<'a> {
    /// Whether it is this one, and not there to rule it out.
    fn accepts(self, name: &str) -> bool {
        let item = self.0.split(';').next().unwrap_or_default().trim();
        let weight = self.parameter("q").and_then(|q| q.parse::<f32>().ok());
        item.eq_ignore_ascii_case(name) && weight != Some(0.0)
    }

    fn parameter(self, name: &str) -> Option<&'a str> {
        let parameters = self.0.split(';').skip(1);
        parameters
            .filter_map(|parameter| parameter.split_once('='))
            .find_map(|(key, value)| key.trim().eq_ignore_ascii_case(name).then_some(value.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn with(name: HeaderName, value: &'static [u8]) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_bytes(value).unwrap())])
    }

    #[test]
    fn openmetrics_is_for_who_asks_for_it() {
        let prometheus = b"application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (&prometheus[..], Format::OpenMetrics),
            (b"application/openmetrics-text", Format::OpenMetrics),
            (b"application/openmetrics-text; version=0.0.1", Format::Classic),
            (b"application/openmetrics-text;q=0", Format::Classic),
            (b"*/*", Format::Classic),
        ] {
            assert_eq!(metrics_format(&with(ACCEPT, accept)), format);
        }
        assert_eq!(metrics_format(&HeaderMap::new()), Format::Classic);
    }

    #[test]
    fn json_is_acceptable_under_three_names() {
        for accept in [
            &b"application/json"[..],
            b"text/html, application/*;q=0.1",
            b"*/*",
        ] {
            assert!(accepts_json(&with(ACCEPT, accept)).unwrap());
        }
        assert!(!accepts_json(&with(ACCEPT, b"text/html")).unwrap());
        assert!(accepts_json(&with(ACCEPT, b"\xff")).is_err());
        assert!(accepts_json(&HeaderMap::new()).unwrap());
    }

    #[test]
    fn gzip_may_be_ruled_out() {
        assert!(accepts_gzip(&with(ACCEPT_ENCODING, b"deflate, GZIP;q=0.5")));
        assert!(!accepts_gzip(&with(ACCEPT_ENCODING, b"gzip;q=0, identity")));
        assert!(!accepts_gzip(&with(ACCEPT_ENCODING, b"br")));
    }
}
