//! Requests that may be sent again: a copy of the head, and what was read of the body.

use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, Method, Request, Uri, Version};

use crate::http::body::Body;
use crate::http::replay::{Memory, Replay};

/// Copies that a rule keeps for its next requests.
const MAX_SPARE: usize = 32;

/// A request that may be sent again.
#[derive(Debug, Default)]
pub struct Kept {
    method: Method,
    uri: Uri,
    version: Version,
    fields: HeaderMap,
    body: Option<Replay>,
    /// Attempts made before the one under way.
    pub(super) attempt: u32,
}

/// Copies that are not in use. A request that is sent once only, as most are, then costs no allocation more than one
/// that may be sent only once.
#[derive(Debug, Default)]
#[expect(
    clippy::vec_box,
    reason = "given out as they are: a request's future keeps room for a pointer only"
)]
pub struct Spare(Mutex<Vec<Box<Kept>>>);

impl Spare {
    /// Keeps a copy of a request. `None` if its body says that it is longer than `max_bytes`.
    pub(super) fn keep(
        &self,
        request: &mut Request<Body>,
        max_bytes: usize,
        memory: &Memory,
    ) -> Option<Box<Kept>> {
        let body = Replay::take(request.body_mut(), max_bytes, memory)?;
        *request.body_mut() = body.copy().unwrap_or_default();
        let mut kept = self.lock().pop().unwrap_or_default();
        kept.method.clone_from(request.method());
        kept.uri.clone_from(request.uri());
        kept.version = request.version();
        copy(request.headers(), &mut kept.fields);
        kept.body = Some(body);
        kept.attempt = 0;
        Some(kept)
    }

    /// Takes a copy back that nobody needs any more.
    pub(super) fn give_back(&self, mut kept: Box<Kept>) {
        kept.body = None;
        kept.fields.clear();
        let mut spare = self.lock();
        if spare.len() < MAX_SPARE {
            spare.push(kept);
        }
    }

    #[expect(clippy::vec_box, reason = "as above")]
    fn lock(&self) -> MutexGuard<'_, Vec<Box<Kept>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Makes the request again what it was. `false` if its body is no longer whole.
    pub(super) fn restore(&self, request: &mut Request<Body>) -> bool {
        let Some(body) = self.body.as_ref().and_then(Replay::copy) else {
            return false;
        };
        let mut again = Request::new(body);
        again.method_mut().clone_from(&self.method);
        again.uri_mut().clone_from(&self.uri);
        *again.version_mut() = self.version;
        copy(&self.fields, again.headers_mut());
        *request = again;
        true
    }

    /// Whether its body is whole.
    pub(super) fn is_whole(&self) -> bool {
        self.body.as_ref().is_some_and(Replay::is_whole)
    }
}

/// Copies fields into a map that has its memory already.
fn copy(from: &HeaderMap, to: &mut HeaderMap) {
    to.clear();
    for (name, value) in from {
        to.append(name, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_kept_request_is_the_same_each_time() {
        let (spare, memory) = (Spare::default(), Memory::new(100));
        for body in ["one", "two"] {
            let mut request = Request::post("/path?query")
                .header("x-a", "1")
                .header("x-a", "2")
                .body(Body::Full(body.into()))
                .unwrap();
            let kept = spare.keep(&mut request, 10, &memory).unwrap();
            for _ in 0..2 {
                assert!(kept.restore(&mut request));
                assert_eq!(request.uri(), "/path?query");
                assert_eq!(request.headers().get_all("x-a").iter().count(), 2);
                let again = std::mem::take(request.body_mut());
                assert_eq!(again.collect().await.unwrap().to_bytes(), body);
            }
            spare.give_back(kept);
        }
    }

    #[test]
    fn a_request_that_is_too_long_stays_as_it_is() {
        let mut request = Request::new(Body::Full("long".into()));
        assert!(
            Spare::default()
                .keep(&mut request, 3, &Memory::new(100))
                .is_none()
        );
        assert!(matches!(request.body(), Body::Full(_)));
    }
}
