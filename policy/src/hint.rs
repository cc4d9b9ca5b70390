//! Hints of an overloaded server: how long it asks to be left alone.

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

/// How long the server asks clients to wait: `Retry-After` on 429 and 503 (RFC 9110 §10.2.3, seconds or a date), or
/// `grpc-retry-pushback-ms`. `wall` is the time of day. What can't be read, and a date that is past, is none.
pub fn wait(status: StatusCode, headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    let retry_after = match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => retry_after(headers, wall),
        _ => None,
    };
    retry_after.max(pushback(headers))
}

fn retry_after(headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    httpdate::parse_http_date(text).ok()?.duration_since(wall).ok()
}

/// Negative: do not try again at all, which says nothing about how long.
fn pushback(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-retry-pushback-ms")?.to_str().ok()?;
    text.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(status: u16, name: &'static str, value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        // Sun, 06 Nov 1994 08:49:37 GMT
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        wait(StatusCode::from_u16(status).unwrap(), &headers, wall)
    }

    #[test]
    fn retry_after_is_in_seconds_or_a_date() {
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(hint(429, "retry-after", "7"), seconds(7));
        for date in [
            "Sun, 06 Nov 1994 08:50:37 GMT",
            "Sunday, 06-Nov-94 08:50:37 GMT",
            "Sun Nov  6 08:50:37 1994",
        ] {
            assert_eq!(hint(503, "retry-after", date), seconds(60), "{date}");
        }
    }

    #[test]
    fn what_is_past_or_unreadable_or_not_about_overload_is_no_hint() {
        assert_eq!(hint(503, "retry-after", "Sun, 06 Nov 1994 08:48:37 GMT"), None);
        assert_eq!(hint(301, "retry-after", "7"), None);
        for bad in ["-1", "soon", "", "1.5", "99999999999999999999999"] {
            assert_eq!(hint(503, "retry-after", bad), None, "{bad}");
        }
        assert_eq!(hint(200, "grpc-retry-pushback-ms", "-1"), None);
    }

    #[test]
    fn a_grpc_server_pushes_back_in_milliseconds() {
        assert_eq!(
            hint(200, "grpc-retry-pushback-ms", "1500"),
            Some(Duration::from_millis(1500))
        );
    }
}
