//! The `Forwarded` header (RFC 7239): which gateways a request has passed.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::FORWARDED;

/// Whether a request has passed the proxy with this identity: any element of any line says so.
pub fn by(headers: &HeaderMap, id: &str) -> bool {
    headers.get_all(FORWARDED).iter().any(|line| {
        pairs(line.as_bytes()).any(|(name, value)| name.eq_ignore_ascii_case(b"by") && is(&value, id))
    })
}

/// What this proxy adds: by whom, for whom, and to which host the request was sent.
pub fn element(by: &str, client: &str, host: &str) -> String {
    let (by, client) = (value(by), value(client));
    format!("by={by};for={client};host={host};proto=https")
}

/// Identities are compared without case: names in DNS have none (RFC 4343).
fn is(value: &[u8], id: &str) -> bool {
    value.eq_ignore_ascii_case(id.as_bytes())
}

/// As other gateways write and read it, but in quotes where it could be taken for more than one value.
fn value(text: &str) -> Cow<'_, str> {
    if !text.contains(['"', '\\', ';', ',']) {
        return text.into();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted.into()
}

/// Names and values of one line (§4), without quotes. What is malformed gives a pair that nobody asks for.
fn pairs(line: &[u8]) -> impl Iterator<Item = (&[u8], Cow<'_, [u8]>)> {
    parts(line).map(|part| {
        let end = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len());
        let value = part.get(end + 1..).unwrap_or_default().trim_ascii();
        (part[..end].trim_ascii(), unquoted(value))
    })
}

/// A line cut at commas and semicolons, but for those within quotes. A quote without its end is none: it must not hide
/// what somebody else has appended.
fn parts(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut all, mut quotes) = (Quotes::default(), Quotes::default());
    line.iter().for_each(|byte| all.read(*byte));
    line.split(move |byte| {
        quotes.read(*byte);
        matches!(byte, b',' | b';') && (all.within || !quotes.within)
    })
}

/// Whether what is read stands in quotes (RFC 9110 §5.6.4).
#[derive(Default)]
struct Quotes {
    within: bool,
    escaped: bool,
}

impl Quotes {
    fn read(&mut self, byte: u8) {
        if self.within && !self.escaped && byte == b'\\' {
            self.escaped = true;
            return;
        }
        if byte == b'"' && !self.escaped {
            self.within = !self.within;
        }
        self.escaped = false;
    }
}

fn unquoted(value: &[u8]) -> Cow<'_, [u8]> {
    let Some(inner) = value
        .strip_prefix(b"\"")
        .and_then(|rest| rest.strip_suffix(b"\""))
    else {
        return value.into();
    };
    let mut escaped = false;
    let plain = inner.iter().copied().filter(|byte| {
        escaped = *byte == b'\\' && !escaped;
        !escaped
    });
    plain.collect::<Vec<u8>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "gateway.mc.serviceaccount.identity.linkerd.cluster.local";

    fn has_passed(lines: &[&str], id: &str) -> bool {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED, line.parse().unwrap());
        }
        by(&headers, id)
    }

    #[test]
    fn an_element_is_written_as_other_gateways_read_it() {
        let expected = format!("by={ID};for=web.ns;host=web.ns.svc.cluster.local:8080;proto=https");
        assert_eq!(element(ID, "web.ns", "web.ns.svc.cluster.local:8080"), expected);
    }

    #[test]
    fn any_element_of_any_line_counts() {
        for lines in [
            &[&*format!("by={ID};for=a;host=b;proto=https")][..],
            &["by=other;for=a", &format!("for=a;by={ID}")],
            &[&format!("by=other;for=a, for=b ; BY = {ID}")],
            &[&format!("for=\"a;by=no,\\\"\";by=\"{ID}\"")],
            &[&format!("by={}", ID.to_uppercase())],
            &[&format!("for=\"a quote that does not end;by={ID}")],
        ] {
            assert!(has_passed(lines, ID), "{lines:?}");
        }
    }

    #[test]
    fn what_only_looks_like_it_does_not() {
        for line in [
            "",
            "by",
            &format!("for={ID}"),
            &format!("by={ID}.evil"),
            &format!("nearby={ID}"),
            &format!("for=\"x;by={ID}\""),
        ] {
            assert!(!has_passed(&[line], ID), "{line}");
        }
    }

    #[test]
    fn an_identity_that_looks_like_more_than_one_is_quoted_and_found_again() {
        for id in [
            "spiffe://root/a;by=gateway",
            "spiffe://root/\"a\\\"",
            "spiffe://root/a,b",
            "spiffe://root/plain",
        ] {
            let line = element(id, "x", "h");
            assert!(has_passed(&[&line], id), "{line}");
            assert!(!has_passed(&[&line], "gateway"), "{line}");
        }
    }
}
