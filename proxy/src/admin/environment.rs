//! `/env.json`: the process's environment, without what is secret in it.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Map, Value};

/// What stands where a secret would.
const REDACTED: &str = "[redacted]";
/// A variable whose name contains one of these holds a secret, or says where one lies.
const SECRET: &[&str] = &[
    "TOKEN",
    "KEY",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIAL",
];

/// The variables of this process. Secrets are taken out when it is made.
#[derive(Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

/// A status and its JSON.
pub(super) type Answer = (StatusCode, String);

impl Environment {
    /// What may be shown of these variables.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let shown = variables.into_iter().map(|(name, value)| {
            let value = if is_secret(&name, &value) {
                REDACTED.to_owned()
            } else {
                value
            };
            (name, value)
        });
        Self(shown.collect())
    }

    /// All of it, or what the query names: `?A&B`, with `null` for what is not set.
    pub(super) fn answer(&self, query: Option<&str>) -> Answer {
        let query = query.unwrap_or_default();
        if query.contains('=') {
            return refusal(
                StatusCode::BAD_REQUEST,
                "env.json query parameters may not contain key-value pairs; use ?NAME&NAME",
            );
        }
        let value = |name: &str| self.0.get(name).cloned().map_or(Value::Null, Value::String);
        let named = query.split('&').filter(|name| !name.is_empty());
        let mut object: Map<String, Value> = named.map(|name| (name.to_owned(), value(name))).collect();
        if object.is_empty() {
            object = self.0.keys().map(|name| (name.clone(), value(name))).collect();
        }
        (StatusCode::OK, Value::Object(object).to_string())
    }
}

/// An error as JSON says it.
pub(super) fn refusal(status: StatusCode, error: &str) -> Answer {
    let body = serde_json::json!({ "error": error, "status": status.as_u16() });
    (status, body.to_string())
}

fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    // `scheme://user:password@host`
    let credentials = |(_, rest): (&str, &str)| rest.split('/').next().is_some_and(|host| host.contains('@'));
    SECRET.iter().any(|word| name.contains(word)) || value.split_once("://").is_some_and(credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        let variables = [
            ("A", "1"),
            ("B", "\"\n"),
            ("MY_ApiKey", "hidden"),
            ("TOKEN", "hidden"),
            ("DATABASE", "postgres://me:hidden@db/x"),
            ("PAGE", "https://example.com/@me"),
        ];
        Environment::new(variables.map(|(name, value)| (name.to_owned(), value.to_owned())))
    }

    #[test]
    fn secrets_are_not_shown() {
        let (status, body) = environment().answer(None);
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            body,
            r#"{"A":"1","B":"\"\n","DATABASE":"[redacted]","MY_ApiKey":"[redacted]","PAGE":"https://example.com/@me","TOKEN":"[redacted]"}"#
        );
    }

    #[test]
    fn a_query_names_variables_and_what_is_not_set_is_null() {
        let answer = environment().answer(Some("A&C&TOKEN"));
        assert_eq!(answer.1, r#"{"A":"1","C":null,"TOKEN":"[redacted]"}"#);
    }

    #[test]
    fn a_query_with_a_value_is_refused() {
        let (status, body) = environment().answer(Some("A=1"));
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(body.ends_with(r#","status":400}"#), "{body}");
    }
}
