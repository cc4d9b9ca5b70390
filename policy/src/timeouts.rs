//! Timeouts of a rule, and the deadline that a gRPC client asks for.

use std::time::Duration;

use http::HeaderMap;

/// How long the parts of an exchange may take; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// From the request's arrival to the end of the response, all attempts included.
    pub request: Option<Duration>,
    /// From the end of the request (or the response's headers, if they come before) to the end of the response.
    pub response: Option<Duration>,
    /// Without a frame in either direction.
    pub idle: Option<Duration>,
    /// From the request's arrival to the response's headers, all attempts included: the timeout of ServiceProfile
    /// routes.
    pub headers: Option<Duration>,
}

impl Timeouts {
    /// The time within which the response's headers have to come, all attempts included. `asked` is what the client
    /// asks for (`grpc-timeout`).
    pub fn until_headers(&self, asked: Option<Duration>) -> Option<Duration> {
        [self.request, self.headers, asked].into_iter().flatten().min()
    }

    /// The time within which the whole exchange has to end.
    pub fn until_end(&self, asked: Option<Duration>) -> Option<Duration> {
        [self.request, asked].into_iter().flatten().min()
    }
}

/// `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Requests"). What can't be read is none.
pub fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    if digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(n * 3600)),
        'M' => Some(Duration::from_secs(n * 60)),
        'S' => Some(Duration::from_secs(n)),
        'm' => Some(Duration::from_millis(n)),
        'u' => Some(Duration::from_micros(n)),
        'n' => Some(Duration::from_nanos(n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_limit_decides() {
        let seconds = |n| Some(Duration::from_secs(n));
        let timeouts = Timeouts {
            request: seconds(5),
            headers: seconds(3),
            ..Timeouts::default()
        };
        assert_eq!(timeouts.until_headers(None), seconds(3));
        assert_eq!(timeouts.until_headers(seconds(1)), seconds(1));
        assert_eq!(timeouts.until_end(seconds(9)), seconds(5));
        assert_eq!(Timeouts::default().until_end(None), None);
    }

    #[test]
    fn a_grpc_timeout_has_at_most_eight_digits_and_a_unit() {
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            grpc_timeout(&headers)
        };
        for (text, expected) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("99999999S", Duration::from_secs(99_999_999)),
            ("5m", Duration::from_millis(5)),
            ("7u", Duration::from_micros(7)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for bad in ["", "S", "5", "-1S", "+1S", "123456789S", "1h", "1 S", "1é"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(grpc_timeout(&HeaderMap::new()), None);
    }
}
