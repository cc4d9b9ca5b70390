//! HTTP by its first bytes: the HTTP/2 connection preface, or an HTTP/1 request line.

/// What the first bytes of a connection say about HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preface {
    /// A request line of HTTP/1.0 or HTTP/1.1 (RFC 9112 §3).
    Http1,
    /// HTTP/2 with prior knowledge (RFC 9113 §3.4).
    Http2,
    /// Something else.
    NotHttp,
    /// The bytes can still become any of these.
    NeedMore,
}

/// The most bytes that are looked at; a caller's buffer has to hold as many.
pub const LIMIT: usize = 8 << 10;

/// The longest method, bytes.
const METHOD_LIMIT: usize = 32;

/// The request line of the HTTP/2 preface. No HTTP/1 request has it, so the 10 bytes that follow don't matter.
const HTTP2: &[u8] = b"PRI * HTTP/2.0";

/// Classifies the first bytes of a connection.
///
/// Whoever sends neither method nor target is settled by the first byte that can't stand there: PostgreSQL's
/// SSLRequest and TLS by their first, a Redis command by its line end. A request line of 8 KiB whose version is not in
/// sight is HTTP/1 when its method is a known one (the server then answers 414 or 431), and otherwise not HTTP.
pub fn preface(bytes: &[u8]) -> Preface {
    if bytes.starts_with(HTTP2) {
        return Preface::Http2;
    }
    let seen = &bytes[..bytes.len().min(LIMIT)];
    match request_line(seen) {
        Line::Http1 => Preface::Http1,
        Line::Not if HTTP2.starts_with(seen) => Preface::NeedMore,
        Line::Not => stalled(seen),
        Line::Partial { .. } if seen.len() < LIMIT => Preface::NeedMore,
        Line::Partial { method } if known(method) => Preface::Http1,
        Line::Partial { .. } => Preface::NotHttp,
    }
}

enum Line<'a> {
    Http1,
    Not,
    Partial { method: &'a [u8] },
}

/// What bytes are that never went on: a known method and the beginning of a path are a request, however slow or broken.
/// Passed on as mere bytes, it would reach the application past every rule for requests.
pub fn stalled(bytes: &[u8]) -> Preface {
    let line = after_empty_lines(bytes);
    let is_request = line.iter().position(|byte| *byte == b' ').is_some_and(|end| {
        let target = &line[end + 1..];
        known(&line[..end]) && (target.starts_with(b"/") || target.starts_with(b" "))
    });
    if is_request {
        Preface::Http1
    } else {
        Preface::NotHttp
    }
}

/// `method SP target SP HTTP/1.`, after any empty lines (RFC 9112 §2.2).
fn request_line(bytes: &[u8]) -> Line<'_> {
    let line = after_empty_lines(bytes);
    let Some(end) = line.iter().position(|byte| !is_tchar(*byte)) else {
        return if line.len() <= METHOD_LIMIT {
            Line::Partial { method: b"" }
        } else {
            Line::Not
        };
    };
    let (method, rest) = line.split_at(end);
    if method.is_empty() || method.len() > METHOD_LIMIT || rest[0] != b' ' {
        return Line::Not;
    }
    let target = &rest[1..];
    let Some(end) = target.iter().position(|byte| *byte <= b' ' || *byte == 0x7f) else {
        return Line::Partial { method };
    };
    if end == 0 || target[end] != b' ' {
        return Line::Not;
    }
    let version = &target[end + 1..];
    if version.starts_with(b"HTTP/1.") {
        Line::Http1
    } else if b"HTTP/1.".starts_with(version) {
        Line::Partial { method }
    } else {
        Line::Not
    }
}

fn after_empty_lines(mut bytes: &[u8]) -> &[u8] {
    while let [b'\n', rest @ ..] | [b'\r', b'\n', rest @ ..] = bytes {
        bytes = rest;
    }
    // Half of an empty line.
    if bytes == b"\r" { b"" } else { bytes }
}

/// A byte of a token (RFC 9110 §5.6.2).
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn known(method: &[u8]) -> bool {
    const KNOWN: [&[u8]; 9] = [
        b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"CONNECT", b"PATCH", b"TRACE",
    ];
    KNOWN.contains(&method)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The decision, and after how many bytes it was made.
    fn in_single_bytes(bytes: &[u8]) -> (Preface, usize) {
        let decided = (0..=bytes.len()).map(|n| (preface(&bytes[..n]), n));
        let mut decided = decided.skip_while(|(preface, _)| *preface == Preface::NeedMore);
        decided.next().unwrap_or((Preface::NeedMore, bytes.len()))
    }

    #[test]
    fn a_request_line_in_single_bytes_is_http1() {
        for line in [
            "GET / HTTP/1.1",
            "get /x?y HTTP/1.0",
            "M-SEARCH * HTTP/1.1",
            "\r\n\r\nGET / HTTP/1.1",
        ] {
            assert_eq!(
                in_single_bytes(line.as_bytes()),
                (Preface::Http1, line.len() - 1),
                "{line}"
            );
        }
    }

    #[test]
    fn the_http2_preface_is_settled_by_its_request_line() {
        assert_eq!(
            in_single_bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            (Preface::Http2, 14)
        );
        assert_eq!(in_single_bytes(b"PRI * HTTP/1.1\r\n"), (Preface::Http1, 13));
        assert_eq!(in_single_bytes(b"PRI * HTTP/3.0\r\n"), (Preface::NotHttp, 12));
    }

    #[test]
    fn a_broken_request_is_a_request_and_a_redis_command_is_none() {
        for line in [
            "GET /  HTTP/1.1\r\n",
            "GET /admin\r\n",
            "POST  /x HTTP/1.1\r\n",
            "GET /a b HTTP/1.1\r\n",
        ] {
            assert_eq!(in_single_bytes(line.as_bytes()).0, Preface::Http1, "{line}");
        }
        assert_eq!(in_single_bytes(b"GET key\r\n").0, Preface::NotHttp);
        assert_eq!(stalled(b"GET /adm"), Preface::Http1);
        assert_eq!(stalled(b"GET key"), Preface::NotHttp);
        assert_eq!(stalled(b"HELO"), Preface::NotHttp);
    }

    #[test]
    fn what_is_not_http_is_settled_at_the_first_impossible_byte() {
        for (bytes, at) in [
            (&b"\x00\x00\x00\x08\x04\xd2\x16\x2f"[..], 1),
            (b"\x16\x03\x01", 1),
            (b"PING\r\n", 5),
            (b"*1\r\n$4\r\nPING\r\n", 3),
            (b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", 31),
            (b"get key\r\n", 8),
            (b"CONNECT {\"verbose\":false}\r\n", 26),
            (b"OPTIONS * RTSP/1.0\r\n", 11),
            (b" GET / HTTP/1.1", 1),
            (b"\rGET", 2),
        ] {
            assert_eq!(
                in_single_bytes(bytes),
                (Preface::NotHttp, at),
                "{:?}",
                bytes.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn a_method_has_at_most_32_bytes() {
        assert_eq!(in_single_bytes(&[b'A'; 32]), (Preface::NeedMore, 32));
        assert_eq!(in_single_bytes(&[b'A'; 40]), (Preface::NotHttp, 33));
    }

    #[test]
    fn an_endless_request_line_is_settled_at_the_limit_by_its_method() {
        let endless = |method: &str| [method.as_bytes(), &[b'a'; LIMIT]].concat();
        assert_eq!(in_single_bytes(&endless("GET /")), (Preface::Http1, LIMIT));
        assert_eq!(in_single_bytes(&endless("GOT /")), (Preface::NotHttp, LIMIT));
        assert_eq!(preface(&[b'\n'; LIMIT]), Preface::NotHttp);
    }

    #[test]
    fn nothing_yet_is_undecided() {
        assert_eq!(preface(b""), Preface::NeedMore);
    }
}
