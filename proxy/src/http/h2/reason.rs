//! Which HTTP/2 error code a failure stands for (RFC 9113 §7).

use std::error::Error;

use outrigger_http2::Reason;

/// The code that an error carries, however deep.
///
/// A GOAWAY that a peer sent fails the streams that it did not process (RFC 9113 §6.8): for each of them that is a
/// refusal, whatever the connection ended for.
pub fn of(error: &(dyn Error + 'static)) -> Option<Reason> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(h2) = error.downcast_ref::<outrigger_http2::Error>() {
            return if h2.is_go_away() && h2.is_remote() {
                Some(Reason::REFUSED_STREAM)
            } else {
                h2.reason()
            };
        }
        next = error.source();
    }
    None
}

/// The code for a message that breaks off because its other side did. `otherwise` is for what has no code of its own.
pub fn passed_on(error: &(dyn Error + 'static), otherwise: Reason) -> Reason {
    match of(error) {
        // Both say that nothing is amiss, which is not so once a message has begun.
        Some(Reason::NO_ERROR | Reason::REFUSED_STREAM) | None => otherwise,
        Some(reason) => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Fault, Kind, Side};
    use crate::http::body;

    #[test]
    fn a_code_is_found_however_deep_it_lies() {
        let error = body::Error::from(outrigger_http2::Error::from(Reason::ENHANCE_YOUR_CALM));
        let fault = Fault::because(Kind::Reset, Side::Server, error);
        assert_eq!(of(&fault), Some(Reason::ENHANCE_YOUR_CALM));
        assert_eq!(of(&Fault::new(Kind::Reset, Side::Server)), None);
    }

    #[test]
    fn a_message_that_breaks_off_never_seems_complete() {
        let no_error = outrigger_http2::Error::from(Reason::NO_ERROR);
        assert_eq!(passed_on(&no_error, Reason::CANCEL), Reason::CANCEL);
        let refused = outrigger_http2::Error::from(Reason::PROTOCOL_ERROR);
        assert_eq!(passed_on(&refused, Reason::CANCEL), Reason::PROTOCOL_ERROR);
    }
}
