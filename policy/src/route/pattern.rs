//! Patterns: regular expressions that match the whole of a value.

use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use crate::Unsupported;

/// The most memory that one compiled pattern may take, bytes; what exceeds it is refused.
const SIZE_LIMIT: usize = 256 << 10;

/// A regular expression (RE2 syntax) that matches the whole of a value, never a part of it.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: Arc<str>,
    whole: Regex,
}

impl Pattern {
    /// Compiles a pattern; refused when it is malformed or takes more than 256 KiB.
    pub fn new(source: &str) -> Result<Self, Unsupported> {
        // On its own first: `a)|(b` would be valid between the anchors, and would escape from them.
        compile(source)?;
        Ok(Self {
            source: source.into(),
            whole: compile(&format!(r"\A(?:{source})\z"))?,
        })
    }

    /// The pattern as it was written, without anchors.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether it matches all of `value`. A value that is not UTF-8 is matched by none.
    pub fn matches(&self, value: &[u8]) -> bool {
        std::str::from_utf8(value).is_ok_and(|text| self.whole.is_match(text))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

fn compile(source: &str) -> Result<Regex, Unsupported> {
    RegexBuilder::new(source)
        .size_limit(SIZE_LIMIT)
        .dfa_size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| {
            Unsupported::new(match error {
                regex::Error::CompiledTooBig(limit) => {
                    format!("the regular expression {source:?} takes more than {limit} bytes: shorten it")
                }
                error => format!("the regular expression {source:?} is not valid, correct it: {error}"),
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_the_whole_value_by_any_alternative() {
        let pattern = Pattern::new("a|ab").unwrap();
        assert!(pattern.matches(b"a") && pattern.matches(b"ab"));
        assert!(!pattern.matches(b"abc") && !pattern.matches(b"ab\n") && !pattern.matches(b"\xff"));
    }

    #[test]
    fn a_pattern_can_not_escape_from_its_anchors() {
        for source in ["a)|(b", "(?x)a #", "(", "[z-a]"] {
            assert!(Pattern::new(source).is_err(), "{source}");
        }
        assert!(!Pattern::new("(?m)a$").unwrap().matches(b"a\nb"));
    }

    #[test]
    fn a_pattern_that_takes_too_much_memory_is_refused() {
        let error = Pattern::new("(?:a{1000}){1000}").unwrap_err();
        assert!(error.to_string().contains("shorten it"), "{error}");
    }

    #[test]
    fn case_can_be_ignored() {
        assert!(Pattern::new("(?i)curl/.*").unwrap().matches(b"CURL/8.5"));
    }

    #[test]
    fn the_source_is_kept_as_written() {
        assert_eq!(Pattern::new("/a.*").unwrap().as_str(), "/a.*");
    }
}
