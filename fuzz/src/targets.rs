//! The fuzz targets: plain functions that panic when a promise is broken. `proxy/tests/corpus.rs` runs them too.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Debug;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use bytes::BytesMut;
use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use outrigger_http2::{client, server};
use outrigger_policy::hint;
use outrigger_policy::name::{DnsName, Identity, NameAddr, ResourceRef};
use outrigger_policy::overrides::Overrides;
use outrigger_policy::route::header::{QueryMatch, ValueMatch};
use outrigger_policy::route::host::HostMatch;
use outrigger_policy::route::path::{self, PathMatch};
use outrigger_policy::route::request::RequestMatch;
use outrigger_policy::route::{Head, Route, RouteTable, Rule};
use outrigger_policy::timeouts::grpc_timeout;
use outrigger_proto::decode::{self, DecodeError};
use outrigger_proto::destination::update::Update;
use outrigger_proto::{destination, encode, inbound, outbound};
use outrigger_proxy::config::Config;
use outrigger_proxy::config::env::Errors;
use outrigger_proxy::gateway::forwarded;
use outrigger_proxy::http::h2::frames::{Frames, PREFACE};
use outrigger_proxy::net::detect::http::{self as detect_http, Preface};
use outrigger_proxy::net::detect::tls::{self as detect_tls, Hello};
use outrigger_proxy::net::header::{self, Decoded};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

// The same file, whatever this one is a module of.
#[path = "http1.rs"]
pub mod http1;

/// A name of a target, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target. A name is that of a directory of `seeds/` as well.
pub const ALL: [Target; 17] = [
    ("client_hello", client_hello),
    ("http_preface", http_preface),
    ("http2_frames", http2_frames),
    ("http2_connection", http2_connection),
    ("http1_request", http1::request),
    ("http1_answer", http1::answer),
    ("transport_header", transport_header),
    ("identity", identity),
    ("route_match", route_match),
    ("path_ambiguity", path_ambiguity),
    ("forwarded", forwarded),
    ("overrides", overrides),
    ("outbound_policy", outbound_policy),
    ("inbound_policy", inbound_policy),
    ("endpoint_update", endpoint_update),
    ("profile", profile),
    ("configuration", configuration),
];

/// A path that can be read in one way only has the same segments for a reader that cuts parameters off, decodes, takes
/// backslashes for slashes and resolves dots, as for one that only decodes.
pub fn path_ambiguity(bytes: &[u8]) {
    let Ok(path) = std::str::from_utf8(bytes) else {
        return;
    };
    if path::ambiguity(path).is_some() {
        return;
    }
    let name = |segment: &str| decoded(segment.split(';').next().unwrap_or_default().as_bytes());
    let plain: Vec<Vec<u8>> = path.split('/').map(name).collect();
    let whole = plain.join(&b'/');
    let mut resolved: Vec<&[u8]> = Vec::new();
    for segment in whole.split(|byte| matches!(byte, b'/' | b'\\')) {
        match segment {
            b"" | b"." => {}
            b".." => drop(resolved.pop()),
            segment => resolved.push(segment),
        }
    }
    let plain: Vec<&[u8]> = plain
        .iter()
        .map(Vec::as_slice)
        .filter(|s| !s.is_empty())
        .collect();
    assert_eq!(resolved, plain, "{path:?}");
}

/// Percent-decoded once (RFC 3986 §2.1); what is no escape stays.
fn decoded(bytes: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let (mut decoded, mut at) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        let escape = (digit(bytes.get(at + 1)), digit(bytes.get(at + 2)));
        match (byte, escape) {
            (b'%', (Some(high), Some(low))) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    decoded
}

/// Whatever others have written into `Forwarded`, one line each after that of an identity: what a gateway adds is found
/// again, and it is found nowhere else.
pub fn forwarded(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n').take(8);
    let id = std::str::from_utf8(lines.next().unwrap_or_default());
    let Ok(Ok(id)) = id.map(Identity::parse) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for line in lines.filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append(FORWARDED, line);
    }
    forwarded::by(&headers, id.as_str());
    let own = forwarded::element(id.as_str(), "client", "host");
    let mut alone = HeaderMap::new();
    alone.append(
        FORWARDED,
        HeaderValue::from_str(&own).expect("identities are printable"),
    );
    assert!(forwarded::by(&alone, id.as_str()));
    assert!(id.as_str() == "client" || !forwarded::by(&alone, "client"));
    headers.extend(alone);
    assert!(forwarded::by(&headers, id.as_str()));
}

/// What peers say about retries and timeouts, one header in each line, is read to its end and taken out, and stays
/// within the limits.
pub fn overrides(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n').take(32) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    grpc_timeout(&headers);
    for status in [StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE] {
        hint::wait(status, &headers, SystemTime::UNIX_EPOCH);
    }
    let overrides = Overrides::take(&mut headers);
    assert_eq!(Overrides::take(&mut headers), Overrides::default());
    let retry = overrides.retry(None);
    assert_eq!(retry.is_some(), overrides.retries());
    assert!(retry.is_none_or(|retry| retry.max_retries <= 100));
}

/// A decision about TLS never changes with more bytes, and is made at the limit.
pub fn client_hello(bytes: &[u8]) {
    let decided = settles(
        bytes,
        detect_tls::client_hello,
        &Hello::NeedMore,
        detect_tls::LIMIT,
    );
    if let Hello::Tls { sni: Some(name) } = decided {
        assert_eq!(DnsName::parse(name.as_str()), Ok(name));
    }
}

/// A decision about HTTP never changes with more bytes, and is made at the limit.
pub fn http_preface(bytes: &[u8]) {
    settles(
        bytes,
        detect_http::preface,
        &Preface::NeedMore,
        detect_http::LIMIT,
    );
}

/// The same frames are found however the stream is cut, and each takes the bytes of its head at least.
pub fn http2_frames(bytes: &[u8]) {
    let found = |chunk: usize| {
        let (mut frames, mut found) = (Frames::of_client(), Vec::new());
        for part in bytes.chunks(chunk.max(1)) {
            frames.walk(part, |frame| {
                found.push((frame.kind, frame.stream, frame.length, frame.look.to_vec()));
            });
        }
        (found, frames.is_between())
    };
    let whole = found(bytes.len());
    assert!(whole.0.len() <= bytes.len() / 9);
    for chunk in [1, 7, 10, 50] {
        assert_eq!(found(chunk), whole, "in pieces of {chunk}");
    }
}

/// Whatever a peer says, in whatever pieces: the connection ends when that has ended. The first byte says which side the
/// peer is, and how long the pieces are.
pub fn http2_connection(bytes: &[u8]) {
    let Some((how, said)) = bytes.split_first() else {
        return;
    };
    let piece = usize::from(how & 0x7f) + 1;
    let mut cx = Context::from_waker(Waker::noop());
    let ended = if *how < 0x80 {
        let said = [PREFACE, said].concat();
        pin!(serve(Tape { said, piece })).poll(&mut cx)
    } else {
        let said = said.to_vec();
        pin!(ask(Tape { said, piece })).poll(&mut cx)
    };
    assert!(ended.is_ready(), "it hangs");
}

/// Answers each request with as many bytes as it brings at once.
async fn serve(peer: Tape) -> Result<(), outrigger_http2::Error> {
    let mut connection = server::handshake(peer, &server::Config::default()).await?;
    let mut held = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    while let Some(accepted) = connection.accept().await {
        let mut accepted = accepted?;
        let head = Response::new(());
        if accepted.send.send_head(&head, accepted.recv.is_none()).is_ok()
            && let Some(recv) = &mut accepted.recv
            && let Poll::Ready(Some(Ok((mut data, ended)))) = recv.poll_data(&mut cx)
        {
            recv.release(data.len());
            let _not_all_perhaps = accepted.send.poll_send(&mut cx, &mut data, ended);
        }
        held.push(accepted);
        // Some go early, others when all is over.
        held.truncate(8);
    }
    Ok(())
}

/// Makes a few requests, and reads what comes of them.
async fn ask(peer: Tape) -> Result<(), outrigger_http2::Error> {
    let (mut opener, connection) = client::handshake(peer, &client::Config::default()).await?;
    let mut connection = pin!(connection);
    let request = Request::get("http://app/").body(()).expect("a request");
    let mut streams: Vec<_> = [true, false, true]
        .into_iter()
        .filter_map(|ended| opener.open(&request, ended).ok())
        .collect();
    let driven = connection.as_mut().await;
    let mut cx = Context::from_waker(Waker::noop());
    for (recv, _) in &mut streams {
        while let Poll::Ready(Ok(_)) = recv.poll_head(&mut cx) {}
        while let Poll::Ready(Some(Ok((data, _)))) = recv.poll_data(&mut cx) {
            recv.release(data.len());
        }
        let _perhaps = recv.poll_trailers(&mut cx);
    }
    driven
}

/// A peer that has said all that it says, and takes whatever it is told.
struct Tape {
    said: Vec<u8>,
    piece: usize,
}

impl AsyncRead for Tape {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.piece.min(self.said.len()).min(buf.remaining());
        buf.put_slice(&self.said[..count]);
        self.said.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tape {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A header that is accepted is encoded to one that is read as the same.
pub fn transport_header(bytes: &[u8]) {
    let Ok(decoded) = header::decode(bytes) else {
        return;
    };
    let Decoded::Complete(header, length) = decoded else {
        assert!(bytes.len() < header::LIMIT);
        return;
    };
    assert_eq!(header::decode(&bytes[..length - 1]), Ok(Decoded::NeedMore));
    let mut encoded = BytesMut::new();
    header.encode(&mut encoded);
    assert_eq!(
        header::decode(&encoded),
        Ok(Decoded::Complete(header, encoded.len()))
    );
}

/// An identity is read as the same from its own text, and so is the name of a service with its port.
pub fn identity(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Some(service) = NameAddr::parse(text) {
        assert_eq!(NameAddr::parse(&service.to_string()), Some(service));
    }
    let Ok(id) = Identity::parse(text) else { return };
    assert_eq!(Identity::parse(id.as_str()), Ok(id.clone()));
    if let Identity::Dns(name) = id {
        assert!(name.as_str().len() <= 253 && name.as_str().bytes().all(|b| !b.is_ascii_uppercase()));
    }
}

/// A route is found or not, never a panic; and there is always one where one takes everything.
///
/// The bytes are seven lines: pattern, prefix, host of a route; authority, path, query of a request; a value.
pub fn route_match(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let mut lines = text.splitn(7, '\n');
    let [pattern, prefix, name, host, path, query, value] =
        std::array::from_fn(|_| lines.next().unwrap_or(""));
    let mut matches = vec![RequestMatch {
        path: Some(PathMatch::Prefix(prefix.into())),
        query: vec![QueryMatch {
            name: "q".into(),
            value: ValueMatch::Exact(value.as_bytes().into()),
        }],
        ..RequestMatch::default()
    }];
    matches.extend(PathMatch::regex(pattern).ok().map(|path| RequestMatch {
        path: Some(path),
        ..RequestMatch::default()
    }));
    let meta = Arc::new(ResourceRef::of_default("fuzz"));
    let route = |hosts, then| Route {
        meta: meta.clone(),
        hosts,
        rules: vec![Rule {
            matches: matches.clone(),
            then,
        }],
    };
    let routes = vec![
        route(vec![HostMatch::exact(name)], "exact"),
        route(vec![HostMatch::suffix(name)], "suffix"),
        route(vec![], "any"),
    ];
    let mut table = RouteTable { routes };
    let headers = HeaderMap::new();
    let head = Head {
        host,
        method: &Method::GET,
        path,
        query: Some(query),
        headers: &headers,
    };
    let found = table.find(&head).map(|found| *found.then);
    table
        .routes
        .extend(RouteTable::catch_all(meta.clone(), "rest").routes);
    assert_eq!(
        table.find(&head).map(|found| *found.then),
        Some(found.unwrap_or("rest"))
    );
}

/// A policy that is accepted, and can be written again, is read as the same from what was written.
pub fn outbound_policy(bytes: &[u8]) {
    let Ok(message) = outbound::OutboundPolicy::decode(bytes) else {
        return;
    };
    let Ok(policy) = refusing_a_field(decode::outbound::policy(message)) else {
        return;
    };
    if let Ok(written) = encode::outbound::policy(&policy) {
        let back = decode::outbound::policy(written.clone()).expect("what we write is accepted");
        assert!(is_refused(&policy) || encode::outbound::policy(&back) == Ok(written));
    }
}

/// The same for the policy of a port.
pub fn inbound_policy(bytes: &[u8]) {
    let Ok(message) = inbound::Server::decode(bytes) else {
        return;
    };
    let Ok(policy) = refusing_a_field(decode::inbound::server(message)) else {
        return;
    };
    if let Ok(written) = encode::inbound::server(&policy) {
        let back = decode::inbound::server(written.clone()).expect("what we write is accepted");
        assert!(is_refused(&policy) || encode::inbound::server(&back) == Ok(written));
    }
}

/// Endpoints that are accepted are read as the same from what is written of them.
pub fn endpoint_update(bytes: &[u8]) {
    let Ok(message) = destination::Update::decode(bytes) else {
        return;
    };
    match message.update {
        Some(Update::Add(set)) => {
            let Ok(endpoints) = refusing_a_field(decode::endpoint::weighted_addr_set(&set)) else {
                return;
            };
            let written = encode::endpoint::update_add(&endpoints, HashMap::new());
            let Some(Update::Add(set)) = written.update else {
                panic!("endpoints are added by Add");
            };
            assert_eq!(decode::endpoint::weighted_addr_set(&set), Ok(endpoints));
        }
        Some(Update::Remove(set)) => {
            let _removed = refusing_a_field(decode::endpoint::addr_set(&set));
        }
        Some(Update::NoEndpoints(_)) | None => {}
    }
}

/// A service profile that is accepted is written, read and written again as the same.
pub fn profile(bytes: &[u8]) {
    let Ok(message) = destination::DestinationProfile::decode(bytes) else {
        return;
    };
    if let Ok(profile) = refusing_a_field(decode::profile::profile(message)) {
        let written = encode::profile::profile(&profile, None, None);
        let back = decode::profile::profile(written.clone()).expect("what we write is accepted");
        assert_eq!(encode::profile::profile(&back, None, None), written);
    }
}

/// Whatever variables say, reading them ends, twice in the same way, and each error names what it is about.
///
/// The bytes are lines `NAME=value`, where the name is without its prefix.
pub fn configuration(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n');
    let pairs = lines.filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b'=')?;
        Some((&line[..at], OsStr::from_bytes(&line[at + 1..])))
    });
    let variables: HashMap<_, _> = pairs.collect();
    let lookup = |name: &str| {
        let name = name.strip_prefix("LINKERD2_PROXY_").unwrap_or(name);
        variables.get(name.as_bytes()).map(|value| value.to_os_string())
    };
    let read = || Config::from_env(&lookup).map(|(config, warnings)| (format!("{config:?}"), warnings));
    let first = read();
    assert_eq!(first, read());
    if let Err(Errors(errors)) = first {
        assert!(!errors.is_empty());
        assert!(errors.iter().all(|error| !error.to_string().is_empty()));
    }
}

/// Whether an element of a policy is not enforced: its reason grows by a sentence each time that it is passed on.
fn is_refused(policy: &impl Debug) -> bool {
    format!("{policy:?}").contains("Unsupported(")
}

/// What a decoder answered, whose refusals name the field.
fn refusing_a_field<T>(decoded: Result<T, DecodeError>) -> Result<T, DecodeError> {
    decoded.inspect_err(|error| assert!(!error.field().is_empty(), "{error}"))
}

/// The decision about all of the bytes; it must be that about every part of them that is decided.
fn settles<D: PartialEq + Debug>(bytes: &[u8], decide: fn(&[u8]) -> D, need_more: &D, limit: usize) -> D {
    let decided = decide(bytes);
    assert!(decided != *need_more || bytes.len() < limit);
    // All of the short parts, and some of the long ones: every byte of 16 KiB would take seconds.
    for n in (0..bytes.len().min(64)).chain((64..bytes.len()).step_by(97)) {
        let earlier = decide(&bytes[..n]);
        assert!(
            earlier == *need_more || earlier == decided,
            "{earlier:?} after {n} bytes, then {decided:?}"
        );
    }
    decided
}
