//! What `/metrics` looks like: OpenMetrics, and the classic text in the two dialects that Linkerd's dashboards depend on.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// The name of a family, as its samples carry it (without `_bucket`, `_count`, `_sum`), and its dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    text: Cow<'static, str>,
    dialect: Dialect,
}

/// What a document is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The classic text format, as Linkerd's proxy prints it: each family in its own dialect.
    Classic,
    /// OpenMetrics 1.0, for who asks for it.
    OpenMetrics,
}

/// A document that is being written.
#[derive(Debug)]
pub struct Document {
    text: String,
    format: Format,
}

/// How a family is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// Classic: HELP and TYPE carry the whole name, `le="1"`.
    Classic,
    /// As OpenMetrics: HELP and TYPE without `_total`, HELP ends in a dot, a UNIT line, `le="1.0"`.
    Open,
}

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by bucket.
    Histogram,
}

/// A family as documents and TYPE lines show it.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its name and dialect.
    pub name: Name,
    /// What it is.
    pub kind: Kind,
    /// What it counts, in one sentence without the dot.
    pub help: &'static str,
    /// Its labels, for people.
    pub labels: &'static str,
}

/// A set of labels: it can write itself.
pub trait EncodeLabels {
    /// The labels in order, for `docs/metrics.md`.
    const DOC: &'static str;
    /// Writes each label, in the order dashboards know.
    fn encode(&self, out: &mut LabelWriter<'_>);
}

/// Takes labels one after the other.
#[derive(Debug)]
pub struct LabelWriter<'a> {
    out: &'a mut String,
    start: usize,
}

/// Takes the samples of one label set.
#[derive(Debug)]
pub struct Series<'a> {
    out: &'a mut Document,
    name: &'a Name,
    labels: &'a str,
}

impl Format {
    /// What a document in this format is, for its `content-type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Document {
    /// An empty one.
    pub fn new(format: Format) -> Self {
        let text = String::new();
        Self { text, format }
    }

    /// Its text, complete.
    pub fn finish(mut self) -> String {
        self.text.push_str("# EOF\n");
        self.text
    }

    fn write(&mut self, text: fmt::Arguments<'_>) {
        write_infallible(&mut self.text, text);
    }
}

impl Name {
    /// A family of Linkerd's classic registry, or one of our own.
    pub fn classic(text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            text: text.into(),
            dialect: Dialect::Classic,
        }
    }

    /// A family of Linkerd's OpenMetrics registry. The unit is read off the name (`_seconds`, `_bytes`).
    pub fn open(text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            text: text.into(),
            dialect: Dialect::Open,
        }
    }

    /// The name as samples carry it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// OpenMetrics has one dialect.
    fn dialect(&self, format: Format) -> Dialect {
        match format {
            Format::Classic => self.dialect,
            Format::OpenMetrics => Dialect::Open,
        }
    }
}

impl From<&'static str> for Name {
    fn from(text: &'static str) -> Self {
        Self::classic(text)
    }
}

impl Kind {
    /// The word in the TYPE line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Description {
    /// Writes the lines that stand before the samples.
    pub fn encode(&self, out: &mut Document) {
        let (name, help, kind) = (self.name.as_str(), self.help, self.kind.as_str());
        if self.name.dialect(out.format) == Dialect::Classic {
            return out.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        }
        let family = name.strip_suffix("_total").unwrap_or(name);
        out.write(format_args!("# HELP {family} {help}.\n# TYPE {family} {kind}\n"));
        let last = family.rsplit('_').next();
        if let Some(unit @ ("seconds" | "bytes")) = last {
            out.write(format_args!("# UNIT {family} {unit}\n"));
        }
    }
}

impl<'a> LabelWriter<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut String) -> Self {
        let start = out.len();
        Self { out, start }
    }

    /// Writes one label; the value is escaped.
    pub fn label(&mut self, name: &str, value: impl fmt::Display) {
        self.prefixed_label("", name, value);
    }

    /// Writes one label; a number that is not there is an empty value, as Linkerd prints it.
    pub fn optional_label(&mut self, name: &str, value: Option<u16>) {
        match value {
            Some(value) => self.label(name, value),
            None => self.label(name, ""),
        }
    }

    /// Writes a label whose name came from the control plane. What may not stand in a name becomes `_`; a name that
    /// is there already is left out, since Prometheus refuses a whole scrape for one repeated label.
    pub fn foreign_label(&mut self, prefix: &str, name: &str, value: &str) {
        let clean = |c: char| {
            if c.is_ascii_alphanumeric() { c } else { '_' }
        };
        let name: String = name.chars().map(clean).collect();
        let written = format!("{prefix}{name}=\"");
        let labels = &self.out[self.start..];
        if !labels.starts_with(&written) && !labels.contains(&format!(",{written}")) {
            self.prefixed_label(prefix, &name, value);
        }
    }

    fn prefixed_label(&mut self, prefix: &str, name: &str, value: impl fmt::Display) {
        if self.out.len() > self.start {
            self.out.push(',');
        }
        self.out.push_str(prefix);
        self.out.push_str(name);
        self.out.push_str("=\"");
        write_infallible(&mut Escaped(self.out), format_args!("{value}"));
        self.out.push('"');
    }
}

impl<'a> Series<'a> {
    /// Appends to `out` the samples of the label set that `labels` spells.
    pub fn new(out: &'a mut Document, name: &'a Name, labels: &'a str) -> Self {
        Self { out, name, labels }
    }

    /// The only sample of a counter or gauge.
    pub fn sample(&mut self, value: impl fmt::Display) {
        self.suffixed("", value);
    }

    /// A sample under the family's name with a suffix.
    pub fn suffixed(&mut self, suffix: &str, value: impl fmt::Display) {
        let (name, labels) = (self.name.as_str(), self.labels);
        if labels.is_empty() {
            self.out.write(format_args!("{name}{suffix} {value}\n"));
        } else {
            self.out
                .write(format_args!("{name}{suffix}{{{labels}}} {value}\n"));
        }
    }

    /// One cumulative bucket of a histogram; `le` is the last label.
    pub fn bucket(&mut self, bound: f64, count: u64) {
        let (name, labels) = (self.name.as_str(), self.labels);
        let comma = if labels.is_empty() { "" } else { "," };
        self.out
            .write(format_args!("{name}_bucket{{{labels}{comma}le=\""));
        match self.name.dialect(self.out.format) {
            _ if bound.is_infinite() => self.out.write(format_args!("+Inf")),
            // Display prints whole numbers without a fraction, Debug with `.0`.
            Dialect::Classic => self.out.write(format_args!("{bound}")),
            Dialect::Open => self.out.write(format_args!("{bound:?}")),
        }
        self.out.write(format_args!("\"}} {count}\n"));
    }
}

/// Escapes what may not stand in a label value.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
        Ok(())
    }
}

fn write_infallible(out: &mut impl Write, text: fmt::Arguments<'_>) {
    // Appending to a `String` can't fail.
    let _written = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut out = String::new();
        LabelWriter::new(&mut out).label("a", "x\\y\"z\n");
        assert_eq!(out, r#"a="x\\y\"z\n""#);
    }

    #[test]
    fn a_label_name_from_the_control_plane_is_made_valid_and_written_once() {
        let mut out = String::from("{");
        let mut labels = LabelWriter::new(&mut out);
        labels.foreign_label("dst_", "a.b", "1");
        labels.foreign_label("dst_", "a_b", "2");
        labels.foreign_label("dst_", "b", "3");
        assert_eq!(out, r#"{dst_a_b="1",dst_b="3""#);
    }

    #[test]
    fn each_dialect_prints_whole_bounds_its_own_way() {
        let bucket = |name: Name, format| {
            let mut out = Document::new(format);
            Series::new(&mut out, &name, "").bucket(1.0, 7);
            out.text
        };
        let (whole, fraction) = ("h_bucket{le=\"1\"} 7\n", "h_bucket{le=\"1.0\"} 7\n");
        assert_eq!(bucket(Name::classic("h"), Format::Classic), whole);
        assert_eq!(bucket(Name::open("h"), Format::Classic), fraction);
        assert_eq!(bucket(Name::classic("h"), Format::OpenMetrics), fraction);
    }

    #[test]
    fn an_open_family_names_its_unit_and_hides_its_suffix() {
        let head = "# HELP cpu_seconds Time.\n# TYPE cpu_seconds counter\n# UNIT cpu_seconds seconds\n";
        for (name, format) in [
            (Name::open("cpu_seconds_total"), Format::Classic),
            (Name::classic("cpu_seconds_total"), Format::OpenMetrics),
        ] {
            let (kind, help, labels) = (Kind::Counter, "Time", "");
            let mut out = Document::new(format);
            Description {
                name,
                kind,
                help,
                labels,
            }
            .encode(&mut out);
            assert_eq!(out.text, head);
        }
    }
}
