//! `Expect: 100-continue` (RFC 9110 §10.1.1), hidden from hyper: it would say `100 Continue` itself, where that is the
//! application's to say.

use http::header::{EXPECT, Entry};
use http::{HeaderMap, HeaderValue};

const CONTINUE: &[u8] = b"100-continue";
/// What hyper reads in its place: as long, and no list of expectations, so that no client can say it.
const HIDDEN: &[u8] = b"100 continue";

/// Hides it in a field's value, which may have spaces around it. `false`: the value is what would stand for it.
pub fn hide(value: &mut [u8]) -> bool {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(begin) = value.iter().position(|byte| !blank(byte)) else {
        return true;
    };
    let end = value
        .iter()
        .rposition(|byte| !blank(byte))
        .map_or(begin, |last| last + 1);
    let value = &mut value[begin..end];
    if value == HIDDEN {
        return false;
    }
    if value.eq_ignore_ascii_case(CONTINUE) {
        value.copy_from_slice(HIDDEN);
    }
    true
}

/// Shows it again.
pub fn show(fields: &mut HeaderMap) {
    if !fields.contains_key(EXPECT) {
        return;
    }
    if let Entry::Occupied(mut expected) = fields.entry(EXPECT) {
        for value in expected.iter_mut().filter(|value| *value == HIDDEN) {
            *value = HeaderValue::from_static("100-continue");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(value: &str) -> Option<String> {
        let mut bytes = value.as_bytes().to_vec();
        hide(&mut bytes).then(|| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn what_hyper_would_take_for_the_expectation_is_hidden_and_nothing_else() {
        assert_eq!(hidden(" 100-Continue\t").unwrap(), " 100 continue\t");
        for other in ["", " ", "100-continue, 100-continue", "100-continued", "x"] {
            assert_eq!(hidden(other).unwrap(), other);
        }
        assert_eq!(hidden("100 continue"), None, "nobody else may say this");
    }

    #[test]
    fn it_is_shown_again() {
        let mut fields = HeaderMap::new();
        for value in ["x", "100 continue", "100 continue"] {
            fields.append(EXPECT, HeaderValue::from_static(value));
        }
        show(&mut fields);
        let shown: Vec<_> = fields.get_all(EXPECT).iter().collect();
        assert_eq!(shown, ["x", "100-continue", "100-continue"]);
    }
}
