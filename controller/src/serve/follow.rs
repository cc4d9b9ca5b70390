//! Streams that follow the cluster: each sends what its question answers now, and again when that changes.
//!
//! Nothing is queued: a stream that is not read holds no message, and its reader then gets the newest answer only.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream;
use tokio::sync::watch;
use tonic::Status;

use crate::compile::refusal::Refusal;
use crate::index::cluster::Cluster;

/// What a stream sends next, given what it answered before.
type Messages<A, M> = fn(before: Option<&A>, now: &A) -> Result<Vec<M>, Status>;

/// A stream of messages for one question.
struct Follow<F, A, M> {
    cluster: watch::Receiver<Arc<Cluster>>,
    answer: F,
    before: A,
    messages: Messages<A, M>,
    pending: VecDeque<M>,
}

/// Answers a question for as long as the client listens.
///
/// A question that has no answer at first is refused; one that loses its answer later ends the stream with the
/// reason.
pub(super) fn follow<F, A, M>(
    mut cluster: watch::Receiver<Arc<Cluster>>,
    answer: F,
    messages: Messages<A, M>,
) -> Result<impl Stream<Item = Result<M, Status>> + Send + 'static, Status>
where
    F: Fn(&Cluster) -> Result<A, Refusal> + Send + 'static,
    A: PartialEq + Send + Sync + 'static,
    M: Send + 'static,
{
    let current = cluster.borrow_and_update().clone();
    let before = answer(&current).map_err(status)?;
    let pending = messages(None, &before)?.into();
    let follow = Follow {
        cluster,
        answer,
        before,
        messages,
        pending,
    };
    Ok(stream::unfold(Some(follow), |follow| async {
        let mut follow = follow?;
        match follow.next().await {
            Ok(message) => Some((Ok(message), Some(follow))),
            Err(status) => Some((Err(status), None)),
        }
    }))
}

impl<F, A, M> Follow<F, A, M>
where
    F: Fn(&Cluster) -> Result<A, Refusal>,
    A: PartialEq,
{
    async fn next(&mut self) -> Result<M, Status> {
        loop {
            if let Some(message) = self.pending.pop_front() {
                return Ok(message);
            }
            if self.cluster.changed().await.is_err() {
                // Nothing follows the manifests any more: what was said last stays. Ending the stream would only
                // bring the client back, at once and again.
                std::future::pending::<()>().await;
            }
            let cluster = self.cluster.borrow_and_update().clone();
            let now = (self.answer)(&cluster).map_err(status)?;
            if now != self.before {
                self.pending.extend((self.messages)(Some(&self.before), &now)?);
                self.before = now;
            }
        }
    }
}

/// The gRPC status of a refusal.
pub(super) fn status(refusal: Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::Invalid(_) => Status::invalid_argument(text),
        Refusal::NotFound(_) => Status::not_found(text),
        Refusal::Ambiguous(_) => Status::failed_precondition(text),
    }
}
