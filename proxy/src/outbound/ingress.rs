//! Ingress mode: each request may say by name where it goes, whatever its connection was opened to.

use std::sync::Arc;

use ::http::header::HeaderName;
use ::http::{HeaderMap, HeaderValue, Request, Response};
use outrigger_policy::name::NameAddr;
use outrigger_policy::profile;

use crate::error::{BoxError, Fault, Kind, Side};
use crate::exchange::Exchange;
use crate::http::body::{Body, Tracked};
use crate::http::headers;
use crate::http::interim::Interims;
use crate::outbound::dialled::Dialled;
use crate::outbound::http::{self, Connection};
use crate::outbound::router::Protocol;
use crate::outbound::shared::Outbound;
use crate::outbound::target::Target;

/// Where a request goes: `name[:port]`. It is for this proxy only.
const DST_OVERRIDE: HeaderName = HeaderName::from_static("l5d-dst-override");

/// How often a request has been sent on by name: ingress controllers pass fields on that they do not know.
const HOPS: HeaderName = HeaderName::from_static("l5d-ingress-hops");

/// How often a request may be sent on by name. More means that a name leads back to the ingress that gave it.
const MAX_HOPS: u32 = 8;

/// Carries one request from an ingress controller: to the name that it says, or else to where its connection leads.
pub(super) async fn request(
    connection: Arc<Connection>,
    mut request: Request<Body>,
    interims: Interims,
) -> Result<Response<Tracked<Exchange>>, BoxError> {
    if !headers::has_linkerds(request.headers()) {
        return http::request(connection, request, interims).await;
    }
    match named(&connection.outbound, request.headers_mut()).await {
        Ok(None) => http::request(connection, request, interims).await,
        Ok(Some(target)) => {
            let (outbound, closing) = (connection.outbound.clone(), connection.closing.clone());
            http::request(Connection::new(outbound, target, closing), request, interims).await
        }
        Err(fault) => {
            let asked = http::asked(&connection.outbound, &request);
            http::refuse(&connection, Exchange::refused(), fault, asked)
        }
    }
}

/// The destination that a request names.
async fn named(outbound: &Arc<Outbound>, fields: &mut HeaderMap) -> Result<Option<Arc<Target>>, Fault> {
    let Some(name) = take_name(fields)? else {
        return Ok(None);
    };
    hop(fields)?;
    let found = outbound
        .names
        .get_or_try(&name, || find(outbound.clone(), name.clone()))
        .await;
    let target = found.map_err(|error| {
        let text = format!("ingress-mode routing requires discovery: {error}");
        Fault::because(Kind::Discovery, Side::Control, text)
    })?;
    if matches!(target.router().protocol, Protocol::Opaque(_) | Protocol::Tls(_)) {
        let text = format!("ingress-mode fallback routing requires an HTTP policy for {name}");
        return Err(Fault::because(Kind::Policy, Side::Control, text));
    }
    Ok(Some(target))
}

async fn find(outbound: Arc<Outbound>, name: NameAddr) -> Result<Target, crate::control::DiscoveryError> {
    let policy = outbound.discovery.by_name(&name, profile::by_name).await?;
    Ok(Target::new(Dialled::Name(name), policy, &outbound.builder))
}

/// Takes the name out of the fields.
fn take_name(fields: &mut HeaderMap) -> Result<Option<NameAddr>, Fault> {
    let mut values = fields.get_all(DST_OVERRIDE).iter();
    let name = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().ok().and_then(NameAddr::parse),
        (Some(_), Some(_)) => None,
    };
    fields.remove(DST_OVERRIDE);
    let invalid = || {
        let text = "l5d-dst-override is not a valid host:port";
        Fault::because(Kind::BadRequest, Side::Client, text)
    };
    name.map(Some).ok_or_else(invalid)
}

/// Counts that the request is sent on by name once more.
fn hop(fields: &mut HeaderMap) -> Result<(), Fault> {
    let hops = match fields.get(HOPS) {
        None => 0,
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(MAX_HOPS),
    };
    if hops >= MAX_HOPS {
        let text =
            format!("sent on by name {MAX_HOPS} times: does l5d-dst-override lead back to the ingress?");
        return Err(Fault::because(Kind::Loop, Side::Client, text));
    }
    fields.insert(HOPS, HeaderValue::from(hops + 1));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in pairs {
            fields.append(*name, value.parse().unwrap());
        }
        fields
    }

    fn taken(values: &[&str]) -> Result<Option<String>, Kind> {
        let pairs: Vec<_> = values.iter().map(|value| ("l5d-dst-override", *value)).collect();
        let mut fields = fields(&pairs);
        let taken = take_name(&mut fields);
        assert!(fields.is_empty());
        taken
            .map(|name| name.map(|name| name.to_string()))
            .map_err(|fault| fault.kind)
    }

    #[test]
    fn a_name_has_a_port_or_means_80() {
        assert_eq!(taken(&[]), Ok(None));
        assert_eq!(
            taken(&["web.ns.svc.cluster.local"]),
            Ok(Some("web.ns.svc.cluster.local:80".to_owned()))
        );
        assert_eq!(taken(&["Web.ns:8080"]), Ok(Some("web.ns:8080".to_owned())));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in [
            "",
            ":80",
            "web:",
            "web:0",
            "web:65536",
            "web:+80",
            "10.1.2.3:80",
            "[::1]:80",
            "a b",
            "web:80:80",
        ] {
            assert_eq!(taken(&[bad]), Err(Kind::BadRequest), "{bad}");
        }
        assert_eq!(taken(&["a.b:80", "a.c:80"]), Err(Kind::BadRequest));
    }

    #[test]
    fn a_request_is_sent_on_by_name_so_often_and_no_more() {
        let mut fields = fields(&[]);
        for _ in 0..MAX_HOPS {
            hop(&mut fields).unwrap();
        }
        assert_eq!(hop(&mut fields).unwrap_err().kind, Kind::Loop);
        let mut odd = self::fields(&[("l5d-ingress-hops", "-1")]);
        assert_eq!(hop(&mut odd).unwrap_err().kind, Kind::Loop);
    }
}
