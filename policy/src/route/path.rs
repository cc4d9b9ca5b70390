//! Path matchers.

use std::sync::Arc;

use crate::Unsupported;
use crate::route::pattern::Pattern;

/// Which paths a rule applies to, matched raw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Equal.
    Exact(Arc<str>),
    /// A prefix of whole segments; trailing slashes of the prefix are ignored.
    Prefix(Arc<str>),
    /// The pattern matches the whole path.
    Regex(Pattern),
}

impl PathMatch {
    /// A pattern for the whole path, refused when it can't be compiled.
    pub fn regex(pattern: &str) -> Result<Self, Unsupported> {
        Pattern::new(pattern).map(Self::Regex)
    }

    /// How closely this describes the path, in bytes; `None` when it does not apply.
    ///
    /// The kinds compare by length alone: of a pattern that of the path it matched, of a prefix without its trailing
    /// slashes.
    pub fn specificity(&self, path: &str) -> Option<usize> {
        match self {
            Self::Exact(exact) => (path == &**exact).then_some(path.len()),
            Self::Prefix(prefix) => {
                let prefix = prefix.trim_end_matches('/');
                let rest = path.strip_prefix(prefix)?;
                let whole_segments = prefix.is_empty() || rest.is_empty() || rest.starts_with('/');
                whole_segments.then_some(prefix.len())
            }
            Self::Regex(pattern) => pattern.matches(path.as_bytes()).then_some(path.len()),
        }
    }

    /// The length of the prefix without its trailing slashes, in bytes.
    pub fn prefix(&self) -> Option<usize> {
        match self {
            Self::Prefix(prefix) => Some(prefix.trim_end_matches('/').len()),
            Self::Exact(_) | Self::Regex(_) => None,
        }
    }
}

/// What in a path an application may read in another way than it is matched here: dot segments and empty ones (RFC 3986
/// §5.2.4 and common practice), encoded slashes and dots (§2.1), backslashes. `None`: there is one way to read it.
pub fn ambiguity(path: &str) -> Option<&'static str> {
    let dots = |segment: &str| {
        // Some servers cut parameters off: `..;x` is `..` for them.
        let name = segment.split(';').next().unwrap_or(segment);
        name == "." || name == ".."
    };
    if path.contains("//") {
        return Some("an empty segment (//)");
    }
    if path.contains('\\') {
        return Some("a backslash");
    }
    if path.split('/').any(dots) {
        return Some("a dot segment");
    }
    let encoded = |escape: &[u8]| match escape.to_ascii_lowercase()[..] {
        [b'%', b'2', b'f'] => Some("an encoded slash (%2f)"),
        [b'%', b'5', b'c'] => Some("an encoded backslash (%5c)"),
        [b'%', b'2', b'e'] => Some("an encoded dot (%2e)"),
        _ => None,
    };
    if !path.contains('%') {
        return None;
    }
    path.as_bytes().windows(3).find_map(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_matches_whole_segments() {
        for prefix in ["/foo", "/foo/", "/foo//"] {
            let prefix = PathMatch::Prefix(prefix.into());
            for path in ["/foo", "/foo/", "/foo/bar"] {
                assert_eq!(prefix.specificity(path), Some(4), "{path}");
            }
            assert_eq!(prefix.specificity("/foobar"), None);
        }
    }

    #[test]
    fn the_root_prefix_matches_every_path_even_an_asterisk() {
        for path in ["/", "/a/b", "*", ""] {
            assert_eq!(PathMatch::Prefix("/".into()).specificity(path), Some(0), "{path}");
        }
    }

    #[test]
    fn an_exact_path_is_no_prefix() {
        assert_eq!(PathMatch::Exact("/a".into()).specificity("/a"), Some(2));
        assert_eq!(PathMatch::Exact("/a".into()).specificity("/a/"), None);
    }

    #[test]
    fn a_pattern_is_as_specific_as_the_path_is_long() {
        let pattern = PathMatch::regex("/[a-z]+|/x/.*").unwrap();
        assert_eq!(pattern.specificity("/x/1"), Some(4));
        assert_eq!(pattern.specificity("/X"), None);
    }

    #[test]
    fn a_path_that_two_readers_read_in_two_ways_is_told_from_others() {
        for path in [
            "/a/../b",
            "/..",
            "/./a",
            "/a/.",
            "/..;x/a",
            "//a",
            "/a//b",
            "/a%2fb",
            "/a%2Fb",
            "/%2e%2E/a",
            "/a%5cb",
            "/a\\b",
        ] {
            assert!(ambiguity(path).is_some(), "{path}");
        }
        for path in ["/", "/a/b/", "/a.b/..c/...", "/a%20b", "/%c3%a9;v=1", "*", ""] {
            assert_eq!(ambiguity(path), None, "{path}");
        }
    }
}
