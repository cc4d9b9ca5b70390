//! Service-account tokens: JWTs (RFC 7519) signed with ES256 by the control plane's own key.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};

use crate::identity::account::ServiceAccount;
use crate::identity::ca::CLOCK_SKEW;

/// The longest token that is read, in bytes. Kubernetes' own have about 1,200.
pub const MAX_TOKEN: usize = 16 * 1024;

/// Whom a token must be meant for, as Linkerd projects them.
pub const AUDIENCE: &str = "identity.l5d.io";

const ISSUER: &str = "outrigger.dev/controller";

/// The key that signs tokens and checks them.
pub struct TokenKey {
    sign: EncodingKey,
    verify: DecodingKey,
    validation: Validation,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`MAX_TOKEN`].
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// Not a JWT with the claims that are needed.
    #[error(
        "the token is not a JWT with the claims iss, sub, aud, exp and nbf: make one with `outrigger token`"
    )]
    Malformed,
    /// Signed by another key, or in another way.
    #[error(
        "the token is not signed by this control plane: make a new one with `outrigger token` and its state directory"
    )]
    Signature,
    /// For somebody else.
    #[error("the token is not for the audience {AUDIENCE}")]
    Audience,
    /// Made by somebody else.
    #[error("the token does not come from {ISSUER}")]
    Issuer,
    /// Too old.
    #[error("the token is expired: make a new one with `outrigger token`")]
    Expired,
    /// Too young.
    #[error("the token is not valid yet: compare the clocks of both machines")]
    NotYet,
    /// The subject is not a service account.
    #[error("the token's subject is not system:serviceaccount:<namespace>:<name> with DNS labels")]
    Subject,
}

/// The key file does not hold an ECDSA P-256 key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key must be an ECDSA P-256 key in PKCS#8 PEM")]
pub struct InvalidKey;

/// Signing a token failed.
#[derive(Debug, thiserror::Error)]
#[error("the token could not be signed")]
pub struct MintError(#[source] jsonwebtoken::errors::Error);

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Vec<String>,
    iat: u64,
    nbf: u64,
    exp: u64,
}

/// The one claim that is used after the check; `aud` may be a list or a single name (RFC 7519 §4.1.3).
#[derive(Deserialize)]
struct Subject {
    sub: String,
}

impl TokenKey {
    /// Makes a key, in PEM.
    pub fn make() -> Result<String, rcgen::Error> {
        Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem())
    }

    /// Takes up a key from PEM.
    pub fn load(pem: &str) -> Result<Self, InvalidKey> {
        let key = KeyPair::from_pem(pem).map_err(|_| InvalidKey)?;
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(InvalidKey);
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_required_spec_claims(&["iss", "sub", "aud", "exp", "nbf"]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[ISSUER]);
        validation.validate_nbf = true;
        validation.leeway = CLOCK_SKEW.as_secs();
        Ok(Self {
            sign: EncodingKey::from_ec_der(key.serialized_der()),
            verify: DecodingKey::from_ec_der(key.public_key_raw()),
            validation,
        })
    }

    /// Makes a token for a service account, valid from `now`.
    pub fn mint(
        &self,
        account: &ServiceAccount,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<String, MintError> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = Claims {
            iss: ISSUER.into(),
            sub: account.to_string(),
            aud: vec![AUDIENCE.into()],
            iat: now,
            nbf: now,
            exp: now.saturating_add(lifetime.as_secs()),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.sign).map_err(MintError)
    }

    /// Checks a token, and tells whose it is.
    pub fn verify(&self, token: &[u8]) -> Result<ServiceAccount, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        // A file written by an editor or by `echo` ends in a line break.
        let token = token.trim_ascii();
        let claims = jsonwebtoken::decode::<Subject>(token, &self.verify, &self.validation)
            .map_err(|error| refusal(error.kind()))?
            .claims;
        ServiceAccount::from_user_name(&claims.sub).ok_or(TokenError::Subject)
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

fn refusal(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => TokenError::Signature,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::NotYet,
        _ => TokenError::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn key() -> TokenKey {
        TokenKey::load(&TokenKey::make().unwrap()).unwrap()
    }

    fn web() -> ServiceAccount {
        ServiceAccount::new("emoji", "web").unwrap()
    }

    fn claims(change: impl FnOnce(&mut serde_json::Value)) -> serde_json::Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = serde_json::json!({
            "iss": ISSUER, "sub": web().to_string(), "aud": AUDIENCE, "nbf": now, "exp": now + 60,
        });
        change(&mut claims);
        claims
    }

    fn verify(claims: &serde_json::Value) -> Result<ServiceAccount, TokenError> {
        let key = key();
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), claims, &key.sign).unwrap();
        key.verify(token.as_bytes())
    }

    #[test]
    fn a_token_tells_whose_it_is() {
        let key = key();
        let token = key.mint(&web(), HOUR, SystemTime::now()).unwrap();
        assert_eq!(key.verify(format!("{token}\n").as_bytes()), Ok(web()));
        assert_eq!(verify(&claims(|_| ())), Ok(web()));
    }

    #[test]
    fn a_token_outside_its_time_is_refused() {
        let (key, now) = (key(), SystemTime::now());
        let old = key.mint(&web(), HOUR, now - 2 * HOUR).unwrap();
        assert_eq!(key.verify(old.as_bytes()), Err(TokenError::Expired));
        let young = key.mint(&web(), HOUR, now + HOUR).unwrap();
        assert_eq!(key.verify(young.as_bytes()), Err(TokenError::NotYet));
    }

    #[test]
    fn a_token_of_another_control_plane_is_refused() {
        let token = key().mint(&web(), HOUR, SystemTime::now()).unwrap();
        assert_eq!(key().verify(token.as_bytes()), Err(TokenError::Signature));
    }

    #[test]
    fn a_token_that_picks_its_own_algorithm_is_refused() {
        let key = key();
        let shared = EncodingKey::from_secret(key.verify.try_get_as_bytes().unwrap());
        let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(|_| ()), &shared).unwrap();
        assert_eq!(key.verify(forged.as_bytes()), Err(TokenError::Signature));
        let none = "eyJhbGciOiJub25lIn0.e30.";
        assert_eq!(key.verify(none.as_bytes()), Err(TokenError::Malformed));
    }

    #[test]
    fn a_token_with_a_wrong_claim_is_refused() {
        let with = |claim: &str, value: serde_json::Value| verify(&claims(|c| c[claim] = value));
        assert_eq!(with("aud", "kubernetes".into()), Err(TokenError::Audience));
        assert_eq!(with("iss", "kubernetes".into()), Err(TokenError::Issuer));
        assert_eq!(with("sub", "system:node:a".into()), Err(TokenError::Subject));
        assert_eq!(with("sub", 7.into()), Err(TokenError::Malformed));
        for claim in ["iss", "sub", "aud", "exp", "nbf"] {
            let without = claims(|c| drop(c.as_object_mut().unwrap().remove(claim)));
            assert_eq!(verify(&without), Err(TokenError::Malformed), "{claim}");
        }
    }

    #[test]
    fn garbage_is_refused() {
        for bad in [&b""[..], b"a.b.c", b"\xff\xfe", &[b'.'; MAX_TOKEN]] {
            assert_eq!(key().verify(bad), Err(TokenError::Malformed));
        }
        assert_eq!(key().verify(&[b'a'; MAX_TOKEN + 1]), Err(TokenError::TooLong));
    }
}
