//! Where a service of the control plane is: the addresses of its name, asked of DNS again when they expire.
//!
//! SRV first (RFC 2782), as a headless Service answers: the target's first label is a pod's address, spelled with
//! dashes. Without such records, A and AAAA with the configured port. `localhost` and addresses need no DNS.

use std::future::{Future, pending};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, Record};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::config::{ControlAddr, DnsLifetime, Host, HostPort};
use crate::control::metrics::DnsMetrics;
use crate::control::waits::{Waits, backoff};
use crate::error::chain;

/// No answer, good or bad, is asked for again sooner.
const LEAST: Duration = Duration::from_secs(5);

/// A name that does not exist yet is asked for again by then, whatever its zone says.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(60);

/// How long a lookup may take, the search list and the servers that do not answer included.
const LOOKUP: Duration = Duration::from_secs(15);

/// Addresses taken from an answer.
const MAX_ADDRESSES: usize = 1_000;

/// Why the addresses of a name are not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the name servers of this host can't be read (/etc/resolv.conf)")]
    Servers(#[source] NetError),
    #[error("looking up {0}")]
    Lookup(HostPort, #[source] NetError),
    #[error("{0} has no address")]
    Empty(HostPort),
}

/// What is asked, and how often.
pub(crate) struct Names {
    addr: HostPort,
    lifetime: DnsLifetime,
    waits: Waits,
    metrics: DnsMetrics,
}

/// What DNS said.
struct Answer {
    addresses: Vec<SocketAddr>,
    lifetime: Duration,
}

impl Names {
    pub(crate) fn new(addr: &ControlAddr, metrics: DnsMetrics) -> Self {
        Self {
            addr: addr.addr.clone(),
            lifetime: addr.dns,
            waits: Waits::new(backoff(&addr.connect.backoff)),
            metrics,
        }
    }

    /// Keeps the addresses current, for ever. `again` asks before they expire: none of them answers. What was known
    /// last stays while DNS fails or says that there is nothing.
    pub(crate) async fn follow(
        mut self,
        resolver: impl Fn() -> Result<TokioResolver, Error>,
        addresses: &watch::Sender<Vec<SocketAddr>>,
        again: &Notify,
    ) {
        let name = match &self.addr.host {
            Host::Ip(ip) => return only(addresses, SocketAddr::new(*ip, self.addr.port)).await,
            Host::Name { .. } if self.addr.is_loopback() => {
                let localhost = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.addr.port);
                return only(addresses, localhost).await;
            }
            Host::Name { name, absolute } => format!("{name}{}", if *absolute { "." } else { "" }),
        };
        let mut servers = None;
        loop {
            let asked = match &servers {
                Some(servers) => self.resolve(servers, &name).await,
                None => match resolver() {
                    Ok(fresh) => self.resolve(servers.insert(fresh), &name).await,
                    Err(e) => Err(e),
                },
            };
            let wait = match asked {
                Ok(answer) => {
                    self.waits.reset();
                    publish(addresses, answer.addresses);
                    answer.lifetime
                }
                Err(e) => {
                    warn!(error = %chain(&e), "the control plane is not found; what was known stays");
                    // The next attempt may find other servers in the file.
                    servers = None;
                    negative(&e).unwrap_or_else(|| self.waits.next())
                }
            };
            pause(wait, again).await;
        }
    }

    async fn resolve(&self, servers: &TokioResolver, name: &str) -> Result<Answer, Error> {
        let failed = |e| Error::Lookup(self.addr.clone(), e);
        match bounded(servers.srv_lookup(name)).await {
            Ok(found) => {
                if let Some(answer) = self.answer(found.answers(), service) {
                    self.metrics.srv.found.inc();
                    return Ok(answer);
                }
            }
            Err(error) => debug!(name, %error, "no SRV record"),
        }
        self.metrics.srv.missing.inc();
        let found = bounded(servers.lookup_ip(name)).await;
        let address = |data: &RData| Some(SocketAddr::new(data.ip_addr()?, self.addr.port));
        let answer = found.map(|found| self.answer(found.as_lookup().answers(), address));
        let count = match &answer {
            Ok(Some(_)) => &self.metrics.address.found,
            Ok(None) | Err(_) => &self.metrics.address.missing,
        };
        count.inc();
        answer
            .map_err(failed)?
            .ok_or_else(|| Error::Empty(self.addr.clone()))
    }

    /// The addresses in the records; `None` without one. They live as long as the one that expires first.
    fn answer(&self, records: &[Record], address: impl Fn(&RData) -> Option<SocketAddr>) -> Option<Answer> {
        let found = records
            .iter()
            .filter_map(|record| Some((address(&record.data)?, record.ttl)));
        let (mut addresses, lifetimes): (Vec<_>, Vec<_>) = found.take(MAX_ADDRESSES).unzip();
        addresses.sort_unstable();
        addresses.dedup();
        let lifetime = Duration::from_secs(lifetimes.into_iter().min()?.into());
        let lifetime = lifetime.max(self.lifetime.min.unwrap_or_default());
        let lifetime = lifetime
            .min(self.lifetime.max.unwrap_or(Duration::MAX))
            .max(LEAST);
        Some(Answer { addresses, lifetime })
    }
}

/// The resolver that this host is configured for. It caches nothing: expiry is watched here.
pub(crate) fn system() -> Result<TokioResolver, Error> {
    let mut builder = TokioResolver::builder_tokio().map_err(Error::Servers)?;
    let options = builder.options_mut();
    options.cache_size = 0;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build().map_err(Error::Servers)
}

/// The pod behind an SRV record. Port 0 and other spellings are none.
fn service(data: &RData) -> Option<SocketAddr> {
    let RData::SRV(srv) = data else { return None };
    let ip = pod(&srv.target)?;
    (srv.port != 0).then(|| SocketAddr::new(ip, srv.port))
}

/// The address in a target's first label: `10-1-2-3.…`, `2001-db8--1.…`.
fn pod(target: &Name) -> Option<IpAddr> {
    let label = std::str::from_utf8(target.iter().next()?).ok()?;
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6))
        .ok()
}

/// How long a name that does not exist is said not to (RFC 2308 §5), within our own bounds.
fn negative(e: &Error) -> Option<Duration> {
    match e {
        Error::Lookup(_, NetError::Dns(DnsError::NoRecordsFound(none))) => {
            let lifetime = Duration::from_secs(none.negative_ttl?.into());
            Some(lifetime.clamp(LEAST, LONGEST_NEGATIVE))
        }
        _ => None,
    }
}

async fn bounded<T>(lookup: impl Future<Output = Result<T, NetError>>) -> Result<T, NetError> {
    timeout(LOOKUP, lookup).await.unwrap_or(Err(NetError::Timeout))
}

async fn only(addresses: &watch::Sender<Vec<SocketAddr>>, addr: SocketAddr) {
    publish(addresses, vec![addr]);
    pending().await
}

fn publish(addresses: &watch::Sender<Vec<SocketAddr>>, fresh: Vec<SocketAddr>) {
    addresses.send_if_modified(|known| {
        let changed = *known != fresh;
        *known = fresh;
        changed
    });
}

/// Waits for the expiry, or for somebody who can't reach any of the addresses; never shorter than the least.
async fn pause(wait: Duration, again: &Notify) {
    sleep(wait.min(LEAST)).await;
    tokio::select! {
        () = sleep(wait.saturating_sub(LEAST)) => {}
        () = again.notified() => {}
    }
}
