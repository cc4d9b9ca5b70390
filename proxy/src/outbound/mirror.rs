//! Copies of requests for mirrors: they are sent when all of the request is there, and nobody waits for what comes of them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::header::EXPECT;
use http::{Method, Request};
use http_body_util::BodyExt;
use outrigger_policy::name::ResourceRef;
use outrigger_policy::route::filter::{self, Filtered, Ratio};
use tokio::time::{sleep, timeout};

use crate::error::{self, Fault, Kind, Side};
use crate::exchange::{Exchange, Permit};
use crate::http::body::Body;
use crate::http::headers;
use crate::http::interim::Interims;
use crate::http::replay::{Lost, Replay};
use crate::http::upgrade::Tunnels;
use crate::outbound::backends::Backend;
use crate::outbound::dialled::Dialled;
use crate::outbound::dispatch::{self, Leg, Prepared};
use crate::outbound::memory::Memories;
use crate::outbound::metrics::{Mirrored, Outcome};

/// Bytes of a body that is mirrored: all of it is kept until it has been sent.
const MAX_BODY: usize = 1 << 20;

/// How long a copy may take, from the end of its request to the end of its answer.
const LONGEST: Duration = Duration::from_secs(30);

/// The mirrors of a rule.
#[derive(Debug)]
pub struct Mirrors {
    route: Arc<ResourceRef>,
    mirrors: Vec<Arc<Mirror>>,
    memories: Memories,
    fail_fast: Duration,
}

/// A mirror: a backend that gets copies of a share of the requests.
#[derive(Debug)]
pub struct Mirror {
    backend: Backend,
    ratio: Ratio,
    report: Mirrored,
}

/// A copy that may be made, until its answer has ended.
#[derive(Debug)]
struct Due {
    mirror: Arc<Mirror>,
    permit: Permit,
}

/// What the copies of one request have in common.
#[derive(Debug)]
struct Common {
    route: Arc<ResourceRef>,
    dialled: Dialled,
    /// The length of the path prefix that the rule matched, if it matched one.
    prefix: Option<usize>,
    fail_fast: Duration,
    tunnels: Tunnels,
}

impl Mirror {
    /// A mirror that gets this share of the requests.
    pub fn new(backend: Backend, ratio: Ratio, report: Mirrored) -> Arc<Self> {
        Arc::new(Self {
            backend,
            ratio,
            report,
        })
    }
}

impl Mirrors {
    /// The mirrors of a rule of this route.
    pub fn new(
        route: Arc<ResourceRef>,
        mirrors: Vec<Arc<Mirror>>,
        memories: Memories,
        fail_fast: Duration,
    ) -> Self {
        Self {
            route,
            mirrors,
            memories,
            fail_fast,
        }
    }

    /// Copies a request for those mirrors whose share it falls into. It goes on as if nothing had happened: it waits for
    /// none of them, and what can't be copied within the bounds is not.
    pub(super) fn copy(
        &self,
        request: &mut Request<Body>,
        is_tunnel: bool,
        prefix: Option<usize>,
        dialled: &Dialled,
        tunnels: &Tunnels,
    ) {
        let is_tunnel = is_tunnel || request.method() == Method::CONNECT;
        let due: Vec<_> = self
            .mirrors
            .iter()
            .filter_map(|mirror| self.due(mirror, is_tunnel))
            .collect();
        if due.is_empty() {
            return;
        }
        let Some(replay) = Replay::take(request.body_mut(), MAX_BODY, &self.memories.mirrors) else {
            return lost(&due, Lost::TooLong);
        };
        *request.body_mut() = replay.copy().unwrap_or_default();
        let common = Common {
            route: self.route.clone(),
            dialled: dialled.clone(),
            prefix,
            fail_fast: self.fail_fast,
            tunnels: tunnels.clone(),
        };
        tokio::spawn(send_all(due, head(request), replay, common));
    }

    /// The copy that this mirror gets, if it is to get one and may.
    fn due(&self, mirror: &Arc<Mirror>, is_tunnel: bool) -> Option<Due> {
        if !mirror.ratio.applies(&mut fastrand::Rng::new()) {
            return None;
        }
        if is_tunnel {
            mirror.report.count(Outcome::Tunnel);
            return None;
        }
        let Ok(permit) = self.memories.copies.enter() else {
            mirror.report.count(Outcome::Busy);
            return None;
        };
        let mirror = mirror.clone();
        Some(Due { mirror, permit })
    }
}

/// What a request says before its body. The body's bytes are all there when a copy is sent: it need not ask first.
fn head(request: &Request<Body>) -> Request<()> {
    let mut head = Request::new(());
    head.method_mut().clone_from(request.method());
    head.uri_mut().clone_from(request.uri());
    *head.version_mut() = request.version();
    head.headers_mut().clone_from(request.headers());
    head.headers_mut().remove(EXPECT);
    head
}

fn lost(due: &[Due], why: Lost) {
    let outcome = match why {
        Lost::TooLong => Outcome::TooLong,
        Lost::Full => Outcome::Full,
        Lost::BrokenOff => Outcome::BrokenOff,
    };
    for copy in due {
        copy.mirror.report.count(outcome);
    }
}

/// Sends the copies of one request, when all of it has been read.
async fn send_all(due: Vec<Due>, head: Request<()>, replay: Replay, common: Common) {
    if let Err(why) = replay.whole().await {
        return lost(&due, why);
    }
    let sends = due.into_iter().map(|Due { mirror, permit }| {
        let body = replay.copy().unwrap_or_default();
        let request = head.clone().map(|()| body);
        let common = &common;
        async move {
            let sent = timeout(LONGEST, mirror.send(request, permit, common)).await;
            let sent = sent.unwrap_or_else(|_elapsed| {
                let text = format!("no complete answer within {LONGEST:?}");
                Err(Fault::because(Kind::Reset, Side::Server, text))
            });
            mirror.report(sent, &common.route);
        }
    });
    join_all(sends).await;
}

impl Mirror {
    /// Sends a copy, and throws the answer away when it has been read.
    async fn send(&self, mut request: Request<Body>, permit: Permit, common: &Common) -> Result<(), Fault> {
        let mut exchange = Exchange::open(permit);
        self.filter(&mut request, common.prefix).await?;
        let leg = Leg {
            route: &common.route,
            backend: &self.backend,
            fail_fast: common.fail_fast,
            dialled: &common.dialled,
            interims: &Interims::default(),
        };
        let mut prepared = Prepared::default();
        let sent = dispatch::send(&leg, &mut prepared, &mut request, &mut exchange, &common.tunnels);
        let response = match sent.await {
            Ok(response) => exchange.track(response),
            Err(fault) => {
                exchange.retried_after(&fault);
                return Err(fault);
            }
        };
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame.map_err(|error| Fault::because(Kind::Reset, Side::Server, error))?;
        }
        Ok(())
    }

    /// Does what the mirror's own filters say; those of the rule have been applied.
    async fn filter(&self, request: &mut Request<Body>, prefix: Option<usize>) -> Result<(), Fault> {
        if self.backend.filters.is_empty() {
            return Ok(());
        }
        let authority = headers::authority(request).to_owned();
        let (mut head, body) = std::mem::take(request).into_parts();
        let rng = &mut fastrand::Rng::new();
        let filtered = filter::request(&self.backend.filters, &mut head, &authority, prefix, rng);
        *request = Request::from_parts(head, body);
        match filtered {
            Filtered::Pass(wait) => {
                sleep(wait).await;
                Ok(())
            }
            Filtered::Inapplicable(why) => Err(Fault::because(Kind::Policy, Side::Control, why)),
            Filtered::Fail(_) | Filtered::Redirect { .. } => {
                let why = "a filter of the mirror answers in its place";
                Err(Fault::because(Kind::Policy, Side::Control, why))
            }
        }
    }

    fn report(&self, sent: Result<(), Fault>, route: &ResourceRef) {
        match sent {
            Ok(()) => self.report.count(Outcome::Answered),
            Err(fault) => {
                self.report.count(Outcome::Failed);
                let (mirror, error) = (&self.backend.meta, error::chain(&fault));
                tracing::debug!(%route, %mirror, error, "a mirror did not answer");
            }
        }
    }
}
