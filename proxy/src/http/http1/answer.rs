//! What is taken of a server as an answer in HTTP/1: one whose end is where every reader finds it (RFC 9112 §6.3).

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Response};

use crate::error::{Fault, Kind, Side};

/// Refuses an answer that may end in two places: it may be two, of which one was somebody's input (response splitting).
///
/// hyper has refused what has two different lengths, folded lines and no version already. An answer that is refused is
/// dropped, and so its connection is closed.
///
/// # Errors
/// There is a `Content-Length` beside a `Transfer-Encoding`, or a transfer coding that is not `chunked`.
pub fn check<B>(response: &mut Response<B>) -> Result<(), Fault> {
    let fields = response.headers_mut();
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return bad("the server's Transfer-Encoding is not chunked");
        }
        if fields.contains_key(CONTENT_LENGTH) {
            return bad("the server's answer has a Content-Length beside a Transfer-Encoding");
        }
    }
    unite_lengths(fields)
}

/// The same length said again is said once (RFC 9110 §8.6).
fn unite_lengths(fields: &mut HeaderMap) -> Result<(), Fault> {
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else {
        return Ok(());
    };
    let mut repeated = false;
    for other in lengths {
        if other != first {
            return bad("the server's answer has two different Content-Lengths");
        }
        repeated = true;
    }
    if !first.as_bytes().iter().all(u8::is_ascii_digit) {
        return bad("the server's Content-Length is no number");
    }
    if repeated {
        let first = first.clone();
        fields.insert(CONTENT_LENGTH, first);
    }
    Ok(())
}

fn bad<T>(why: &'static str) -> Result<T, Fault> {
    Err(Fault::because(Kind::BadAnswer, Side::Server, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(fields: &[(&'static str, &'static str)]) -> Result<usize, Kind> {
        let mut response = Response::new(());
        for (name, value) in fields {
            let value = http::HeaderValue::from_static(value);
            response.headers_mut().append(*name, value);
        }
        check(&mut response).map_err(|fault| fault.kind)?;
        Ok(response.headers().len())
    }

    #[test]
    fn an_answer_with_two_ends_is_refused() {
        assert_eq!(answer(&[("content-length", "5")]), Ok(1));
        assert_eq!(answer(&[("content-length", "5"), ("content-length", "5")]), Ok(1));
        assert_eq!(answer(&[("transfer-encoding", "Chunked")]), Ok(1));
        for fields in [
            [("content-length", "5"), ("transfer-encoding", "chunked")],
            [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            [("transfer-encoding", "gzip, chunked"), ("x", "")],
            [("content-length", "5, 5"), ("x", "")],
            [("content-length", "+5"), ("x", "")],
            [("content-length", "5"), ("content-length", "6")],
        ] {
            assert_eq!(answer(&fields), Err(Kind::BadAnswer), "{fields:?}");
        }
    }
}
