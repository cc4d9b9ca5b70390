//! Certificates: asked for, checked, renewed.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use outrigger_policy::name::{DnsName, Identity};
use outrigger_proto::identity::{CertifyRequest, CertifyResponse};
use rcgen::{CertificateSigningRequestParams, date_time_ymd};
use rustls_pki_types::CertificateSigningRequestDer;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Code;

use crate::config;
use crate::control::identity::grpc::CertifyError;
use crate::control::identity::renewal::{Bounds, renew};
use crate::control::identity::{StartError, certified, start};
use crate::control::testing::{Fake, HTTP2, address, metrics};
use crate::live::Live;
use crate::telemetry::Registry;
use crate::tls::Credentials;
use crate::tls::testing::Ca;

const WEB: &str = "web.default.serviceaccount.identity.linkerd.cluster.local";
const HOUR: Duration = Duration::from_secs(3600);

/// A directory of this test's own, with a token in it.
fn directory(test: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("outrigger-identity-{}-{test}", std::process::id()));
    let _absent = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("token"), "first").unwrap();
    dir
}

fn configuration(fake: &Fake, ca: &Ca, dir: &std::path::Path) -> config::Identity {
    config::Identity {
        trust_anchors: config::TrustAnchors(vec![ca.der()]),
        id: Identity::parse(WEB).unwrap(),
        server_name: DnsName::parse(WEB).unwrap(),
        dir: dir.to_owned(),
        token_file: dir.join("token"),
        service: address(fake.addr, None),
        min_refresh: Duration::from_millis(10),
        max_refresh: 24 * HOUR,
    }
}

/// What a good identity service answers.
fn issue(ca: &Ca, request: &CertifyRequest) -> CertifyResponse {
    let der = CertificateSigningRequestDer::from(&request.certificate_signing_request[..]);
    let asked = CertificateSigningRequestParams::from_der(&der).unwrap();
    CertifyResponse {
        leaf_certificate: ca.sign(&asked.public_key, &[&request.identity], |_| {}).to_vec(),
        intermediate_certificates: Vec::new(),
        valid_until: Some((SystemTime::now() + HOUR).into()),
    }
}

#[tokio::test]
async fn a_proxy_becomes_certified_for_what_it_asked() {
    let (ca, dir) = (Ca::new("ca"), directory("certified"));
    let mut fake = Fake::start().await;
    let config = configuration(&fake, &ca, &dir);
    let credentials = start(&config, &HTTP2, &metrics(), &Handle::current()).unwrap();
    assert!(!credentials.get().is_certified());
    let call = fake.call("/Certify").await;
    let request: CertifyRequest = call.request();
    assert_eq!((&*request.identity, &*request.token), (WEB, &b"first"[..]));
    call.reply(&issue(&ca, &request)).await;
    certified(&credentials).await.unwrap();
    assert_eq!(credentials.get().identity(), &Identity::parse(WEB).unwrap());
}

#[tokio::test]
async fn each_attempt_reads_the_token_again() {
    let (ca, dir) = (Ca::new("ca"), directory("token"));
    let mut fake = Fake::start().await;
    let config = configuration(&fake, &ca, &dir);
    let credentials = start(&config, &HTTP2, &metrics(), &Handle::current()).unwrap();
    let call = fake.call("/Certify").await;
    std::fs::write(dir.join("token"), "second").unwrap();
    call.refuse(Code::Unavailable);
    let call = fake.call("/Certify").await;
    let request: CertifyRequest = call.request();
    assert_eq!(&*request.token, b"second");
    call.reply(&issue(&ca, &request)).await;
    certified(&credentials).await.unwrap();
}

#[tokio::test]
async fn a_bad_answer_is_refused_and_asked_for_again() {
    let (ca, other, dir) = (Ca::new("ca"), Ca::new("other"), directory("bad"));
    let mut fake = Fake::start().await;
    let config = configuration(&fake, &ca, &dir);
    let credentials = start(&config, &HTTP2, &metrics(), &Handle::current()).unwrap();
    let strangers_key = ca.leaf(&[WEB], |_| {}).certificate.to_vec();
    type Spoil<'a> = &'a dyn Fn(&mut CertifyResponse, &CertifyRequest);
    let spoiled: [Spoil<'_>; 8] = [
        &|r, _| r.valid_until = None,
        &|r, _| r.valid_until = Some((SystemTime::now() - HOUR).into()),
        &|r, _| r.valid_until.as_mut().unwrap().seconds = i64::MIN,
        &|r, _| r.leaf_certificate = b"garbage".to_vec(),
        &|r, _| r.leaf_certificate = Vec::new(),
        &|r, _| r.leaf_certificate = strangers_key.clone(),
        &|r, request| *r = issue(&other, request),
        &|r, _| r.intermediate_certificates = vec![Vec::new(); 17],
    ];
    for spoil in spoiled {
        let call = fake.call("/Certify").await;
        let request = call.request();
        let mut response = issue(&ca, &request);
        spoil(&mut response, &request);
        call.reply(&response).await;
    }
    let call = fake.call("/Certify").await;
    assert!(!credentials.get().is_certified());
    let request = call.request();
    call.reply(&issue(&ca, &request)).await;
    certified(&credentials).await.unwrap();
}

#[tokio::test]
async fn a_certificate_for_somebody_else_or_of_another_time_is_refused() {
    let (ca, dir) = (Ca::new("ca"), directory("names"));
    let mut fake = Fake::start().await;
    let config = configuration(&fake, &ca, &dir);
    let credentials = start(&config, &HTTP2, &metrics(), &Handle::current()).unwrap();
    for (name, year) in [("other.test", 4000), (WEB, 2001)] {
        let call = fake.call("/Certify").await;
        let request: CertifyRequest = call.request();
        let der = CertificateSigningRequestDer::from(&request.certificate_signing_request[..]);
        let asked = CertificateSigningRequestParams::from_der(&der).unwrap();
        let leaf = ca.sign(&asked.public_key, &[name], |p| {
            p.not_after = date_time_ymd(year, 1, 1)
        });
        let leaf_certificate = leaf.to_vec();
        call.reply(&CertifyResponse {
            leaf_certificate,
            ..issue(&ca, &request)
        })
        .await;
    }
    let _third = fake.call("/Certify").await;
    assert!(!credentials.get().is_certified());
}

#[tokio::test]
async fn a_certificate_that_nobody_takes_any_more_does_not_prevent_its_renewal() {
    // The service would refuse the proxy's certificate, as it would an expired one.
    let (old, new, dir) = (Ca::new("old"), Ca::new("new"), directory("stale"));
    let name = "linkerd-identity.linkerd.serviceaccount.identity.linkerd.cluster.local";
    let mut fake = Fake::at("127.0.0.1:0".parse().unwrap(), Some(new.credentials(name))).await;
    let mut config = configuration(&fake, &old, &dir);
    config.trust_anchors.0.push(new.der());
    config.service = address(fake.addr, Some(name));
    config.max_refresh = Duration::from_millis(10);
    let _credentials = start(&config, &HTTP2, &metrics(), &Handle::current()).unwrap();
    for _ in 0..2 {
        let call = fake.call("/Certify").await;
        let request = call.request();
        call.reply(&issue(&old, &request)).await;
    }
}

#[tokio::test]
async fn without_a_token_nothing_is_started() {
    let (ca, dir) = (Ca::new("ca"), directory("no-token"));
    let fake = Fake::start().await;
    let config = configuration(&fake, &ca, &dir);
    std::fs::write(dir.join("token"), "").unwrap();
    let refused = start(&config, &HTTP2, &metrics(), &Handle::current());
    assert!(matches!(refused, Err(StartError::Token(..))));
    std::fs::remove_file(dir.join("token")).unwrap();
    let refused = start(&config, &HTTP2, &metrics(), &Handle::current());
    assert!(matches!(refused, Err(StartError::Token(..))));
}

/// Renewal against an issuer that the test plays, while time is paused: what is asked and when, since the start.
struct Renewal {
    ca: Ca,
    began: Instant,
    epoch: SystemTime,
    asked: mpsc::Receiver<Duration>,
    answers: mpsc::Sender<Result<Credentials, CertifyError>>,
    live: Live<Credentials>,
    registry: Registry,
}

impl Renewal {
    fn start(min: Duration, max: Duration) -> Self {
        let ca = Ca::new("ca");
        let (began, epoch) = (Instant::now(), SystemTime::now());
        let (ask, asked) = mpsc::channel(1);
        let (answers, answered) = mpsc::channel(1);
        let answered = std::sync::Arc::new(tokio::sync::Mutex::new(answered));
        let certify = move || {
            let (ask, answered) = (ask.clone(), answered.clone());
            async move {
                ask.send(began.elapsed()).await.unwrap();
                answered.lock().await.recv().await.unwrap()
            }
        };
        let (id, name) = (Identity::parse(WEB).unwrap(), DnsName::parse(WEB).unwrap());
        let (publisher, live) = Live::new(Credentials::anchors_only(&ca.anchors(), id, name).unwrap());
        let mut registry = Registry::new(HOUR);
        let metrics = crate::control::Metrics::register(&mut registry).certificate();
        let clock = move || epoch + began.elapsed();
        let pause = Duration::from_millis(100);
        tokio::spawn(renew(
            Bounds { min, max },
            pause,
            clock,
            certify,
            publisher,
            metrics,
        ));
        Self {
            ca,
            began,
            epoch,
            asked,
            answers,
            live,
            registry,
        }
    }

    /// Issues a certificate that lives for `life` from now.
    async fn issue(&self, life: Duration) {
        let expiry = self.epoch + self.began.elapsed() + life;
        let fresh = self
            .ca
            .leaf(&[WEB], |_| {})
            .credentials_until(&self.ca.anchors(), WEB, expiry);
        self.answers.send(Ok(fresh.unwrap())).await.unwrap();
    }

    async fn fail(&self) {
        self.answers.send(Err(CertifyError::Timeout)).await.unwrap();
    }

    /// Seconds from the start to the next request.
    async fn asked_after(&mut self) -> f64 {
        self.asked.recv().await.unwrap().as_secs_f64()
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_at_seventy_percent_of_its_life() {
    let mut renewal = Renewal::start(Duration::from_secs(10), 24 * HOUR);
    assert_eq!(renewal.asked_after().await.round(), 0.0);
    renewal.issue(10 * HOUR).await;
    assert_eq!(renewal.asked_after().await.round(), 7.0 * 3600.0);
    let old = renewal.live.get().expiry().unwrap();
    renewal.issue(10 * HOUR).await;
    assert!(renewal.live.changed().await.is_ok());
    assert_eq!(renewal.asked_after().await.round(), 14.0 * 3600.0);
    assert!(renewal.live.get().expiry().unwrap() > old);
}

#[tokio::test(start_paused = true)]
async fn the_time_between_two_certificates_stays_within_its_bounds() {
    let mut renewal = Renewal::start(Duration::from_secs(10), 24 * HOUR);
    renewal.asked_after().await;
    renewal.issue(Duration::from_secs(2)).await;
    let second = renewal.asked_after().await;
    assert_eq!(second.round(), 10.0);
    renewal.issue(1000 * HOUR).await;
    assert_eq!((renewal.asked_after().await - second).round(), 24.0 * 3600.0);
}

#[tokio::test(start_paused = true)]
async fn failures_are_tried_again_with_growing_pauses_and_keep_the_certificate() {
    let mut renewal = Renewal::start(Duration::from_secs(10), 24 * HOUR);
    renewal.asked_after().await;
    renewal.issue(10 * HOUR).await;
    let (mut before, mut pauses) = (renewal.asked_after().await, Vec::new());
    for _ in 0..12 {
        renewal.fail().await;
        let now = renewal.asked_after().await;
        pauses.push(now - before);
        before = now;
    }
    assert!(
        pauses[0] < 0.3 && pauses.iter().all(|pause| *pause < 301.0),
        "{pauses:?}"
    );
    assert!(pauses[10] > 60.0, "{pauses:?}");
    assert!(renewal.live.get().is_certified());
    let text = renewal.registry.encode(std::time::Instant::now());
    assert!(
        text.contains("control_identity_cert_refreshes_total{result=\"error\"} 12"),
        "{text}"
    );
    assert!(
        text.contains("control_identity_cert_refreshes_total{result=\"ok\"} 1"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_certificate_the_pauses_stay_short() {
    let mut renewal = Renewal::start(Duration::from_secs(10), 24 * HOUR);
    let mut before = renewal.asked_after().await;
    for _ in 0..20 {
        renewal.fail().await;
        let now = renewal.asked_after().await;
        assert!(now - before < 10.1);
        before = now;
    }
}
