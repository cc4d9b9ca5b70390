//! Fields that HTTP/2 has no place for.

use http::header::{TE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue};

use crate::http::headers;

const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Removes the fields of a message, or of its trailers, that concern one HTTP/1 connection (RFC 9113 §8.2.2). `te` stays
/// if it asks for trailers, which is all that it may do.
pub fn fit(fields: &mut HeaderMap) {
    headers::strip_hop_by_hop(fields);
    // Most have none: to look through the names there are costs less than to look these up.
    if !fields
        .keys()
        .any(|name| *name == TE || *name == TRANSFER_ENCODING)
    {
        return;
    }
    fields.remove(TRANSFER_ENCODING);
    let wants_trailers = fields.get_all(TE).iter().any(names_trailers);
    if wants_trailers {
        fields.insert(TE, TRAILERS);
    } else {
        fields.remove(TE);
    }
}

fn names_trailers(codings: &HeaderValue) -> bool {
    codings.as_bytes().split(|byte| *byte == b',').any(|coding| {
        let name = coding.split(|byte| *byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"trailers")
    })
}

#[cfg(test)]
mod tests {
    use http::header::HeaderName;

    use super::*;

    fn fitted(fields: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        let fields = fields
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut fields: HeaderMap = fields.collect();
        fit(&mut fields);
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        fields.iter().map(text).collect()
    }

    #[test]
    fn what_frames_http1_goes() {
        let left = fitted(&[
            ("transfer-encoding", "chunked"),
            ("connection", "close"),
            ("x", "y"),
        ]);
        assert_eq!(left, [("x".to_owned(), "y".to_owned())]);
    }

    #[test]
    fn te_asks_for_trailers_or_for_nothing() {
        assert_eq!(fitted(&[("te", "gzip")]), []);
        let trailers = [("te".to_owned(), "trailers".to_owned())];
        assert_eq!(fitted(&[("te", "trailers")]), trailers);
        assert_eq!(fitted(&[("te", "gzip, Trailers;q=0.5")]), trailers);
    }
}
