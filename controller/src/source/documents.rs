//! Documents: the text of a file, taken apart, so that every error names the file's own line.

/// A document of a stream, with the line of the file at which its text begins (from 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// Its text, without markers.
    pub text: &'a str,
    /// The line of the file at which the text begins.
    pub first_line: u64,
}

impl Document<'_> {
    /// The line of the first thing that is neither blank nor a comment; `None` when there is none.
    pub fn line(&self) -> Option<u64> {
        let says_something = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        let skipped = self.text.lines().position(says_something)?;
        Some(self.first_line + skipped as u64)
    }
}

/// Splits a YAML stream at its markers.
///
/// A line that begins with `---` is a marker wherever it stands: no scalar may contain one (YAML 1.2 §9.1.2,
/// `c-forbidden`). What follows the marker on its line belongs to the document.
pub fn split(stream: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut first_line) = (0, 1);
    let mut offset = 0;
    for (number, line) in (1..).zip(stream.split_inclusive('\n')) {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        let end = line
            .strip_prefix("...")
            .is_some_and(|rest| rest.trim().is_empty());
        if marker || end {
            documents.push(Document {
                text: &stream[start..offset],
                first_line,
            });
            start = offset + 3;
            first_line = number;
        }
        offset += line.len();
    }
    documents.push(Document {
        text: &stream[start..],
        first_line,
    });
    documents.retain(|document| document.line().is_some() && !only_directives(document.text));
    documents
}

/// `%YAML 1.2` before the first marker.
fn only_directives(text: &str) -> bool {
    text.lines()
        .all(|line| line.trim().is_empty() || line.starts_with(['%', '#']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_know_their_line() {
        let stream = "# head\na: 1\n---\n# nothing\n---\n\nb: |\n  ---\n  x\n--- {c: 3}\n...\n";
        let documents = split(stream);
        let seen: Vec<_> = documents
            .iter()
            .map(|d| (d.line().unwrap(), d.text.trim()))
            .collect();
        assert_eq!(
            seen,
            [(2, "# head\na: 1"), (7, "b: |\n  ---\n  x"), (10, "{c: 3}")]
        );
    }

    #[test]
    fn directives_are_no_document() {
        assert_eq!(split("%YAML 1.2\n---\na: 1\n").len(), 1);
    }
}
